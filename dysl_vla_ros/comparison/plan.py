"""What a comparison is: methods, tasks, seeds, settings; in which order its episodes are played.

Every method plays the same scenes. On each scene methods take turns, so that their milliseconds are measured side by
side; who begins changes from scene to scene. Methods of equal depth come in a second stage, when the depth of ``dysl``
is known. Where ``full`` does not take part, the first ticks of each scene are played at full depth as a *clock*, for
the speed-ups alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dysl_vla_ros import __version__
from dysl_vla_ros.comparison.floor_records import RESULT
from dysl_vla_ros.comparison.methods.method import Library, MethodOptions, require_usable
from dysl_vla_ros.comparison.methods.registry import AUTO, method_named, other_checkpoints, read_word
from dysl_vla_ros.engines import ONNX, TORCH
from dysl_vla_ros.engines.onnx.exported import METADATA, folder_of
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.evaluation.closed_loop import EvaluationSettings
from dysl_vla_ros.files import sha256
from dysl_vla_ros.records.machine import machine
from dysl_vla_ros.runtime.folder import CALIBRATION, WEIGHTS
from dysl_vla_ros.settings import AUTOMATIC, actions_judged
from dysl_vla_ros.simulation.tasks import Task, set_of

FORMAT_VERSION = 2
CLOCK = "clock"


class Entry(NamedTuple):
    """One row of the table: a method at m actions an inference on one runtime."""

    method: str
    m: int
    runtime: str = TORCH

    @property
    def label(self) -> str:
        """``dysl``, ``dysl@4`` for m = 4, ``dysl@auto`` where m is automatic, ``dysl:onnx`` on ONNX Runtime."""
        at = "" if self.m == 1 else f"@{AUTO if self.m == AUTOMATIC else self.m}"
        return self._on_runtime(f"{self.method}{at}")

    @property
    def name(self) -> str:
        """The label without m."""
        return self._on_runtime(self.method)

    @property
    def full(self) -> "Entry":
        """Full depth at the same m on the same runtime, that it is compared with; where m is automatic at m = 1, which
        full depth plays.
        """
        return Entry("full", actions_judged(self.m), self.runtime)

    @property
    def on_torch(self) -> "Entry":
        """The same on torch."""
        return self._replace(runtime=TORCH)

    def _on_runtime(self, text: str) -> str:
        return text if self.runtime == TORCH else f"{text}:{self.runtime}"


class Job(NamedTuple):
    """One episode to play."""

    entry: Entry
    task: Task
    seed: int
    clock: str = ""  # the name that it is kept under, where it is no episode of a method but a clock

    @property
    def label(self) -> str:
        """What it is kept under."""
        return self.clock or self.entry.label


@dataclass(frozen=True)
class Comparison:
    """Everything that decides what is played."""

    entries: tuple[Entry, ...]
    options: MethodOptions
    evaluation: EvaluationSettings  # tasks, seeds, ticks, control, delay, condition
    depth: float | None = None  # of the methods of equal depth; None: that of ``dysl`` in this run
    calibration_seeds: int = 2  # full-depth runs a task, on seeds of their own; 0: none are played
    oracle_threshold: float | None = None  # None: such that it comes to the depth on the calibration runs

    @property
    def tasks(self) -> dict[str, list[Task]]:
        """The tasks by their set."""
        found: dict[str, list[Task]] = {}
        for task in self.evaluation.tasks:
            found.setdefault(set_of(task), []).append(task)
        return found

    @property
    def runtime(self) -> str:
        """What methods are set up on: one runtime for all entries, so that the same method is played on each."""
        return TORCH if any(entry.runtime == TORCH for entry in self.entries) else ONNX

    def waits_for_depth(self, entry: Entry) -> bool:
        """Tell whether an entry can be set up only when the depth of ``dysl`` is known."""
        method = method_named(entry.method)
        return method.depth and self.depth is None and not method.without_depth(self)

    @property
    def stages(self) -> list[tuple[Entry, ...]]:
        """The entries in the order of their stages; the second may be empty."""
        waiting = tuple(entry for entry in self.entries if self.waits_for_depth(entry))
        return [tuple(entry for entry in self.entries if entry not in waiting), waiting]

    def check(self, library: Library) -> None:
        """Find out what cannot be played before anything is.

        Raises:
            DataError: what is wrong, and the mend.
            CheckpointError: a folder cannot be loaded.
        """
        for entry in self.entries:
            require_usable(entry.method, library, self.options, entry.runtime)
        lacking = [e.label for e in self.stages[1] if Entry("dysl", e.m, self.runtime) not in self.entries]
        if lacking:
            raise DataError(
                f"{', '.join(lacking)} must know the depth to come to: name dysl with the same number of actions an "
                f"inference on {self.runtime} too, or a depth by --depth"
            )

    def identity(self) -> dict[str, Any]:
        """Return all that must be the same for a run to be gone on with, as plain values.

        The number of seeds is not part of it: a run grows, scene by scene, each with all its methods in turns.
        """
        evaluation, options = self.evaluation, self.options
        folders = {
            "adapters": Path(options.adapters) if options.adapters else Path(options.checkpoint) / "dysl",
            "paper_adapters": Path(options.paper_adapters) if options.paper_adapters else None,
        }
        others = {name: options.checkpoints.get(name, "") for name in other_checkpoints()}
        checkpoints = {"checkpoint": options.checkpoint} | others
        return {
            "format_version": FORMAT_VERSION,
            "package_version": __version__,
            "machine": machine(),
            "methods": [entry.label for entry in self.entries],
            "tasks": [task.name for task in evaluation.tasks],
            "first_seed": evaluation.first_seed,
            "max_ticks": evaluation.max_ticks,
            "delay": evaluation.delay,
            "condition": evaluation.condition,
            "control": {"max_linear_seam": evaluation.control.max_linear_seam},
            "settings": asdict(options.settings),
            "depth": self.depth,
            "calibration_seeds": self.calibration_seeds,
            "oracle_threshold": self.oracle_threshold,
            "files": {
                name: _hash(Path(folder) / "config.json") for name, folder in checkpoints.items() if folder
            } | {
                f"{name}/{file}": _hash(folder / file)
                for name, folder in folders.items() if folder
                for file in (WEIGHTS, CALIBRATION)
            },
            **({"floors": _hash(Path(options.floors) / RESULT)} if options.floors else {}),
            **self._exports(),
            **({"real_time": evaluation.real_time.to_json()} if evaluation.real_time else {}),
            **({"chunk": evaluation.chunk} if evaluation.chunk else {}),
            **({} if evaluation.device == "cpu" else {"device": evaluation.device}),  # runs before there was one go on
        }  # fmt: skip

    def _exports(self) -> dict[str, Any]:
        """Return the hash of what says all of the export, where it is played; a run on torch alone knows of none."""
        if all(entry.runtime == TORCH for entry in self.entries):
            return {}
        options = self.options
        return {"export": _hash(folder_of(Path(options.checkpoint), options.adapters, options.export) / METADATA)}

    def jobs(self, stage: int) -> Iterator[Job]:
        """Yield the episodes of a stage (0 or 1), in order."""
        entries = self.stages[stage]
        if not entries:
            return
        for task in self.evaluation.tasks:
            for number in range(self.evaluation.seeds):
                seed, first = self.evaluation.first_seed + number, number % len(entries)
                for full in dict.fromkeys(entry.full for entry in entries):
                    if full not in entries:
                        yield Job(full, task, seed, clock_label(stage, full))
                for entry in (*entries[first:], *entries[:first]):
                    yield Job(entry, task, seed)


def clock_label(stage: int, full: Entry) -> str:
    """Return what a stage's clock is kept under; ``full``: full depth, as it plays it."""
    return full._replace(method=f"{CLOCK}{stage + 1}").label


def entries_named(words: Sequence[str], m: int = 1, runtime: str = TORCH) -> tuple[Entry, ...]:
    """Read methods as they are written on a command line: ``dysl`` at ``m`` on ``runtime``, ``dysl@4`` at four actions
    an inference, ``dysl@auto`` at as many as each inference says, ``dysl:onnx`` on ONNX Runtime.

    Raises:
        DataError: an unknown method or runtime, or no such number of actions.
    """
    found: dict[Entry, None] = {}
    for word in words:
        name, number, on = read_word(word)
        found[Entry(name, m if number is None else number, on or runtime)] = None
    return tuple(found)


def _hash(path: Path) -> str | None:
    return sha256(path) if path.is_file() else None
