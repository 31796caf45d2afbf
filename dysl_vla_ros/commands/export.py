"""``dysl_vla export``: thin over :func:`dysl_vla_ros.engines.onnx.exporting.export.export_checkpoint`."""

import argparse
import importlib.util
from pathlib import Path

from dysl_vla_ros.commands.argument_checks import require_policy
from dysl_vla_ros.engines.onnx.exported import FP32, NUMBERS
from dysl_vla_ros.errors import CheckpointError, DataError
from dysl_vla_ros.policies.exportable import family_of, why_not

EPILOGUE = """\
what is written, by default to CHECKPOINT/onnx, where the node looks for it (with --dysl: to its folder):
  prepare.onnx          images, words and proprioception to the stack's input
  layers_A_B.onnx       layers A to B, between which nothing is decided
  decision_L.onnx       pool and controller in front of layer L
  adapter_L.onnx        what stands in for the block from layer L on
  head.onnx             the stack's output to actions
  export.json           of which checkpoint and DySL folder, with every file's SHA-256 and its difference from torch
  weights.safetensors   of --weights int8 alone; all other graphs name places in the checkpoint's own files

numbers:
  fp32    weights as they are stored, computed in float32: torch's actions up to rounding
  fp16    computed in float16: for a GPU; a CPU computes it no faster
  int8    products of layers and adapters in int8, by ONNX Runtime's quantiser: other actions, measure them first

then, with a parameter file that says model.runtime: onnx, the policy worker needs no torch:
  pip install onnxruntime        in the worker's Python; onnxruntime-gpu in its place on a machine with an NVIDIA GPU
  ros2 launch dysl_vla_ros dysl_vla.launch.py params_file:=... checkpoint:=CHECKPOINT
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Write a checkpoint and its DySL folder as ONNX graphs for model.runtime: onnx. Every graph is compared with\n"
        "torch on the same inputs first; where one differs by more than rounding, nothing is written."
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder of the base checkpoint")
    parser.add_argument(
        "--dysl", default="", metavar="FOLDER", help="DySL folder (default: the checkpoint's own `dysl`)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="where to write; the node must be told of it in model.export"
    )
    parser.add_argument("--weights", metavar="|".join(NUMBERS), default=FP32, help="numbers, see below (default: fp32)")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOGUE


def check(arguments: argparse.Namespace) -> None:
    """Refuse a family that is not exported, folders that are none, unknown numbers, and a Python without onnx."""
    if why := why_not(family_of(arguments.checkpoint)):
        raise CheckpointError(f"{arguments.checkpoint}: {why}")
    require_policy(arguments.checkpoint, arguments.dysl)
    if arguments.weights not in NUMBERS:
        raise DataError(f"--weights is {arguments.weights!r}, expected {', '.join(NUMBERS)}")
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise DataError(
            f"export needs {' and '.join(missing)}, which this Python lacks: pip install 'dysl_vla_ros[onnx]', or the "
            "lines of requirements/torch.txt and requirements/onnx.txt"
        )


def run(arguments: argparse.Namespace) -> int:
    """Export, and print each segment's difference from torch."""
    from dysl_vla_ros.engines.onnx.exporting.checking import LIMITS
    from dysl_vla_ros.engines.onnx.exporting.export import export_checkpoint

    done = export_checkpoint(arguments.checkpoint, arguments.dysl, arguments.output, arguments.weights)
    longest = max(map(len, done.export.errors))
    print(f"largest difference from torch, as a share of its largest value (at most {LIMITS[arguments.weights]:g}):")
    for segment, error in done.export.errors.items():
        print(f"  {segment:{longest}}  {error:.1e}")
    own = f" and {done.weight_bytes / 1e6:.1f} MB of weights" if done.weight_bytes else ""
    print(f"wrote {len(done.export.files)} files to {done.folder}: {done.graph_bytes / 1e3:.0f} kB of graphs{own}")
    elsewhere = f", model.export: {done.folder}" if arguments.output else ""
    print(f"next: in a parameter file, model.runtime: onnx{elsewhere}")
    return 0
