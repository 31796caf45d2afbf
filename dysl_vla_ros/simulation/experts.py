"""Meta-World's scripted experts, as velocities and gripper openings, mended where our slower arm would not forgive.

The experts were written for 80 decisions a second. At our 20, with the same step a decision, some close the gripper
before it is around the object, or come down beside a handle; and none of them knows a way back. What is added here
waits, opens and lifts again, so that the demonstrations show how to recover.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.interfaces import FloatArray
from dysl_vla_ros.simulation.scene import Scene
from dysl_vla_ros.simulation.tasks import CONTROL_PERIOD, EXPERT_SPEED

Vector = NDArray[np.floating[Any]]

REACH_OFFSET = 0.045  # m: the reach expert drives the hand's body to the goal, success is measured below it
HANDLE_SIDE, HANDLE_LIFT = 0.03, 0.12  # m: in front of the handle the hand pushes it, beside it it must be lifted over


@dataclass(frozen=True)
class Grasp:
    """How an object is gripped: the expert's own rule would close while the hand still comes down."""

    height: float  # m of the hand above the object, below which closing grips it and does not land on it
    wait: int  # ticks of standing still from the closing on, until the fingers are around it


GRASPS = {
    "push": Grasp(0.05, 0),
    "pick-place": Grasp(0.05, 2),
    "peg-insert-side": Grasp(0.03, 4),
    "assembly": Grasp(0.05, 4),
    "pick-place-wall": Grasp(0.05, 4),
    "basketball": Grasp(0.03, 4),
    "stick-push": Grasp(0.05, 4),
    "push-red": Grasp(0.05, 0),
    "push-green": Grasp(0.05, 0),
    "push-blue": Grasp(0.05, 0),
}


class Expert:
    """The scripted expert of one scene. It sees the simulator's state, not the pictures."""

    def __init__(self, scene: Scene) -> None:
        import metaworld.policies

        self._scene = scene
        self._grasp = GRASPS["push"] if scene.task.chain else GRASPS.get(scene.task.name)
        self._closed = 0  # ticks since the gripper was told to close
        self._policy = getattr(metaworld.policies, scene.task.expert)()

    def minds_goal(self) -> bool:
        """Tell whether the goal decides where the hand goes now; while it fetches the puck, it does not."""
        here, elsewhere = self._scene.state, self._scene.state.copy()
        elsewhere[-3:] += 0.05
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return not np.array_equal(self._policy.get_action(here), self._policy.get_action(elsewhere))

    def act(self) -> FloatArray:
        """Return the action (4,) of this tick: metres over the control period, gripper opening from 0 to 1."""
        state, name = self._scene.state.copy(), self._scene.task.name
        hand, thing = self._scene.state[:3], self._scene.state[4:7]
        if name == "reach":
            state[-1] += REACH_OFFSET
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "Constant(s) may be too high": we clip, as the environment does
            raw = np.clip(self._policy.get_action(state), -1.0, 1.0)
        if self._grasp:
            raw = self._gripped(raw, self._grasp, abs(hand[2] - thing[2]))
        elif name == "door-open":
            raw[:3] = np.clip(25.0 * (door_waypoint(hand, thing) - hand), -1.0, 1.0)
        return to_action(raw)

    def _gripped(self, raw: Vector, grasp: Grasp, height: float) -> Vector:
        if raw[3] <= 0.0 or height > grasp.height:
            self._closed = 0
            return np.append(raw[:3], -1.0)
        self._closed += 1
        return raw if self._closed > grasp.wait else np.append(np.zeros(3), raw[3])


def door_waypoint(hand: Vector, handle: Vector) -> Vector:
    """Return where the hand (3,) goes next to push a door's handle (3,) open: over it, down in front of it, along."""
    front = handle + (0.01, 0.02, 0.0)
    if abs(hand[2] - handle[2]) < 0.04 and hand[0] > handle[0] - HANDLE_SIDE:
        return handle - (0.05, 0.0, 0.0)
    if np.linalg.norm((hand - front)[:2]) < 0.05:
        return front
    if hand[2] < handle[2] + HANDLE_LIFT:
        return hand + (0.0, 0.0, 0.1)
    return front + (0.0, 0.0, 0.2)


def to_action(raw: FloatArray) -> FloatArray:
    """Turn Meta-World's action (4,), -1..1, into metres over the control period and a gripper opening."""
    return np.append(raw[:3] * EXPERT_SPEED * CONTROL_PERIOD, (1.0 - raw[3]) / 2.0).astype(np.float32)
