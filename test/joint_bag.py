"""A bag of an arm with joints: pictures that drift, joints that move, an instruction an episode; written at once."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recorded_bag import BEGIN, BagWriter


def write_joint_bag(
    path: Path,
    joints: Sequence[str],
    pictures: Mapping[str, tuple[int, int]],
    episodes: Sequence[str],
    ticks: int = 16,
    *,
    period: float = 0.05,
    seed: int = 0,
    answer: Callable[[BagWriter, int], tuple[str, Any]] | None = None,
) -> Path:
    """Write episodes of ``ticks`` frames, two seconds apart.

    Args:
        path: of the bag.
        joints: names; positions are in radians, small.
        pictures: topic -> (height, width).
        episodes: instruction of each.
        ticks: frames of an episode.
        period: s between frames.
        seed: of pictures and joints.
        answer: (writer, stamp in ns) -> topic and message that answer the frame of this stamp; None: nothing does.
    """
    random = np.random.default_rng(seed)
    with BagWriter(path) as writer:
        now = BEGIN
        for instruction in episodes:
            now += 2_000_000_000
            writer.write("/instruction", now - 50_000_000, writer.text(instruction))
            shown = {topic: random.integers(0, 255, (*size, 3)).astype(float) for topic, size in pictures.items()}
            positions = random.normal(0.0, 0.3, len(joints))
            for _ in range(ticks):
                positions = positions + random.normal(0.0, 0.05, len(joints))
                writer.write("/joint_states", now, writer.joints(now, dict(zip(joints, positions, strict=True))))
                writer.write("/gripper_state", now, writer.number(float(random.uniform(0.2, 0.8))))
                for topic, size in pictures.items():
                    shown[topic] = 0.7 * shown[topic] + 0.3 * random.integers(0, 255, (*size, 3))
                    writer.write(topic, now + 1000, writer.image(now, shown[topic].astype(np.uint8)))
                if answer:
                    topic, message = answer(writer, now)
                    writer.write(topic, now + 20_000_000, message)
                now += round(period * 1e9)
    return path
