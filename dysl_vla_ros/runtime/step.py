"""One step of a policy: observation in, action chunk out, with the trace of what was skipped and why.

The order of a step: guidance observes what was played; the policy prepares (vision); the stack runs under the depth
rule; the head decodes; where guidance doubts the action, the stack is completed at full depth and decoded again.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from dysl_vla_ros.engines import ONNX, TORCH
from dysl_vla_ros.engines.engine import StepPolicy
from dysl_vla_ros.errors import CheckpointError, NonFiniteActionError, ObservationError
from dysl_vla_ros.interfaces import (
    ActionChunk,
    FloatArray,
    Observation,
    PolicyDescription,
    SkipTrace,
    StepResult,
    Timings,
)
from dysl_vla_ros.policies.identity import model_hash
from dysl_vla_ros.policy_options import AS_THE_FILES_SAY, PolicyOptions
from dysl_vla_ros.runtime.budget import HEAD, BudgetedRule, StepCosts
from dysl_vla_ros.runtime.folder import DyslFolder, dysl_beside, load_dysl
from dysl_vla_ros.runtime.latency import Stopwatch
from dysl_vla_ros.runtime.loading import torch_policy
from dysl_vla_ros.runtime.noise import FRESH, NoiseSettings, noise_seed
from dysl_vla_ros.settings import AUTOMATIC, RuntimeSettings, actions_judged
from dysl_vla_ros.skipping.depth_rules import DyslRule, FullDepth, StaticOnly
from dysl_vla_ros.skipping.guidance import PriorPostGuidance, measuring_only
from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.stack import DepthRule, ResumePoint, SkippableStack, StackContext, StackResult
from dysl_vla_ros.skipping.streams import no_bridge

if TYPE_CHECKING:
    from torch import Tensor

    from dysl_vla_ros.policies.interface import VlaPolicy

WARM_UP_ROUNDS = 3


class Runtime:
    """A loaded policy, its skipping modules if there are any, and the state of one episode.

    Attributes:
        rule_override: for experiments: makes the depth rule of an inference from its allow points, in place of
            the one named, with or without a DySL folder. Warm-up and the rule ``full`` hold for it too.
    """

    def __init__(self, policy: StepPolicy, dysl: DyslFolder | None, noise: NoiseSettings = FRESH) -> None:
        """Run ``policy``; ``dysl`` None: every layer, always; ``noise``: of a policy whose decoding draws some."""
        self.policy = cast("VlaPolicy", policy)  # what training uses of it beside a step is there on torch alone
        self.dysl = dysl
        self.noise = noise
        self.rule_override: Callable[[tuple[int, ...]], DepthRule] | None = None
        self._partition = dysl.partition if dysl else LayerPartition.full(len(policy.layers))
        self._stack = SkippableStack(policy.layers, policy.run_lengths)
        points = [len(points) for points in self._partition.points]
        self._guidance = PriorPostGuidance(self._partition.blocks, policy.action, points)
        self._configured: tuple[object, ...] | None = None  # what guidance was configured with
        self._state: Any = policy.initial_state()
        self._episode, self._inference = 0, 0  # what noise is drawn by
        self._costs, self._floor_ms = StepCosts(), 0.0

    @classmethod
    def load(
        cls,
        checkpoint: str,
        adapters: str,
        device: str = "cpu",
        threads: int = 1,
        noise: NoiseSettings = FRESH,
        dtype: str = "",
        calibrated: bool = True,
        options: PolicyOptions = AS_THE_FILES_SAY,
        engine: str = TORCH,
        export: str = "",
    ) -> "Runtime":
        """Load a base checkpoint and a DySL folder.

        Args:
            checkpoint: folder of the base.
            adapters: DySL folder; "": the checkpoint's own ``dysl`` folder, full depth if it has none.
            device: where to compute, see ``model.device``.
            threads: compute threads of this process, at least 1; bits depend on it.
            noise: of a policy whose decoding draws some.
            dtype: to compute in, see ``model.dtype``.
            calibrated: see ``load_dysl``.
            options: what the checkpoint's files do not say.
            engine: what computes, see ``model.runtime``.
            export: what `dysl_vla export` wrote, see ``model.export``; of torch nothing.

        Raises:
            CheckpointError: either is missing, damaged, or they do not belong together.
            ContractError: the options do not say what the files do not say either, or contradict them.
            SettingError: the device is not there.
        """
        if engine == ONNX:
            from dysl_vla_ros.engines.onnx.loading import load_onnx

            return cls(*load_onnx(Path(checkpoint), adapters, device, threads, dtype, options, export), noise)
        policy = torch_policy(Path(checkpoint), device, threads, dtype, options)
        return cls.beside(policy, checkpoint, adapters, noise, calibrated)

    @classmethod
    def beside(
        cls, policy: "VlaPolicy", checkpoint: str, adapters: str, noise: NoiseSettings = FRESH, calibrated: bool = True
    ) -> "Runtime":
        """Load a DySL folder beside a policy that is loaded already, from ``checkpoint``: see :meth:`load`.

        Raises:
            CheckpointError: the folder is missing, damaged, or does not belong to the policy.
        """
        folder = dysl_beside(Path(checkpoint), adapters)
        if folder is None:
            return cls(policy, None, noise)
        dysl = load_dysl(folder, policy.weights_hash, len(policy.layers), policy.streams, calibrated=calibrated)
        dysl.modules.to(policy.device, policy.dtype)
        return cls(policy, dysl, noise)

    @classmethod
    def load_base(cls, checkpoint: Path, device: str = "cpu") -> "Runtime":
        """Load a base checkpoint alone, whatever lies beside it: every layer runs, in one thread.

        Raises:
            CheckpointError: it is missing or damaged.
            SettingError: the device is not there.
        """
        return cls(torch_policy(checkpoint, device), None)

    @property
    def description(self) -> PolicyDescription:
        """What the outside must know of the policy and of what may be skipped."""
        policy = self.policy
        return PolicyDescription(
            family=policy.family,
            model_hash=model_hash(policy.base_hash, self.dysl.motion_hash if self.dysl else None),
            weights_hash=policy.weights_hash,
            cameras=policy.cameras,
            proprioception=policy.proprioception,
            action=policy.action,
            layers_total=self._partition.num_layers,
            static_layers=self._partition.static,
            blocks=self._partition.blocks,
            calibrated=dict(self.dysl.calibrated) if self.dysl else {},
            instructions=policy.instructions,
            floor_ms=self._floor_ms,
        )

    def decoded(self, result: StackResult, context: StackContext) -> "Tensor":
        """Return the normalised actions (1, H, A) that a pass of this inference would give, for a ``rule_override``."""
        return self._decode_normalised(result, context, self.policy.noise([self._noise_seed()]))[0]

    def reset(self, episode: int = 0) -> None:
        """Begin an episode: guidance and the policy's decoding state as at the start.

        Args:
            episode: its number; noise is drawn by it, so that the same episode gives the same bits again.
        """
        self._guidance.reset()
        self._state = self.policy.initial_state()
        self._episode, self._inference = episode, 0

    def check_instruction(self, instruction: str) -> tuple[str, ...]:
        """Return what the policy warns of in an instruction; no state changes.

        Raises:
            InstructionError: it cannot be read at all, in the policy's own words.
        """
        return self.policy.check_instruction(instruction)

    def step(
        self,
        observation: Observation,
        played: FloatArray,
        settings: RuntimeSettings,
        gaps: Sequence[int] = (),
        first_index: int = 0,
    ) -> StepResult:
        """Compute one action chunk.

        ``played`` is observed first, whatever comes of the rest: it was played, the caller hands it over once, and
        so a step that fails afterwards neither loses it nor counts it twice. A failed step leaves the decoding state
        as it was. Give the next step only what was played since, or ``reset``.

        Args:
            observation: one moment, with every camera that the policy names.
            played: (n, A) physical units: actions played since the last step, each once, as the policy gave them.
            settings: the snapshot for this step.
            gaps: places, ascending in 0 .. n, of the actions in ``played`` before which an underrun lay; n: before the
                next ones.
            first_index: place in the chunk of the first action that will be played: the number of actions played
                since the observation was taken.

        Raises:
            InstructionError: the policy cannot read the instruction.
            ObservationError: the policy cannot use ``observation``, ``played`` is not (n, A) finite numbers, or
                ``gaps`` are not places in it.
            SettingError: a setting that guidance needs is neither set nor calibrated.
            NonFiniteActionError: the model returned NaN or infinity.
        """
        watch = Stopwatch(self.policy.engine)
        deadline = watch.started + settings.budget_ms / 1e3 if settings.budget_ms else None
        with self.policy.engine.computing():
            self._observe(played, tuple(gaps), settings)
            guidance = self._guidance
            points = guidance.allow_points()
            full_depth_reason = self._full_depth_reason(settings)
            rule = FullDepth() if full_depth_reason else self._rule(points, settings)
            budgeted = self._budgeted(rule, deadline)
            watch.lap()

            noise = self.policy.noise([self._noise_seed()])
            hidden, context = self.policy.prepare([observation], noise)
            vision = watch.lap()
            result = self._run(hidden, context, budgeted or rule)
            stack = watch.lap()
            actions, state = self._decode(result, context, noise)
            head = watch.lap()
            cut = self._learn_costs(budgeted, head)

            executed, calls = result.executed, result.layer_calls
            candidate = actions[first_index : first_index + actions_judged(settings.actions_per_inference)]
            change = guidance.candidate_change(candidate)
            verify_reason = guidance.needs_verification(candidate) if result.resume_point else ""
            doubted = bool(verify_reason or full_depth_reason)
            if verify_reason and result.resume_point and not self._fits(result.resume_point, deadline):
                verify_reason, cut = "", True
            verify, correction = 0.0, math.nan
            if verify_reason and result.resume_point:
                watch.lap()
                second = self._stack.resume(result.resume_point, context)
                actions, state = self._decode(second, context, noise)
                executed = tuple(a or b for a, b in zip(executed, second.executed, strict=True))
                calls += second.layer_calls
                verify = watch.lap()
                final = actions[first_index : first_index + len(candidate)]
                correction = self.policy.action.distance(candidate, final)
                guidance.verified(correction)
            play = self._actions_to_play(actions[first_index:], settings, doubted)
            self._state = state
            self._inference += 1

        trace = SkipTrace(
            executed=executed,
            layer_calls=calls,
            allow_points=points,
            skip_points=self._skip_points(result),
            controller_outputs=self._controller_outputs(rule),
            continuity=guidance.continuity,
            continuity_change=guidance.continuity_change,
            candidate_change=change,
            verified=bool(verify_reason),
            verify_reason=verify_reason,
            full_depth_reason=full_depth_reason,
            budget_cut=cut,
            correction=correction,
        )
        time_step = self.policy.action.time_step
        chunk = ActionChunk(actions, time_step, verified=bool(verify_reason), actions_to_play=play)
        timings = Timings(vision=vision, stack=stack, head=head, verify=verify, total=watch.total())
        return StepResult(chunk, trace, timings)

    def _actions_to_play(self, coming: FloatArray, settings: RuntimeSettings, doubted: bool) -> int:
        """Return how many of the actions (n, A) that come are to be played before the next inference."""
        if settings.actions_per_inference != AUTOMATIC:
            return settings.actions_per_inference
        return 1 if doubted else self._guidance.actions_to_play(coming, self.policy.action.bridged)

    def _run(self, hidden: "Tensor", context: StackContext, rule: DepthRule) -> StackResult:
        result = self._stack.run(hidden, context, rule)
        if isinstance(rule, BudgetedRule):
            rule.ended()
        return result

    def _budgeted(self, rule: DepthRule, deadline: float | None) -> BudgetedRule | None:
        """Return the rule within a time; None where there is none, or nothing that could be skipped."""
        if self.dysl is None or deadline is None:
            return None
        clock = self.policy.engine.now
        return BudgetedRule(rule, self.dysl.partition, self.dysl.modules, self._costs, deadline, clock)

    def _learn_costs(self, budgeted: BudgetedRule | None, head_ms: float) -> bool:
        """Learn from an inference; return whether the budget has cut it."""
        if budgeted is None:
            return False
        self._costs.note(HEAD, head_ms / 1e3)
        self._costs.update()
        return budgeted.cut

    def _fits(self, point: ResumePoint, deadline: float | None) -> bool:
        """Return whether a verification from here on would end in time."""
        if deadline is None:
            return True
        weight = sum(self._costs.weights(len(self.policy.layers))[point.layer :]) + self._costs.weight(HEAD)
        return self.policy.engine.now() + self._costs.seconds(weight) <= deadline

    def warm_up(self) -> None:
        """Run every path a few times on a grey image: the first real step is no slower, and costs are known.

        Guidance and decoding state stay as they are.

        Raises:
            CheckpointError: the policy cannot compute a finite action.
        """
        policy = self.policy
        observation = policy.sample()
        try:
            with policy.engine.computing():
                for number in range(WARM_UP_ROUNDS):
                    if number < 2:
                        self._costs = StepCosts()  # those of the first round do not count: everything is cold
                    watch = Stopwatch(policy.engine)
                    noise = policy.noise([0])
                    hidden, context = policy.prepare([observation], noise)
                    vision = watch.lap()
                    _, shortest = self._timed(FullDepth(), hidden, context, noise)
                    if self.dysl:
                        shortest = self._warm_up_skipping(self.dysl, hidden, context, noise)
                    self._floor_ms = vision + shortest
        except NonFiniteActionError as error:
            raise CheckpointError(f"warm-up: {error}; the weights cannot serve, get or train others") from error

    def _timed(self, rule: DepthRule, hidden: "Tensor", context: StackContext, noise: Any) -> tuple[StackResult, float]:
        """Run a pass and decode it, note what its parts cost; return it and its milliseconds."""
        watch, budgeted = Stopwatch(self.policy.engine), self._budgeted(rule, math.inf)  # it only looks on
        result = self._run(hidden, context, budgeted or rule)
        watch.lap()
        self._decode(result, context, noise)
        self._costs.note(HEAD, watch.lap() / 1e3)
        self._costs.update()
        return result, watch.total()

    def _warm_up_skipping(self, dysl: DyslFolder, hidden: "Tensor", context: StackContext, noise: Any) -> float:
        """Run what skips; return the milliseconds of the floor."""
        always_open = dysl.partition.floor
        self._stack.run(hidden, context, DyslRule(dysl.partition, dysl.modules, 1.0, always_open))
        floor, milliseconds = self._timed(StaticOnly(dysl.partition, dysl.modules), hidden, context, noise)
        if floor.resume_point:
            self._decode(self._stack.resume(floor.resume_point, context), context, noise)
        return milliseconds

    def _observe(self, played: FloatArray, gaps: tuple[int, ...], settings: RuntimeSettings) -> None:
        played = np.asarray(played, dtype=np.float32)
        wanted = self.policy.action.dimensions
        if played.ndim != 2 or played.shape[1] != wanted or not np.isfinite(played).all():
            raise ObservationError(
                f"played actions of shape {played.shape} must be (n, {wanted}) finite numbers; "
                "hand back the chunk's own rows"
            )
        if list(gaps) != sorted(set(gaps)) or not all(0 <= gap <= len(played) for gap in gaps):
            raise ObservationError(f"gaps at {list(gaps)} must be ascending places from 0 to {len(played)}")
        try:
            self._configure(settings)
        finally:
            self._guidance.observe(played, gaps)

    def _configure(self, settings: RuntimeSettings) -> None:
        constant = self._rule_named(settings) == "static"
        wanted = (settings.guidance, settings.actions_per_inference, constant)
        if wanted == self._configured:
            return
        # Without a DySL folder nothing is calibrated and nothing can be skipped: continuity is reported all the same.
        guidance = settings.guidance.resolved(self.dysl.calibrated) if self.dysl else measuring_only(settings.guidance)
        if constant:  # a constant floor has nothing to decide and no warm-up
            guidance = dataclasses.replace(measuring_only(guidance), warmup=0)
        self._guidance.configure(guidance, settings.actions_per_inference)
        self._configured = wanted

    def _rule_named(self, settings: RuntimeSettings) -> str:
        return settings.skipping.named_rule(self.dysl.rule if self.dysl else "dysl")

    def _full_depth_reason(self, settings: RuntimeSettings) -> str:
        if self.dysl is None and self.rule_override is None:
            return "no DySL folder"
        if self._rule_named(settings) == "full":
            return "skipping disabled"
        return "warm-up" if self._guidance.warming_up else ""

    def _rule(self, points: tuple[int, ...], settings: RuntimeSettings) -> DepthRule:
        if self.rule_override is not None:
            return self.rule_override(points)
        assert self.dysl is not None
        if self._rule_named(settings) == "static":
            return StaticOnly(self.dysl.partition, self.dysl.modules)
        return DyslRule(self.dysl.partition, self.dysl.modules, settings.skipping.threshold, points)

    def _noise_seed(self) -> int:
        """Return what this inference's noise is drawn from: the same in a replay, and for a verification."""
        return noise_seed(self.noise, self._episode, self._inference)

    def _decode(self, result: StackResult, context: StackContext, noise: Any) -> tuple[FloatArray, Any]:
        """Return the chunk (H, A) in physical units, known to be finite, and the state that it would lead to."""
        normalised, state = self._decode_normalised(result, context, noise)
        actions = self.policy.actions(normalised, context)[0]
        if not np.isfinite(actions).all():
            rows = np.flatnonzero(~np.isfinite(actions).all(axis=1))
            raise NonFiniteActionError(
                f"the {self.policy.family} policy returned NaN or infinity in {len(rows)} of {len(actions)} actions "
                f"of a chunk, first in action {rows[0]}, {sum(result.executed)} of {len(result.executed)} layers run"
            )
        return actions, state

    def _decode_normalised(self, result: StackResult, context: StackContext, noise: Any) -> "tuple[Tensor, Any]":
        bridge = self.dysl.modules.bridge if self.dysl else no_bridge
        return self.policy.decode(result, context, self._state, noise, bridge)

    def _skip_points(self, result: StackResult) -> tuple[int, ...]:
        points = {self._partition.block_of(layer): layer for layer, _ in result.skips}
        return tuple(points.get(block, -1) for block in range(len(self._partition.blocks)))

    def _controller_outputs(self, rule: DepthRule) -> tuple[float, ...]:
        if isinstance(rule, DyslRule):
            return tuple(rule.controller_outputs)
        return (math.nan,) * len(self._partition.blocks)
