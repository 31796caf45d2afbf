"""The teacher, seen while the student learns: what it does with a few frames, for as long as a batch lasts.

Frames of a batch have the same instruction and pictures of the same sizes, so that nothing of a prompt is padded that
would not be padded alone.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dysl_vla_ros.distillation.passes import LayerRun, inputs_of, plain_layer
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.policies.interface import VlaPolicy
from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.stack import StackContext, full_result
from dysl_vla_ros.skipping.streams import no_bridge

Watch = Callable[[int, Tensor, Tensor, Tensor | None], None]
"""(layer, what entered it, what left it, token mask): called for every layer of a teacher's pass."""


@dataclass(frozen=True)
class BatchBeside:
    """Some frames and what the teacher did with them. A student's pass overwrites what its layers left in ``context``.

    Attributes:
        frames: B observations.
        seeds: of each frame's noise.
        context: of these frames.
        states: layer -> what enters it, (B, T, D) in the policy's own numbers.
        decoded: the teacher's actions, (B, H, A) normalised; None: they were not asked for.
        noise: what they are decoded from.
        halfway: where the teacher's decoding had come to, see ``VlaPolicy.halfway``.
        target: what the teacher's ``probe`` gives there, (B, H, A); None: it was not asked for.
    """

    teacher: "TeacherBeside"
    start: int
    frames: Sequence[Observation]
    seeds: Sequence[int]
    context: StackContext
    states: dict[int, Tensor]
    decoded: Tensor | None
    noise: Any
    halfway: Any
    target: Tensor | None

    @property
    def actions(self) -> Tensor:
        """The teacher's, (B, H, A) normalised."""
        assert self.decoded is not None, "the teacher's actions were not asked for"
        return self.decoded

    @property
    def state(self) -> None:
        """Decoding has no memory here."""
        return None

    def hidden(self, layer: int) -> Tensor:
        """Return what enters ``layer``, (B, T, D) float32."""
        return self.states[layer].float()

    def some(self, places: Tensor) -> tuple[StackContext, None]:
        """Return the context of some of the frames, ``places`` (n,) among them, with what the first layers leave."""
        policy = self.teacher.policy
        with torch.no_grad():
            seen = [self.frames[place] for place in places.tolist()]
            hidden, context = policy.prepare(seen, self.some_noise(places))
            for layer in policy.layers[: self.start]:
                hidden = layer(hidden, context)
        return context, None

    def some_noise(self, places: Tensor) -> Any:
        """Return what the actions of some of the frames were decoded from."""
        return self.teacher.policy.noise([self.seeds[place] for place in places.tolist()])


class TeacherBeside:
    """The policy at full depth over some frames, a few at a time.

    Attributes:
        run: how its layers run where something is trained through them.
    """

    def __init__(
        self,
        policy: VlaPolicy,
        frames: Sequence[Observation],
        partition: LayerPartition,
        *,
        together: int = 1,
        checkpointing: bool = True,
    ) -> None:
        """Look at ``frames`` for modules of ``partition``.

        Args:
            policy: its weights are frozen here.
            frames: read again whenever they are wanted.
            partition: of its stack.
            together: frames of a pass at most.
            checkpointing: of what a layer computes keep nothing for the way back; it is computed again.

        Raises:
            DataError: the policy decodes with a memory.
        """
        if policy.initial_state() is not None:
            raise DataError(
                f"the {policy.family} policy decodes with a memory: it learns from whole episodes, which are not "
                "distilled batch by batch"
            )
        for weights in policy.parts().values():
            for weight in weights:
                weight.requires_grad_(False)
        self.policy, self.frames, self.partition, self.together = policy, frames, partition, together
        self.run: LayerRun = checkpointed_layer if checkpointing else plain_layer

    def __len__(self) -> int:
        return len(self.frames)

    def start(self, partition: LayerPartition) -> int:
        """Return the first dynamic layer: what those before it leave for followers is in the context."""
        return partition.blocks[0][0]

    def parts(self, most: int) -> Iterator[BatchBeside]:
        """Yield the frames in batches, evenly chosen, no more than ``most``, each with a noise of its own."""
        rows = np.linspace(0, len(self) - 1, min(most, len(self))).astype(np.int64).tolist()
        yield from self.batches(rows, rows, inputs_of(self.policy, self.partition))

    def batches(
        self,
        rows: Sequence[int],
        seeds: Sequence[int],
        kept: Collection[int],
        moments: Iterator[float] | None = None,
        *,
        decodes: bool = True,
    ) -> Iterator[BatchBeside]:
        """Yield frames in batches of one instruction.

        Args:
            rows: which frames.
            seeds: of each frame's noise.
            kept: layers whose inputs are kept for as long as a batch lasts, beside that of the first dynamic one.
            moments: draws for each batch where probes are compared, 0.0 to 1.0; None: nowhere.
            decodes: the teacher's actions are wanted.
        """
        frames = [self.frames[row] for row in rows]
        for places in alike(frames, self.together):
            own = [frames[place] for place in places]
            moment = None if moments is None else next(moments)
            yield self.see(own, [seeds[place] for place in places], kept, moment, decodes=decodes)

    def see(
        self,
        frames: Sequence[Observation],
        seeds: Sequence[int],
        kept: Collection[int] = (),
        moment: float | None = None,
        watch: Watch | None = None,
        *,
        decodes: bool = True,
    ) -> BatchBeside:
        """Run every layer on frames that are alike; arguments as of :meth:`batches`."""
        policy, states = self.policy, dict[int, Tensor]()
        start = self.start(self.partition) if self.partition.blocks else 0
        with torch.no_grad():  # what inference mode makes cannot be trained through later
            noise = policy.noise(seeds)
            hidden, context = policy.prepare(frames, noise)
            for index, layer in enumerate(policy.layers):
                if index in kept or index == start:
                    states[index] = hidden
                after = layer(hidden, context)
                if watch:
                    watch(index, hidden, after, context.token_mask)
                hidden = after
            if not torch.isfinite(hidden).all():
                raise DataError(
                    f"what leaves the stack of the {policy.family} policy is not finite in {policy.dtype}; its weights "
                    "or these observations are at fault"
                )
            given = (full_result(hidden, len(policy.layers)), context, None, noise)
            halfway = None if moment is None else policy.halfway(*given, moment, no_bridge)
            target = None if moment is None else policy.probe(*given, halfway, no_bridge).float()
            one_step = moment is not None and halfway is None  # whose outcome is the actions
            actions = target if one_step else policy.decode(*given, no_bridge)[0].float() if decodes else None
        return BatchBeside(self, start, frames, seeds, context, states, actions, noise, halfway, target)


def alike(frames: Sequence[Observation], most: int) -> Iterator[list[int]]:
    """Yield places of frames that may go through a policy together, up to ``most``, groups as they first appear."""
    groups: dict[Any, list[int]] = defaultdict(list)
    for place, frame in enumerate(frames):
        sizes = tuple(sorted((name, image.shape) for name, image in frame.images.items()))
        groups[frame.instruction, sizes].append(place)
    for places in groups.values():
        for first in range(0, len(places), most):
            yield places[first : first + most]


def checkpointed_layer(policy: VlaPolicy, index: int, hidden: Tensor, context: Any) -> Tensor:
    """Run a frozen layer, on the way back once more in place of keeping what it computes: a ``LayerRun``."""
    if not hidden.requires_grad or not torch.is_grad_enabled():
        return plain_layer(policy, index, hidden, context)
    after = checkpoint(plain_layer, policy, index, hidden, context, use_reentrant=False, preserve_rng_state=False)
    assert isinstance(after, Tensor)
    return after
