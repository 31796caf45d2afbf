"""``dysl_vla inspect``: thin over :func:`dysl_vla_ros.runtime.inspection.inspect`; its tables."""

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dysl_vla_ros.commands.argument_checks import require_policy
from dysl_vla_ros.commands.lerobot_folder import lines
from dysl_vla_ros.commands.openvla_folder import show_openvla
from dysl_vla_ros.commands.tables import listing, size_in_words, table_of
from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.params_file import read_params_file
from dysl_vla_ros.policies.layouts import LEROBOT, OPENVLA, layout_of
from dysl_vla_ros.policies.lerobot import explanation as lerobot_explanation
from dysl_vla_ros.policies.openvla import explanation as openvla_explanation
from dysl_vla_ros.policy_options import AS_THE_FILES_SAY

if TYPE_CHECKING:
    from rich.table import Table

    from dysl_vla_ros.runtime.inspection import Inspection, Latency

MOST_POINTS = 12  # of a calibration front that are shown; --json has all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("checkpoint", type=Path, help="folder of the base checkpoint")
    parser.add_argument("--adapters", default="", help="DySL folder (default: the checkpoint's own `dysl`)")
    parser.add_argument(
        "--params", type=Path, help="ROS 2 parameter file: of a foreign checkpoint what its files do not say"
    )
    parser.add_argument("--threads", type=int, default=0, help="compute threads; 0: half the cores, as the node does")
    parser.add_argument("--steps", type=int, default=20, help="steps timed at each depth; 0: measure nothing")
    parser.add_argument("--json", action="store_true", help="print plain values in place of tables")


def check(arguments: argparse.Namespace) -> None:
    """Refuse numbers out of range and folders that are not there."""
    for name, value, low, high in (("--threads", arguments.threads, 0, 256), ("--steps", arguments.steps, 0, 10_000)):
        if not low <= value <= high:
            raise SettingError(f"{name} must be from {low} to {high}, not {value}")
    if layout_of(arguments.checkpoint) != LEROBOT:
        require_policy(arguments.checkpoint, arguments.adapters)
    if arguments.params:
        read_params_file(arguments.params)


def run(arguments: argparse.Namespace) -> int:
    """Inspect the checkpoint and print what it is; of a foreign one without parameters what its files say."""
    layout = layout_of(arguments.checkpoint)
    if layout == OPENVLA and not arguments.params:
        explained = openvla_explanation.explain(arguments.checkpoint)
        if arguments.json:
            print(json.dumps(explained, indent=2))
        else:
            show_openvla(explained)
        return 0
    if layout == LEROBOT:
        found_there = lerobot_explanation.explain(arguments.checkpoint)
        print(json.dumps(found_there, indent=2) if arguments.json else "\n".join(lines(found_there)))
        return 0
    from dysl_vla_ros.runtime.inspection import inspect
    from dysl_vla_ros.worker.process import compute_threads

    threads = compute_threads(arguments.threads)
    options = read_params_file(arguments.params).options if arguments.params else AS_THE_FILES_SAY
    found = inspect(arguments.checkpoint, arguments.adapters, threads=threads, steps=arguments.steps, options=options)
    if arguments.json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        show(found)
    return 0


def show(found: "Inspection") -> None:
    """Print the facts as tables a person likes to read."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    facts = found.facts
    for table in _tables(facts):
        console.print(table)
    if facts["dysl"]:
        for table in _dysl_tables(facts["dysl"], facts["parameters"]):
            console.print(table)
    else:
        console.print("no DySL folder: every layer always runs; make one with `dysl_vla calibrate` and `distill`\n")
    if facts["contract"]:
        console.print("what a parameter file must say of the arm, to be filled in:\n")
        console.print(facts["contract"], soft_wrap=True)
    if found.latency:
        console.print(_latency_table(found.latency, found.threads))


def _tables(found: Mapping[str, Any]) -> list["Table"]:
    layers, inputs, action = found["layers"], found["inputs"], found["action"]
    dynamic = sum(end - first for first, end in layers["blocks"])
    blocks = ", ".join(f"{first}-{end - 1}" for first, end in layers["blocks"]) or "none"
    names = ", ".join(f"{value['name']} [{value['unit']}]" for value in inputs["proprioception"])
    about = {
        "family": found["family"],
        "model hash": found["model_hash"],
        "base weights": found["weights_hash"],
        "layers": f"{layers['total']} of width {layers['width']}, of which {dynamic} may be skipped",
        "static layers": ", ".join(map(str, layers["static"])) if dynamic else "all",
        "blocks": blocks,
        "cameras": f"{', '.join(inputs['cameras'])} (the first one paces inference)",
        "proprioception": f"{names}, frame {inputs['frame']}",
        "instructions": "; ".join(inputs["instructions"]) or "none named",
        "trained": ", ".join(f"{name} {value}" for name, value in found["training"].items()) or "not said",
    }
    weights = table_of("weights", "part", "parameters", "share", "fp32", "fp16, bf16")
    for name, count in found["parts"].items():
        share = f"{100 * count / found['parameters']:.1f} %"
        weights.add_row(name, f"{count:,}", share, *_memory(found, count))
    weights.add_row("all", f"{found['parameters']:,}", "", *_memory(found, found["parameters"]), style="bold")
    weights.caption = f"{size_in_words(found['disk_bytes'])} on disk"
    seconds, kind, frame = action["horizon"] * action["time_step"], action["kind"], f"frame {action['frame']}"
    actions = table_of(
        f"actions: {action['horizon']} a chunk, {action['time_step']:g} s each ({seconds:g} s), "
        + {"end_effector_delta": frame, "end_effector_pose": f"end_effector_pose, {frame}"}.get(kind, kind),
        "value", "unit", "center", "scale",
    )  # fmt: skip
    for value in action["values"]:
        actions.add_row(value["name"], value["unit"], f"{value['center']:.4g}", f"{value['scale']:.4g}")
    return [listing(found["checkpoint"], about), weights, actions]


def _memory(found: Mapping[str, Any], count: int) -> list[str]:
    total, memory = max(found["parameters"], 1), found["memory_bytes"]
    return [size_in_words(round(memory[kind] * count / total)) for kind in ("fp32", "fp16")]


def _adapters(sizes: Mapping[str, Any], per_block: str) -> str:
    queries = sizes.get("queries", 0)
    kind = f"pooled, {queries} queries a block" if queries else "token by token"
    where = "one at each dynamic layer" if per_block == "all" else "one a block, at its first layer"
    return f"{kind}; {sizes.get('bottleneck', '?')} wide; {where}"


def _dysl_tables(dysl: Mapping[str, Any], policy_parameters: int) -> list["Table"]:
    parts = ", ".join(f"{name} {count:,}" for name, count in dysl["parts"].items())
    sizes = {kind: size_in_words(size) for kind, size in dysl["memory_bytes"].items()}
    memory = f"{sizes['fp32']} in fp32, {sizes['fp16']} in fp16 or bf16"
    share = 100 * dysl["parameters"] / max(policy_parameters, 1)
    about = {
        "parameters": f"{dysl['parameters']:,}, {share:.1f} % of the policy's ({parts})",
        "memory": f"{memory}; {size_in_words(dysl['disk_bytes'])} on disk",
        "static layers by": dysl["choice"] or "not said",
        "adapters": _adapters(dysl["modules"], dysl["per_block"]),
        "calibrated": ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in dysl["calibrated"].items()
        ),
        "made by": f"dysl_vla_ros {dysl['package_version']}",
    }
    tables = [listing(f"DySL folder {dysl['folder']}", about)]
    if front := sorted(dysl["front"], key=lambda point: point.get("layers", math.inf)):
        table = table_of("calibration front", "layers", "action error", "worst", "verified", "step", "verify threshold")
        for point in front[:MOST_POINTS]:
            guidance = point.get("guidance", {})
            values = [point.get(name, math.nan) for name in ("layers", "error", "worst_error", "verified_share")]
            table.add_row(
                f"{values[0]:.1f}", f"{values[1]:.4f}", f"{values[2]:.4f}", f"{100 * values[3]:.0f} %",
                f"{guidance.get('step', math.nan):.3g}", f"{guidance.get('verify_threshold', math.nan):.3g}",
            )  # fmt: skip
        if len(front) > MOST_POINTS:
            table.caption = f"{len(front) - MOST_POINTS} more with --json"
        tables.append(table)
    return tables


def _latency_table(latency: Mapping[str, "Latency"], threads: int) -> "Table":
    table = table_of(
        f"milliseconds of a step on this machine, {threads} thread{'s' * (threads != 1)}: p50",
        "depth", "layers", "vision", "stack", "a layer", "head", "total", "p95", "Hz",
    )  # fmt: skip
    for name, it in latency.items():
        p50 = {part: f"{milliseconds:.1f}" for part, milliseconds in it.p50.items()}
        table.add_row(
            name, str(it.layers), p50["vision"], p50["stack"], f"{it.per_layer:.2f}", p50["head"], p50["total"],
            f"{it.p95['total']:.1f}", f"{1e3 / it.p50['total']:.0f}",
        )  # fmt: skip
    return table
