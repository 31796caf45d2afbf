"""What is learned from: the experts' own episodes, or those in which a policy takes turns with them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dysl_vla_ros.simulation.demonstrations import record_all, record_task
from dysl_vla_ros.simulation.tasks import Task


@dataclass(frozen=True)
class DemonstrationSettings:
    """What is recorded."""

    tasks: tuple[Task, ...]
    episodes: int = 68  # successful ones of each task that lie in the folder at the end
    first_scene: int | None = None  # the experts go up from it (None: the first), a policy and the expert down
    policy: Path | None = None  # checkpoint of a policy that takes turns with the expert, which labels all
    adapters: Path | None = None  # DySL folder at whose floor it acts; None: at full depth


def record_demonstrations(folder: Path, settings: DemonstrationSettings, *, jobs: int = 1) -> Iterator[str]:
    """Record until every task has its episodes; yield a line as each task is complete.

    What lies in ``folder`` already is kept and counted, so that an interrupted recording goes on where it stopped.

    Args:
        folder: of all tasks; ``simulation/demonstrations.py`` says how it is laid out.
        settings: what is recorded.
        jobs: processes.

    Raises:
        CheckpointError: the policy or its DySL folder is missing or damaged, or they do not belong together.
        DataError: the folder cannot be written to, or the scenes for demonstrations have run out.
    """
    into: dict[str, Any] = {"folder": folder, "episodes": settings.episodes, "first": settings.first_scene}
    work: Callable[[str], str] = partial(record_task, **into)
    if settings.policy:
        from dysl_vla_ros.training import corrections  # with torch, which the experts do without

        corrections.Actor(settings.policy, settings.adapters)  # a damaged one is found here, not in every process
        work = partial(corrections.record_task, **into, checkpoint=settings.policy, adapters=settings.adapters)
    yield from record_all(list(settings.tasks), folder, jobs, work)
