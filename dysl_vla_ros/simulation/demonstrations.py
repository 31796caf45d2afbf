"""Demonstrations of the scripted experts: pictures, proprioception, clean labels, half of them under disturbance.

One file an episode, written whole or not at all, so that an interrupted run goes on where it stopped. Layout:
``FOLDER/TASK/SEED.npz`` with ``image`` (T, 96, 96, 3), ``wrist_image`` (T, 96, 96, 3), ``proprioception`` (T, 4),
``action`` (T, 4: the expert's, clean), ``scene`` (T, 6: object and goal position), ``disturbed`` () and ``instruction``
(): one of the task's trained ones, drawn by the seed.

Those of the board (``board.py``) have also ``places`` (9, 2: of its discs, m), ``discs`` (9, 2: column and row of their
centres in ``image``), ``colours`` and ``following`` (T, 9: of the layout) and ``minds_goal`` (T: false while the hand
fetches the puck): what it takes to ask the same image for another chain.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np

from dysl_vla_ros.errors import DataError
from dysl_vla_ros.files import require_writable, write_atomically
from dysl_vla_ros.interfaces import FloatArray, Observation
from dysl_vla_ros.parent_process import process_pool
from dysl_vla_ros.simulation.board import first_demonstration, shown_at
from dysl_vla_ros.simulation.experts import Expert
from dysl_vla_ros.simulation.pushes import Pushes
from dysl_vla_ros.simulation.scene import Scene
from dysl_vla_ros.simulation.seeds import DEMONSTRATION_SEEDS
from dysl_vla_ros.simulation.tasks import CONTROL_PERIOD, EXPERT_SPEED, Task, require_learnable, task_named

MAX_TICKS = 250
TICKS_AFTER_SUCCESS = 4
PUSH_TICKS, PUSH_SHARE = 5, 0.04  # a random push lasts 5 ticks; 4% of the ticks start one


class Disturbance:
    """Noise on the executed motion: white, of one strength for the whole episode, and now and then a push."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng((seed, 1))
        self._sigma = self._random.uniform(0.2, 0.8)
        self._pushes = Pushes(self._random, PUSH_SHARE, PUSH_TICKS, lambda random: random.uniform(-1.0, 1.0, 3))

    def velocity(self) -> np.ndarray:
        """Return the velocity (3,) in m/s to add at this tick."""
        push = self._pushes.next()  # before the noise: both are drawn from one stream
        return EXPERT_SPEED * (self._random.normal(0.0, self._sigma, 3) + push)


BOARD_ARRAYS = ("colours", "following", "minds_goal")  # a row a tick

Arrays = dict[str, np.ndarray]
Drive = Callable[[Observation, FloatArray], FloatArray]
"""Gives the action (4,) that is played at a tick, of what is seen and of the expert's own action."""


def record_episode(scene: Scene, seed: int, disturbed: bool, drive: Drive | None = None) -> Arrays | None:
    """Let the expert play one episode, or ``drive`` in its place; return its arrays, or None where it failed.

    Labels are the expert's actions, whatever was played.
    """
    scene.reset(seed)
    texts = scene.task.instructions
    said = texts[int(np.random.default_rng((seed, 4)).integers(len(texts)))]
    expert, disturbance = Expert(scene), Disturbance(seed) if disturbed else None
    rows: list[tuple[np.ndarray, ...]] = []
    chain, layout = scene.task.chain, scene.board
    boards: list[tuple[np.ndarray, ...]] = []
    left = TICKS_AFTER_SUCCESS
    for tick in range(MAX_TICKS):
        if chain and layout:
            board = shown_at(layout, chain, seed, tick)
            scene.show_board(board)
            boards.append((board.colours, board.following, np.array(expert.minds_goal())))
        seen, action = scene.observe(), expert.act()
        position = np.concatenate([scene.object_position, scene.goal_position])
        rows.append((seen.images["image"], seen.images["wrist_image"], seen.proprioception, action, position))
        played = drive(seen.with_instruction(said), action) if drive else action
        velocity = played[:3] / CONTROL_PERIOD + (disturbance.velocity() if disturbance else 0.0)
        scene.hold(velocity, float(played[3]))
        scene.advance()
        left -= scene.success
        if left == 0:
            break
    if not scene.success:
        return None
    arrays = _columns(("image", "wrist_image", "proprioception", "action", "scene"), rows)
    if layout:
        arrays |= _columns(BOARD_ARRAYS, boards)
        arrays["places"] = layout.places
        arrays["discs"] = scene.pixels(np.column_stack([layout.places, np.zeros(len(layout.places))]))
    return arrays | {"disturbed": np.array(disturbed), "instruction": np.array(said)}


def _columns(names: Sequence[str], rows: Sequence[tuple[np.ndarray, ...]]) -> Arrays:
    return {name: np.stack(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def record_task(name: str, folder: Path, episodes: int, first: int | None = None) -> str:
    """Record until ``episodes`` successful ones of this task lie in ``folder``; return one line on what was done.

    Scenes are those for demonstrations, from ``first`` up; None: all of them, of the board those of the chain.

    Raises:
        DataError: the seeds for demonstrations have run out, or the task is held out.
    """
    task = task_named(name)
    require_learnable([task])
    if first is None:
        first = first_demonstration(task.chain) if task.chain else 0
    with closing(Scene(task)) as scene:
        failures = record_until(
            episodes, folder, scene, "", DEMONSTRATION_SEEDS[first:],
            lambda seed: record_episode(scene, seed, disturbed=seed % 2 == 1),
        )  # fmt: skip
    return f"{name}: {episodes} episodes, {failures} failures dropped"


def record_until(
    episodes: int,
    folder: Path,
    scene: Scene,
    prefix: str,
    seeds: Sequence[int],
    record: Callable[[int], Arrays | None],
) -> int:
    """Record until so many successful episodes lie in ``folder/TASK``; what lies there already is kept.

    Args:
        episodes: their number.
        folder: of all tasks.
        scene: of the task.
        prefix: of the files' names, in front of five digits of the seed.
        seeds: to take scenes from, in this order.
        record: plays one seed; returns its arrays, or None where it failed.

    Returns:
        How many failed, on the way and before.

    Raises:
        DataError: the seeds have run out.
    """
    name = scene.task.name
    (folder / name).mkdir(parents=True, exist_ok=True)
    failures, left = 0, iter(seeds)
    while len(list((folder / name).glob(f"{prefix}[0-9]*.npz"))) < episodes:
        seed = next(left, None)
        if seed is None:
            raise DataError(f"{name}: only {len(seeds)} scenes are for demonstrations, {failures} failed")
        path = folder / name / f"{prefix}{seed:05d}.npz"
        failed = path.with_suffix(".failed")
        if not path.exists() and not failed.exists():
            arrays = record(seed)
            if arrays is None:
                failed.touch()
            else:
                write_atomically(path, partial(save_arrays, arrays=arrays))
        failures += failed.exists()
    return failures


def save_arrays(path: Path, arrays: Arrays) -> None:
    """Write arrays as one uncompressed .npz (no pickles)."""
    with path.open("wb") as target:
        np.savez(target, allow_pickle=False, **arrays)


def record_all(tasks: list[Task], folder: Path, jobs: int, work: Callable[[str], str]) -> Iterator[str]:
    """Record all tasks with ``jobs`` processes, each task by ``work`` on its name; yield its line as it is complete.

    Raises:
        DataError: the folder cannot be written to, or what ``work`` raises.
    """
    require_writable(folder)
    with process_pool(jobs) as pool:
        yield from pool.map(work, [task.name for task in tasks])
