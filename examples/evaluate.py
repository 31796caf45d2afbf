"""Success, depth and milliseconds in simulation, at full depth and with skipping, on the same scenes.

    python examples/evaluate.py [CHECKPOINT [SCENES]]

The same settings give the same episodes again, bit for bit on one machine; only milliseconds differ.
`dysl_vla evaluate` is this with options; with --methods it compares many methods, with intervals.
"""

import sys
from dataclasses import replace
from pathlib import Path

from dysl_vla_ros.evaluation.closed_loop import EvaluationSettings
from dysl_vla_ros.evaluation.evaluate import evaluate
from dysl_vla_ros.settings import FULL_DEPTH
from dysl_vla_ros.simulation.tasks import tasks_named

SHIPPED = Path(__file__).parents[1] / "checkpoints" / "reference"


def main(checkpoint: Path = SHIPPED, scenes: int = 3) -> None:
    """Play one easy task both ways."""
    skipping = EvaluationSettings(
        tasks=tuple(tasks_named(["reach"])),  # names, or the sets easy and hard; none: all that it was trained on
        seeds=scenes,  # scenes a task
        max_ticks=100,  # control ticks of 50 ms before an episode is lost
    )
    full = replace(skipping, runtime=FULL_DEPTH)  # `runtime` has what a node calls skipping.* and guidance.*
    for name, settings in (("full depth", full), ("skipping", skipping)):
        done = evaluate(checkpoint, settings)  # with jobs=2 two processes play
        overall = done.summary["overall"]
        print(
            f"{name}: {overall['successes']} of {overall['episodes']} scenes, "
            f"{overall['layers_mean']:.1f} of {overall['layers_total']} layers an inference, "
            f"{overall['timings']['total']['p50']:.1f} ms"
        )
        # What happened in each inference is there as well: which layers ran, and why.
        trace = done.episodes[0].inferences[-1].trace
        print(f"  last inference of the first scene: layers {trace.executed}, verified: {trace.verified}")


if __name__ == "__main__":  # processes that play import this file again
    main(*(kind(word) for kind, word in zip((Path, int), sys.argv[1:], strict=False)))
