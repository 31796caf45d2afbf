"""Short demonstrations of noise: for tests in which it does not matter what is learnt."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from dysl_vla_ros.simulation.demonstrations import save_arrays
from dysl_vla_ros.simulation.tasks import TASKS


def write_noise_episodes(folder: Path, tasks: Iterable[str], lengths: Sequence[int]) -> Path:
    """Write episodes of so many frames for each task, under its trained instructions in turn; return ``folder``."""
    random = np.random.default_rng(0)
    for name in tasks:
        (folder / name).mkdir(parents=True)
        for number, length in enumerate(lengths):
            arrays = {
                "image": random.integers(0, 256, (length, 96, 96, 3), dtype=np.uint8),
                "wrist_image": random.integers(0, 256, (length, 96, 96, 3), dtype=np.uint8),
                "proprioception": random.random((length, 4), dtype=np.float32),
                "action": random.uniform(-0.01, 0.01, (length, 4)).astype(np.float32),
                "scene": random.random((length, 6), dtype=np.float32),
                "disturbed": np.array(number % 2 == 1),
                "instruction": np.array(TASKS[name].instructions[number % len(TASKS[name].instructions)]),
            }
            save_arrays(folder / name / f"{number:05d}.npz", arrays)
    return folder
