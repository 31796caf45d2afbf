"""Meta-World as a robot: hold a velocity, advance time, look through the cameras.

Frames: positions are in Meta-World's world frame, called ``base`` here. The end effector is the hand's body.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.interfaces import FloatArray, Observation
from dysl_vla_ros.simulation.board import NEAR, STAY, BoardLayout, Chain, board_layout, puck_place
from dysl_vla_ros.simulation.decorations import (
    GOAL_HIGH,
    GOAL_LOW,
    MARKER_RADIUS,
    Decoration,
    board,
    distractors,
    marker_positions,
)
from dysl_vla_ros.simulation.rendering import BOARD, TABLE, SceneRenderer, prepare_model
from dysl_vla_ros.simulation.tasks import CONTROL_PERIOD, FULL_SPEED, SIMULATION_STEP, Task, task_named

CAMERAS = ("image", "wrist_image")
IMAGE_SIZE = 96  # px, both cameras
STEPS_PER_TICK = round(CONTROL_PERIOD / SIMULATION_STEP)
ARM_JOINTS = 7
MOVED = 0.01  # m: an object that is further from where it lay was moved by the arm


@dataclass(frozen=True)
class SceneObservation:
    """What the robot's sensors give at one moment."""

    images: dict[str, NDArray[np.uint8]]  # (96, 96, 3) rgb each
    ee_position: FloatArray  # (3,) m
    gripper_opening: float  # 0 closed, 1 open
    joint_positions: FloatArray  # (7,) rad

    @property
    def proprioception(self) -> FloatArray:
        """End-effector position and gripper opening (4,): all that the reference policy is told of the robot."""
        return np.append(self.ee_position, np.float32(self.gripper_opening)).astype(np.float32)

    def with_instruction(self, instruction: str) -> Observation:
        """Return it as a policy's observation."""
        return Observation(self.images, self.proprioception, instruction)


class Scene:
    """One task's scene. Use it from one thread: the renderer belongs to the thread that made it."""

    def __init__(self, task: str | Task) -> None:
        from gymnasium.spaces import Box
        from metaworld.env_dict import ENV_CLS_MAP  # takes a second; commands that only list tasks need not wait

        self.task = task if isinstance(task, Task) else task_named(task)
        self._env = ENV_CLS_MAP[self.task.environment]()
        self._env.max_path_length = 1_000_000  # the caller decides when an episode ends
        low, high = ((-0.2, 0.6), (0.2, 0.95)) if self.task.chain else (GOAL_LOW, GOAL_HIGH)
        if self.task.markers or self.task.chain:  # what the expert is told of the goal is clipped to this space
            self._env.goal_space = Box(np.array([*low, 0.0]), np.array([*high, 0.1]), dtype=np.float64)
        self._env._partially_observable = False  # the scripted expert must see the goal
        del self._env.sawyer_observation_space  # cached with the goal hidden
        self._env._set_task_called = True
        self._env.seeded_rand_vec, self._env._freeze_rand_vec = True, False
        prepare_model(self._env.model, None if self.task.markers else self.task.marker)
        self.decorations: tuple[Decoration, ...] = ()
        self.board: BoardLayout | None = None  # of a task with a chain, from the reset on
        self._steps_there = 0  # of the puck at the chain's goal
        self._renderer = SceneRenderer(self._env.model, self._env.data, BOARD if self.task.chain else TABLE)
        self.joint_names = tuple(self._env.model.joint(i).name for i in range(ARM_JOINTS))
        self._action = np.zeros(4, dtype=np.float32)
        self.success = False
        self.object_moved = False  # by more than :data:`MOVED` since the reset
        self._object_lay = np.zeros(3, dtype=np.float32)
        self.simulated_time = 0.0  # s since the reset
        self.state = np.zeros(39)

    def reset(self, seed: int) -> None:
        """Lay the scene out anew, as ``seed`` has it; the arm holds still with the gripper relaxed."""
        self._env.seed(seed)
        self.state, _ = self._env.reset()
        if self.task.markers:
            self._lay_out_markers(seed)
        if self.task.chain:
            self._lay_out_board(seed, self.task.chain)
        self.success = self.object_moved = False
        self._object_lay = self.object_position
        self.simulated_time = 0.0
        self.hold(np.zeros(3), 0.5)

    def _lay_out_markers(self, seed: int) -> None:
        """Draw all markers and two blocks; the marker of this task's colour is the goal."""
        places = marker_positions(seed, self._env._get_pos_objects(), len(self.task.markers))
        balls = [
            Decoration("ball", (float(x), float(y), float(z)), MARKER_RADIUS, colour)
            for colour, (x, y, z) in zip(self.task.markers, places, strict=True)
        ]
        self.decorations = (*balls, *distractors(seed))
        goal = next(place for ball, place in zip(balls, places, strict=True) if ball.colour == self.task.marker)
        self._env._target_pos = goal
        self.state[-3:] = goal

    def _lay_out_board(self, seed: int, chain: Chain) -> None:
        """Put the puck between robot and board; the disc at the chain's end is the goal."""
        height = self._env._get_pos_objects()[2]
        self._env._set_obj_xyz(np.append(puck_place(seed), height))
        layout = board_layout(seed)
        self.show_board(layout)
        self._env._target_pos = np.append(layout.goal(chain), height)
        self.state = self._env._get_obs()
        self._steps_there = 0

    def show_board(self, layout: BoardLayout) -> None:
        """Draw a board; the goal stays where it is."""
        self.board, self.decorations = layout, board(layout)

    def hold(self, velocity: NDArray[np.floating], gripper_opening: float) -> None:
        """Set what :meth:`advance` does: end-effector velocity (3,) in m/s, each axis at most 0.8, and the gripper.

        The opening is a target from 0 to 1; Meta-World takes it as an effort, so that 0.5 leaves the fingers loose.
        """
        self._action[:3] = np.clip(velocity / FULL_SPEED, -1.0, 1.0)
        self._action[3] = np.clip(1.0 - 2.0 * gripper_opening, -1.0, 1.0)

    @property
    def held_opening(self) -> float:
        """The gripper's target opening, 0 to 1, as last set."""
        return float((1.0 - self._action[3]) / 2.0)

    def advance(self, steps: int = STEPS_PER_TICK) -> None:
        """Advance time by ``steps`` of 12.5 ms; success once reached stays, an object once moved is."""
        for _ in range(steps):
            self.state, _, _, _, info = self._env.step(self._action)
            self.success = self.success or (self._stays() if self.task.chain else bool(info["success"]))
            self.simulated_time += SIMULATION_STEP
        away = np.linalg.norm(self.object_position - self._object_lay)
        self.object_moved = self.object_moved or bool(away > MOVED)

    def _stays(self) -> bool:
        """Tell whether the puck has been at the chain's goal for long enough by this step."""
        away = np.linalg.norm(self.object_position[:2] - self.goal_position[:2])
        self._steps_there = self._steps_there + 1 if away < NEAR else 0
        return self._steps_there * SIMULATION_STEP >= STAY

    def observe(self) -> SceneObservation:
        """Look through both cameras and read the robot's state."""
        return SceneObservation(
            images={camera: self.render(camera) for camera in CAMERAS},
            ee_position=self.state[:3].astype(np.float32),
            gripper_opening=float(np.clip(self.state[3], 0.0, 1.0)),
            joint_positions=self._env.data.qpos[:ARM_JOINTS].astype(np.float32),
        )

    def render(self, camera: str = "image", width: int = IMAGE_SIZE, height: int = IMAGE_SIZE) -> NDArray[np.uint8]:
        """Return one picture (height, width, 3) rgb."""
        for name, position in self._env._target_site_config:  # a step's mj_forward puts the sites back
            self._env.data.site(name).xpos = position
        return self._renderer.render(camera, width, height, self.decorations)

    def pixels(self, points: NDArray[np.floating]) -> FloatArray:
        """Return where points (N, 3), m, are in the fixed camera's image of 96 px: (N, 2), column and row."""
        return self._renderer.pixels(points, IMAGE_SIZE)

    def close(self) -> None:
        """Give the renderer's memory back; the scene is of no use afterwards."""
        self._renderer.close()

    @property
    def goal_position(self) -> FloatArray:
        """Where the task is fulfilled (3,), m: the simulator's knowledge, for labels in training only."""
        return np.asarray(self._env._target_pos, dtype=np.float32)

    @property
    def object_position(self) -> FloatArray:
        """Where the task's object is (3,), m: the simulator's knowledge, for labels in training only."""
        return self.state[4:7].astype(np.float32)
