"""What `control.budget_ms` keeps while another process takes the core: deadlines missed and layers, with and without.

    make bench-budget                            the shipped policy; also writes bench_out/budget.json
    python benchmarks/budget_latency.py FOLDER   another checkpoint with a `dysl` folder

Controllers never skip here, so that every layer runs that the budget allows: the hardest case for it. The budget is
what full depth meets with nothing beside it (:data:`ROOM` times its median). An observation is then stepped in turn
with the budget, without it, and with the static layers alone, while processes that only compute share the core. A step
that takes longer than the budget is a miss, on whichever side; what the static layers alone miss no budget can keep.
"""

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dysl_vla_ros.files import write_json
from dysl_vla_ros.interfaces import Observation, StepResult
from dysl_vla_ros.records.machine import machine
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import OPEN, RuntimeSettings, SkippingSettings

GOAL = 0.01  # of the steps may miss the budget, where the static layers alone keep it
ROOM = 1.25
NEVER_SKIPPING = RuntimeSettings(skipping=SkippingSettings(rule="dysl", threshold=1.0), guidance=OPEN)
SHORTEST = RuntimeSettings(skipping=SkippingSettings(rule="static"), guidance=OPEN)
QUIET_STEPS = 60


@contextlib.contextmanager
def load(processes: int) -> Iterator[None]:
    """Let processes compute on the core that this one is on, until the end of the block."""
    endless = [sys.executable, "-S", "-c", "while True: pass"]
    running = [subprocess.Popen(endless) for _ in range(processes)]  # they inherit the one core
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def stepped(runtime: Runtime, observation: Observation, settings: RuntimeSettings) -> StepResult:
    """Step once, as if it were an episode's first."""
    runtime.reset()
    return runtime.step(observation, np.zeros((0, runtime.policy.action.dimensions), np.float32), settings)


def milliseconds(runtime: Runtime, observation: Observation, settings: RuntimeSettings) -> float:
    """Return the median of a step with nothing beside it."""
    return float(np.median([stepped(runtime, observation, settings).timings.total for _ in range(QUIET_STEPS)]))


def side(name: str, results: list[StepResult], budget: float) -> dict[str, Any]:
    """Return what one side came to, and print it."""
    total = np.array([result.timings.total for result in results])
    layers = np.array([result.trace.layer_calls for result in results])
    figures = {
        "name": name,
        "steps": len(results),
        "missed": round(float(np.mean(total > budget)), 4),
        "ms_p50": round(float(np.median(total)), 3),
        "ms_p99": round(float(np.percentile(total, 99)), 3),
        "layers_mean": round(float(layers.mean()), 2),
        "cut": round(float(np.mean([result.trace.budget_cut for result in results])), 4),
    }
    print(f"{name:16} {figures['missed']:8.2%} {figures['ms_p50']:9.2f} {figures['ms_p99']:9.2f} "
          f"{figures['layers_mean']:8.1f} {figures['cut']:8.0%}")  # fmt: skip
    return figures


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shipped = Path(__file__).parents[1] / "checkpoints" / "reference"
    parser.add_argument("checkpoint", nargs="?", type=Path, default=shipped, help="folder with a `dysl` folder in it")
    parser.add_argument("--steps", type=int, default=600, help="of each side and load")
    parser.add_argument("--beside", type=int, nargs="+", default=[0, 1, 2], help="numbers of processes on the core")
    parser.add_argument("--out", type=Path, default=Path("bench_out"), help="folder for budget.json")
    arguments = parser.parse_args()

    if hasattr(os, "sched_setaffinity"):  # load and policy on one core, or the system would put them on two
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    runtime = Runtime.load(str(arguments.checkpoint), "")
    runtime.warm_up()
    observation = runtime.policy.sample()
    shortest, full = (milliseconds(runtime, observation, own) for own in (SHORTEST, NEVER_SKIPPING))
    budget = round(ROOM * full, 2)
    print(f"alone: shortest {shortest:.2f} ms, every layer {full:.2f} ms; budget {budget:.2f} ms")
    record: dict[str, Any] = {
        "machine": machine(), "shortest_ms": round(shortest, 3), "full_ms": round(full, 3), "budget_ms": budget,
        "goal": GOAL, "loads": [],
    }  # fmt: skip
    budgeted = replace(NEVER_SKIPPING, budget_ms=budget)
    for beside in arguments.beside:
        sides = {"with a budget": budgeted, "without": NEVER_SKIPPING, "static layers": SHORTEST}
        results: dict[str, list[StepResult]] = {name: [] for name in sides}
        with load(beside):
            for number in tqdm(range(arguments.steps), desc=f"{beside} beside", unit="step", leave=False):
                for place in range(len(sides)):  # who begins changes
                    name = list(sides)[(place + number) % len(sides)]
                    results[name].append(stepped(runtime, observation, sides[name]))
        print(f"\n{beside} processes beside it")
        print(f"{'':16} {'missed':>8} {'p50 ms':>9} {'p99 ms':>9} {'layers':>8} {'cut':>8}")
        figures = [side(name, own, budget) for name, own in results.items()]
        kept, fits = figures[0]["missed"] <= GOAL, figures[-1]["missed"] <= GOAL
        verdict = ("met" if kept else "NOT met") if fits else "the static layers alone miss more"
        print(f"missed at most {GOAL:.0%}: {verdict}")
        record["loads"].append({"beside": beside, "sides": figures, "met": kept if fits else None})
    write_json(arguments.out / "budget.json", record)
    print(f"written: {arguments.out / 'budget.json'}")


if __name__ == "__main__":
    main()
