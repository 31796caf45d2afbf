"""What the jobs may be told, one dataclass each. Imports no torch. Defaults are those of the command line."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from dysl_vla_ros.distillation.settings import DistillationSettings, ModuleSettings
from dysl_vla_ros.engines.choice import EngineChoice
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.job_worker.apart import Apart
from dysl_vla_ros.recordings.source import Choice

AnyPath: TypeAlias = str | os.PathLike[str]
Data: TypeAlias = AnyPath | Sequence[AnyPath]
"""One path or several: a folder of demonstrations, or bags."""


@dataclass(frozen=True)
class DataSettings:
    """How data is read."""

    tasks: tuple[str, ...] = ()  # simulator: of demonstrations and of runs that are played; (): all
    recordings: Choice = field(default_factory=Choice)  # bags: topics, instruction, stamps, frames


@dataclass(frozen=True)
class CalibrateSettings:
    """What ``calibrate`` may be told; static layers first, thresholds behind ``actions_per_inference``."""

    static_ratio: float = 0.2  # share of the layers that always run
    static_layers: int | None = None  # their number instead, first and last among them
    static: str = "auto"  # how they are chosen: "spread", "informative", or by a short training of both
    observations: int = 2000  # frames that the choice is made on
    actions_per_inference: int = 1  # actions played of each chunk (m); 0, automatic, counts as 1
    target_layers: float = 0.33  # largest mean share of layer calls
    seeds: int = 2  # simulator: full-depth runs a task
    jobs: int = os.cpu_count() or 1  # simulator: processes that play them
    device: str = "cpu"  # "cuda", "cuda:N"
    data: DataSettings = field(default_factory=DataSettings)
    apart: Apart = field(default_factory=Apart)  # of another project's checkpoint


@dataclass(frozen=True)
class DistillSettings:
    """What ``distill`` may be told."""

    observations: int = 10_000  # frames to learn from
    variants: int = 0  # times that each is learned from once more, its pictures varied
    stages: DistillationSettings = field(default_factory=DistillationSettings)
    modules: ModuleSettings = field(default_factory=ModuleSettings)
    controller_tasks: tuple[str, ...] = ()  # simulator: controllers learn from these as well, adapters do not
    go_on_from: Path | None = None  # DySL folder to begin with; its static layers and sizes are kept
    device: str = "cpu"  # "cuda", "cuda:N"
    data: DataSettings = field(default_factory=DataSettings)
    apart: Apart = field(default_factory=Apart)  # of another project's checkpoint


@dataclass(frozen=True)
class FloorSettings:
    """Which floors are trained, alike, and how they are played."""

    static_layers: tuple[int, ...] = (2, 3, 4, 5, 7)  # their numbers
    choices: tuple[str, ...] = ("informative", "spread")  # how they are chosen
    adapters: tuple[str, ...] = ("token", "pooled")  # kinds of adapter
    observations: int = 10_000  # frames to learn from
    stages: DistillationSettings = DistillationSettings(hidden_steps=300, action_steps=1500, compile=True)  # the first
    modules: ModuleSettings = ModuleSettings()  # sizes of adapters
    evaluate: int = 0  # scenes a task that are played at each floor and at full depth; 0: none
    evaluate_tasks: tuple[str, ...] = ()  # that are played, sets' names too; none: those of ``data``
    max_ticks: int = 200  # control ticks of 50 ms before an episode is lost
    jobs: int = os.cpu_count() or 1  # processes that play
    device: str = "cpu"  # trained and played on: "cuda", "cuda:N"
    beside: tuple[Path, ...] = ()  # table.json of comparisons, whose methods are drawn beside the floors
    data: DataSettings = field(default_factory=DataSettings)


@dataclass(frozen=True)
class TuneSettings:
    """What ``tune`` may be told; one of the first two is given."""

    target_ms: float | None = None  # largest mean time of an inference; the deviation is made small
    max_deviation: float | None = (
        None  # mm, of joints degrees; largest 95th percentile of the deviation; the time is made small
    )
    params: Path | None = None  # parameter file to start from
    trials: int = 160
    inferences: int = 1500  # of the recording that are used, evenly spread
    seed: int = 0  # of the search
    threads: int = 1  # compute threads, as model.threads will have them
    device: str = "cpu"  # as model.device will have it
    engine: EngineChoice | None = None  # what computes; None: as model.runtime of ``params`` says, else torch
    recordings: Choice = field(default_factory=Choice)

    def __post_init__(self) -> None:
        """Refuse what cannot be searched for, all faults at once.

        Raises:
            DataError: names them.
        """
        faults = [
            f"{name} must be {low:g} or more, not {value:g}"
            for name, value, low in (
                ("--trials", self.trials, 10),
                ("--inferences", self.inferences, 20),
                ("--seed", self.seed, 0),
                ("--threads", self.threads, 1),
            )
            if value < low
        ]
        faults += [
            f"{name} must be a positive number, not {value:g}"
            for name, value in (("--target-ms", self.target_ms), ("--max-deviation", self.max_deviation))
            if value is not None and not 0.0 < value < float("inf")
        ]
        if (self.target_ms is None) == (self.max_deviation is None):
            faults.append("one of --target-ms and --max-deviation is needed, and only one")
        if faults:
            raise DataError("; ".join(faults))
