"""torch as the engine: where it computes, and when it has done so."""
