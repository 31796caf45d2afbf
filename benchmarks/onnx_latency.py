"""Milliseconds of a step on ONNX Runtime and on torch, side by side in one run, at the same plans.

    make bench                                        the shipped policy; adds to bench_out/bench.json
    python benchmarks/onnx_latency.py FOLDER          another checkpoint with a `dysl` folder

The checkpoint is exported first, to a folder that is removed again. Every observation of a few closed-loop episodes is
stepped once by each runtime at each plan, in turn, so that a machine that slows down slows all. Quoted are medians, the
middle half in brackets, and ratios taken observation by observation. Processes that share the cores fall on all alike,
but not to the same degree: quote ratios with the load beside them.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from step_latency import ENGINE_GOAL, SEED, engine_cost, figure, quartiles

from dysl_vla_ros.engines import ONNX, TORCH
from dysl_vla_ros.engines.onnx.exporting.export import export_checkpoint
from dysl_vla_ros.evaluation.closed_loop import EvaluationSettings, play_episode
from dysl_vla_ros.files import write_json
from dysl_vla_ros.interfaces import Observation, StepResult
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import AT_FLOOR, FULL_DEPTH, RuntimeSettings
from dysl_vla_ros.simulation.scene import Scene

PLANS = {"full": FULL_DEPTH, "floor": AT_FLOOR}
PARTS = ("vision", "stack", "head", "total")
SAME_PLAN_GOAL = 1.3  # torch over ONNX Runtime, whole step
WHOLE_GOAL = 4.5  # full depth on torch over the floor on ONNX Runtime
TOLERANCE = 1e-3  # of actions, normalised: what both compute must be one thing before it is timed


def seen_in(runtime: Runtime, tasks: Sequence[str], max_ticks: int) -> list[Observation]:
    """Return the observations of an episode a task."""
    seen: list[Observation] = []
    for task in tasks:
        play_episode(
            runtime, Scene(task), SEED, EvaluationSettings(max_ticks=max_ticks), watch=lambda own, _: seen.append(own)
        )
    return seen


def timed(runtimes: dict[str, Runtime], seen: Sequence[Observation]) -> dict[tuple[str, str], list[StepResult]]:
    """Step every observation by each runtime at each plan; who begins changes from observation to observation."""
    nothing = np.zeros((0, next(iter(runtimes.values())).policy.action.dimensions), np.float32)
    sides: list[tuple[str, str, RuntimeSettings]] = [
        (name, plan, wanted) for plan, wanted in PLANS.items() for name in runtimes
    ]
    results: dict[tuple[str, str], list[StepResult]] = {(name, plan): [] for name, plan, _ in sides}
    for number, observation in enumerate(seen):
        for name, plan, wanted in sides if number % 2 else sides[::-1]:
            results[name, plan].append(runtimes[name].step(observation, nothing, wanted))
    return results


def goal_at_least(name: str, values: Sequence[float] | np.ndarray, least: float) -> dict[str, Any]:
    """Return an entry of bench.json with a goal that is met from ``least`` up."""
    own = figure(name, values, "ratio")
    return own | {"goal": f"at least {least:g}", "met": own["value"] >= least}


def main() -> None:
    """Export, measure, print, add to what is written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shipped = Path(__file__).parents[1] / "checkpoints" / "reference"
    parser.add_argument("checkpoint", nargs="?", type=Path, default=shipped, help="folder with a `dysl` folder in it")
    parser.add_argument("--tasks", nargs="+", default=["reach", "push"], help="one episode of each")
    parser.add_argument("--max-ticks", type=int, default=100, help="longest episode")
    parser.add_argument("--threads", type=int, default=1, help="compute threads of each runtime")
    parser.add_argument("--weights", default="fp32", help="numbers of the export")
    parser.add_argument("--out", type=Path, default=Path("bench_out"), help="folder for bench.json")
    arguments = parser.parse_args()

    checkpoint, threads = str(arguments.checkpoint), arguments.threads
    with tempfile.TemporaryDirectory() as folder:
        export_checkpoint(arguments.checkpoint, output=Path(folder), weights=arguments.weights)
        runtimes = {
            TORCH: Runtime.load(checkpoint, "", threads=threads),
            ONNX: Runtime.load(checkpoint, "", threads=threads, engine=ONNX, export=folder),
        }
    for runtime in runtimes.values():
        runtime.warm_up()
        runtime.reset()
    seen = seen_in(runtimes[TORCH], arguments.tasks, arguments.max_ticks)
    results = timed(runtimes, seen)
    action = runtimes[TORCH].policy.action
    for plan in PLANS:
        apart = max(
            action.distance(one.chunk.actions, other.chunk.actions)
            for one, other in zip(results[TORCH, plan], results[ONNX, plan], strict=True)
        )
        print(f"{plan}: largest distance of actions on both runtimes {apart:.1e} (normalised)")
        assert apart < TOLERANCE or arguments.weights != "fp32", "the runtimes do not compute the same"

    load = os.getloadavg()[0]
    print(f"{len(seen)} observations, {threads} threads, load of the machine {load:.1f}")
    print("milliseconds: median (middle half)")
    print(f"{'':8}" + "".join(f"{f'{name}, {plan}':>26}" for name, plan in results))
    times = {
        key: {part: np.array([getattr(own.timings, part) for own in found]) for part in PARTS}
        for key, found in results.items()
    }
    for part in PARTS:
        print(f"{part:8}" + "".join(f"{quartiles(own[part]):>26}" for own in times.values()))

    partition = runtimes[TORCH].dysl.partition  # type: ignore[union-attr]
    whole = {key: own["total"] for key, own in times.items()}
    bound = times[ONNX, "floor"]["vision"] + times[ONNX, "floor"]["head"]
    figures = [
        *(figure(f"step_ms_{name}_{plan}", own, "ms") for (name, plan), own in whole.items()),
        goal_at_least("onnx_over_torch_floor", whole[TORCH, "floor"] / whole[ONNX, "floor"], SAME_PLAN_GOAL),
        goal_at_least("onnx_over_torch_full", whole[TORCH, "full"] / whole[ONNX, "full"], SAME_PLAN_GOAL),
        goal_at_least("onnx_floor_over_torch_full", whole[TORCH, "full"] / whole[ONNX, "floor"], WHOLE_GOAL),
        figure("onnx_bound_over_torch_full", whole[TORCH, "full"] / bound, "ratio"),
        *(
            figure(f"engine_cost_{name}_{plan}", engine_cost(runtime, seen, positions), "ratio", ENGINE_GOAL)
            for name, runtime in runtimes.items()
            for plan, positions in (
                ("floor", partition.floor),
                ("full", tuple(end for _, end in partition.blocks)),
            )
        ),
    ]
    figures = [own | {"threads": threads, "load": round(load, 1)} for own in figures]
    for own in figures:
        said = "" if own["met"] is None else f", {own['goal']}: {'met' if own['met'] else 'NOT met'}"
        print(
            f"{own['name']}: {own['value']:.3f} {own['unit']} ({own['spread'][0]:.3f} to {own['spread'][1]:.3f}){said}"
        )
    path = arguments.out / "bench.json"
    before = json.loads(path.read_text()) if path.exists() else []
    names = {own["name"] for own in figures}
    write_json(path, [own for own in before if own["name"] not in names] + figures)
    print(f"added to {path}")


if __name__ == "__main__":
    main()
