"""What ``calibrate`` and ``distill`` learn from: demonstrations of the simulator, or bags of any robot.

Told apart by what is there. Bags need nothing of the simulator.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dysl_vla_ros.commands.recording_options import add_recording_arguments, recording_choice, recording_words
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.simulation.seeds import calibration_seeds
from dysl_vla_ros.simulation.tasks import TASK_CHOICES, tasks_named

if TYPE_CHECKING:
    from dysl_vla_ros.distillation.activations import Activations
    from dysl_vla_ros.interfaces import Observation
    from dysl_vla_ros.policies.interface import VlaPolicy
    from dysl_vla_ros.runs.full_depth import FullDepthRun
    from dysl_vla_ros.runtime.step import Runtime
    from dysl_vla_ros.training.dataset import Episodes

WHAT = "folder that `dysl_vla demonstrations` wrote, or one or more bags"
BAGS, DEMONSTRATIONS = "bags", "demonstrations"
SIMULATED_RUNS = ("seeds", "jobs")  # options of the full-depth runs that are played for the thresholds


class TrainingData(Protocol):
    """Observations to learn from, and full-depth runs kept apart from them."""

    def count(self, wanted: int) -> int:
        """Return how many observations :meth:`observations` yields of ``wanted``."""
        ...

    def observations(self, count: int) -> "Iterator[Observation]":
        """Yield ``count`` observations to learn from, all if there are fewer."""
        ...

    def held_out(self, count: int) -> "Iterator[Observation]":
        """Yield up to ``count`` observations of episodes that nothing is learned from."""
        ...

    def in_order(self, count: int, *, held_out: bool = False) -> "tuple[Iterator[Observation], tuple[bool, ...]]":
        """Return about ``count`` observations of whole episodes, and whether each is the first of its episode."""
        ...

    def full_depth_runs(self, runtime: "Runtime", m: int) -> "list[FullDepthRun]":
        """Return full-depth runs that no observation to learn from comes from."""
        ...

    def told(self) -> dict[str, Any]:
        """Return where the data comes from and what the user said of it, as plain values for result files."""
        ...


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what says where the data is and how it is read."""
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help=f"simulator: of {TASK_CHOICES} (default: all)")
    parser.add_argument("--seeds", type=int, default=2, help="simulator: full-depth runs a task for the thresholds")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="simulator: processes that play the runs")
    add_recording_arguments(parser)


def open_data(paths: Sequence[Path], arguments: argparse.Namespace, runtime: "Runtime") -> TrainingData:
    """Open demonstrations or bags for the policy of ``runtime``, and say how much there is.

    Raises:
        DataError: neither, a mixture, or too little; or options that say how bags are read, and no bag.
        BagError: a bag cannot serve the policy.
    """
    if kind_of(paths, arguments) == BAGS:
        return _Bags(paths, arguments, runtime)
    return _Demonstrations(paths[0], arguments)


def kind_of(paths: Sequence[Path], arguments: argparse.Namespace) -> str:
    """Return :data:`BAGS` or :data:`DEMONSTRATIONS`.

    Raises:
        DataError: neither, a mixture, or options that do not go with it.
    """
    bags = [path for path in paths if is_bag(path)]
    if len(bags) == len(paths):
        if arguments.tasks:
            raise DataError("--tasks names simulated tasks and does nothing for bags; leave it out")
        return BAGS
    refuse_recording_options(arguments)
    others = [path for path in paths if path not in bags]
    if bags:
        raise DataError(f"{bags[0]} is a bag, {others[0]} is none; give bags alone, or one folder of demonstrations")
    if len(paths) > 1:
        raise DataError(f"{len(paths)} folders, none of them a bag; give one folder of demonstrations, or bags")
    _require_demonstrations(paths[0])
    return DEMONSTRATIONS


def refuse_recording_options(arguments: argparse.Namespace) -> None:
    """Refuse options that would do nothing without a bag.

    Raises:
        DataError: names them.
    """
    if words := recording_words(arguments):
        raise DataError(f"{words.strip()} says how bags are read, and there is no bag; leave it out")


def is_bag(path: Path) -> bool:
    """Tell whether something is a bag, by its content: a storage file, or a folder with one or with metadata."""
    from dysl_vla_ros.bags.folder import PACKED, STORED

    if path.is_dir():
        return any(own.name == "metadata.yaml" or own.name.endswith(STORED + PACKED) for own in path.iterdir())
    return path.is_file() and path.name.endswith(STORED + PACKED)


def _require_demonstrations(folder: Path) -> None:
    if not folder.is_dir():
        raise DataError(f"{folder} is not there; name a {WHAT}")
    if not any(own.is_dir() and any(own.glob("[0-9]*.npz")) for own in folder.iterdir()):
        there = ", ".join(sorted(own.name for own in folder.iterdir())[:5]) or "nothing"
        raise DataError(
            f"{folder} is neither a folder of demonstrations (TASK/*.npz) nor a bag (metadata.yaml, .mcap, .db3): it "
            f"holds {there}; name a {WHAT}"
        )


class _Bags:
    def __init__(self, paths: Sequence[Path], arguments: argparse.Namespace, runtime: "Runtime") -> None:
        from dysl_vla_ros.recordings.learning_data import RecordedData

        self._paths, self._choice = paths, recording_choice(arguments, runtime.policy)
        self._data = RecordedData(paths, runtime.description, self._choice)
        print(self._data.summary())
        for warning in self._data.warnings():
            print(f"warning: {warning}", file=sys.stderr)

    def count(self, wanted: int) -> int:
        return self._data.learned_count(wanted)

    def observations(self, count: int) -> "Iterator[Observation]":
        return self._data.observations(count)

    def held_out(self, count: int) -> "Iterator[Observation]":
        return self._data.held_out_observations(count)

    def in_order(self, count: int, *, held_out: bool = False) -> "tuple[Iterator[Observation], tuple[bool, ...]]":
        return self._data.in_order(count, held_out=held_out)

    def full_depth_runs(self, runtime: "Runtime", m: int) -> "list[FullDepthRun]":
        return self._data.held_out_runs(runtime, m)

    def told(self) -> dict[str, Any]:
        return {"bags": [str(path) for path in self._paths], **self._choice.told()}


class _Demonstrations:
    """Recorded experts; full-depth runs are played in the simulator, in scenes that were not recorded."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self._folder, self._arguments, self._tasks = folder, arguments, tasks_named(arguments.tasks)

    @cached_property
    def _episodes(self) -> "Episodes":
        from dysl_vla_ros.training.dataset import load_episodes

        return load_episodes(self._folder, self._tasks)

    def count(self, wanted: int) -> int:
        return min(wanted, len(self._episodes))

    def observations(self, count: int) -> "Iterator[Observation]":
        from dysl_vla_ros.training.dataset import observations

        return observations(self._episodes, count)

    def held_out(self, count: int) -> "Iterator[Observation]":
        from dysl_vla_ros.training.dataset import load_episodes, observations

        return observations(load_episodes(self._folder, self._tasks, validation=True), count)

    def in_order(self, count: int, *, held_out: bool = False) -> "tuple[Iterator[Observation], tuple[bool, ...]]":
        from dysl_vla_ros.training.dataset import load_episodes, observations_in_order

        episodes = load_episodes(self._folder, self._tasks, validation=True) if held_out else self._episodes
        return observations_in_order(episodes, count)

    def full_depth_runs(self, runtime: "Runtime", m: int) -> "list[FullDepthRun]":
        return simulated_runs(self._arguments, m)

    def told(self) -> dict[str, Any]:
        return {}


def simulated_runs(arguments: argparse.Namespace, m: int) -> "list[FullDepthRun]":
    """Play full-depth runs in the simulator, in scenes that neither demonstrations nor tables use."""
    from dysl_vla_ros.evaluation.closed_loop import EvaluationSettings, full_depth_runs
    from dysl_vla_ros.settings import RuntimeSettings

    seeds = calibration_seeds(arguments.seeds)
    settings = EvaluationSettings(
        runtime=RuntimeSettings(actions_per_inference=m),
        first_seed=seeds.start,
        seeds=len(seeds),
        checkpoint=str(arguments.checkpoint),
        adapters=str(arguments.adapters or arguments.checkpoint / "dysl"),
        tasks=tuple(tasks_named(arguments.tasks)),
    )
    print(f"playing {arguments.seeds} full-depth runs of {len(settings.tasks)} tasks ...", flush=True)
    runs, failed = full_depth_runs(settings, arguments.jobs)
    if failed == len(settings.tasks) * len(seeds):
        print(
            "warning: full depth failed in all of them, which says little of a good motion; see that the checkpoint "
            "knows these tasks (--tasks), or raise --seeds",
            file=sys.stderr,
            flush=True,
        )
    elif failed:
        print(f"full depth failed in {failed} of them: left out", flush=True)
    return runs


def record_teacher(
    policy: "VlaPolicy",
    data: TrainingData,
    count: int,
    layers: "Sequence[int] | None" = None,
    *,
    held_out: bool = False,
    variants: int = 0,
    seed: int = 0,
    folder: Path | None = None,
    label: str = "teacher at full depth",
) -> "Activations":
    """Run the teacher over data: frames from everywhere, or whole episodes where its decoding has a memory.

    Args:
        policy: the teacher.
        data: what it sees.
        count: frames that are wanted.
        layers: see ``record_activations``.
        held_out: of the frames that nothing is learned from.
        variants: of each frame, beside it.
        seed: of the variants.
        folder: see ``record_activations``.
        label: of the progress bar.

    Raises:
        DataError: too few frames; variants, which would break the order of an episode, for a policy with a memory.
    """
    from dysl_vla_ros.distillation.activations import record_activations
    from dysl_vla_ros.training.augmentation import with_variants

    if policy.initial_state() is None:
        seen = data.held_out(count) if held_out else data.observations(count)
        whole = count * (1 + variants)
        return record_activations(
            policy, with_variants(seen, variants, seed), whole, layers, folder=folder, label=label
        )
    if variants:
        raise DataError(
            f"--variants {variants}: the {policy.family} policy decodes with a memory and learns from whole episodes, "
            "whose order variants would break; give --variants 0"
        )
    seen, begins = data.in_order(count, held_out=held_out)
    return record_activations(policy, seen, len(begins), layers, begins=begins, folder=folder, label=label)
