"""Closed-loop success: episodes in the simulator through the same runtime and commander that drive a robot.

The simulator waits for the policy, so that a table says what the policy does and not how fast this machine is. A real
robot does not wait: with a ``delay`` each answer comes that long after its image, whole control ticks and a part of
one, in ``real_time`` as long after it as the inference costs; meanwhile the chunk before is played on, and where it has
no more, the arm slows down.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from dysl_vla_ros.control.chunk_time import actions_begun
from dysl_vla_ros.control.commander import Command, Commander
from dysl_vla_ros.engines import TORCH
from dysl_vla_ros.engines.choice import EngineChoice
from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.evaluation.conditions import Plain, condition_named
from dysl_vla_ros.evaluation.real_time import RealTime, cost_name, phase, whole_steps
from dysl_vla_ros.interfaces import Observation, StepResult
from dysl_vla_ros.parent_process import process_pool
from dysl_vla_ros.records.trace import EpisodeRecord, InferenceRecord
from dysl_vla_ros.runs.full_depth import FullDepthRun
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import ControlSettings, RuntimeSettings, SafetySettings, SkippingSettings
from dysl_vla_ros.simulation.scene import STEPS_PER_TICK, Scene
from dysl_vla_ros.simulation.tasks import CONTROL_PERIOD, EVALUATION_SEED, SIMULATION_STEP, Task, require_learnable

LONGEST_DELAY = 10.0  # s
# The simulated arm's limits, as config/simulated_arm.yaml has them for the node.
SIMULATED_ARM = SafetySettings(max_linear_speed=1.5, max_linear_acceleration=100.0, max_gripper_speed=40.0)

UNDERRUN = "underrun: the next chunk is still being computed"

T = TypeVar("T")
Watcher = Callable[[Observation, StepResult], None]


@dataclass(frozen=True)
class EvaluationSettings:
    """How episodes are played."""

    runtime: RuntimeSettings = RuntimeSettings()
    max_ticks: int = 200  # 10 s
    control: ControlSettings = ControlSettings()  # its rate and m are those of the simulation and of ``runtime``
    delay: float = 0.0  # s from the image to the command, whatever the inference costs
    real_time: RealTime | None = None  # an inference takes its time; None: the simulator waits for it
    chunk: int = 0  # actions of each chunk that may be played; 0: all
    first_seed: int = EVALUATION_SEED
    seeds: int = 20
    checkpoint: str = ""
    adapters: str = ""
    tasks: tuple[Task, ...] = ()
    condition: str = "plain"  # a name in ``conditions.CONDITIONS``
    deployed: ControlSettings | None = None  # of the node that is to run it: what it would refuse is refused
    device: str = "cpu"  # where the policy computes: "cuda", "cuda:N"
    engine: EngineChoice = EngineChoice()  # what computes it

    def __post_init__(self) -> None:
        """Refuse a delay or a condition that is none, and tasks that the condition cannot be had with."""
        condition_named(self.condition).require(*self.tasks)
        if not 0.0 <= self.delay <= LONGEST_DELAY:
            raise SettingError(f"the delay must be from 0 to {LONGEST_DELAY:g} s, not {self.delay:g}")
        if self.real_time and self.delay:
            raise SettingError("a delay and real time exclude each other: in real time an inference takes its own")
        if self.chunk < 0:
            raise SettingError(f"a chunk has at least one action (0: all), not {self.chunk}")


def play_episode(
    runtime: Runtime,
    scene: Scene,
    seed: int,
    settings: EvaluationSettings,
    instruction: str | None = None,
    watch: Watcher | None = None,
) -> EpisodeRecord:
    """Play one episode until success or ``max_ticks``; ``watch`` is shown every observation and its result.

    An ``instruction`` is told in place of the condition's.

    Raises:
        SettingError: the condition cannot be had with the scene's task.
    """
    scene.reset(seed)
    runtime.reset()
    with closing(condition_named(settings.condition).begin(scene, seed)) as met:
        play = _Play(runtime, met, seed, settings, instruction or met.instruction, watch)
        if settings.real_time:
            play.in_real_time(settings.real_time)
        else:
            play.waiting()
    return play.record


class _Play:
    """One episode: when the policy looks, when its answer comes, and the command of each tick."""

    def __init__(
        self,
        runtime: Runtime,
        met: Plain,
        seed: int,
        settings: EvaluationSettings,
        instruction: str,
        watch: Watcher | None,
    ) -> None:
        m = settings.runtime.actions_per_inference
        control = replace(settings.control, rate=1.0 / CONTROL_PERIOD, actions_per_inference=m)
        self._runtime, self._met, self._settings, self._watch = runtime, met, settings, watch
        self._commander = Commander(runtime.policy.action, control, SIMULATED_ARM)
        self._coming: _Answer | None = None  # the inference that is under way
        self._left = 0  # actions of the chunk that come after the one at hand
        self.record = EpisodeRecord(met.scene.task.name, instruction, seed, blocks=runtime.description.blocks)

    def waiting(self) -> None:
        """Play with the same delay at every inference, 0: the simulator waits."""
        record, scene = self.record, self._met.scene
        self._commander.latency = self._settings.delay
        late_ticks, late_steps = divmod(round(self._settings.delay / SIMULATION_STEP), STEPS_PER_TICK)
        while record.ticks < self._settings.max_ticks and not scene.success:
            if self._due:
                self._look(record.ticks * CONTROL_PERIOD, late_ticks)
                asked = record.ticks
            if self._coming and record.ticks >= asked + late_ticks:
                self._take(self._coming)
            self._met.advance(late_steps)  # the command before still holds
            self._command()
            self._met.advance(STEPS_PER_TICK - late_steps)
            record.ticks += 1
            self._watch_object(record.ticks * CONTROL_PERIOD)
        self._end(record.ticks * CONTROL_PERIOD)

    def in_real_time(self, time: RealTime) -> None:
        """Play on while the policy computes: images, answers and control ticks come when they come."""
        record, scene, computed_by = self.record, self._met.scene, cost_name(self._runtime)
        tick_phase, comes = phase(record.seed), 0
        lasted: list[float] = []  # s of each inference so far
        for step in itertools.count():
            if record.ticks >= self._settings.max_ticks or scene.success:
                break
            if self._coming and step >= comes:
                self._take(self._coming)
            if step % STEPS_PER_TICK == 0 and self._due:
                now = step * SIMULATION_STEP
                typical = float(np.median(lasted or [0.0]))
                result = self._look(now, actions_begun(typical, tick_phase * SIMULATION_STEP, CONTROL_PERIOD))
                lasted.append(time.seconds(computed_by, result.trace))
                self._commander.latency = max(lasted)
                comes = step + whole_steps(lasted[-1])
            if step % STEPS_PER_TICK == tick_phase:
                self._command()
                record.ticks += 1
            self._met.advance(1)
            self._watch_object((step + 1) * SIMULATION_STEP)
        self._end(step * SIMULATION_STEP)

    @property
    def _due(self) -> bool:
        return self._coming is None and self._commander.due

    def _look(self, now: float, late: int) -> StepResult:
        """Let the policy look and compute; ``late``: actions that are expected to begin before its answer."""
        observation = self._met.observe().with_instruction(self.record.instruction)
        played, gaps = self._commander.take_played()
        first = min(late, self._left)
        result = self._runtime.step(observation, played, self._settings.runtime, gaps, first_index=first)
        self._coming = _Answer(result, self._commander.actions_played, now)
        if self._watch:
            self._watch(observation, result)
        return result

    def _take(self, answer: "_Answer") -> None:
        """Hand the chunk over."""
        number, result = len(self.record.inferences), answer.result
        chunk = result.chunk
        if self._settings.chunk:
            chunk = replace(chunk, actions=chunk.actions[: self._settings.chunk])
        seam = self._commander.offer(chunk, answer.observed_at, number, number)
        self.record.inferences.append(InferenceRecord(answer.asked, result.trace, result.timings, seam=seam))
        self._coming = None

    def _command(self) -> None:
        """Command the arm for a tick."""
        command = self._commander.tick() or self._commander.brake(UNDERRUN)
        if command.reason:
            self.record.stops[command.reason] += 1
        self._left = max(command.chunk_length - command.index - 1, 0)
        _apply(command, self._met)

    def _watch_object(self, now: float) -> None:
        if self._met.scene.object_moved and math.isnan(self.record.object_moved):
            self.record.object_moved = now

    def _end(self, seconds: float) -> None:
        self.record.success = self._met.scene.success
        self.record.seconds = seconds


@dataclass(frozen=True)
class _Answer:
    """An inference from its image until its chunk is handed over."""

    result: StepResult
    observed_at: int  # actions played by then
    asked: float  # s since the episode's begin


def _apply(command: Command, met: Plain) -> None:
    met.hold(command.linear, met.scene.held_opening if command.gripper is None else command.gripper)


def play_episodes(
    settings: EvaluationSettings, jobs: int = 2, runtime: Runtime | None = None
) -> Iterator[EpisodeRecord]:
    """Play every task with every seed and yield the episodes as they end.

    Args:
        settings: what is played, ``checkpoint`` and ``tasks`` included.
        jobs: processes of one thread each, each of which loads the policy; 1: in this one.
        runtime: the policy, where this process has loaded it; of use where it plays itself.
    """
    yield from _in_parts(_play_part, settings, jobs, runtime)


def full_depth_runs(settings: EvaluationSettings, jobs: int = 2) -> tuple[list[FullDepthRun], int]:
    """Play every task with every seed at full depth and keep what was seen and done: ground for calibration.

    Where full depth succeeds at all, runs in which it fails are left out: an arm that stands in a wrong place to the
    last tick gives more inferences than several that do the task, and none that anybody wants repeated.

    Returns:
        The runs to calibrate on, and how many of those that were played failed.

    Raises:
        DataError: a task is held out.
    """
    require_learnable(settings.tasks)
    base = _load(settings, base=True) if jobs == 1 else None
    played = list(_in_parts(_record_part, settings, jobs, base))
    succeeded = [run for run, success in played if success]
    return succeeded or [run for run, _ in played], len(played) - len(succeeded)


def _in_parts(
    play: Callable[..., list[T]], settings: EvaluationSettings, jobs: int, runtime: Runtime | None = None
) -> Iterator[T]:
    numbers = range(settings.first_seed, settings.first_seed + settings.seeds)
    half = max(1, (settings.seeds + 1) // 2)
    parts = [(task, numbers[start : start + half]) for task in settings.tasks for start in range(0, len(numbers), half)]
    if jobs == 1:
        runtime = runtime or _load(settings)
        for task, seeds in parts:
            yield from play(settings, task, list(seeds), runtime)
        return
    with process_pool(jobs) as pool:
        futures = [pool.submit(play, settings, task, list(seeds)) for task, seeds in parts]
        try:
            for future in as_completed(futures):
                yield from future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _load(settings: EvaluationSettings, base: bool = False) -> Runtime:
    """Load what is played; ``base``: at full depth, in which adapters have no part.

    On ONNX Runtime they are loaded all the same: an export is of both.
    """
    if base and settings.engine.runtime == TORCH:
        return Runtime.load_base(Path(settings.checkpoint), settings.device)
    engine, export = settings.engine.runtime, settings.engine.export
    return Runtime.load(settings.checkpoint, settings.adapters, settings.device, engine=engine, export=export)


_kept: dict[tuple[object, ...], Runtime] = {}  # of a process of the pool, which ends with it


def _loaded(settings: EvaluationSettings, base: bool = False) -> Runtime:
    """Load what is played once in a process of the pool."""
    key = (settings.checkpoint, settings.adapters, settings.device, settings.engine, base)
    if key not in _kept:
        _kept[key] = _load(settings, base)
    return _kept[key]


def _play_part(
    settings: EvaluationSettings, task: Task, seeds: Sequence[int], runtime: Runtime | None = None
) -> list[EpisodeRecord]:
    runtime = runtime or _loaded(settings)
    with closing(Scene(task)) as scene:
        return [play_episode(runtime, scene, seed, settings) for seed in seeds]


def _record_part(
    settings: EvaluationSettings, task: Task, seeds: Sequence[int], runtime: Runtime | None = None
) -> list[tuple[FullDepthRun, bool]]:
    runtime = runtime or _loaded(settings, base=True)
    full_depth = replace(settings, runtime=replace(settings.runtime, skipping=SkippingSettings(rule="full")))
    runs = []
    with closing(Scene(task)) as scene:
        for seed in seeds:
            kept: list[tuple[Observation, StepResult]] = []
            record = play_episode(runtime, scene, seed, full_depth, watch=lambda *both, kept=kept: kept.append(both))
            chunks = np.stack([result.chunk.actions for _, result in kept])
            runs.append((FullDepthRun(tuple(observation for observation, _ in kept), chunks), record.success))
    return runs
