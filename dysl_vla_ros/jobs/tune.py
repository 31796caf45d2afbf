"""Settings for a robot and a machine, from a recording of the one on the other; in the order of execution."""

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dysl_vla_ros.calibration.remembered_passes import RememberedPasses
from dysl_vla_ros.calibration.tuning import Target, Tuning
from dysl_vla_ros.calibration.tuning import tune as search
from dysl_vla_ros.calibration.tuning_report import cost_sentence, require_new, write_results
from dysl_vla_ros.control.chunk_time import require_playable
from dysl_vla_ros.engines.choice import EngineChoice
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.files import require_writable
from dysl_vla_ros.jobs.learning_data import paths_of
from dysl_vla_ros.jobs.settings import AnyPath, Data, TuneSettings
from dysl_vla_ros.params_file import read_params_file
from dysl_vla_ros.policy_options import AS_THE_FILES_SAY
from dysl_vla_ros.recordings.full_depth import full_depth_runs
from dysl_vla_ros.records.deviation import measures
from dysl_vla_ros.runs.full_depth import split_runs, thin_out
from dysl_vla_ros.runtime.cost_model import CostModel, measure_cost
from dysl_vla_ros.runtime.loading import require_device
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import ModelSettings, RuntimeSettings, actions_judged

LOG = logging.getLogger(__name__)
LONGEST = 10_000  # inferences read from the bags at most: their pictures are in memory for a moment


@dataclass(frozen=True)
class Tuned:
    """What tuning has found and written."""

    out: Path  # folder with the parameter file, ``tune.json``, plot and page
    tuning: Tuning
    target: Target
    cost: CostModel  # of this machine
    started_from: RuntimeSettings  # every value resolved


def tune(
    checkpoint: AnyPath,
    bags: Data,
    adapters: AnyPath = "",
    out: AnyPath = "tuned",
    settings: TuneSettings | None = None,
    *,
    force: bool = False,
) -> Tuned:
    """Take full-depth runs, measure this machine, search, write; whether the target is met, ``tuning.met`` says.

    Args:
        checkpoint: folder of the base.
        bags: one or more recordings.
        adapters: DySL folder; "": the checkpoint's own ``dysl``.
        out: folder for the results, made where it is missing.
        settings: with the target.
        force: write over an earlier result.

    Raises:
        CheckpointError: a folder cannot be used.
        DataError: nothing is to be searched for; there are no adapters; the runs are too few or too still; ``out`` has
            an earlier result or cannot be written to.
        BagError: a bag cannot serve the policy.
        SettingError: the parameter file does not go with the policy, or the device is not there.
    """
    settings, folder, paths = settings or TuneSettings(), Path(out), paths_of(bags)
    given = read_params_file(settings.params) if settings.params else None
    engine = settings.engine or EngineChoice.of(given.groups[ModelSettings.group] if given else ModelSettings())
    require_device(settings.device, engine.runtime)
    runtime = Runtime.load(
        str(checkpoint), str(adapters), settings.device, settings.threads,
        options=given.options if given else AS_THE_FILES_SAY, engine=engine.runtime, export=engine.export,
    )  # fmt: skip
    if runtime.dysl is None:
        raise DataError(f"{checkpoint} has no adapters, so nothing can be skipped; run `dysl_vla distill`")
    start = RuntimeSettings()
    if given:
        require_playable(given.control, runtime.policy.action)
        start = given.runtime
    before = _resolved(start, runtime.dysl.calibrated)
    before = replace(before, actions_per_inference=actions_judged(before.actions_per_inference))
    require_new(folder, force)
    require_writable(folder)

    m, notes = before.actions_per_inference, list[str]()
    recorded = full_depth_runs(paths, runtime, m, choice=settings.recordings, limit=LONGEST, notes=notes)
    for note in notes:
        LOG.warning(note)
    runs = thin_out(recorded, settings.inferences)
    searched, held_out = split_runs(runs)
    data = (
        f"{len(runs)} of {len(recorded)} episodes of {', '.join(path.name for path in paths)}: searched on "
        f"{sum(len(run.chunks) for run in searched)} inferences, judged on {sum(len(run.chunks) for run in held_out)}"
    )
    LOG.info(data)
    cost = measure_cost(runtime, [observation for run in searched for observation in run.observations])
    LOG.info("milliseconds of an inference: %s", cost_sentence(cost))
    target = Target(settings.target_ms, settings.max_deviation, measures(runtime.policy.action)[0].unit)
    passes, judges = RememberedPasses(runtime, searched), RememberedPasses(runtime, held_out)
    tuning = search(passes, judges, before, target, cost, trials=settings.trials, seed=settings.seed)
    command = _as_typed(checkpoint, paths, adapters, settings, engine)
    write_results(folder, tuning, target, cost, engine, command=command, data=[data, *notes], seed=settings.seed)
    return Tuned(folder, tuning, target, cost, before)


def _as_typed(
    checkpoint: AnyPath, bags: Sequence[Path], adapters: AnyPath, settings: TuneSettings, engine: EngineChoice
) -> str:
    """Return the command line that does this."""
    limit = ("--target-ms", settings.target_ms) if settings.target_ms else ("--max-deviation", settings.max_deviation)
    words = ["dysl_vla", "tune", *map(str, bags), "--checkpoint", str(checkpoint), limit[0], f"{limit[1]:g}"]
    words += ["--adapters", str(adapters)] if adapters else []
    words += ["--runtime", engine.runtime] if engine != EngineChoice() else []
    words += ["--export", engine.export] if engine.export else []
    words += ["--params", str(settings.params)] if settings.params else []
    return " ".join(filter(None, (shlex.join(words), settings.recordings.as_options())))


def _resolved(settings: RuntimeSettings, calibrated: Mapping[str, float | str]) -> RuntimeSettings:
    """Return the settings with skipping on and every "as calibrated" value put in."""
    return replace(
        settings,
        skipping=replace(settings.skipping, rule="dysl", enabled=True),
        guidance=settings.guidance.resolved(calibrated),
    )
