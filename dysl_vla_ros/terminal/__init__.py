"""Drawing with characters: what the demo and the monitor show of layers, continuity and time."""
