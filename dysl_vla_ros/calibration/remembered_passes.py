"""Recorded runs under many settings at the price of a few: each way through the layers is computed once.

What a first pass does with an observation depends on settings only through where each block is skipped. The outputs of
controllers on the way and the actions at its end are remembered; another threshold or another guidance then mostly
takes a way that is known. Where decoding has a memory, what leaves the stack is remembered in place of the actions, and
decoded anew with the memory of its own replay. Everything else, guidance included, is what
:class:`~dysl_vla_ros.runtime.step.Runtime` does, in its order; a test holds the two equal, bit for bit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from dysl_vla_ros.interfaces import ActionSpec, FloatArray
from dysl_vla_ros.runs.full_depth import FullDepthRun
from dysl_vla_ros.runtime.folder import DyslFolder
from dysl_vla_ros.runtime.noise import FRESH, noise_seed
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import AT_FLOOR, OPEN, RuntimeSettings, SkippingSettings
from dysl_vla_ros.skipping.depth_rules import FullDepth
from dysl_vla_ros.skipping.guidance import PriorPostGuidance
from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.stack import Skip, SkippableStack, StackContext, StackResult

if TYPE_CHECKING:
    from torch import Tensor

Way = tuple[int, ...]
"""Per block so far: the dynamic layer from which the rest was skipped; the block's end: nothing was."""


@dataclass(frozen=True)
class RememberedStep:
    """One inference of a replay."""

    actions: FloatArray  # (H, A) physical units, what goes out
    layer_calls: int  # both passes
    verified: bool
    allow_points: Way
    warming_up: bool


@dataclass
class _Moment:
    """What is known of one observation."""

    run: int
    number: int  # of the inference in its run
    seen: "tuple[Tensor, StackContext] | None" = None  # what vision made of it; None: it is looked at anew
    probabilities: dict[tuple[Way, int], float] = field(default_factory=dict)  # (way before the block, layer)
    actions: dict[Way, FloatArray] = field(default_factory=dict)  # at a way's end, (H, A); without a memory
    results: dict[Way, StackResult] = field(default_factory=dict)  # of a way; with a memory


class Passes(Protocol):
    """What thresholds are searched on: runs, and what other settings would have done on them."""

    runs: tuple[FullDepthRun, ...]

    @property
    def partition(self) -> LayerPartition:
        """Which layers may be skipped, and where."""
        ...

    @property
    def action(self) -> ActionSpec:
        """What the policy's actions are."""
        ...

    def replay(self, settings: RuntimeSettings, runs: Sequence[int] | None = None) -> Iterator[RememberedStep]:
        """Replay runs under settings, see :meth:`RememberedPasses.replay`."""
        ...

    def at_floor(self, m: int) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Yield for each run chunks and skip probabilities at the floor, see :meth:`RememberedPasses.at_floor`."""
        ...

    def outputs(self) -> FloatArray:
        """Return what controllers say, see :meth:`RememberedPasses.outputs`."""
        ...


class RememberedPasses:
    """The first passes over the observations of some runs.

    Attributes:
        computed: passes that really ran.
    """

    def __init__(self, runtime: Runtime, runs: Sequence[FullDepthRun], *, prepared: bool = True) -> None:
        """Look at ``runs``; ``prepared``: vision runs once and its outcome is kept, else anew for each pass."""
        assert runtime.dysl is not None, "there is nothing to tune without adapters"
        self.runs, self.policy, self.computed = tuple(runs), runtime.policy, 0
        self.dysl: DyslFolder = runtime.dysl
        self._remembers = self.policy.initial_state() is not None
        self._stack = SkippableStack(self.policy.layers, self.policy.run_lengths)
        assert prepared or not self._remembers, "what is decoded later needs its context"
        self._moments = [
            [_Moment(index, number) for number in range(len(run.chunks))] for index, run in enumerate(self.runs)
        ]
        if prepared:
            for moment in (own for moments in self._moments for own in moments):
                moment.seen = self._seen(moment)

    @property
    def partition(self) -> LayerPartition:
        """Which layers may be skipped, and where."""
        return self.dysl.partition

    @property
    def action(self) -> ActionSpec:
        """What the policy's actions are."""
        return self.policy.action

    def replay(self, settings: RuntimeSettings, runs: Sequence[int] | None = None) -> Iterator[RememberedStep]:
        """Replay runs (by index; None: all) under ``settings``, one step an inference.

        Guidance observes the first m actions of the chunk that this replay itself gave, as on a robot.

        Args:
            settings: with every value resolved; the rule must be ``dysl``.
            runs: indices into ``self.runs``.
        """
        assert settings.skipping.named_rule() == "dysl"
        points = [len(points) for points in self.partition.points]
        guidance = PriorPostGuidance(self.partition.blocks, self.action, points)
        m = settings.actions_per_inference
        guidance.configure(settings.guidance, m)
        for index in range(len(self.runs)) if runs is None else runs:
            guidance.reset()
            state = self.policy.initial_state()
            played: FloatArray = np.zeros((0, self.action.dimensions), np.float32)
            for moment, full_depth in zip(self._moments[index], self.runs[index].chunks, strict=True):
                guidance.observe(played)
                step, state = self._step(moment, full_depth, guidance, settings, state)
                played = step.actions[:m]
                yield step

    def at_floor(self, m: int) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Yield for each run the floor's chunks (n, H, A), physical units, and its skip probabilities (n, blocks)."""
        floor = self.partition.floor
        keys = [(floor[:block], first) for block, first in enumerate(floor)]
        for index, moments in enumerate(self._moments):
            steps = list(self.replay(replace(AT_FLOOR, actions_per_inference=m), [index]))
            says = np.array([[own.probabilities[key] for key in keys] for own in moments], dtype=np.float32)
            yield np.stack([step.actions for step in steps]), says

    def outputs(self) -> FloatArray:
        """Return what controllers say along the deepest and along the shallowest way of every observation.

        The same however much is remembered.
        """
        for threshold in (1.0, 0.0):
            for _ in self.replay(RuntimeSettings(SkippingSettings(threshold=threshold), OPEN)):
                pass
        firsts, ends = zip(*self.partition.blocks, strict=True)
        deep = [(ends[:b], layer) for b, points in enumerate(self.partition.points) for layer in points]
        shallow = [(firsts[:b], first) for b, first in enumerate(firsts)]
        values = [m.probabilities[key] for run in self._moments for m in run for key in (*deep, *shallow)]
        return np.array(values, dtype=np.float32)

    def _step(
        self,
        moment: _Moment,
        full_depth: FloatArray,
        guidance: PriorPostGuidance,
        settings: RuntimeSettings,
        state: Any,
    ) -> tuple[RememberedStep, Any]:
        """Return one inference and the decoding state that it leads to."""
        partition, points = self.dysl.partition, guidance.allow_points()
        layers = partition.num_layers
        if guidance.warming_up:
            full_depth, state = self._at_full_depth(moment, full_depth, state)
            return RememberedStep(full_depth, layers, False, points, True), state
        way = self._way(moment, points, settings.skipping.threshold)
        actions, after = self._at_end(moment, way, state)
        skipped = [(place, end) for place, (_, end) in zip(way, partition.blocks, strict=True) if place < end]
        calls = layers - sum(end - place for place, end in skipped)
        m = settings.actions_per_inference
        if skipped and guidance.needs_verification(actions[:m]):
            full_depth, after = self._at_full_depth(moment, full_depth, state)
            guidance.verified(self.action.distance(actions[:m], full_depth[:m]))
            return RememberedStep(full_depth, calls + layers - skipped[0][0], True, points, False), after
        return RememberedStep(actions, calls, False, points, False), after

    def _at_full_depth(self, moment: _Moment, recorded: FloatArray, state: Any) -> tuple[FloatArray, Any]:
        """Return full depth's chunk: the recorded one, unless it depends on what came before."""
        if not self._remembers:
            return recorded, state
        way = tuple(end for _, end in self.partition.blocks)
        if way not in moment.results:
            self.computed += 1
            with self.policy.engine.computing():
                moment.results[way] = self._stack.run(*self._seen(moment), FullDepth())
        return self._at_end(moment, way, state)

    def _at_end(self, moment: _Moment, way: Way, state: Any) -> tuple[FloatArray, Any]:
        if not self._remembers:
            return moment.actions[way], state
        return self._decoded(moment, self._seen(moment)[1], moment.results[way], state)

    def _seen(self, moment: _Moment) -> "tuple[Tensor, StackContext]":
        """Return what vision makes of an observation."""
        if moment.seen is not None:
            return moment.seen
        with self.policy.engine.computing():
            seen = self.runs[moment.run].observations[moment.number]
            return self.policy.prepare([seen], self._noise(moment.number))

    def _decoded(
        self, moment: _Moment, context: StackContext, result: StackResult, state: Any
    ) -> tuple[FloatArray, Any]:
        with self.policy.engine.computing():
            noise = self._noise(moment.number)
            normalised, state = self.policy.decode(result, context, state, noise, self.dysl.modules.bridge)
            return self.policy.actions(normalised, context)[0], state

    def _noise(self, number: int) -> Any:
        """Return what the inference of this number in its run draws."""
        return self.policy.noise([noise_seed(FRESH, 0, number)])

    def _way(self, moment: _Moment, points: Way, threshold: float) -> Way:
        way = self._known_way(moment, points, threshold)
        if way is not None:
            return way
        self.computed += 1
        rule = _RememberingRule(self.dysl, threshold, points, moment.probabilities)
        hidden, context = self._seen(moment)
        with self.policy.engine.computing():
            result = self._stack.run(hidden, context, rule)
        way = rule.finished_way()
        if self._remembers:
            moment.results[way] = replace(result, resume_point=None)  # nothing is resumed here
        else:
            moment.actions[way], _ = self._decoded(moment, context, result, None)
        return way

    def _known_way(self, moment: _Moment, points: Way, threshold: float) -> Way | None:
        way: Way = ()
        for (_, end), layers, point in zip(self.partition.blocks, self.partition.points, points, strict=True):
            place = end
            for layer in layers[max(0, point - layers.start) :]:
                probability = moment.probabilities.get((way, layer))
                if probability is None:
                    return None
                if probability > threshold:
                    place = layer
                    break
            way += (place,)
        return way if way in moment.actions or way in moment.results else None


class _RememberingRule:
    """The deployed rule, which also hears the controllers in front of the allow point, for later."""

    def __init__(self, dysl: DyslFolder, threshold: float, points: Way, heard: dict[tuple[Way, int], float]) -> None:
        self._dysl, self._threshold, self._points, self._heard = dysl, threshold, points, heard
        self._way: Way = ()

    def skip(self, layer: int, hidden: "Tensor", context: Any) -> Skip | None:
        """Ask the layer's controller; skip where the block allows it."""
        partition, modules = self._dysl.partition, self._dysl.modules
        block = partition.block_at(layer)
        if block is None:
            return None
        self._close_blocks_before(block)
        summary = modules.summary(layer, hidden, context.token_mask)
        probability = modules.controller(layer).probability(summary)
        self._heard[self._way, layer] = probability
        if layer < self._points[block] or not probability > self._threshold:
            return None
        self._way += (layer,)
        return Skip(partition.blocks[block][1], modules.adapter(layer)(hidden, summary))

    def finished_way(self) -> Way:
        """Return the whole way, after the pass."""
        self._close_blocks_before(len(self._dysl.partition.blocks))
        return self._way

    def _close_blocks_before(self, block: int) -> None:
        while len(self._way) < block:
            self._way += (self._dysl.partition.blocks[len(self._way)][1],)
