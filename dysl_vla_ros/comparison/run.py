"""Plays a comparison in processes of one thread, or what is left of it, and reads back what was played."""

import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from dysl_vla_ros.comparison.episode_figures import EpisodeFigures, figures_of
from dysl_vla_ros.comparison.matching import Matching, group_name
from dysl_vla_ros.comparison.methods.method import Library, Matched, Prepared, Trained, prepare
from dysl_vla_ros.comparison.methods.registry import method_named
from dysl_vla_ros.comparison.plan import Comparison, Entry, Job, clock_label
from dysl_vla_ros.comparison.run_folder import RunFolder
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.evaluation.closed_loop import play_episode
from dysl_vla_ros.interfaces import FloatArray
from dysl_vla_ros.parent_process import process_pool
from dysl_vla_ros.simulation.scene import Scene
from dysl_vla_ros.simulation.tasks import set_of

CLOCK_TICKS = 20  # of a scene that a clock plays

Groups = Mapping[str, Matched]


@dataclass(frozen=True)
class Played:
    """A comparison that was played to its end."""

    comparison: Comparison
    episodes: Mapping[Entry, Sequence[EpisodeFigures]]  # of all tasks
    clocks: Mapping[Entry, Sequence[EpisodeFigures]]  # full depth, measured beside the entry's episodes
    trained: Mapping[tuple[Entry, str], Trained]  # by set of tasks
    groups: Groups


def play(comparison: Comparison, out: Path, jobs: int, library: Library | None = None) -> Played:
    """Play what is not yet in the folder ``out``, in ``jobs`` processes (1: in this one); show a bar.

    What ``library`` has loaded is not loaded again.

    Raises:
        DataError: the comparison cannot be played, or the folder holds one with other settings.
        CheckpointError: a folder cannot be loaded.
        ObservationError: the policy knows no word of a task's instruction.
    """
    library = library or library_of(comparison)
    comparison.check(library)
    folder = RunFolder(out)
    folder.claim(comparison.identity())
    matched = Matching(comparison, library, folder, jobs)
    for stage, entries in enumerate(comparison.stages):
        if not entries:
            continue
        matched.set_up(entries)
        planned = list(comparison.jobs(stage))
        left = [job for job in planned if folder.read(job.label, job.task.name, job.seed) is None]
        name = "methods" if stage == 0 else "methods of equal depth"
        bar = tqdm(desc=name, total=len(planned), initial=len(planned) - len(left), unit="episode")
        for done in _play_left(comparison, out, library, left, matched.groups, jobs):
            bar.update()
            bar.set_postfix_str(f"{done.label} {done.task.name}")
        bar.close()
    return _read(comparison, folder, library, matched.groups)


def library_of(comparison: Comparison) -> Library:
    """Return what loads a comparison's folders."""
    return Library(comparison.evaluation.device, comparison.options.exports)


class _Player:
    """Plays episodes in one process: methods stay loaded, and the scene of the task at hand."""

    def __init__(self, comparison: Comparison, out: Path, library: Library) -> None:
        self._comparison, self._folder, self._library = comparison, RunFolder(out), library
        self._prepared: dict[tuple[Entry, str, str], Prepared] = {}
        self._scene: Scene | None = None

    def play(self, job: Job, groups: Groups) -> None:
        """Play one episode and keep it."""
        method, scene, seen = self._method(job, groups), self._scene_of(job), list[FloatArray]()
        settings = replace(self._comparison.evaluation, runtime=method.settings)
        if job.clock:
            settings = replace(settings, max_ticks=min(CLOCK_TICKS, settings.max_ticks))
        method.begin(job.seed)
        record = play_episode(
            method.runtime, scene, job.seed, settings, watch=lambda _, result: seen.append(result.chunk.actions[0])
        )
        self._folder.write(figures_of(job.label, record, seen))

    def close(self) -> None:
        """Give the scene's memory back."""
        if self._scene is not None:
            self._scene.close()
            self._scene = None

    def _method(self, job: Job, groups: Groups) -> Prepared:
        tasks, task = set_of(job.task), job.task.name if method_named(job.entry.method).by_task else ""
        key = (job.entry, tasks, task)
        if key not in self._prepared:
            matched = groups.get(group_name(tasks, job.entry.m), Matched())
            options, (name, m, runtime) = self._comparison.options, job.entry
            self._prepared[key] = prepare(name, m, self._library, options, matched, task, runtime)
        return self._prepared[key]

    def _scene_of(self, job: Job) -> Scene:
        if self._scene is None or self._scene.task != job.task:
            self.close()
            self._scene = Scene(job.task)
        return self._scene


def _play_left(
    comparison: Comparison, out: Path, library: Library, left: Sequence[Job], groups: Groups, jobs: int
) -> Iterator[Job]:
    """Play episodes and yield each when it is on the disk."""
    if jobs == 1 or len(left) < 2:
        player = _Player(comparison, out, library)
        try:
            for job in left:
                player.play(job, groups)
                yield job
        finally:
            player.close()
        return
    with process_pool(jobs, _begin, comparison, out) as pool:
        futures = {pool.submit(_play_there, job, groups): job for job in left}
        try:
            for future in as_completed(futures):
                future.result()
                yield futures[future]
        except BrokenProcessPool as error:
            raise DataError(
                "a process that played was ended from outside, for want of memory as a rule; start the command again "
                "to go on, with fewer --jobs"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_player: _Player | None = None  # of a process of the pool


def _begin(comparison: Comparison, out: Path) -> None:
    """Make this process's player; the process leaves Ctrl-C to its parent."""
    global _player
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _player = _Player(comparison, out, library_of(comparison))


def _play_there(job: Job, groups: Groups) -> None:
    assert _player is not None
    _player.play(job, groups)


def _read(comparison: Comparison, folder: RunFolder, library: Library, groups: Groups) -> Played:
    episodes: dict[Entry, list[EpisodeFigures]] = {}
    clocks: dict[Entry, list[EpisodeFigures]] = {}
    trained: dict[tuple[Entry, str], Trained] = {}
    kept: dict[str, list[EpisodeFigures]] = {}
    for stage, entries in enumerate(comparison.stages):
        for job in comparison.jobs(stage):
            figures = folder.read(job.label, job.task.name, job.seed)
            assert figures is not None, f"{job.label} of {job.task.name}, seed {job.seed} was not played"
            kept.setdefault(job.label, []).append(figures)
        for entry in entries:
            full = entry.full
            episodes[entry] = kept[entry.label]
            clocks[entry] = kept[full.label if full in entries else clock_label(stage, full)]
            for tasks in comparison.tasks:
                matched = groups.get(group_name(tasks, entry.m), Matched())
                made = prepare(entry.method, entry.m, library, comparison.options, matched, runtime=entry.runtime)
                trained[entry, tasks] = made.trained
    return Played(comparison, {entry: episodes[entry] for entry in comparison.entries}, clocks, trained, groups)
