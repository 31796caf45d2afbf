"""The two stages of distillation (:mod:`dysl_vla_ros.distillation.stages`), the teacher beside the student.

A step takes ``batch_size`` frames, a few of them a pass, and adds up their gradients. What a step draws (frames, noise,
flow times, skip positions) follows from seed, stage and number of the step alone, so that a run that was interrupted
goes on with the same bits. Of a flow the velocities at a drawn time are compared, on the teacher's own way from a drawn
noise; controllers learn from the action error at its end.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dysl_vla_ros.distillation.beside.progress import Interrupted, ResumeWithin, RunProgress
from dysl_vla_ros.distillation.beside.teacher import BatchBeside, TeacherBeside
from dysl_vla_ros.distillation.descent import Descent, adapters_of
from dysl_vla_ros.distillation.judging import Judge, Judgement
from dysl_vla_ros.distillation.losses import action_error, controller_loss, weighted
from dysl_vla_ros.distillation.passes import (
    decoded,
    hard_stack,
    inputs_of,
    require_mixture,
    sample_positions,
    skip_loss,
    soft_pass,
)
from dysl_vla_ros.distillation.settings import DistillationSettings
from dysl_vla_ros.skipping.modules import DyslModules, Summary
from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.stack import StackResult

JUDGEMENTS = 3  # of a stage 2
JUDGED = (128, 64)  # frames that the floor and controllers are judged on: each costs a pass of the teacher
LARGEST_SEED = 2**31


@dataclass(frozen=True)
class StudentPass:
    """One pass of the student within a step."""

    batch: BatchBeside
    random: np.random.Generator
    share: float  # of the step's frames


@dataclass(frozen=True)
class Lesson:
    """How a stage learns from a pass, and what of the teacher it needs for it.

    Attributes:
        learn: adds the gradients of a pass and returns its loss.
        hidden: what enters the layers that adapters stand in for.
        probes: its probe at a drawn time.
        decodes: its actions.
    """

    learn: Callable[[StudentPass], float]
    hidden: bool = False
    probes: bool = False
    decodes: bool = False


class DistillationBeside:
    """One run; call the stages in their order. The policy stays as it is.

    Attributes:
        judge: measures what was trained.
        judgements: what stage 2 did on its way.
    """

    def __init__(
        self,
        partition: LayerPartition,
        modules: DyslModules,
        data: TeacherBeside,
        settings: DistillationSettings,
        held_out: TeacherBeside,
        progress: RunProgress,
        resume: ResumeWithin | None = None,
    ) -> None:
        """Train ``modules`` in place on ``data``; ``resume``: of a run that may be interrupted."""
        assert partition.blocks, "there is nothing to train where every layer is static"
        if settings.controllers == "mixture":
            require_mixture(data.policy)
        self.partition, self.modules, self.data, self.settings = partition, modules, data, settings
        self.judge = Judge(partition, modules, held_out, JUDGED)
        self.judgements: list[Judgement] = []
        self.judgements_aside: list[Judgement] = []  # no frames are aside here
        self._progress, self._resume = progress, resume

    def train_hidden(self) -> float:
        """Stage 1, first part; return the last loss (share of the skipped change that is not explained)."""
        lesson = Lesson(self._hidden_loss, hidden=True)
        return self._train("stage 1: hidden states", self.settings.hidden_steps, lesson)

    def train_actions(self) -> float:
        """Stage 1, second part: the action through the hard-skipped stack; return the last loss, weighted."""
        return self._train("stage 1: actions", self.settings.action_steps, Lesson(self._action_loss, probes=True))

    def train_joint(self) -> float:
        """Stage 2: controllers and adapters together; return the last loss."""
        kind, steps = self.settings.controllers, self.settings.joint_steps
        every = max(1, steps // JUDGEMENTS)

        def judge(step: int) -> None:
            if step % every == 0 or step == steps:
                self.judgements.append(self.judge.controllers(kind, step))

        learns = Lesson(self._error_loss, probes=True, decodes=True)
        if kind != "error":
            learns = Lesson(self._mixture_loss, decodes=True)
        controllers = list(self.modules.controllers.parameters())
        rate = self.settings.adapter_rate
        return self._train(f"stage 2: {kind}", steps, learns, judge, adapter_rate=rate, controllers=controllers)

    def _train(
        self,
        label: str,
        steps: int,
        lesson: Lesson,
        after_step: Callable[[int], None] | None = None,
        *,
        adapter_rate: float = 1.0,
        controllers: list[nn.Parameter] | None = None,
    ) -> float:
        """Take ``steps`` steps of a lesson; return the running mean of the loss.

        Raises:
            Interrupted: it was asked to end; what is learned is kept.
        """
        descent = Descent(
            adapters_of(self.modules), controllers or [], self.settings.learning_rate, adapter_rate, steps
        )
        begun, self.judgements = self._resume.go_on(label, self.modules, descent) if self._resume else (0, [])
        for step in range(begun, steps):
            if self._progress.interrupted():
                self._keep(label, step, descent)
                raise Interrupted
            descent.clear()
            descent.step(step, sum(lesson.learn(own) for own in self._passes(label, step, lesson)))
            if after_step:
                after_step(step + 1)
            self._progress.tell(label, step + 1, steps, self._said(descent))
            if self._resume and self._resume.due():
                self._keep(label, step + 1, descent)
        return descent.running

    def _passes(self, label: str, step: int, lesson: Lesson) -> Iterator[StudentPass]:
        random = np.random.default_rng([self.settings.seed, *label.encode(), step])
        size = self.settings.batch_size
        rows = random.integers(0, len(self.data), size).tolist()
        seeds = random.integers(0, LARGEST_SEED, size).tolist()
        kept = inputs_of(self.data.policy, self.partition) if lesson.hidden else ()
        moments = iter(lambda: float(random.random()), None) if lesson.probes else None
        for batch in self.data.batches(rows, seeds, kept, moments, decodes=lesson.decodes):
            yield StudentPass(batch, random, len(batch.frames) / size)

    def _hidden_loss(self, own: StudentPass) -> float:
        """Teach every adapter of the leading stream, one after the other: of one alone are the gradients in memory."""
        batch, total, count = own.batch, 0.0, len(self.partition.skip_points)
        mask = batch.context.token_mask
        for points, (first, end) in zip(self.partition.points, self.partition.blocks, strict=True):
            target = batch.hidden(end)
            unit = _mean_square(batch.hidden(first) - target, mask)  # what skipping without an adapter would leave
            for layer in points:
                adapted = self.modules.adapted(layer, batch.hidden(layer), mask)
                loss = _mean_square(adapted - target, mask) / unit.clamp_min(1e-12) * (own.share / count)
                loss.backward()
                total += float(loss.detach())
        return total

    def _action_loss(self, own: StudentPass) -> float:
        result, _, _ = self._student(own)
        loss = self._weighted(own.batch, self._probe(own.batch, result)) * own.share
        loss.backward()
        return float(loss.detach())

    def _error_loss(self, own: StudentPass) -> float:
        batch, (result, seen, positions) = own.batch, self._student(own)
        given = self._probe(batch, result)
        if batch.halfway is None:
            ends = given.detach()
        else:
            with torch.no_grad():
                ends = decoded(self.data.policy, self.modules, result, batch.context, None, batch.noise)
        error = action_error(ends, batch.actions)
        controllers = controller_loss(self.modules, positions, seen, error)
        loss = (self._weighted(batch, given) + controllers) * own.share  # the two share no parameters
        loss.backward()
        return float(loss.detach())

    def _mixture_loss(self, own: StudentPass) -> float:
        batch, start = own.batch, self.data.start(self.partition)
        positions = [points[int(own.random.integers(len(points)))] for points in self.partition.points]
        given = (self.data.policy, self.partition, self.modules, batch.hidden(start), batch.context, positions)
        actions, probabilities = soft_pass(*given, start=start, run=self.data.run, noise=batch.noise)
        skipped = skip_loss(self.partition, positions, probabilities)
        loss = (action_error(actions, batch.actions).mean() + self.settings.skip_weight * skipped) * own.share
        loss.backward()
        return float(loss.detach())

    def _student(self, own: StudentPass) -> tuple[StackResult, list[Summary | None], list[int]]:
        """Run the student's layers, each block left at a drawn place."""
        batch, start = own.batch, self.data.start(self.partition)
        positions = sample_positions(self.partition, own.random, self.settings.floor_share)
        given = (self.data.policy, self.partition, self.modules, batch.hidden(start), batch.context, positions)
        result, seen = hard_stack(*given, start=start, run=self.data.run)
        return result, seen, list(positions)

    def _probe(self, batch: BatchBeside, result: StackResult) -> Tensor:
        """Return what the student comes to where the teacher's target was taken, (B, H, A)."""
        policy = self.data.policy
        if batch.halfway is None:
            return decoded(policy, self.modules, result, batch.context, None, batch.noise)
        bridge = self.modules.bridge
        return policy.probe(result, batch.context, None, batch.noise, batch.halfway, bridge).float()

    def _weighted(self, batch: BatchBeside, given: Tensor) -> Tensor:
        assert batch.target is not None
        return weighted(action_error(given, batch.target), self.settings.large_error)

    def _said(self, descent: Descent) -> str:
        said = [f"loss={descent.running:.4f}"]
        if self.judgements:
            last = self.judgements[-1]
            said += [f"skipped={last.skip_rate:.0%}", f"hard={last.hard_error:.4f}"]
        return ", ".join(said)

    def _keep(self, label: str, step: int, descent: Descent) -> None:
        if self._resume:
            self._resume.keep(label, step, self.modules, descent, self.judgements)


def _mean_square(difference: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean square over real tokens of a difference (B, T, D)."""
    squared = difference.square().mean(dim=-1)  # (B, T)
    return (squared if mask is None else squared[mask]).mean()
