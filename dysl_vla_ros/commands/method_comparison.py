"""``dysl_vla evaluate --methods``: several methods on the same scenes, with intervals; resumed where it stopped."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dysl_vla_ros.comparison.method_names import NAMES, read_word
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.policies.checkpoint import read_config

if TYPE_CHECKING:
    from dysl_vla_ros.evaluation.closed_loop import EvaluationSettings

OUT = Path("evaluation_out")
METHOD_NAMES = ", ".join(NAMES)
FOR_SEVERAL = ("out", "depth", "oracle_threshold", "paper_adapters", "shallow", "shallow_distilled")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what only a comparison takes."""
    several = parser.add_argument_group("several methods side by side")
    add = several.add_argument
    add("--methods", nargs="+", metavar="METHOD", help=f"of {METHOD_NAMES}; dysl@4: at 4 actions an inference")
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"folder for table.json, results.json, pictures and every finished episode (default: {OUT})",
    )
    add(
        "--depth",
        type=float,
        metavar="LAYERS",
        help="mean layer calls that fixed, random and oracle come to (default: those of dysl in this run)",
    )
    add(
        "--calibration-seeds",
        type=int,
        default=2,
        metavar="N",
        help="full-depth runs a task, on scenes of their own, that fixed, oracle and dysl_paper are set up on; "
        "0: none, then plans are filled evenly and the oracle tolerates what the controllers were calibrated to",
    )
    add(
        "--oracle-threshold",
        type=float,
        metavar="L1",
        help="difference of the floor's and the full action, normalised, above which the oracle runs every layer "
        "(default: such that it comes to the depth)",
    )
    add(
        "--paper-adapters",
        default="",
        metavar="FOLDER",
        help="DySL folder of dysl_paper, trained as the paper says (default: that of dysl)",
    )
    add("--shallow", default="", metavar="FOLDER", help="checkpoint of the method shallow")
    add("--shallow-distilled", default="", metavar="FOLDER", help="checkpoint of the method shallow_distilled")


def refuse_without_methods(arguments: argparse.Namespace) -> None:
    """Refuse what would be of no effect.

    Raises:
        DataError: an option of a comparison without ``--methods``.
    """
    given = [f"--{name.replace('_', '-')}" for name in FOR_SEVERAL if getattr(arguments, name) not in (None, "")]
    if given:
        raise DataError(f"{', '.join(given)}: for several methods side by side; name them by --methods")


def run(arguments: argparse.Namespace, evaluation: "EvaluationSettings") -> int:
    """Play, or go on; print and write the table."""
    from dysl_vla_ros.calibration.paper_guidance import paper_guidance
    from dysl_vla_ros.calibration.signals import signals_of_runs
    from dysl_vla_ros.comparison.decision_plots import write_decision_pictures
    from dysl_vla_ros.comparison.details import details_of
    from dysl_vla_ros.comparison.methods import MethodOptions
    from dysl_vla_ros.comparison.plan import Comparison, entries_named
    from dysl_vla_ros.comparison.plots import write_pictures
    from dysl_vla_ros.comparison.run import compare
    from dysl_vla_ros.comparison.table import table_of
    from dysl_vla_ros.comparison.text import print_comparison
    from dysl_vla_ros.files import write_json

    comparison = Comparison(
        entries=entries_named(arguments.methods, evaluation.runtime.actions_per_inference),
        options=MethodOptions(
            checkpoint=str(arguments.checkpoint),
            adapters=arguments.adapters,
            settings=evaluation.runtime,
            paper_adapters=arguments.paper_adapters,
            shallow=arguments.shallow,
            shallow_distilled=arguments.shallow_distilled,
        ),
        evaluation=evaluation,
        depth=arguments.depth,
        calibration_seeds=arguments.calibration_seeds,
        oracle_threshold=arguments.oracle_threshold,
    )
    out = arguments.out or OUT
    played = compare(comparison, out, arguments.jobs, paper_guidance, signals_of_runs)
    table = table_of(played, arguments.checkpoint.name)
    print_comparison(table)
    details = details_of(played)
    write_json(out / "results.json", details)
    write_json(out / "table.json", table)
    pictures = write_pictures(out, table) + write_decision_pictures(out, details)
    written = ["table.json", "results.json", *(path.name for path in pictures)]
    print("written: " + ", ".join(str(out / name) for name in written))
    return 0


def check(arguments: argparse.Namespace) -> None:
    """Refuse arguments that do not go together.

    Raises:
        DataError: which, and why.
        CheckpointError: a folder is not there.
    """
    for word in arguments.methods:
        read_word(word)
    for name in ("paper_adapters", "shallow", "shallow_distilled"):
        if folder := getattr(arguments, name):
            read_config(Path(folder), f"--{name.replace('_', '-')}")
    if arguments.full_depth:
        raise DataError("--full-depth is the method full: name it among --methods")
    if arguments.json:
        raise DataError("--json is for one method; with --methods the table is written to --out")
    if arguments.calibration_seeds < 0:
        raise DataError(f"--calibration-seeds must be at least 0, not {arguments.calibration_seeds}")
    for name, low in (("depth", 1.0), ("oracle_threshold", 0.0)):
        value = getattr(arguments, name)
        if value is not None and not low <= value < float("inf"):
            raise DataError(f"--{name.replace('_', '-')} must be {low:g} or more, not {value:g}")
