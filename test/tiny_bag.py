"""A bag for the tiny policy: pictures that drift, a pose that moves, instructions; written at once, no simulator."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import StoragePlugin

from recorded_bag import BEGIN, PERIOD, BagWriter
from tiny_checkpoint import INSTRUCTION


def write_tiny_bag(
    path: Path,
    ticks: int = 20,
    episodes: Sequence[str] = (INSTRUCTION, INSTRUCTION),
    seed: int = 0,
    prefix: str = "/",
    *,
    steps: Sequence[float] = (),
    stamped: bool = True,
    frame: str = "base",
    plugin: StoragePlugin = StoragePlugin.SQLITE3,
    period: int = PERIOD,
    cameras: Sequence[str] = ("wrist_image", "image"),
    behind: int = 0,
    answer: Callable[[BagWriter, int], tuple[str, Any]] | None = None,
) -> Path:
    """Write episodes of ``ticks`` frames, one an entry of ``episodes`` (its instruction), two seconds apart.

    Args:
        path: of the bag.
        ticks: frames of an episode.
        episodes: instructions.
        seed: of pictures and poses.
        prefix: of every topic.
        steps: s that the clock goes on by before each episode in place of two; below zero it is set back.
        stamped: false: every stamp is 0.
        frame: of the poses.
        plugin: storage.
        period: ns between frames.
        cameras: those of one instant, in this order.
        behind: ns that each of them is received behind the one before.
        answer: (writer, stamp in ns) -> topic and message that answer the frame of this stamp; None: nothing does.
    """
    random = np.random.default_rng(seed)
    with BagWriter(path, plugin) as writer:
        now = BEGIN
        for number, instruction in enumerate(episodes):
            now += round((steps[number] if steps else 2.0) * 1e9)
            writer.write(f"{prefix}instruction", now - PERIOD, writer.text(instruction))
            picture = {name: random.integers(0, 255, (96, 96, 3)).astype(float) for name in ("image", "wrist_image")}
            position = random.normal(0.3, 0.1, 3)
            for _ in range(ticks):
                position = position + random.normal(0.0, 0.01, 3)
                writer.write(f"{prefix}ee_pose", now, writer.pose(now * stamped, position, frame))
                writer.write(f"{prefix}gripper_state", now, writer.number(float(random.uniform(0.2, 0.8))))
                for place, name in enumerate(cameras):
                    picture[name] = 0.7 * picture[name] + 0.3 * random.integers(0, 255, (96, 96, 3))
                    message = writer.image(now * stamped, picture[name].astype(np.uint8))
                    writer.write(f"{prefix}{name}", now + 1000 + place * behind, message)
                if answer:
                    topic, message = answer(writer, now)
                    writer.write(topic, now + 20_000_000, message)
                now += period
    return path
