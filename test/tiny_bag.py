"""A bag for the tiny policy: pictures that drift, a pose that moves, instructions; written at once, no simulator."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recorded_bag import BEGIN, PERIOD, BagWriter
from tiny_checkpoint import INSTRUCTION


def write_tiny_bag(
    path: Path,
    ticks: int = 20,
    episodes: Sequence[str] = (INSTRUCTION, INSTRUCTION),
    seed: int = 0,
    prefix: str = "/",
    *,
    period: int = PERIOD,
    cameras: Sequence[str] = ("wrist_image", "image"),
    behind: int = 0,
) -> Path:
    """Write episodes of ``ticks`` frames, one an entry of ``episodes`` (its instruction), a second apart.

    ``period`` (ns) between frames; ``cameras`` of one instant in this order, each ``behind`` (ns) the one before.
    """
    random = np.random.default_rng(seed)
    with BagWriter(path) as writer:
        now = BEGIN
        for instruction in episodes:
            now += 2 * 10**9
            writer.write(f"{prefix}instruction", now - PERIOD, writer.text(instruction))
            picture = {name: random.integers(0, 255, (96, 96, 3)).astype(float) for name in ("image", "wrist_image")}
            position = random.normal(0.3, 0.1, 3)
            for _ in range(ticks):
                position = position + random.normal(0.0, 0.01, 3)
                writer.write(f"{prefix}ee_pose", now, writer.pose(now, position))
                writer.write(f"{prefix}gripper_state", now, writer.number(float(random.uniform(0.2, 0.8))))
                for place, name in enumerate(cameras):
                    picture[name] = 0.7 * picture[name] + 0.3 * random.integers(0, 255, (96, 96, 3))
                    message = writer.image(now, picture[name].astype(np.uint8))
                    writer.write(f"{prefix}{name}", now + 1000 + place * behind, message)
                now += period
    return path
