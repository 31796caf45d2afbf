"""Conditions of an episode: one thing about words, pictures or arm is other than in training, all else as it was.

What is drawn comes from the episode's seed and the condition alone, so that every method meets the same.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.simulation.pushes import Pushes
from dysl_vla_ros.simulation.seeds import OTHER_SCENE
from dysl_vla_ros.simulation.tasks import CONTROL_PERIOD, EXPERT_SPEED, Task, siblings

if TYPE_CHECKING:  # the command line lists conditions where no simulator is installed
    from dysl_vla_ros.simulation.scene import Scene, SceneObservation

BRIGHTNESS = 0.8  # of the pictures under `dim`
PUSH_TICKS, PUSH_SHARE = 8, 0.05  # a push lasts 0.4 s; 5% of the ticks without one start one
PUSH_SPEED = EXPERT_SPEED  # m/s that a push adds: as fast as the policy moves along an axis


class Plain:
    """A scene as an episode meets it: what is told, seen and done. Here all of it as it is."""

    def __init__(self, scene: "Scene", seed: int, random: np.random.Generator) -> None:
        """Begin an episode in a scene that was reset to ``seed``; ``random`` is the condition's own."""
        self.scene, self.instruction = scene, scene.task.instruction

    def observe(self) -> "SceneObservation":
        """Return what the policy is given."""
        return self.scene.observe()

    def hold(self, velocity: NDArray[np.floating], gripper_opening: float) -> None:
        """Take a control tick's command, as :meth:`Scene.hold` does: (3,) m/s, 0 to 1. Call it once a tick."""
        self.scene.hold(velocity, gripper_opening)

    def advance(self, steps: int) -> None:
        """Advance time by ``steps`` of 12.5 ms."""
        self.scene.advance(steps)

    def close(self) -> None:
        """End the episode. The scene stays."""


class _Paraphrases(Plain):
    def __init__(self, scene: "Scene", seed: int, random: np.random.Generator) -> None:
        super().__init__(scene, seed, random)
        self.instruction = str(random.choice(scene.task.instructions[1:]))


class _HeldOut(Plain):
    def __init__(self, scene: "Scene", seed: int, random: np.random.Generator) -> None:
        super().__init__(scene, seed, random)
        self.instruction = str(random.choice(scene.task.held_out))


class _OtherInstruction(Plain):
    def __init__(self, scene: "Scene", seed: int, random: np.random.Generator) -> None:
        super().__init__(scene, seed, random)
        self.instruction = str(random.choice([task.instruction for task in siblings(scene.task)]))


class _Dim(Plain):
    def observe(self) -> "SceneObservation":
        seen = super().observe()
        dimmed = {camera: np.rint(BRIGHTNESS * own).astype(np.uint8) for camera, own in seen.images.items()}
        return replace(seen, images=dimmed)


class _OtherImages(Plain):
    def __init__(self, scene: "Scene", seed: int, random: np.random.Generator) -> None:
        from dysl_vla_ros.simulation.scene import Scene

        super().__init__(scene, seed, random)
        self._other = Scene(scene.task)
        self._other.reset(seed + OTHER_SCENE)

    def observe(self) -> "SceneObservation":
        return replace(super().observe(), images=self._other.observe().images)

    def hold(self, velocity: NDArray[np.floating], gripper_opening: float) -> None:
        super().hold(velocity, gripper_opening)
        self._other.hold(velocity, gripper_opening)

    def advance(self, steps: int) -> None:
        super().advance(steps)
        self._other.advance(steps)

    def close(self) -> None:
        self._other.close()


class _Pushed(Plain):
    def __init__(self, scene: "Scene", seed: int, random: np.random.Generator) -> None:
        super().__init__(scene, seed, random)
        self._pushes = Pushes(random, PUSH_SHARE, PUSH_TICKS, _push)

    def hold(self, velocity: NDArray[np.floating], gripper_opening: float) -> None:
        super().hold(velocity + self._pushes.next(), gripper_opening)


def _push(random: np.random.Generator) -> NDArray[np.float64]:
    """Return a velocity (3,) of PUSH_SPEED in a direction that is as likely as any other."""
    direction = random.normal(size=3)
    return PUSH_SPEED * direction / np.linalg.norm(direction)


@dataclass(frozen=True)
class Condition:
    """One condition, by its name."""

    name: str
    description: str  # one line, for help
    kind: type[Plain]
    fits: Callable[[Task], bool] = lambda task: True
    unfit: str = ""  # why a task that does not fit does not

    def begin(self, scene: "Scene", seed: int) -> Plain:
        """Begin an episode in a scene that was reset to ``seed``.

        Raises:
            SettingError: the condition cannot be had with the scene's task.
        """
        self.require(scene.task)
        return self.kind(scene, seed, np.random.default_rng((seed, crc32(self.name.encode()))))

    def require(self, *tasks: Task) -> None:
        """Refuse tasks that the condition cannot be had with.

        Raises:
            SettingError: which.
        """
        unfit = [task.name for task in tasks if not self.fits(task)]
        if unfit:
            raise SettingError(f"the condition {self.name} cannot be had with {', '.join(unfit)}: {self.unfit}")


CONDITIONS: dict[str, Condition] = {
    own.name: own
    for own in (
        Condition("plain", "the canonical instruction, the scene as it is", Plain),
        Condition("paraphrases", "another instruction for the task, one of those trained", _Paraphrases),
        Condition("held_out", "an instruction for the task that was never trained", _HeldOut),
        Condition("dim", f"pictures of all cameras at {BRIGHTNESS:g} times their brightness", _Dim),
        Condition(
            "other_instruction",
            "the instruction of another task that is valid in the same scene, success judged by the task itself",
            _OtherInstruction,
            lambda task: bool(siblings(task)),
            "no other instruction is valid in the scene",
        ),
        Condition("other_images", "pictures of another scene of the task, moved by the same commands", _OtherImages),
        Condition(
            "pushes",
            f"pushes of the arm at random, {PUSH_TICKS * CONTROL_PERIOD:g} s at {PUSH_SPEED:g} m/s each",
            _Pushed,
        ),
    )
}
CONDITION_CHOICES = "; ".join(f"{own.name}: {own.description}" for own in CONDITIONS.values())  # for `--condition`


def condition_named(name: str) -> Condition:
    """Return a condition by name.

    Raises:
        SettingError: there is none; the message lists those there are.
    """
    if name not in CONDITIONS:
        raise SettingError(f"unknown condition '{name}'; there are {', '.join(CONDITIONS)}")
    return CONDITIONS[name]
