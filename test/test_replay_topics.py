"""Which topic serves which input: as told, by name, by being the only one; and what is said where none does."""

from types import SimpleNamespace

import pytest

from dysl_vla_ros.errors import BagError
from dysl_vla_ros.interfaces import ActionSpec, PolicyDescription, ProprioceptionSpec
from dysl_vla_ros.recordings.topics import find_topics, remaps

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
POSE, FLOAT, TEXT = "geometry_msgs/msg/PoseStamped", "std_msgs/msg/Float64", "std_msgs/msg/String"
TWIST = "geometry_msgs/msg/TwistStamped"
STATE = {"/ee_pose": POSE, "/gripper_state": FLOAT, "/instruction": TEXT}


def described(*cameras, proprioception=("ee.x", "ee.y", "ee.z", "gripper.opening")):
    return PolicyDescription(
        family="test",
        model_hash="0",
        weights_hash="0",
        cameras=cameras or ("image",),
        proprioception=ProprioceptionSpec(proprioception, ("",) * len(proprioception)),
        action=ActionSpec(8, 0.05, False, (0.0,) * 4, (1.0,) * 4),
        layers_total=6,
        static_layers=(),
        blocks=(),
    )


def bag(**counts):
    """Topics of a bag from name=type, or name=(type, count)."""
    pairs = {name: (about, 9) if isinstance(about, str) else about for name, about in counts.items()}
    return {name: SimpleNamespace(type=kind, count=count, rate=3.0) for name, (kind, count) in pairs.items()}


def find(topics, *cameras, told=(), **more):
    return find_topics(bag(**topics), described(*cameras), remaps(told), **more)


def refusal(*arguments, **more):
    with pytest.raises(BagError) as caught:
        find(*arguments, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_topics_are_found_by_their_names():
    inputs = find({"/image": IMAGE, "/other": IMAGE, **STATE}).inputs
    assert {role: served.topic for role, served in inputs.items()} == {
        "image": "/image", "ee_pose": "/ee_pose", "gripper_state": "/gripper_state", "instruction": "/instruction",
    }  # fmt: skip
    assert {served.how for served in inputs.values()} == {"by its name"}


def test_a_namespace_and_image_transport_do_not_hide_a_name():
    topics = {f"/robot1{name}": kind for name, kind in STATE.items()}
    inputs = find({"/robot1/image/compressed": COMPRESSED, "/x": IMAGE, **topics}).inputs
    assert inputs["image"].topic == "/robot1/image/compressed"
    assert inputs["instruction"].topic == "/robot1/instruction"


def test_what_the_node_says_again_serves_where_nothing_else_was_said():
    spoken = STATE["/instruction"]
    rest = {name: kind for name, kind in STATE.items() if name != "/instruction"} | {"/image": IMAGE}

    def found(*topics):
        return find({**rest, **dict.fromkeys(topics, spoken)}).inputs["instruction"].topic

    assert found("/dysl_vla/instruction") == "/dysl_vla/instruction"
    assert found("/dysl_vla/instruction", "/instruction") == "/instruction"
    assert found("/left/dysl_vla/instruction", "/left/instruction") == "/left/instruction"


def test_of_raw_and_compressed_the_raw_one_is_taken():
    assert find({"/image/compressed": COMPRESSED, "/image": IMAGE, **STATE}).inputs["image"].topic == "/image"


def test_what_was_told_goes_before_a_name():
    inputs = find({"/image": IMAGE, "/camera/color/image_raw": IMAGE, **STATE}, told=["image:=/camera/color/image_raw"])
    assert (inputs.inputs["image"].topic, inputs.inputs["image"].how) == ("/camera/color/image_raw", "as told")


def test_the_only_one_of_its_type_serves():
    found = find({"/color": IMAGE, "/tool": POSE, "/width": FLOAT, "/instruction": TEXT}).inputs
    assert found["image"].how == found["ee_pose"].how == found["gripper_state"].how == "the only one of its type"


def test_the_name_of_one_camera_leaves_the_other_to_its_type():
    found = find({"/wrist_image": IMAGE, "/color": IMAGE, **STATE}, "image", "wrist_image").inputs
    assert found["image"].topic == "/color"


def test_the_commanded_gripper_is_no_gripper_state():
    topics = {"/image": IMAGE, "/ee_pose": POSE, "/instruction": TEXT}
    topics |= {"/dysl_vla/twist": TWIST, "/dysl_vla/gripper": FLOAT}
    assert "no topic for 'gripper_state'" in refusal(topics)
    assert "/dysl_vla/gripper looks right" not in refusal(topics)
    outputs = find({**topics, "/opening": FLOAT}).outputs
    assert (outputs["twist"].topic, outputs["gripper"].topic) == ("/dysl_vla/twist", "/dysl_vla/gripper")


def test_a_missing_camera_lists_those_of_its_type_and_which_looks_right():
    sizes = {"/left/image_raw": (640, "rgb8"), "/depth/image_raw": (640, "16UC1"), "/image_rect": (320, "bgr8")}

    def first(topic):
        return SimpleNamespace(width=sizes[topic][0], height=240, encoding=sizes[topic][1])

    text = refusal({**dict.fromkeys(sizes, IMAGE), **STATE}, first_message=first)
    assert "no topic for 'image' (sensor_msgs/Image or CompressedImage)" in text
    assert "/left/image_raw (640x240 rgb8, 3 Hz, 9 messages)" in text and "/depth/image_raw" in text
    assert "; /left/image_raw looks right: --topic image:=/left/image_raw" in text


def test_a_type_that_is_not_there_says_so_and_what_there_is():
    text = refusal({"/image": IMAGE, "/gripper_state": FLOAT, "/instruction": TEXT})
    assert "no topic for 'ee_pose' (geometry_msgs/PoseStamped); the bag has none of that type, only /grip" in text


def test_no_text_is_taken_for_an_instruction_by_its_type_alone():
    topics = {"/image": IMAGE, "/ee_pose": POSE, "/gripper_state": FLOAT, "/task": TEXT}
    text = refusal(topics)
    assert "/task looks right: --topic instruction:=/task" in text and '--instruction "TEXT"' in text
    assert "instruction" not in find(topics, instruction="push").inputs


def test_everything_that_is_missing_is_named_at_once():
    text = refusal({"/odom": "nav_msgs/msg/Odometry"})
    for role in ("image", "ee_pose", "gripper_state", "instruction"):
        assert f"no topic for '{role}'" in text


def test_an_empty_topic_does_not_serve():
    assert "no topic for 'image'" in refusal({"/image": (IMAGE, 0), **STATE})


def test_a_remap_to_what_is_not_there_guesses_the_right_one():
    text = refusal({"/camera/image_raw": IMAGE, **STATE}, told=["image:=/camera/image_ra"])
    assert "no such topic in the bag; of that type: /camera/image_raw; did you mean /camera/image_raw?" in text
    assert "'image' needs" in refusal({"/camera": TEXT, **STATE}, told=["image:=/camera"])
    assert "did you mean image?" in refusal({"/image": IMAGE, **STATE}, told=["imag:=/image"])
    assert "must have the form" in refusal({"/image": IMAGE, **STATE}, told=["image=/image"])
