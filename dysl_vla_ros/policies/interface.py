"""What every VLA family gives: four verbs and a description of itself.

A new family is one file that has these, and one line in :mod:`dysl_vla_ros.policies.registry`. It holds references to
its library's layers and neither patches nor copies that library's model file.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from dysl_vla_ros.interfaces import ActionSpec, Observation, ProprioceptionSpec
from dysl_vla_ros.skipping.stack import Layer, StackContext


@runtime_checkable
class VlaPolicy(Protocol):
    """A vision-language-action model that can be run layer by layer. Batch is 1 in deployment."""

    family: str
    weights_hash: str  # SHA-256 of the base weights: what a DySL folder belongs to
    base_hash: str  # SHA-256 of all of the base that decides the motion, see policies.identity
    cameras: tuple[str, ...]  # the first one paces inference
    proprioception: ProprioceptionSpec
    action: ActionSpec
    width: int  # D of the hidden state
    instructions: tuple[str, ...]  # examples it was trained on

    @property
    def layers(self) -> Sequence[Layer]:
        """The stack: L callables ``(hidden, context) -> hidden`` of shape (B, T, D)."""
        ...

    def parts(self) -> Mapping[str, Sequence[Tensor]]:
        """Return the weights by what they are for, in the order of use, each weight once; ``stack`` is the layers'."""
        ...

    def check_instruction(self, instruction: str) -> tuple[str, ...]:
        """Read an instruction without a picture; return warnings, such as which of its words are not known.

        Raises:
            InstructionError: it cannot be read at all; says what can.
        """
        ...

    def prepare(self, observation: Observation) -> tuple[Tensor, StackContext]:
        """Do everything before the stack; return its input (1, T, D) and what its layers need beside it.

        Raises:
            InstructionError: see :meth:`check_instruction`.
            ObservationError: a camera is missing, a value is not finite or beyond what the policy takes.
        """
        ...

    def decode(self, hidden: Tensor, context: StackContext, state: Any) -> tuple[Tensor, Any]:
        """Turn the stack's output (B, T, D) into normalised actions (B, H, A) and the next state. Pure."""
        ...

    def collate(self, contexts: Sequence[Any]) -> StackContext:
        """Join the contexts of B observations into one of batch B; training runs in batches, deployment does not."""
        ...

    def initial_state(self) -> Any:
        """Return the decoding state at the start of an episode; None where a family has none."""
        ...


def parameter_count(policy: VlaPolicy) -> int:
    """Return how many weights a policy has."""
    return sum(weight.numel() for weights in policy.parts().values() for weight in weights)
