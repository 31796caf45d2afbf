"""A policy without ROS: load a checkpoint with its adapters, give it observations, see which layers ran.

    python examples/load_and_step.py [CHECKPOINT]

An observation here is grey pictures; on a robot it is what the cameras see. One step takes it and the actions that were
played since the step before, and gives a chunk of actions in physical units.
"""

import sys
from pathlib import Path

import numpy as np

import dysl_vla_ros
from dysl_vla_ros.settings import RuntimeSettings, SkippingSettings

SHIPPED = Path(__file__).parents[1] / "checkpoints" / "reference"


def main(checkpoint: Path = SHIPPED, device: str = "cpu") -> None:
    """Step a few times with skipping, then once at full depth."""
    runtime = dysl_vla_ros.load(checkpoint, device=device)  # adapters: the checkpoint's own `dysl` folder
    runtime.warm_up()  # so that the first step is no slower than the rest
    policy = runtime.description
    print(f"{policy.family}: {policy.layers_total} layers, blocks that may be skipped: {policy.blocks}")

    observation = runtime.policy.sample()  # .images (H, W, 3) uint8 by camera, .proprioception, .instruction
    played = np.zeros((0, policy.action.dimensions), np.float32)  # nothing was played yet
    skipping = RuntimeSettings()  # thresholds and guidance as calibrated; a parameter file can set others
    runtime.reset()  # an episode begins
    for number in range(4):
        result = runtime.step(observation, played, skipping)
        played = result.chunk.actions[: result.chunk.actions_to_play]  # what a robot would do now
        trace, time = result.trace, result.timings.total
        print(
            f"step {number}: {trace.layer_calls} layer calls in {time:.1f} ms, verified: {trace.verified}, "
            f"full depth because: {trace.full_depth_reason or '-'}; first action {np.round(played[0], 4)}"
        )

    full = runtime.step(observation, played, RuntimeSettings(SkippingSettings(rule="full")))
    print(f"full depth: {full.trace.layer_calls} layer calls in {full.timings.total:.1f} ms")


if __name__ == "__main__":
    main(*(kind(word) for kind, word in zip((Path, str), sys.argv[1:], strict=False)))
