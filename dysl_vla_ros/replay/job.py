"""A recording through a policy again, in the order of execution: what ``dysl_vla replay`` does."""

import contextlib
import dataclasses
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rosbags
from tqdm import tqdm

import dysl_vla_ros
from dysl_vla_ros.bags.reader import BagReader
from dysl_vla_ros.control.chunk_time import require_playable
from dysl_vla_ros.engines.choice import EngineChoice
from dysl_vla_ros.errors import BagError
from dysl_vla_ros.files import require_writable, sha256
from dysl_vla_ros.interfaces import PolicyDescription, StepResult
from dysl_vla_ros.job_worker.apart import Apart
from dysl_vla_ros.recordings.corrections import RECEIVED, Corrections
from dysl_vla_ros.recordings.history import SOURCES
from dysl_vla_ros.recordings.moments import Moment, Moments
from dysl_vla_ros.recordings.source import (
    Choice,
    Source,
    damage_of,
    open_source,
    reading_notes,
    require_moments,
)
from dysl_vla_ros.records.machine import processor, versions
from dysl_vla_ros.replay import against as others
from dysl_vla_ros.replay.parameters import ReplayParameters, read_parameters
from dysl_vla_ros.replay.policies import PolicySource
from dysl_vla_ros.replay.report import write_report
from dysl_vla_ros.replay.rerun_log import RerunLog
from dysl_vla_ros.replay.results import Criterion, judge, phase_of, summarise, timing_figures, write_replay
from dysl_vla_ros.replay.run import FULL, SKIPPING, Replay, Side, Watcher, replay_moments
from dysl_vla_ros.runtime.folder import WEIGHTS
from dysl_vla_ros.settings import AUTOMATIC

JSON, PAGE = "replay.json", "replay.html"


@dataclass(frozen=True)
class ReplaySettings:
    """How a recording is read and replayed, where the results go, and the criteria that they are judged by."""

    adapters: str = ""  # DySL folder; "": the checkpoint's own
    parameters: Path | None = None  # ROS parameter file: skipping, guidance, control; None: the node's defaults
    engine: EngineChoice | None = None  # what computes; None: as ``model.runtime`` of ``parameters`` says, else torch
    python: str = ""  # another project's checkpoint: interpreter to compute in; "": model.python of ``parameters``
    against: Path | None = None  # checkpoint, DySL folder, parameter file or replay.json to compare with
    remapped: Mapping[str, str] = field(default_factory=dict)  # input -> topic that serves it
    instruction: str = ""  # in place of what the bag says
    corrections: Corrections = field(default_factory=Corrections)
    every: int = 1  # each n-th frame of the first camera
    output: Path = Path("replay_out")  # folder for replay.json and replay.html
    rerun: Path | None = None  # file for the Rerun viewer
    max_deviation: float | None = None  # 95th percentile of the first action's: mm of translation, or of joints degrees
    max_p99_ms: float | None = None  # of an inference with skipping
    min_layer_reduction: float | None = None  # share of the layers
    strict: bool = False  # a bag with losses, or whose clock was set back, cannot serve
    threads: int = 1  # compute threads; the figures' last bits depend on it


@dataclass(frozen=True)
class Outcome:
    """What a replay came to."""

    about: Mapping[str, Any]  # replay.json but its moments and timings
    timings: Mapping[str, Any]
    criteria: Sequence[Criterion]
    damage: Sequence[str]  # what of the bag was lost
    replay: Replay

    @property
    def failure(self) -> Criterion | None:
        """The first criterion that failed."""
        return next((criterion for criterion in self.criteria if not criterion.passed), None)


def replay(bag: str | Path, checkpoint: str | Path, settings: ReplaySettings | None = None) -> Outcome:
    """Run a recording through a policy at full depth and with skipping, side by side, and say what skipping costs.

    In bag time, as if each side were driving: the same bag gives the same figures, bit for bit on one machine, but for
    milliseconds. Writes ``replay.json`` and ``replay.html`` into ``settings.output``; a bar shows how far it is.

    Args:
        bag: folder of ``ros2 bag record``, or one .mcap or .db3 file.
        checkpoint: folder of the base checkpoint; another project's is computed in the Python of its library.
        settings: None: the defaults.

    Returns:
        The figures (mm, degrees, ms, layers; :attr:`Outcome.about` as ``replay.json`` has them), and whether each
        criterion is met: :attr:`Outcome.failure` is the first that is not.

    Raises:
        BagError: the bag cannot serve, or what it is to be compared with.
        CheckpointError, SettingError, DataError: weights, parameters or the output folder are at fault.
        WorkerError: another project's checkpoint cannot be loaded in its Python; says why.
    """
    bag, checkpoint, settings = Path(bag), Path(checkpoint), settings or ReplaySettings()
    require_writable(settings.output, "name another folder with --out")
    parameters = read_parameters(settings.parameters) if settings.parameters else ReplayParameters()
    with contextlib.ExitStack() as parts:
        apart = Apart(settings.parameters, settings.python)
        engine = settings.engine or parameters.engine
        policies = PolicySource(parts, parameters.options, apart, settings.threads, settings.output, engine)
        policy = policies.open(str(checkpoint), settings.adapters)
        sides = [Side(FULL, policy.side(), parameters.full_depth), Side(SKIPPING, policy.side(), parameters.runtime)]
        description = sides[1].description
        if settings.parameters:
            require_playable(parameters.control, description.action)
        other = settings.against
        compared = others.load_against(other, policies, policy, description, parameters) if other else None
        sides += compared.sides if compared else []
        return _replay_bag(bag, checkpoint, settings, parameters, policy.unreadable, sides, compared)


def _replay_bag(
    bag: Path,
    checkpoint: Path,
    settings: ReplaySettings,
    parameters: ReplayParameters,
    unreadable: Callable[[str], str],
    sides: Sequence[Side],
    compared: others.Against | None,
) -> Outcome:
    """Run the sides over the bag, and write down what came of it."""
    description = sides[1].description
    with BagReader(bag) as reader, contextlib.ExitStack() as stack:
        if settings.strict and reader.damage:
            raise BagError(f"{bag} is damaged, which --strict does not accept: {'; '.join(reader.damage)}")
        choice = Choice(
            settings.remapped,
            settings.instruction,
            parameters.control.rate,
            settings.every,
            corrections=settings.corrections,
            unreadable=unreadable,
        )
        source = open_source(reader, description, parameters.safety, choice)
        frames = source.topics.inputs[description.cameras[0]].count
        watchers = [_progress(stack, source.moments, frames)]
        if settings.rerun:
            told = str(choice.told() or "")
            watchers.append(stack.enter_context(RerunLog(settings.rerun, description, told)).watch)
        done = replay_moments(source.moments, sides, source.moments.refuse, watchers)
        require_moments(len(done.moments), source.moments, bag)
        entries = {
            "bag": _bag_entry(bag, settings.corrections, reader, source, choice),
            "policy": _policy_entry(checkpoint, settings.adapters, description)
            | {"runtime": (settings.engine or parameters.engine).runtime},
        }
    outcome = _conclude(settings, parameters, description, compared, source, reader, entries, done)
    if settings.strict and outcome.damage:
        raise BagError(f"{bag} is damaged, which --strict does not accept: {'; '.join(outcome.damage)}")
    return outcome


def _conclude(
    settings: ReplaySettings,
    parameters: ReplayParameters,
    description: PolicyDescription,
    compared: others.Against | None,
    source: Source,
    reader: BagReader,
    entries: Mapping[str, Any],
    done: Replay,
) -> Outcome:
    """Judge what was replayed and write it down."""
    phase = phase_of(done)
    summary = summarise(done, phase)
    timings: dict[str, Any] = {name: timing_figures(done.track(name)) for name in (FULL, SKIPPING)}
    pair = others.compare(done, compared) if compared else None
    limits = (settings.max_deviation, settings.max_p99_ms, settings.min_layer_reduction)
    criteria = judge(summary, timings, done.measures[0], *limits)
    timed = [criterion for criterion in criteria if criterion.name == "max-p99-ms"]
    timings |= {"machine": processor(), "criteria": [dataclasses.asdict(criterion) for criterion in timed]}
    about = {
        **entries,
        "parameters": _parameters(parameters, description),
        "every": settings.every,
        "threads": settings.threads,
        "versions": _versions(),
        "notes": _notes(source, reader, parameters, done),
        **summary,
        "against": others.comparison_figures(done, compared, pair, phase) if compared and pair else None,
        "criteria": [dataclasses.asdict(criterion) for criterion in criteria if criterion not in timed],
        "episodes": [dataclasses.asdict(episode) for episode in done.episodes],
    }
    if pair:
        timings["against"] = others.comparison_timings(done, pair)
    write_replay(settings.output / JSON, about, timings, done, phase)
    write_report(settings.output / PAGE, about, timings, done, phase, pair)
    return Outcome(about, timings, criteria, damage_of(reader, source), done)


def _progress(stack: contextlib.ExitStack, moments: Moments, total: int) -> Watcher:
    bar = stack.enter_context(tqdm(desc="replay", unit="frame", total=total))

    def watch(moment: Moment, results: dict[str, StepResult]) -> None:
        bar.update(moments.frames - bar.n)  # also those that did not serve or were left out

    return watch


def _bag_entry(
    bag: Path, corrections: Corrections, reader: BagReader, source: Source, choice: Choice
) -> dict[str, Any]:
    moments = source.moments
    refusals = sorted(moments.refused.values(), key=lambda refusal: -refusal.count)
    return {
        "path": str(bag),
        "start_ns": moments.start_ns,
        "seconds": moments.seconds,
        "recorded_seconds": reader.seconds,
        "damage": list(reader.damage),
        "told": choice.told(),
        "topics": {role: dataclasses.asdict(served) for role, served in source.topics.inputs.items()},
        "recorded_actions": SOURCES.get(source.history.source, source.history.note),
        "stamps": _stamps(corrections, moments),
        "frames": {
            "seen": moments.frames,
            "left_out": moments.left_out,
            "unreadable": moments.unreadable,
            "instructions_left_out": [dataclasses.asdict(own) for own in moments.left_out_instructions.values()],
            "refused": [{"reason": refusal.example, "count": refusal.count} for refusal in refusals],
        },
    }


def _stamps(corrections: Corrections, moments: Moments) -> str:
    if corrections.stamps == RECEIVED:
        return "the times of reception (--stamps received)"
    return "another clock than the bag's, as in simulation" if moments.own_clock else "the bag's clock"


def _policy_entry(checkpoint: Path, adapters: str, description: PolicyDescription) -> dict[str, Any]:
    folder = Path(adapters) if adapters else checkpoint / "dysl"
    loaded = f"{folder}, SHA-256 {sha256(folder / WEIGHTS)}" if description.calibrated else "none: every layer runs"
    return {
        "checkpoint": str(checkpoint),
        "family": description.family,
        "model_hash": description.model_hash,
        "weights_hash": description.weights_hash,
        "adapters": loaded,
        "cameras": description.cameras,
        "layers_total": description.layers_total,
        "static_layers": description.static_layers,
        "blocks": description.blocks,
    }


def _parameters(parameters: ReplayParameters, description: PolicyDescription) -> dict[str, Any]:
    """Return the values in effect of everything that a replay depends on."""
    calibrated = description.calibrated
    guidance = parameters.guidance.resolved(calibrated) if calibrated else parameters.guidance
    groups = {"skipping": parameters.skipping, "guidance": guidance}
    flat = {f"{name}.{key}": value for name, group in groups.items() for key, value in vars(group).items()}
    flat["control.actions_per_inference"] = parameters.control.actions_per_inference
    ages = ("max_arrival_age", "max_stamp_age", "max_clock_skew", "max_camera_skew")
    return flat | {f"safety.{name}": getattr(parameters.safety, name) for name in ages}


def _notes(source: Source, reader: BagReader, parameters: ReplayParameters, done: Replay) -> list[str]:
    """Return what a reader must know before the figures."""
    notes = reading_notes(reader, source)
    notes += [
        f"{served.role} is taken from {served.topic}, {served.how}."
        for served in source.topics.inputs.values()
        if served.how == "the only one of its type"
    ]
    if source.history.note and not source.history.source:
        notes.append(f"Recorded actions are not compared: {source.history.note}.")
    played = done.track(SKIPPING).columns["played"]
    usual, m = (
        (float(np.median(played[played > 0])) if (played > 0).any() else 0.0),
        parameters.control.actions_per_inference,
    )
    if m != AUTOMATIC and usual and usual != m:
        notes.append(
            f"Between two inferences {usual:g} actions are played here, control.actions_per_inference is {m}: "
            f"set it, or --every, to what the robot will do."
        )
    gaps = int(done.track(SKIPPING).columns["gap"].sum())
    if gaps:
        notes.append(f"{gaps} times the chunk ran dry before the next frame.")
    return notes


def _versions() -> dict[str, str]:
    return {
        "dysl_vla_ros": dysl_vla_ros.__version__,
        "python": platform.python_version(),
        **{name: own for name, own in versions().items() if name in ("torch", "onnxruntime")},
        "numpy": np.__version__,
        "rosbags": getattr(rosbags, "__version__", "unknown"),
    }
