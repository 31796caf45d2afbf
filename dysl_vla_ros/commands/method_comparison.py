"""``dysl_vla evaluate --methods``: thin over :func:`dysl_vla_ros.comparison.compare.compare`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dysl_vla_ros.commands.runtime_option import require_runtime
from dysl_vla_ros.comparison.constant_floors import read_floors
from dysl_vla_ros.comparison.methods.registry import METHODS, option_of, other_checkpoints, read_word
from dysl_vla_ros.engines import ONNX, TORCH
from dysl_vla_ros.engines.choice import EngineChoice
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.policies.checkpoint import read_config

if TYPE_CHECKING:
    from dysl_vla_ros.evaluation.closed_loop import EvaluationSettings

OUT = Path("evaluation_out")
FOR_SEVERAL = ("out", "depth", "oracle_threshold", "paper_adapters", "floors")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what only a comparison takes."""
    several = parser.add_argument_group("several methods side by side")
    add = several.add_argument
    add(
        "--methods",
        nargs="+",
        metavar="METHOD",
        help=f"of {', '.join(METHODS)}; dysl@4: at 4 actions an inference, dysl@auto: at as many as each says, "
        "dysl:onnx, dysl@4:onnx: on ONNX Runtime, whatever --runtime says; beside dysl the two are paired",
    )
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
    add(
        "--floors",
        default="",
        metavar="FOLDER",
        help="that `dysl_vla floors --evaluate N` wrote: constant, constant_by_set and constant_by_instruction are "
        "chosen among its floors, by what they lost in calibration scenes",
    )
    for name in other_checkpoints():
        add(option_of(name), dest=name, default="", metavar="FOLDER", help=f"checkpoint of the method {name}")


def check(arguments: argparse.Namespace) -> None:
    """Refuse arguments that do not go together, and what would be of no effect without ``--methods``.

    Raises:
        DataError: which, and why.
        CheckpointError: a folder is not there.
    """
    if not arguments.methods:
        names = (*FOR_SEVERAL, *other_checkpoints())
        given = [f"--{name.replace('_', '-')}" for name in names if getattr(arguments, name) not in (None, "")]
        if given:
            raise DataError(f"{', '.join(given)}: for several methods side by side; name them by --methods")
        return
    for word in arguments.methods:
        read_word(word)
    for name in ("paper_adapters", *other_checkpoints()):
        if folder := getattr(arguments, name):
            read_config(Path(folder), f"--{name.replace('_', '-')}")
    if arguments.floors:
        read_floors(Path(arguments.floors))
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


def require_runtimes(methods: Sequence[str], engine: EngineChoice, checkpoint: Path, adapters: str) -> None:
    """Refuse runtimes that cannot play.

    Args:
        methods: as they were typed.
        engine: of those that name none.
        checkpoint: folder of the base.
        adapters: DySL folder; "": the checkpoint's own.

    Raises:
        DataError, CheckpointError: see :func:`~dysl_vla_ros.commands.runtime_option.require_runtime`.
    """
    runtimes = dict.fromkeys(read_word(word).runtime or engine.runtime for word in methods)
    for runtime in runtimes:
        export = "" if runtime == TORCH and ONNX in runtimes else engine.export  # it is of the others
        require_runtime(EngineChoice(runtime, export), checkpoint, adapters)


def run(arguments: argparse.Namespace, evaluation: "EvaluationSettings") -> int:
    """Play, or go on; print the table and what was written."""
    from dysl_vla_ros.comparison.compare import ComparisonSettings, compare
    from dysl_vla_ros.comparison.text import print_comparison, print_runtimes, print_worth

    settings = ComparisonSettings(
        methods=tuple(arguments.methods),
        evaluation=evaluation,
        paper_adapters=arguments.paper_adapters,
        checkpoints={name: folder for name in other_checkpoints() if (folder := getattr(arguments, name))},
        floors=arguments.floors,
        depth=arguments.depth,
        calibration_seeds=arguments.calibration_seeds,
        oracle_threshold=arguments.oracle_threshold,
    )
    if arguments.real_time is not None:
        from dysl_vla_ros.comparison.real_time import real_time_curve
        from dysl_vla_ros.comparison.text import print_curve
        from dysl_vla_ros.evaluation.slow_down import SLOW_DOWNS

        curve = real_time_curve(
            arguments.checkpoint,
            settings,
            arguments.out or OUT,
            slow_downs=arguments.real_time or SLOW_DOWNS,
            chunks=arguments.chunk or (0,),
            jobs=arguments.jobs,
        )
        print_curve(curve.values)
        print("written: " + ", ".join(map(str, curve.written)))
        return 0
    done = compare(arguments.checkpoint, settings, arguments.out or OUT, jobs=arguments.jobs)
    print_comparison(done.table)
    print_runtimes(done.table)
    print_worth(done.results["worth"])
    print("written: " + ", ".join(map(str, done.written)))
    return 0
