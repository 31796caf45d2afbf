"""From a recording to a policy that skips layers: choose layers, train adapters, search thresholds, tune.

    python examples/distill_from_a_bag.py BAG CHECKPOINT OUT

BAG is what `ros2 bag record` wrote while the policy drove at full depth. No labels, no simulator, no ROS. OUT is made:
it holds the DySL folder and a parameter file for this machine; CHECKPOINT stays as it is. `dysl_vla calibrate`,
`distill` and `tune` are these functions with options; docs/your-robot.md says how much to record and what to look at.
"""

import logging
import sys
from pathlib import Path

from dysl_vla_ros import CalibrateSettings, DistillSettings, TuneSettings, calibrate, distill, tune
from dysl_vla_ros.distillation.settings import DistillationSettings, ModuleSettings


def main(bag: Path, checkpoint: Path, out: Path, steps: int = 200, frames: int = 2000) -> None:
    """Go through all four; ``steps`` of each stage is few, enough to see it work."""
    dysl = out / "dysl"

    # 1. Which layers always run. The others may be skipped.
    layers = calibrate(checkpoint, bag, dysl, CalibrateSettings(static="spread", observations=frames))
    print("static layers:", layers.partition.static)

    # 2. What stands in for the skipped ones, and what decides: trained on what the policy itself does at full depth.
    settings = DistillSettings(
        observations=frames,
        stages=DistillationSettings(hidden_steps=steps, action_steps=steps, joint_steps=steps),
        modules=ModuleSettings(bottleneck=32),
        device="cpu",  # or "cuda"
    )
    made = distill(checkpoint, bag, dysl, settings)
    for stage in made.report["stages"]:
        print(f"{stage['stage']}: loss {stage['loss']:.4f}")
    print("what is wrong with it:", "; ".join(made.warnings) or "nothing")

    # 3. Thresholds: the least action error at no more than half of the layers, on episodes that were held out.
    found = calibrate(checkpoint, made.data, dysl, CalibrateSettings(target_layers=0.5))
    print(f"{found.best.layers:.1f} of {found.num_layers} layers at an action error of {found.best.error:.4f}")

    # 4. This machine: as quick as it can be within 5 mm of full depth. OUT/tuned/tuned.yaml goes to `params_file:=`.
    tuned = tune(checkpoint, bag, dysl, out / "tuned", TuneSettings(max_deviation=5.0, trials=40))
    figures = tuned.tuning.choice.figures
    print(f"{figures.milliseconds:.1f} ms an inference, {figures.deviation_p95:.2f} mm, target met: {tuned.tuning.met}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # what the jobs say on their way
    main(*(kind(word) for kind, word in zip((Path, Path, Path, int, int), sys.argv[1:], strict=False)))
