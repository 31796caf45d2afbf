"""Episodes in which a policy and the expert take turns with the arm, labelled by the expert throughout.

A cloned policy leaves the experts' paths and has never seen the way back (DAgger: Ross, Gordon, Bagnell, "A Reduction
of Imitation Learning and Structured Prediction to No-Regret Online Learning", 2011). Here the policy goes astray on its
own, the expert says at every tick what it would have done, and its turns show the way back. With a DySL folder the
policy acts at its floor: distillation then learns from states that skipping leads to.
"""

from contextlib import closing
from pathlib import Path

import numpy as np

from dysl_vla_ros.interfaces import FloatArray, Observation
from dysl_vla_ros.runtime.folder import WEIGHTS
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import AT_FLOOR, FULL_DEPTH
from dysl_vla_ros.simulation.demonstrations import MAX_TICKS, record_episode, record_until
from dysl_vla_ros.simulation.scene import Scene
from dysl_vla_ros.simulation.seeds import DEMONSTRATION_SEEDS
from dysl_vla_ros.simulation.tasks import task_named
from dysl_vla_ros.training.dataset import CORRECTED

POLICY_TURN, EXPERT_TURN = (10, 60), (5, 30)  # ticks that a turn lasts, least and most
NOTHING: FloatArray = np.zeros((0, 4), np.float32)


class Actor:
    """A policy at full depth; with adapters, at the floor: every block skipped whole, where it errs most."""

    def __init__(self, checkpoint: Path, adapters: Path | None) -> None:
        """Load it.

        Raises:
            CheckpointError: either is missing, damaged, or they do not belong together.
        """
        if adapters:
            self._runtime, self._settings = Runtime.load(str(checkpoint), str(adapters)), AT_FLOOR
        else:
            self._runtime, self._settings = Runtime.load_base(checkpoint), FULL_DEPTH
        dysl = self._runtime.dysl
        weights = str(dysl.config["files"][WEIGHTS]) if dysl else self._runtime.policy.weights_hash
        self.name = weights[:8]  # of these weights, in the names of files

    def action(self, seen: Observation) -> FloatArray:
        """Return the first action (A,) of the chunk, in physical units."""
        return self._runtime.step(seen, NOTHING, self._settings).chunk.actions[0]


class Turns:
    """Drives the arm: the policy's action in its turns, the expert's in the others; lengths are drawn by the seed."""

    def __init__(self, actor: Actor, seed: int) -> None:
        self._actor = actor
        random = np.random.default_rng((seed, 6))
        turns: list[bool] = []
        while len(turns) < MAX_TICKS:
            turns += [True] * int(random.integers(*POLICY_TURN)) + [False] * int(random.integers(*EXPERT_TURN))
        self._policys, self._tick = turns, -1

    def __call__(self, seen: Observation, expert: FloatArray) -> FloatArray:
        """Return the action (4,) that is played at this tick, in physical units."""
        self._tick += 1
        return self._actor.action(seen) if self._policys[self._tick] else expert


def record_task(
    name: str,
    folder: Path,
    checkpoint: Path,
    episodes: int,
    adapters: Path | None = None,
    first: int | None = None,
) -> str:
    """Record corrections of one task until ``episodes`` lie in ``folder``; return one line on what was done.

    Scenes are those for demonstrations, from ``first`` down (None: the last): the experts' episodes count up.

    Raises:
        CheckpointError: the policy or the DySL folder is damaged or missing.
        DataError: the scenes have run out.
    """
    actor = Actor(checkpoint, adapters)
    with closing(Scene(task_named(name))) as scene:
        failures = record_until(
            episodes, folder, scene, f"{CORRECTED}{actor.name}-", DEMONSTRATION_SEEDS[first::-1],
            lambda seed: record_episode(scene, seed, disturbed=False, drive=Turns(actor, seed)),
        )  # fmt: skip
    return f"{name}: {episodes} corrected episodes, {failures} failures dropped"
