"""The simulated robot obeys: commands move it, seeds repeat it, cameras see it."""

import numpy as np
import pytest

from dysl_vla_ros.errors import DataError
from dysl_vla_ros.simulation.experts import Expert, door_waypoint
from dysl_vla_ros.simulation.scene import CAMERAS, IMAGE_SIZE, STEPS_PER_TICK, Scene
from dysl_vla_ros.simulation.tasks import CONTROL_PERIOD, TASKS, task_named


@pytest.fixture(scope="module")
def scene():
    return Scene("reach")


def test_a_held_velocity_moves_the_end_effector_by_velocity_times_time(scene):
    scene.reset(1)
    velocity = np.array([0.1, 0.05, -0.05])
    scene.hold(velocity, 0.5)
    for _ in range(4):  # the arm follows its target with a lag, which is over after a few ticks
        scene.advance()
    before = scene.observe().ee_position
    for _ in range(10):
        scene.advance()
    moved = scene.observe().ee_position - before
    np.testing.assert_allclose(moved, velocity * 10 * CONTROL_PERIOD, atol=0.004)


def test_the_same_seed_gives_the_same_picture_bit_for_bit_and_another_seed_does_not(scene):
    pictures = []
    for seed in (5, 6, 5):
        scene.reset(seed)
        pictures.append(scene.observe().images)
    for camera in CAMERAS:
        assert pictures[0][camera].shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
        np.testing.assert_array_equal(pictures[0][camera], pictures[2][camera])
    assert np.any(pictures[0]["image"] != pictures[1]["image"])


def test_the_goal_marker_is_seen_in_its_colour(scene):
    scene.reset(2)
    picture = scene.render("image", 192, 192).astype(int)
    red = (picture[..., 0] > 150) & (picture[..., 1] < 60) & (picture[..., 2] < 60)
    assert red.sum() > 20


def test_the_expert_fulfils_the_task_and_success_stays(scene):
    scene.reset(3)
    expert = Expert(scene)
    for _ in range(100):
        action = expert.act()
        assert np.all(np.abs(action[:3]) <= 0.0125 + 1e-6), "at most 0.25 m/s an axis"
        assert 0.0 <= action[3] <= 1.0
        scene.hold(action[:3] / CONTROL_PERIOD, float(action[3]))
        scene.advance()
        if scene.success:
            break
    assert scene.success
    scene.hold(np.array([0.0, 0.0, 0.5]), 0.5)
    scene.advance(STEPS_PER_TICK * 10)
    assert scene.success


def test_the_gripper_opening_is_held_as_it_was_set(scene):
    scene.reset(1)
    for opening in (0.0, 0.3, 1.0):
        scene.hold(np.zeros(3), opening)
        assert scene.held_opening == pytest.approx(opening)


@pytest.mark.parametrize(
    ("hand", "goes"),
    [
        ((-0.10, 0.05, 0.00), "up"),  # beside the handle, at its height: lifted over it
        ((-0.10, 0.05, 0.20), "over"),  # beside and above: across
        ((0.01, 0.02, 0.20), "down"),  # above the front: down
        ((0.01, 0.02, 0.01), "along"),  # in front: pushes
    ],
)
def test_the_door_expert_knows_its_way_from_everywhere(hand, goes):
    handle = np.array([0.2, 0.6, 0.15])
    way = door_waypoint(handle + hand, handle) - (handle + hand)
    moves = {"up": way[2] > 0.05 and np.allclose(way[:2], 0), "over": way[0] > 0.05, "down": way[2] < -0.1}
    moves["along"] = way[0] < -0.05 and abs(way[2]) < 0.02
    assert moves[goes], way


def test_every_task_has_its_own_instructions_and_an_unknown_one_is_refused_with_the_list():
    texts = [text for task in TASKS.values() for text in task.instructions]
    assert len(texts) == len(set(texts))
    with pytest.raises(DataError, match="unknown task 'fly'; there are reach, push"):
        task_named("fly")
