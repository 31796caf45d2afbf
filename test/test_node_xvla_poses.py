"""An X-VLA of absolute poses through the node over real DDS: pictures in, poses out, from where the arm is measured."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from dysl_vla_ros.poses import POSE_VALUES
from pose_arm import FRAME
from test_node_lerobot import IMPORTS, PYTHON, ROOT
from vla_rig import LIMIT, NODE, REPORT, gentle, running_rig

pytestmark = [
    pytest.mark.ros,
    pytest.mark.slow,
    pytest.mark.timeout(5 * IMPORTS),
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-lerobot; `make setup-lerobot` makes it"),
]
COMMAND, ACTION = f"/{NODE}/pose_command", f"/{NODE}/pose_action"
ARM = [*POSE_VALUES, "gripper"]
SAID = {
    "robot.cameras.observation.images.top": "image",
    "robot.cameras.observation.images.wrist": "wrist_image",
    "robot.state.names": ["ee.x", "ee.y", "ee.z", "ee.r00", "ee.rz", "gripper.opening"],
    "robot.state.units": ["m", "m", "m", "1", "rad", "closing"],
    "robot.action.kind": "end_effector_pose",
    "robot.action.names": [*ARM, *(f"unused.{place}" for place in range(1, 11))],
    "robot.action.units": ["m"] * 3 + ["1"] * 6 + ["closing"] + ["1"] * 10,
    "robot.action.gripper": "gripper",
    "robot.action.frame": FRAME,
    "robot.action.time_step": 0.05,
    "safety.max_first_step": 0.02,
}


def test_poses_come_of_an_xvla_and_begin_where_the_arm_is(ros_domain: int, tmp_path: Path) -> None:
    from geometry_msgs.msg import PoseStamped

    from dysl_vla_ros.msg import PoseAction

    writer = [str(PYTHON), "write_checkpoint.py", "xvla_ee6d", str(tmp_path)]
    subprocess.run(writer, cwd=ROOT / "test" / "lerobot", check=True, timeout=IMPORTS)
    where = {"model.python": str(PYTHON), "model.tokenizer": str(tmp_path / "hub"), "model.load_timeout": IMPORTS}
    with running_rig(gentle(tmp_path / "checkpoint") | where | SAID) as rig:
        for topic, kind in ((COMMAND, PoseStamped), (ACTION, PoseAction)):
            rig.peer.listen(topic, kind)
        assert rig.peer.change_state(NODE, "configure", IMPORTS + LIMIT), rig.node.output[-2000:]
        rig.bring_to("active")
        rig.instruct("pick up the red cube")
        rig.peer.wait_for(ACTION, lambda it: not it.stop_reason, LIMIT, "an action that moves", rig.heard(ACTION))
        first = rig.peer.received(COMMAND)[0]
        point = first.pose.position
        assert first.header.frame_id == FRAME
        assert 0.0 < np.linalg.norm(np.array([point.x, point.y, point.z]) - rig.robot.place) <= 0.02 + 1e-9
        report = rig.peer.wait_for(REPORT, None, LIMIT, "a skip report")
        assert len(report.executed) == 6 and all(report.executed)
        assert rig.change("deactivate")
