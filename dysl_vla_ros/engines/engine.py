"""What the order of a step asks of whatever computes it: interfaces, and no library behind them.

Hidden states, contexts and normalised actions are the engine's own: a step hands them on and looks at none of them.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from dysl_vla_ros.interfaces import ActionSpec, FloatArray, Observation, ProprioceptionSpec


@runtime_checkable
class Engine(Protocol):
    """Where something is computed, and when it is done."""

    @property
    def name(self) -> str:
        """TORCH or ONNX."""
        ...

    def computing(self) -> AbstractContextManager[Any]:
        """Return what everything is computed in: nothing is kept there for learning."""
        ...

    def now(self) -> float:
        """Return the time in s on a steady clock, once the device has done what it was asked for."""
        ...

    def numpy(self, values: Any) -> FloatArray:
        """Return normalised actions as a policy decodes them, off the device, float32."""
        ...


@runtime_checkable
class StepPolicy(Protocol):
    """A policy as a step runs it: the part of ``policies.interface.VlaPolicy`` that deployment needs. Batch of one.

    What each of them gives and raises is said there.
    """

    family: str
    weights_hash: str
    base_hash: str
    cameras: tuple[str, ...]
    proprioception: ProprioceptionSpec
    action: ActionSpec
    instructions: tuple[str, ...]
    weight_count: int  # values in the base's weights
    run_lengths: Sequence[int] | None  # of each layer, how many a call of it runs, itself included; None: itself alone

    @property
    def engine(self) -> Engine:
        """What computes it."""
        ...

    @property
    def layers(self) -> Sequence[Any]:
        """The stack, L callables ``(hidden, context) -> hidden``."""
        ...

    def check_instruction(self, instruction: str) -> tuple[str, ...]:
        """Read an instruction without an image; return warnings."""
        ...

    def sample(self) -> Observation:
        """Return an observation to warm up with."""
        ...

    def prepare(self, observations: Sequence[Observation], noise: Any = None) -> tuple[Any, Any]:
        """Do everything before the stack; return its input and what its layers need beside it."""
        ...

    def initial_state(self, batch: int = 1) -> Any:
        """Return the decoding state at the start of an episode."""
        ...

    def noise(self, seeds: Sequence[int]) -> Any:
        """Return what decoding starts from, drawn from a seed; None: nothing is."""
        ...

    def decode(self, result: Any, context: Any, state: Any, noise: Any, bridge: Any) -> tuple[Any, Any]:
        """Turn what a pass gives into normalised actions and the next state."""
        ...

    def actions(self, normalised: Any, context: Any) -> FloatArray:
        """Return normalised actions in physical units, (1, H, A)."""
        ...
