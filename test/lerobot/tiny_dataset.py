"""A LeRobotDataset folder, written by LeRobot itself: python tiny_dataset.py FOLDER FPS COUNT..., an episode a count.

One camera's pictures are images, the other's a video.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

TOP, WRIST = "observation.images.top", "observation.images.wrist"
TEXTS = ("pick up the red cube", "put the ball in the tray")  # of one episode after the other


def frame(row: int) -> dict[str, Any]:
    """Return what is recorded at a row; a video keeps a picture of one colour."""
    random = np.random.default_rng(row)
    return {
        TOP: random.integers(0, 256, (48, 64, 3), dtype=np.uint8),
        WRIST: np.full((40, 48, 3), 20 * row % 256, np.uint8),
        "observation.state": random.normal(size=6, scale=20.0).astype(np.float32),
        "action": np.zeros(6, np.float32),
    }


def write_dataset(folder: Path, fps: int, counts: Sequence[int]) -> None:
    """Write episodes of so many frames."""
    values = {"dtype": "float32", "shape": (6,), "names": [f"joint_{place}.pos" for place in range(6)]}
    sides = ["height", "width", "channels"]
    features = {
        TOP: {"dtype": "image", "shape": (48, 64, 3), "names": sides},
        WRIST: {"dtype": "video", "shape": (40, 48, 3), "names": sides},
        "observation.state": values,
        "action": values,
    }
    made = LeRobotDataset.create("local/tiny", fps=fps, features=features, root=folder)
    row = 0
    for episode, count in enumerate(counts):
        for _ in range(count):
            made.add_frame(frame(row) | {"task": TEXTS[episode % len(TEXTS)]})
            row += 1
        made.save_episode()
    made.finalize()


if __name__ == "__main__":
    write_dataset(Path(sys.argv[1]), int(sys.argv[2]), [int(count) for count in sys.argv[3:]])
