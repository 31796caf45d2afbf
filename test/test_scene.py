"""The simulated robot obeys: commands move it, seeds repeat it, cameras see it. Every task can be laid out and done."""

import numpy as np
import pytest

from dysl_vla_ros.errors import DataError
from dysl_vla_ros.simulation import rendering
from dysl_vla_ros.simulation.decorations import (
    GOAL_HIGH,
    GOAL_LOW,
    MARKERS_APART,
    PUCK_FREE,
    distractors,
    marker_positions,
)
from dysl_vla_ros.simulation.experts import Expert, door_waypoint
from dysl_vla_ros.simulation.scene import CAMERAS, IMAGE_SIZE, STEPS_PER_TICK, Scene
from dysl_vla_ros.simulation.tasks import (
    BLUE,
    COLOURS,
    CONTROL_PERIOD,
    EASY,
    GREEN,
    HARD,
    RED,
    TASK_SETS,
    TASKS,
    task_named,
    tasks_named,
)

COLOURED = tuple(f"push-{name}" for name in COLOURS)
EXPERT_TICKS = 300
LAID_OUT = (*(task.name for task in (*EASY, *HARD)), "board-red-2")  # the other chains have the same scene


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


@pytest.mark.parametrize("name", ["peg-insert-side", "push-blue", "drawer-open"])
def test_what_no_camera_sees_is_left_out_and_pictures_keep_every_bit(name, monkeypatch):
    scene, random, counts = Scene(name), np.random.default_rng(0), []
    chosen = rendering.in_view

    def counted(model, *others):
        found = chosen(model, *others)
        counts.append(np.mean(found))
        return found

    def everything(model, *others):
        return np.ones(model.ngeom, bool)

    scene.reset(5000)
    for _ in range(8):
        scene.hold(random.uniform(-0.8, 0.8, 3), float(random.uniform()))
        scene.advance(24)
        for camera, (width, height) in ((CAMERAS[0], (96, 96)), (CAMERAS[1], (96, 96)), (CAMERAS[0], (160, 120))):
            monkeypatch.setattr(rendering, "in_view", counted)
            culled = scene.render(camera, width, height)
            monkeypatch.setattr(rendering, "in_view", everything)
            assert np.array_equal(culled, scene.render(camera, width, height))
    scene.close()
    assert 0.2 < np.mean(counts) < 0.8, "something is left out, and not all"


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
    texts = [text for task in TASKS.values() for text in (*task.instructions, *task.held_out)]
    assert len(texts) == len(set(texts)), "no paraphrase is another's, and none that is held out is trained"
    assert all(len(task.instructions) == 3 and len(task.held_out) == 2 for task in TASKS.values())
    assert max(len(text.split()) for text in texts) <= 8, "what the reference policy reads"
    with pytest.raises(DataError, match="unknown task 'fly'; there are reach, push"):
        task_named("fly")


def test_held_out_paraphrases_are_new_sentences_of_trained_words():
    trained = {word for task in TASKS.values() for text in task.instructions for word in text.split()}
    new = {word for task in TASKS.values() for text in task.held_out for word in text.split()} - trained
    assert not new


def test_a_set_stands_for_its_tasks_and_nothing_for_easy_and_hard():
    assert tasks_named(["easy"]) == list(EASY) and len(EASY) == 8
    assert tasks_named(["hard", "reach"]) == [*HARD, TASKS["reach"]]
    assert tasks_named(["reach", "easy"]) == list(EASY), "each once, where it is first named"
    assert tasks_named(None) == tasks_named(["easy", "hard"])
    assert tasks_named(list(TASK_SETS)) == list(TASKS.values()), "every task is in one set"
    with pytest.raises(DataError, match="unknown task .medium.; there are reach, .* and the sets easy, hard"):
        tasks_named(["medium"])


@pytest.mark.parametrize("name", LAID_OUT)
def test_every_task_is_laid_out_by_its_seed_and_its_expert_fulfils_it(name):
    scene = Scene(name)
    seen = []
    for seed in (5, 6, 5):
        scene.reset(seed)
        assert not scene.success
        seen.append((np.concatenate([scene.object_position, scene.goal_position]), scene.render()))
    np.testing.assert_array_equal(seen[0][0], seen[2][0])
    np.testing.assert_array_equal(seen[0][1], seen[2][1])
    assert not np.array_equal(seen[0][0], seen[1][0]), "another seed, another place of object or goal"
    assert not np.array_equal(seen[0][1], seen[1][1])
    assert play(scene, 5) < EXPERT_TICKS
    scene.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", LAID_OUT)
def test_the_experts_succeed_in_nine_scenes_of_ten(name):
    scene = Scene(name)
    assert sum(play(scene, seed) < EXPERT_TICKS for seed in range(50_000, 50_020)) >= 18
    scene.close()


def play(scene, seed):
    """Let the expert play; return the ticks until success, EXPERT_TICKS where there was none."""
    scene.reset(seed)
    expert = Expert(scene)
    for tick in range(EXPERT_TICKS):
        action = expert.act()
        scene.hold(action[:3] / CONTROL_PERIOD, float(action[3]))
        scene.advance()
        if scene.success:
            return tick
    return EXPERT_TICKS


def test_markers_are_apart_and_in_reach_and_off_the_way_to_each_other():
    for seed in range(300):
        puck = np.array([*np.random.default_rng(seed).uniform((-0.1, 0.6), (0.1, 0.7)), 0.02])
        places = marker_positions(seed, puck, 3)
        assert np.all(places[:, :2] >= GOAL_LOW) and np.all(places[:, :2] <= GOAL_HIGH)
        for number, place in enumerate(places):
            assert np.linalg.norm(place - puck) >= PUCK_FREE
            for other in np.delete(places, number, axis=0):
                assert np.linalg.norm(place - other) >= MARKERS_APART
                on_the_way = puck + np.linspace(0.0, 1.0, 50)[:, None] * (place - puck)
                assert np.linalg.norm(on_the_way - other, axis=1).min() > 0.05, "success there would be by the way"
        for block in distractors(seed):
            assert min(np.linalg.norm(np.array(block.position[:2]) - place[:2]) for place in places) > 0.07
            assert abs(block.position[0]) > 0.2, "beside where hand and puck go"


@pytest.mark.slow
def test_three_instructions_share_one_scene_and_each_is_fulfilled_at_its_own_marker_alone():
    scenes = [Scene(name) for name in COLOURED]
    for scene in scenes:
        scene.reset(8)
    pictures = [scene.render("image", 192, 192) for scene in scenes]
    np.testing.assert_array_equal(pictures[0], pictures[1])
    np.testing.assert_array_equal(pictures[0], pictures[2])
    assert scenes[0].decorations == scenes[1].decorations == scenes[2].decorations
    places = {ball.colour: ball.position for ball in scenes[0].decorations if ball.shape == "ball"}
    for scene, colour in zip(scenes, (RED, GREEN, BLUE), strict=True):
        np.testing.assert_allclose(scene.goal_position, places[colour], atol=1e-6)
    for asked in scenes:
        fulfilled = []
        for judge in scenes:
            judge.reset(8)
            asked_state = asked.goal_position
            expert = Expert(judge)
            for _ in range(EXPERT_TICKS // 2):
                judge.state[-3:] = asked_state  # the expert goes where the other instruction says
                action = expert.act()
                judge.hold(action[:3] / CONTROL_PERIOD, float(action[3]))
                judge.advance()
            fulfilled.append(judge.success)
        assert fulfilled == [judge is asked for judge in scenes]


def test_the_three_markers_are_seen_in_their_colours():
    scene = Scene("push-green")
    scene.reset(2)
    picture = scene.render("image", 288, 288).astype(int)
    for channel in range(3):
        others = [other for other in range(3) if other != channel]
        bright = (picture[..., channel] > 120) & np.all(picture[..., others] < 100, axis=-1)
        assert bright.sum() > 30, f"channel {channel}"
    scene.close()
