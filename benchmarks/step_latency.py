"""Milliseconds of one control step: full depth and skipping side by side, on the same observations, in one run.

    make bench                                   the shipped policy
    python benchmarks/step_latency.py FOLDER     another checkpoint with a `dysl` folder

Every observation of a few closed-loop episodes is stepped once by each, in turn, so that a machine that slows down
slows both. Quoted are medians, the middle half in brackets, and the ratio taken observation by observation.
"""

import argparse
from pathlib import Path

import numpy as np

from dysl_vla_ros.evaluation.closed_loop import EvaluationSettings, play_episode
from dysl_vla_ros.interfaces import Observation, StepResult
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import RuntimeSettings, SkippingSettings
from dysl_vla_ros.simulation.scene import Scene

SEED = 30_000  # scenes that nothing was trained, calibrated or evaluated on
PARTS = ("vision", "stack", "head", "verify", "total")


def quartiles(values: np.ndarray) -> str:
    """Return "median (lower quartile to upper quartile)"."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return f"{middle:6.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shipped = Path(__file__).parents[1] / "checkpoints" / "reference"
    parser.add_argument("checkpoint", nargs="?", type=Path, default=shipped, help="folder with a `dysl` folder in it")
    parser.add_argument("--tasks", nargs="+", default=["reach", "push", "drawer-open"], help="one episode of each")
    arguments = parser.parse_args()

    skipping, full = (Runtime.load(str(arguments.checkpoint), "") for _ in range(2))
    every_layer = RuntimeSettings(skipping=SkippingSettings(enabled=False))
    pairs: list[tuple[StepResult, StepResult]] = []

    def step_both(observation: Observation, result: StepResult) -> None:
        pairs.append((result, full.step(observation, np.zeros((0, 4), np.float32), every_layer)))

    for runtime in (skipping, full):
        runtime.warm_up()
    for task in arguments.tasks:
        full.reset()
        play_episode(skipping, Scene(task), SEED, EvaluationSettings(max_ticks=100), watch=step_both)

    layers = np.array([[a.trace.layer_calls, b.trace.layer_calls] for a, b in pairs])
    print(f"{len(pairs)} steps, one thread; milliseconds: median (middle half)")
    print(f"{'':8} {'skipping':>26} {'full depth':>26} {'full / skipping':>26}")
    for part in PARTS:
        both = np.array([[getattr(a.timings, part), getattr(b.timings, part)] for a, b in pairs])
        ratio = both[:, 1] / np.maximum(both[:, 0], 1e-9)
        shown = quartiles(ratio) if part in ("stack", "total") else ""
        print(f"{part:8} {quartiles(both[:, 0]):>26} {quartiles(both[:, 1]):>26} {shown:>26}")
    print(f"{'layers':8} {layers[:, 0].mean():26.1f} {layers[:, 1].mean():26.1f}   (mean layer calls)")


if __name__ == "__main__":
    main()
