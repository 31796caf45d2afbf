"""Meta-World's scripted experts, as velocities and gripper openings."""

import warnings

import numpy as np

from dysl_vla_ros.interfaces import FloatArray
from dysl_vla_ros.simulation.scene import Scene
from dysl_vla_ros.simulation.tasks import CONTROL_PERIOD, EXPERT_SPEED

REACH_OFFSET = 0.045  # m: the reach expert drives the hand's body to the goal, success is measured 5 cm below it
PUSH_CLOSING_HEIGHT = 0.05  # m: the push expert closes from 10 cm above the puck, at our speed before it is there


class Expert:
    """The scripted expert of one scene. It sees the simulator's state, not the pictures."""

    def __init__(self, scene: Scene) -> None:
        import metaworld.policies

        self._scene = scene
        self._policy = getattr(metaworld.policies, scene.task.expert)()

    def act(self) -> FloatArray:
        """Return the action (4,) of this tick: metres over the control period, gripper opening from 0 to 1."""
        state = self._scene.state.copy()
        if self._scene.task.name == "reach":
            state[-1] += REACH_OFFSET
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "Constant(s) may be too high": we clip, as the environment does
            raw = np.clip(self._policy.get_action(state), -1.0, 1.0)
        if self._scene.task.name == "push" and abs(state[2] - state[6]) > PUSH_CLOSING_HEIGHT:
            raw[3] = 0.0
        return to_action(raw)


def to_action(raw: FloatArray) -> FloatArray:
    """Turn Meta-World's action (4,), -1..1, into metres over the control period and a gripper opening."""
    return np.append(raw[:3] * EXPERT_SPEED * CONTROL_PERIOD, (1.0 - raw[3]) / 2.0).astype(np.float32)
