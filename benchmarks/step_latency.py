"""Milliseconds of one control step: full depth and skipping side by side, and what the engine itself costs, in one run.

    make bench                                   the shipped policy; also writes bench_out/bench.json
    python benchmarks/step_latency.py FOLDER     another checkpoint with a `dysl` folder

Every observation of a few closed-loop episodes is stepped once by each, in turn, so that a machine that slows down
slows both. Quoted are medians, the middle half in brackets, and the ratio taken observation by observation. The engine
is held against a bare loop over just the layers and adapters of a plan: what hooks, rules and traces cost beside them.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from command_start import command_starts

from dysl_vla_ros.evaluation.closed_loop import EvaluationSettings, play_episode
from dysl_vla_ros.files import write_json
from dysl_vla_ros.interfaces import Observation, StepResult
from dysl_vla_ros.records.machine import machine
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import FULL_DEPTH, OPEN, RuntimeSettings
from dysl_vla_ros.simulation.scene import Scene
from dysl_vla_ros.skipping.depth_rules import FixedPlan

SEED = 30_000  # scenes that nothing was trained, calibrated or evaluated on
PARTS = ("vision", "stack", "head", "verify", "total")
ENGINE_GOAL = 1.05  # stack time at a plan over that of the bare loop
UNGUIDED = RuntimeSettings(guidance=OPEN)

Pairs = list[tuple[StepResult, StepResult]]


def quartiles(values: np.ndarray) -> str:
    """Return "median (lower quartile to upper quartile)"."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return f"{middle:6.2f} ({low:.2f} to {high:.2f})"


def figure(name: str, values: Sequence[float] | np.ndarray, unit: str, goal: float | None = None) -> dict[str, Any]:
    """Return an entry of bench.json: the median with its quartiles; ``goal``: at most this, None: only measured."""
    low, middle, high = (round(float(value), 4) for value in np.percentile(np.asarray(values), (25, 50, 75)))
    return {
        "name": name,
        "value": middle,
        "unit": unit,
        "goal": None if goal is None else f"at most {goal:g}",
        "met": None if goal is None else middle <= goal,
        "spread": [low, high],
        "runs": len(values),
        "machine": machine(),
    }


def side_by_side(checkpoint: Path, tasks: Sequence[str], max_ticks: int) -> tuple[Pairs, list[Observation]]:
    """Step every observation of an episode a task with skipping and at full depth; return results and observations."""
    skipping, full = (Runtime.load(str(checkpoint), "") for _ in range(2))
    pairs: Pairs = []
    seen: list[Observation] = []

    def step_both(observation: Observation, result: StepResult) -> None:
        pairs.append((result, full.step(observation, np.zeros((0, full.policy.action.dimensions)), FULL_DEPTH)))
        seen.append(observation)

    for runtime in (skipping, full):
        runtime.warm_up()
    for task in tasks:
        full.reset()
        play_episode(skipping, Scene(task), SEED, EvaluationSettings(max_ticks=max_ticks), watch=step_both)
    return pairs, seen


def engine_cost(runtime: Runtime, seen: Sequence[Observation], plan: tuple[int, ...]) -> list[float]:
    """Return, for each observation, the stack's time at a plan over that of a bare loop over its layers and adapters.

    Both run in the policy's own dtype and on its engine; who begins changes from observation to observation.
    """
    assert runtime.dysl is not None
    partition, modules = runtime.dysl.partition, runtime.dysl.modules
    runtime.rule_override = lambda points: FixedPlan(partition, modules, plan)
    skips = {at: end for at, (_, end) in zip(plan, partition.blocks, strict=True) if at < end}
    layers, nothing = list(runtime.policy.layers), np.zeros((0, runtime.policy.action.dimensions), np.float32)
    lengths = runtime.policy.run_lengths or [1] * len(layers)

    def engine(observation: Observation) -> float:
        return runtime.step(observation, nothing, UNGUIDED).timings.stack

    def bare(observation: Observation) -> float:
        with runtime.policy.engine.computing():
            hidden, context = runtime.policy.prepare([observation])
            start, layer = time.perf_counter_ns(), 0
            while layer < len(layers):
                if layer in skips:
                    hidden = modules.adapted(layer, hidden, context.token_mask)
                    layer = skips[layer]
                else:
                    hidden = layers[layer](hidden, context)
                    layer += lengths[layer]
            return (time.perf_counter_ns() - start) / 1e6

    sides: list[Callable[[Observation], float]] = [engine, bare]
    ratios: list[float] = []
    for number, observation in enumerate(seen):
        order = sides if number % 2 else sides[::-1]
        taken = {side: side(observation) for side in order}
        ratios.append(taken[engine] / taken[bare])
    return ratios


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shipped = Path(__file__).parents[1] / "checkpoints" / "reference"
    parser.add_argument("checkpoint", nargs="?", type=Path, default=shipped, help="folder with a `dysl` folder in it")
    parser.add_argument("--tasks", nargs="+", default=["reach", "push", "drawer-open"], help="one episode of each")
    parser.add_argument("--max-ticks", type=int, default=100, help="longest episode")
    parser.add_argument("--out", type=Path, default=Path("bench_out"), help="folder for bench.json")
    arguments = parser.parse_args()

    pairs, seen = side_by_side(arguments.checkpoint, arguments.tasks, arguments.max_ticks)
    runtime = Runtime.load(str(arguments.checkpoint), "")
    runtime.warm_up()
    partition = runtime.dysl.partition  # type: ignore[union-attr]  # side_by_side has refused a folder without
    nothing_skipped = tuple(end for _, end in partition.blocks)

    times = {part: np.array([[getattr(a.timings, part), getattr(b.timings, part)] for a, b in pairs]) for part in PARTS}
    layers = np.array([[a.trace.layer_calls, b.trace.layer_calls] for a, b in pairs])
    both_passes = times["stack"] + times["verify"]
    ratios = {
        "stack": times["stack"][:, 1] / np.maximum(times["stack"][:, 0], 1e-9),
        "total": times["total"][:, 1] / np.maximum(times["total"][:, 0], 1e-9),
    }
    print(f"{len(pairs)} steps, one thread; milliseconds: median (middle half)")
    print(f"{'':8} {'skipping':>26} {'full depth':>26} {'full / skipping':>26}")
    for part in PARTS:
        shown = quartiles(ratios[part]) if part in ratios else ""
        print(f"{part:8} {quartiles(times[part][:, 0]):>26} {quartiles(times[part][:, 1]):>26} {shown:>26}")
    print(f"{'layers':8} {layers[:, 0].mean():26.1f} {layers[:, 1].mean():26.1f}   (mean layer calls)")

    figures = [
        figure("stack_ms_full", times["stack"][:, 1], "ms"),
        figure("stack_ms_skipping", times["stack"][:, 0], "ms"),
        figure("step_ms_full", times["total"][:, 1], "ms"),
        figure("step_ms_skipping", times["total"][:, 0], "ms"),
        figure("stack_speedup", ratios["stack"], "ratio"),
        figure("step_speedup", ratios["total"], "ratio"),
        # as tables have it: verification counted, mean over mean
        figure("stack_speedup_of_means", both_passes[:, 1] / np.maximum(both_passes[:, 0], 1e-9), "ratio")
        | {"value": round(float(both_passes[:, 1].mean() / both_passes[:, 0].mean()), 4)},
        figure("engine_cost_floor", engine_cost(runtime, seen, partition.floor), "ratio", ENGINE_GOAL),
        figure("engine_cost_full", engine_cost(runtime, seen, nothing_skipped), "ratio", ENGINE_GOAL),
    ]
    for own in figures[-2:]:
        said = "met" if own["met"] else "NOT met"
        print(f"{own['name']}: {own['value']:.3f} ({own['spread'][0]:.3f} to {own['spread'][1]:.3f}), "
              f"{own['goal']}: {said}")  # fmt: skip
    starts = command_starts()
    figures += [figure(f"command_{name}_s", starts[name], "s") for name in ("help", "refusal")]
    figures.append(figure("command_refusal_over_torch", np.divide(starts["refusal"], starts["torch"]), "ratio"))
    for name, seconds in starts.items():
        print(f"seconds of a command: {name:8} {quartiles(np.array(seconds))}")
    write_json(arguments.out / "bench.json", figures)
    print(f"written: {arguments.out / 'bench.json'}")


if __name__ == "__main__":
    main()
