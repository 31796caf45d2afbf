"""Closed-loop success: episodes in the simulator through the same runtime and commander that drive a robot.

The simulator waits for the policy, so that a table says what the policy does and not how fast this machine is. A real
robot does not wait: ``delay`` keeps each new command back for a part of the control period.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from typing import TypeVar

import numpy as np

from dysl_vla_ros.control.commander import Command, Commander
from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.evaluation.trace import EpisodeRecord, InferenceRecord
from dysl_vla_ros.interfaces import Observation, StepResult
from dysl_vla_ros.runtime.recording import FullDepthRun
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import ControlSettings, RuntimeSettings, SafetySettings, SkippingSettings
from dysl_vla_ros.simulation.scene import STEPS_PER_TICK, Scene
from dysl_vla_ros.simulation.tasks import CONTROL_PERIOD, EVALUATION_SEED, SIMULATION_STEP, Task

# The simulated arm's limits, as config/simulated_arm.yaml has them for the node.
SIMULATED_ARM = SafetySettings(max_linear_speed=1.5, max_linear_acceleration=100.0, max_gripper_speed=40.0)

T = TypeVar("T")
Watcher = Callable[[Observation, StepResult], None]


@dataclass(frozen=True)
class EvaluationSettings:
    """How episodes are played."""

    runtime: RuntimeSettings = RuntimeSettings()
    max_ticks: int = 200  # 10 s
    delay: float = 0.0  # s from the picture to the command, below one control period
    first_seed: int = EVALUATION_SEED
    seeds: int = 20
    checkpoint: str = ""
    adapters: str = ""
    tasks: tuple[Task, ...] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        """Refuse a delay that this simulation cannot show."""
        if not 0.0 <= self.delay < CONTROL_PERIOD:
            raise SettingError(f"the delay must be from 0 to below {CONTROL_PERIOD} s, not {self.delay}")


def play_episode(
    runtime: Runtime,
    scene: Scene,
    seed: int,
    settings: EvaluationSettings,
    instruction: str | None = None,
    watch: Watcher | None = None,
) -> EpisodeRecord:
    """Play one episode until success or ``max_ticks``; ``watch`` is shown every observation and its result."""
    scene.reset(seed)
    runtime.reset()
    instruction = instruction or scene.task.instruction
    period = settings.runtime.actions_per_inference
    commander = Commander(
        runtime.policy.action, ControlSettings(rate=1.0 / CONTROL_PERIOD, actions_per_inference=period), SIMULATED_ARM
    )
    record = EpisodeRecord(scene.task.name, instruction, seed, blocks=runtime.description.blocks)
    late = round(settings.delay / SIMULATION_STEP)
    while record.ticks < settings.max_ticks and not scene.success:
        if commander.due:
            observation = scene.observe().with_instruction(instruction)
            played, gaps = commander.take_played()
            result = runtime.step(observation, played, settings.runtime, gaps)
            number = len(record.inferences)
            seam = commander.offer(result.chunk, commander.actions_played, number, number)
            record.inferences.append(
                InferenceRecord(record.ticks * CONTROL_PERIOD, result.trace, result.timings, seam=seam)
            )
            if watch:
                watch(observation, result)
        scene.advance(late)  # the command before still holds
        _apply(commander.tick() or commander.hold("underrun"), scene)
        scene.advance(STEPS_PER_TICK - late)
        record.ticks += 1
    record.success = scene.success
    record.seconds = record.ticks * CONTROL_PERIOD
    return record


def _apply(command: Command, scene: Scene) -> None:
    if command.gripper is not None:
        scene.hold(command.linear, command.gripper)
    else:
        scene.hold(command.linear, scene.held_opening)


def evaluate(settings: EvaluationSettings, jobs: int = 2) -> Iterator[EpisodeRecord]:
    """Play every task with every seed, in ``jobs`` processes of one thread each; yield records as they come."""
    yield from _in_parts(_play_part, settings, jobs)


def full_depth_runs(settings: EvaluationSettings, jobs: int = 2) -> list[FullDepthRun]:
    """Play every task with every seed at full depth and keep what was seen and done: ground for calibration."""
    return list(_in_parts(_record_part, settings, jobs))


def _in_parts(play: Callable[..., list[T]], settings: EvaluationSettings, jobs: int) -> Iterator[T]:
    numbers = range(settings.first_seed, settings.first_seed + settings.seeds)
    half = max(1, (settings.seeds + 1) // 2)
    parts = [(task, numbers[start : start + half]) for task in settings.tasks for start in range(0, len(numbers), half)]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(play, settings, task, list(seeds)) for task, seeds in parts]
        try:
            for future in as_completed(futures):
                yield from future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _play_part(settings: EvaluationSettings, task: Task, seeds: Sequence[int]) -> list[EpisodeRecord]:
    runtime = Runtime.load(settings.checkpoint, settings.adapters)
    scene = Scene(task)
    return [play_episode(runtime, scene, seed, settings) for seed in seeds]


def _record_part(settings: EvaluationSettings, task: Task, seeds: Sequence[int]) -> list[FullDepthRun]:
    runtime = Runtime.load(settings.checkpoint, settings.adapters)
    full_depth = replace(settings, runtime=replace(settings.runtime, skipping=SkippingSettings(enabled=False)))
    scene, runs = Scene(task), []
    for seed in seeds:
        kept: list[tuple[Observation, StepResult]] = []
        play_episode(runtime, scene, seed, full_depth, watch=lambda *both, kept=kept: kept.append(both))
        chunks = np.stack([result.chunk.actions for _, result in kept])
        runs.append(FullDepthRun(tuple(observation for observation, _ in kept), chunks))
    return runs
