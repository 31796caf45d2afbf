"""What every VLA family gives, and what most of them share.

A new family is one file that has these, and one line in :mod:`dysl_vla_ros.policies.registry`. It holds references to
its library's layers and neither patches nor copies that library's model file.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from dysl_vla_ros.engines.torch.engine import TorchEngine
from dysl_vla_ros.interfaces import ActionSpec, FloatArray, Observation, ProprioceptionSpec
from dysl_vla_ros.skipping.stack import Layer, StackContext, StackResult
from dysl_vla_ros.skipping.streams import Bridge, Stream


@runtime_checkable
class VlaPolicy(Protocol):
    """A vision-language-action model that can be run layer by layer. B observations at once; deployment has one.

    A context belongs to one :meth:`prepare`. What layers leave in it for later, such as keys and values, they overwrite
    and never append, so that it can carry any passes one after the other; :meth:`decode` reads only what the plan of
    its pass says has run.
    """

    family: str
    weights_hash: str  # SHA-256 of the base weights: what a DySL folder belongs to
    base_hash: str  # SHA-256 of all of the base that decides the motion, see policies.identity
    cameras: tuple[str, ...]  # the first one paces inference
    proprioception: ProprioceptionSpec
    action: ActionSpec
    device: torch.device  # of weights and hidden states
    dtype: torch.dtype  # of hidden states
    weight_count: int  # values in the weights
    run_lengths: Sequence[int] | None  # None: a call of a layer runs it alone, see engines.engine.StepPolicy
    streams: tuple[Stream, ...]  # the first one leads: decisions are made on its tokens; others follow its plan
    instructions: tuple[str, ...]  # examples it was trained on; () where nobody has noted them

    @property
    def engine(self) -> TorchEngine:
        """torch, on the policy's device."""
        ...

    @property
    def layers(self) -> Sequence[Layer]:
        """The leading stack: L callables ``(hidden, context) -> hidden`` of shape (B, T, D)."""
        ...

    def parts(self) -> Mapping[str, Sequence[Tensor]]:
        """Return the weights by what they are for, in the order of use, each weight once; ``stack`` is the layers'."""
        ...

    def check_instruction(self, instruction: str) -> tuple[str, ...]:
        """Read an instruction without an image; return warnings, such as which of its words are not known.

        Raises:
            InstructionError: it cannot be read at all; says what can.
        """
        ...

    def sample(self) -> Observation:
        """Return an observation to warm up with: images of the sizes that the policy is used to."""
        ...

    def prepare(self, observations: Sequence[Observation], noise: Any = None) -> tuple[Tensor, StackContext]:
        """Do everything before the stack; return its input (B, T, D) and what its layers need beside it.

        Args:
            observations: B of them.
            noise: what they will be decoded with, see :meth:`noise`: a leading stack that is a flow step reads it.

        Raises:
            InstructionError: see :meth:`check_instruction`.
            ObservationError: a camera is missing, a value is not finite or beyond what the policy takes.
        """
        ...

    def initial_state(self, batch: int = 1) -> Any:
        """Return the decoding state at the start of ``batch`` episodes; None where a family has none."""
        ...

    def noise(self, seeds: Sequence[int]) -> Any:
        """Return what decoding starts from, drawn for each of B observations from its own seed; None: nothing is."""
        ...

    def decode(
        self, result: StackResult, context: StackContext, state: Any, noise: Any, bridge: Bridge
    ) -> tuple[Tensor, Any]:
        """Turn what a pass gives into normalised actions (B, H, A) and the next state. Pure: the same gives the same.

        Args:
            result: of the pass; followers repeat ``result.plan``.
            context: of the observations.
            state: see :meth:`initial_state`.
            noise: see :meth:`noise`.
            bridge: what stands in for layers that followers skip.
        """
        ...

    def halfway(
        self, result: StackResult, context: StackContext, state: Any, noise: Any, moment: float, bridge: Bridge
    ) -> Any:
        """Return where decoding has come to at ``moment`` (0.0: at its beginning, below 1.0), for :meth:`probe`.

        None where decoding is one step. Arguments as of :meth:`decode`.
        """
        ...

    def probe(
        self, result: StackResult, context: StackContext, state: Any, noise: Any, halfway: Any, bridge: Bridge
    ) -> Tensor:
        """Return what training compares between two passes, (B, H, A) normalised, at the cost of one step of decoding.

        Of a flow the velocity of actions at ``halfway``; where decoding is one step, the actions.
        """
        ...

    def actions(self, normalised: Tensor, context: StackContext) -> FloatArray:
        """Return normalised actions (B, H, A) in physical units; relative actions take the state from the context."""
        ...

    def collate(self, contexts: Sequence[Any]) -> StackContext:
        """Join the contexts of B observations into one of batch B; training runs in batches, deployment does not."""
        ...


class CommonPolicy:
    """What a family need not say: decodes in one step without noise or memory, actions by statistics, grey images.

    A family inherits from this and overrides what is different.
    """

    cameras: tuple[str, ...]
    proprioception: ProprioceptionSpec
    action: ActionSpec
    instructions: tuple[str, ...]
    device = torch.device("cpu")
    dtype = torch.float32
    run_lengths: Sequence[int] | None = None
    image_size = (96, 96)  # height, width in px of a sample image

    @property
    def engine(self) -> TorchEngine:
        """torch, where the policy lies."""
        return TorchEngine(self.device)

    @property
    def weight_count(self) -> int:
        """How many values the weights have."""
        return sum(weight.numel() for weights in self.parts().values() for weight in weights)

    def parts(self) -> Mapping[str, Sequence[Tensor]]:
        """A family's own."""
        raise NotImplementedError

    def sample(self) -> Observation:
        """Return grey images, zeros and the first instruction that is known, else a plain one."""
        return Observation.grey(self.cameras, self.image_size, self.proprioception, self.instructions)

    def require_served(self, observation: Observation) -> FloatArray:
        """Return the observation's proprioception (P,) as float32.

        Raises:
            ObservationError: a camera is missing, or proprioception is not of P finite values.
        """
        return observation.served_to(self.cameras, self.proprioception)

    def initial_state(self, batch: int = 1) -> Any:
        """No state."""
        return None

    def noise(self, seeds: Sequence[int]) -> Any:
        """Nothing is drawn."""
        return None

    def halfway(self, result: StackResult, context: Any, state: Any, noise: Any, moment: float, bridge: Bridge) -> Any:
        """Decoding is one step."""
        return None

    def probe(self, result: StackResult, context: Any, state: Any, noise: Any, halfway: Any, bridge: Bridge) -> Tensor:
        """Compare the actions."""
        return self.decode(result, context, state, noise, bridge)[0]

    def decode(self, result: StackResult, context: Any, state: Any, noise: Any, bridge: Bridge) -> tuple[Tensor, Any]:
        """A family's own."""
        raise NotImplementedError

    def actions(self, normalised: Tensor, context: StackContext) -> FloatArray:
        """Return (B, H, A): centre and scale of the action statistics."""
        return self.action.denormalise(normalised.float().cpu().numpy())
