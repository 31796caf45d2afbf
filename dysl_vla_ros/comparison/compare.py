"""Methods side by side, from a checkpoint to table and pictures: what ``dysl_vla evaluate --methods`` does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dysl_vla_ros.comparison.decision_plots import write_decision_pictures
from dysl_vla_ros.comparison.methods.method import Library, MethodOptions
from dysl_vla_ros.comparison.plan import Comparison, entries_named
from dysl_vla_ros.comparison.plots import write_pictures
from dysl_vla_ros.comparison.results import results_of
from dysl_vla_ros.comparison.run import play
from dysl_vla_ros.comparison.table import table_of
from dysl_vla_ros.evaluation.closed_loop import EvaluationSettings
from dysl_vla_ros.evaluation.evaluate import fitted
from dysl_vla_ros.files import write_json
from dysl_vla_ros.runtime.loading import require_device


@dataclass(frozen=True)
class ComparisonSettings:
    """What is compared, and how it is played."""

    methods: tuple[str, ...]  # of ``methods/registry.py``; behind an @ the actions an inference, behind a colon what
    # computes (default: ``evaluation.engine``), as in dysl@4:onnx
    evaluation: EvaluationSettings = EvaluationSettings()  # scenes; ``runtime``: what ``dysl`` runs under
    paper_adapters: str = ""  # DySL folder of ``dysl_paper``; "": that of ``dysl``
    checkpoints: Mapping[str, str] = field(default_factory=dict)  # by method: those that are another checkpoint
    floors: str = ""  # folder that ``dysl_vla floors --evaluate`` wrote, which constant depths are chosen from
    depth: float | None = None  # mean layer calls of the methods of equal depth; None: those of ``dysl`` in this run
    calibration_seeds: int = 2  # full-depth runs a task, in scenes of their own, that methods are set up on
    oracle_threshold: float | None = None  # action L1, normalised; None: such that it comes to the depth


@dataclass(frozen=True)
class Compared:
    """What a comparison came to, as plain values and as files."""

    table: Mapping[str, Any]  # table.json: one row a method and set of tasks
    results: Mapping[str, Any]  # results.json: where layers went, and what decided
    written: Sequence[Path]  # both, and the pictures


def compare(
    checkpoint: str | Path,
    settings: ComparisonSettings,
    out: str | Path = "evaluation_out",
    *,
    jobs: int = 1,
) -> Compared:
    """Play methods on the same scenes, in turns, and write ``table.json``, ``results.json`` and pictures.

    Every finished episode is kept in ``out``: called again it goes on where it stopped, with more seeds it adds scenes.
    Bars show how far it is; which tasks are left out is logged, and what is played besides.

    Args:
        checkpoint: folder of the base checkpoint.
        settings: what is compared.
        out: folder for the results and every finished episode.
        jobs: processes of one thread each, which import the calling program again (it must stand under ``if __name__ ==
            "__main__"``) and load the policy each; 1: in this one.

    Raises:
        CheckpointError: a folder is missing, damaged, or does not belong to the checkpoint.
        DataError: an unknown method, or one that lacks something; ``out`` holds a run with other settings.
        SettingError: the device is not there, or settings contradict what the policy gives.
        ObservationError: the policy knows no word of a task's instruction.
    """
    evaluation, out = replace(settings.evaluation, checkpoint=str(checkpoint)), Path(out)
    options = MethodOptions(
        checkpoint=str(checkpoint),
        adapters=evaluation.adapters,
        settings=evaluation.runtime,
        paper_adapters=settings.paper_adapters,
        checkpoints=settings.checkpoints,
        floors=settings.floors,
        export=evaluation.engine.export,
    )
    entries = entries_named(settings.methods, evaluation.runtime.actions_per_inference, evaluation.engine.runtime)
    engines = list(dict.fromkeys(entry.runtime for entry in entries))
    for engine in engines:
        require_device(evaluation.device, engine)
    library = Library(evaluation.device, options.exports)
    evaluation = fitted(evaluation, library.with_adapters(str(checkpoint), evaluation.adapters, engines[0]).policy)
    comparison = Comparison(
        entries=entries,
        options=options,
        evaluation=evaluation,
        depth=settings.depth,
        calibration_seeds=settings.calibration_seeds,
        oracle_threshold=settings.oracle_threshold,
    )
    played = play(comparison, out, jobs, library)
    table, results = table_of(played, Path(checkpoint).name), results_of(played)
    write_json(out / "results.json", results)
    write_json(out / "table.json", table)
    pictures = write_pictures(out, table) + write_decision_pictures(out, results)
    return Compared(table, results, (out / "table.json", out / "results.json", *pictures))
