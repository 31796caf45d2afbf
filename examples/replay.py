"""What skipping costs and saves on a recording of a robot: the policy runs again, full depth and skipping side by side.

    python examples/replay.py BAG [CHECKPOINT]

BAG is what `ros2 bag record` wrote; neither ROS nor a simulator is needed. `dysl_vla replay` is this with options.
"""

import sys
from pathlib import Path

from dysl_vla_ros.replay.job import ReplaySettings, replay
from dysl_vla_ros.replay.run import FULL, SKIPPING

SHIPPED = Path(__file__).parents[1] / "checkpoints" / "reference"


def main(bag: Path, checkpoint: Path = SHIPPED) -> None:
    """Replay a bag and look at the figures, and at single moments."""
    settings = ReplaySettings(
        output=Path("replay_out"),  # replay.json and replay.html are written there
        max_deviation=5.0,  # a criterion: mm, 95th percentile; what a release must keep to
    )
    done = replay(bag, checkpoint, settings)

    layers, moved = done.about["layers"], done.about["deviation"]["all"]["translation_mm"]
    print(f"{layers['mean']:.1f} of {layers['total']} layers an inference")
    print(f"deviation from full depth: {moved['p95']:.2f} mm (p95), {moved['max']:.2f} mm at most")
    print(f"milliseconds (p50): {done.timings[FULL]['total']['p50']:.1f}, {done.timings[SKIPPING]['total']['p50']:.1f}")
    print("within the criteria" if done.failure is None else f"not within the criteria: {done.failure.text}")

    # Every moment is a row of numpy arrays: where does skipping move the arm most unlike full depth?
    full, skipping = (done.replay.track(name).columns["action"] for name in (FULL, SKIPPING))  # (n, A), physical units
    apart = ((full[:, :3] - skipping[:, :3]) ** 2).sum(axis=1) ** 0.5  # m
    worst = int(apart.argmax())
    print(f"furthest apart {done.replay.moments['time'][worst]:.2f} s into the recording: {1e3 * apart[worst]:.2f} mm")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:3]))
