"""Closed-loop success of one method, from a checkpoint to its figures: what ``dysl_vla evaluate`` does."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from dysl_vla_ros.control.chunk_time import require_actions, require_playable
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.evaluation.closed_loop import EvaluationSettings, play_episodes
from dysl_vla_ros.evaluation.conditions import Condition, condition_named
from dysl_vla_ros.evaluation.costs import full_depth_ms, measure_costs
from dysl_vla_ros.evaluation.real_time import cost_name
from dysl_vla_ros.records.summary import summarise
from dysl_vla_ros.records.trace import EpisodeRecord
from dysl_vla_ros.runtime.loading import require_device
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.simulation.tasks import TASKS, Task, names_of

if TYPE_CHECKING:
    from dysl_vla_ros.policies.interface import VlaPolicy

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """What a policy did in closed loop."""

    settings: EvaluationSettings  # as it was played: checkpoint and tasks are filled in
    episodes: tuple[EpisodeRecord, ...]  # by task, then by seed
    summary: dict[str, Any]  # plain values, as `--json` writes them: per task and instruction, and over all


def evaluate(checkpoint: str | Path, settings: EvaluationSettings | None = None, *, jobs: int = 1) -> Evaluation:
    """Play a policy in the simulator and return success, depth and milliseconds.

    The simulator waits for the policy, so that the same settings give the same episodes, bit for bit on one machine,
    whatever ``jobs`` is. Milliseconds are this machine's. A bar shows how far it is, the log
    which tasks are left out.

    Args:
        checkpoint: folder of the base checkpoint.
        settings: how episodes are played (None: the defaults): ``tasks`` (none: all that the policy was trained on),
            ``seeds`` scenes a task, what of the layers is skipped (``runtime``), what computes (``engine``), at most
            ``max_ticks`` of 50 ms an episode, ``delay`` in s or ``real_time`` (costs are measured first where it has
            none), the ``device`` that the policy computes on, in every process.
        jobs: processes of one thread each, which import the calling program again (it must stand under ``if __name__ ==
            "__main__"``) and load the policy each; 1: in this one.

    Raises:
        CheckpointError: the checkpoint, the DySL folder or their export is missing, damaged, or they do not belong
            together.
        DataError: no task is named, and the policy was trained on none.
        SettingError: the device is not there, the condition cannot be had with a task, or settings contradict what the
            policy gives.
        ObservationError: the policy knows no word of a task's instruction.
    """
    settings = settings or EvaluationSettings()
    engine = settings.engine
    require_device(settings.device, engine.runtime)
    runtime = Runtime.load(
        str(checkpoint), settings.adapters, settings.device, engine=engine.runtime, export=engine.export
    )
    settings = fitted(replace(settings, checkpoint=str(checkpoint)), runtime.policy)
    if (time := settings.real_time) and not time.costs:
        costs = measure_costs([runtime], settings)
        full_ms = full_depth_ms(runtime, costs[cost_name(runtime)])
        settings = replace(settings, real_time=replace(time, full_ms=full_ms, costs=costs))
    episodes: list[EpisodeRecord] = []
    with tqdm(total=len(settings.tasks) * settings.seeds, unit="episode") as bar:
        for record in play_episodes(settings, jobs, runtime):
            episodes.append(record)
            bar.update()
            bar.set_postfix(success=f"{sum(bool(own.success) for own in episodes) / len(episodes):.0%}")
    episodes.sort(key=lambda record: (list(TASKS).index(record.task), record.seed))
    about: dict[str, Any] = {"runtime": engine.runtime, "delay": settings.delay, "condition": settings.condition}
    about |= {"real_time": settings.real_time.to_json()} if settings.real_time else {}
    about |= {"chunk": settings.chunk} if settings.chunk else {}
    summary = summarise(episodes, checkpoint=Path(checkpoint).name, **about)
    return Evaluation(settings, tuple(episodes), summary)


def fitted(settings: EvaluationSettings, policy: "VlaPolicy") -> EvaluationSettings:
    """Fill in the tasks where none are named, and refuse what a node with this policy would refuse.

    Raises:
        DataError: no task is named, and the policy was trained on none.
        SettingError: the condition cannot be had with the tasks, or settings contradict what the policy gives.
    """
    if not settings.tasks:
        trained = trained_tasks(policy, settings.checkpoint)
        settings = replace(settings, tasks=tuple(tasks_under(condition_named(settings.condition), trained)))
    m = settings.runtime.actions_per_inference
    if settings.deployed:
        require_playable(replace(settings.deployed, actions_per_inference=m), policy.action)
    require_actions(m, policy.action.horizon)
    return settings


def trained_tasks(policy: "VlaPolicy", checkpoint: str) -> list[Task]:
    """Return the tasks that a policy was trained on, and log which are left out.

    Raises:
        DataError: it was trained on none of them.
    """
    chosen = [task for task in TASKS.values() if task.instruction in policy.instructions]
    if not chosen:
        raise DataError(f"{checkpoint} was trained on no task of the simulator; name some by --tasks")
    left_out = [task for task in TASKS.values() if task not in chosen]
    if left_out:
        LOG.info("the policy was not trained on %s: left out (--tasks names tasks)", names_of(left_out))
    return chosen


def tasks_under(condition: Condition, tasks: list[Task]) -> list[Task]:
    """Return the tasks that a condition can be had with, and log which are left out.

    Raises:
        SettingError: there are none.
    """
    chosen = [task for task in tasks if condition.fits(task)]
    if not chosen:
        condition.require(*tasks)
    left_out = [task.name for task in tasks if task not in chosen]
    if left_out:
        LOG.info("%s of %s: left out under the condition %s", condition.unfit, ", ".join(left_out), condition.name)
    return chosen
