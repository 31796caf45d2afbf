"""The board: instructions set how many steps it takes to find the goal; who may learn from which; how it is asked."""

from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from dysl_vla_ros.commands.main import main
from dysl_vla_ros.errors import CheckpointError, DataError
from dysl_vla_ros.evaluation.closed_loop import EvaluationSettings, full_depth_runs
from dysl_vla_ros.evaluation.evaluate import evaluate
from dysl_vla_ros.interfaces import ActionSpec
from dysl_vla_ros.policies.checkpoint import read_config
from dysl_vla_ros.policies.reference import ReferenceNetwork
from dysl_vla_ros.policies.reference_config import LAYOUTS, ReferenceConfig
from dysl_vla_ros.policies.registry import load_policy
from dysl_vla_ros.simulation import board
from dysl_vla_ros.simulation.board import CHAINS, DISC_COLOURS, DISCS, MOST_HOPS, Chain, board_layout, kind_of, relaid
from dysl_vla_ros.simulation.demonstrations import record_task, save_arrays
from dysl_vla_ros.simulation.experts import Expert
from dysl_vla_ros.simulation.scene import Scene
from dysl_vla_ros.simulation.tasks import (
    BOARD,
    BOARD_HELD_OUT,
    BOARD_SET_ASIDE,
    CONTROL_PERIOD,
    EASY,
    TASK_SETS,
    TASKS,
    chosen_on,
    names_of,
    task_named,
)
from dysl_vla_ros.training.behaviour_cloning import train
from dysl_vla_ros.training.board_lessons import (
    QUESTIONS,
    BoardBatches,
    BoardHeads,
    asked_at_once,
    board_loss,
    hops_asked,
    layers_for,
    lesson_at,
    lesson_loss,
    patch_weights,
    soft_start,
)
from dysl_vla_ros.training.dataset import load_episodes
from dysl_vla_ros.training.keeper import STATE, Keeper
from dysl_vla_ros.training.options import TrainingSettings
from dysl_vla_ros.training.teacher import load_origin

RECORDED = ("board-red-0", "board-orange-4")
EPISODES = 2
TINY = TrainingSettings(
    steps=2, layers=6, width=16, heads=2, feed_forward=16, batch_size=4, board_images=2, compile=False, layout="causal"
)
seeds = st.integers(0, 20_000)
chains = st.sampled_from(CHAINS)


def test_the_kinds_divide_all_chains_and_enough_long_ones_are_set_aside_and_held_out():
    kinds = {kind: [chain for chain in CHAINS if kind_of(chain) == kind] for kind in ("set_aside", "held_out")}
    for own in kinds.values():
        assert len(own) >= 7 and all(chain.hops >= 2 for chain in own)
        assert {chain.hops for chain in own} == set(range(2, MOST_HOPS + 1)), "of every length"
        assert {chain.colour for chain in own} == set(DISC_COLOURS), "from every colour"
    assert [task.chain for task in (*BOARD, *BOARD_SET_ASIDE, *BOARD_HELD_OUT)].count(None) == 0
    assert len({task.chain for name in TASK_SETS if name.startswith("board") for task in TASK_SETS[name]}) == 45
    said = {word for task in (*BOARD, *BOARD_SET_ASIDE) for text in task.instructions for word in text.split()}
    assert all(set(task.instruction.split()) <= said for task in BOARD_HELD_OUT), "new combinations, no new words"


@given(seeds, chains)
def test_dots_lead_once_through_all_discs_and_back(seed, chain):
    layout = board_layout(seed)
    way = layout.way(Chain(chain.colour, 0))
    for _ in range(board.DISCS):
        way.append(int(layout.following[way[-1]]))
    assert sorted(way[:-1]) == list(range(board.DISCS)) and way[-1] == way[0]
    assert layout.way(chain) == way[: chain.hops + 1]
    away = np.linalg.norm(layout.places[:, None] - layout.places[None], axis=-1)
    assert away[~np.eye(board.DISCS, dtype=bool)].min() > board.NEAR + 0.03, "what is at one disc is not at another"


@given(seeds, chains)
def test_another_board_has_the_same_places_and_the_same_goal(seed, chain):
    layout = board_layout(seed)
    other = relaid(layout, chain, np.random.default_rng(seed))
    np.testing.assert_array_equal(other.places, layout.places)
    assert sorted(other.colours) == list(range(board.DISCS))
    assert other.way(chain)[-1] == layout.way(chain)[-1]
    assert len(set(other.way(Chain("red", MOST_HOPS)))) == MOST_HOPS + 1


@pytest.fixture(scope="module")
def scene():
    with closing(Scene("board-red-2")) as own:
        yield own


def test_every_chain_has_the_same_scene_and_its_own_goal(scene):
    scene.reset(7)
    with closing(Scene("board-blue-1")) as other:
        other.reset(7)
        np.testing.assert_array_equal(other.render(), scene.render())
        np.testing.assert_array_equal(other.object_position, scene.object_position)
        assert not np.array_equal(other.goal_position, scene.goal_position)
    np.testing.assert_allclose(scene.goal_position[:2], board_layout(7).goal(Chain("red", 2)), atol=1e-6)


def test_discs_are_seen_where_they_are_said_to_be(scene):
    for seed in (1, 2, 3):
        scene.reset(seed)
        image, layout = scene.render(), scene.board
        places = scene.pixels(np.column_stack([layout.places, np.zeros(board.DISCS)]))
        puck = scene.pixels(scene.object_position[None])[0]
        colours = np.array(list(DISC_COLOURS.values()))
        for place, following in zip(places, layout.following, strict=True):
            if np.linalg.norm(place - puck) > 12:
                seen = image[round(place[1]), round(place[0])] / 255.0
                shown = np.argmin(np.linalg.norm(colours - seen, axis=1))
                assert shown == layout.colours[following], "in the middle of a disc its dot is seen"


def test_a_puck_that_passes_the_goal_is_not_there(scene):
    scene.reset(4)
    expert, near = Expert(scene), 0
    while not scene.success:
        action = expert.act()
        scene.hold(action[:3] / CONTROL_PERIOD, float(action[3]))
        scene.advance()
        near += np.linalg.norm(scene.object_position[:2] - scene.goal_position[:2]) < board.NEAR
        assert scene.simulated_time < 15.0
    assert near * CONTROL_PERIOD >= board.STAY


def test_the_expert_minds_the_goal_from_when_it_has_the_puck(scene):
    scene.reset(5)
    expert, minded = Expert(scene), []
    while not scene.success:
        minded.append(expert.minds_goal())
        action = expert.act()
        scene.hold(action[:3] / CONTROL_PERIOD, float(action[3]))
        scene.advance()
    assert not minded[0] and minded[-1]
    assert sum(a != b for a, b in zip(minded, minded[1:], strict=False)) == 1, "undisturbed, it takes it once"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("boards")
    for name in RECORDED:
        record_task(name, folder, EPISODES)
    return folder


CONFIG = ReferenceConfig(
    vocabulary=tuple(sorted({word for task in TASKS.values() for text in task.instructions for word in text.split()})),
    action=ActionSpec(8, CONTROL_PERIOD, False, (0.0, 0.0, 0.0, 0.5), (0.0125, 0.0125, 0.0125, 0.5)),
    proprioception_mean=(0.0, 0.7, 0.1, 0.5),
    proprioception_std=(0.1, 0.1, 0.1, 0.5),
    instructions=tuple(task.instruction for task in BOARD),
    layers=6,
    width=16,
    heads=2,
    feed_forward=16,
    cameras={"image": 96, "wrist_image": 24},
    layout="causal",
)


@pytest.fixture(scope="module")
def batches(recorded):
    return BoardBatches(recorded, [task_named(name) for name in RECORDED], CONFIG, torch.device("cpu"), quiet=True)


def test_scenes_of_chains_are_their_own_and_most_show_another_board_at_each_tick(recorded):
    scenes = [int(path.stem) for name in RECORDED for path in (recorded / name).glob("*.npz")]
    assert len(set(scenes)) == len(scenes) == EPISODES * len(RECORDED)
    for path in recorded.glob("*/*.npz"):
        with np.load(path, allow_pickle=False) as file:
            boards = len(np.unique(file["colours"], axis=0))
            assert boards == 1 if int(path.stem) % 4 == 0 else boards > 10


def test_an_episode_that_does_not_say_its_board_is_refused_by_its_file(recorded, tmp_path):
    for path in recorded.glob("*/*.npz"):
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name != "following"}
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        save_arrays(tmp_path / path.parent.name / path.name, arrays)
    with pytest.raises(DataError, match=r"board-red-0/00000.npz cannot be read: .*following.* record again"):
        BoardBatches(tmp_path, [task_named(name) for name in RECORDED], CONFIG, torch.device("cpu"), quiet=True)


def test_a_question_is_answered_by_the_way_of_its_words(batches, recorded):
    batch = batches.drawn(6, (0, 0), plain=True)
    colours, dots = batch.colours.numpy(), batch.dots.numpy()
    names = list(DISC_COLOURS)
    words = {number + 2: word for number, word in enumerate(CONFIG.vocabulary)}
    for image in range(6):
        for question in range(batch.words.shape[1]):
            said = [words[int(word)] for word in batch.words[image, question] if int(word) > 1]
            here = int(np.argmax(colours[image] == names.index(said[-1])))
            hops = {"one": 1, "two": 2, "three": 3, "four": 4}.get(said[3], 0)
            assert hops == int(batch.hops[image, question])
            for hop in range(hops + 1):
                assert int(batch.way[image, question, hop]) == here
                here = int(np.argmax(colours[image] == dots[image, here]))


def test_what_is_said_of_other_goals_is_what_the_expert_would_do(batches, scene):
    episodes = batches._episodes
    taken = np.flatnonzero(batches._taken)
    actions = episodes.action[taken]
    hand, goal = episodes.proprioception[taken, :2], episodes.scene[taken, 3:5]
    straight = np.clip(10.0 * (goal - hand), -1.0, 1.0) * 0.0125
    np.testing.assert_allclose(actions[:, :2], straight, atol=2e-4)


def test_an_action_that_nobody_knows_is_not_taught(batches):
    batch = batches.drawn(24, (0, 1), plain=True)
    own = batch.way[:, :, -1] == batch.way[:, :1, -1]
    assert batch.mask[:, 0].sum(1).min() >= 1, "what was recorded is known"
    fetching = ~batch.taken
    assert fetching.any() and batch.taken.any()
    same = (batch.actions[fetching] * batch.mask[fetching]) - (batch.actions[fetching][:, :1] * batch.mask[fetching])
    assert same.abs().max() == 0, "while the hand fetches, one action for all chains"
    assert (batch.mask[batch.taken][~own[batch.taken]] == 1).all()


def test_asked_at_once_is_asked_one_by_one(batches):
    torch.manual_seed(0)
    network = ReferenceNetwork(CONFIG).eval()
    batch = batches.drawn(3, (0, 2), plain=True)
    start = network.words_at
    with torch.no_grad():
        states = asked_at_once(network, batch)
        assert len(states) == CONFIG.layers + 1
        ends = states[-1][:, start:].unflatten(1, (batch.words.shape[1], -1))
        for question in range(batch.words.shape[1]):
            actions, hidden = network(batch.pictures, batch.words[:, question], batch.proprioception)
            torch.testing.assert_close(ends[:, question, -3:], hidden[:, -3:], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(network.read_out(ends[:, question]), actions, atol=1e-5, rtol=1e-4)


def test_in_the_causal_layout_no_word_reaches_a_patch_and_in_the_open_one_all_do(batches):
    torch.manual_seed(0)
    batch = batches.drawn(2, (0, 3), plain=True)
    other = torch.roll(batch.words[:, 0], 1, dims=1)
    for layout in LAYOUTS:
        network = ReferenceNetwork(replace(CONFIG, layout=layout)).eval()
        with torch.no_grad():
            one, two = (network(batch.pictures, words, batch.proprioception)[1] for words in (batch.words[:, 0], other))
        same = torch.equal(one[:, : network.words_at], two[:, : network.words_at])
        assert same == (layout == "causal")
        assert not torch.equal(one[:, -1], two[:, -1])


def test_the_layout_of_earlier_checkpoints_is_open_and_is_not_named():
    plain = replace(CONFIG, layout="open").to_json()
    assert "layout" not in plain, "their hashes stay what they are"
    as_read = plain | {"cameras": dict(CONFIG.cameras)}
    source = Path("config.json")
    lists = {key: list(value) if isinstance(value, tuple) else value for key, value in as_read.items()}
    for part in ("action", "proprioception"):
        lists[part] = {k: list(v) if isinstance(v, tuple) else v for k, v in lists[part].items()}
    assert ReferenceConfig.from_json(lists, source).layout == "open"
    assert ReferenceConfig.from_json({**lists, "layout": "causal"}, source).layout == "causal"
    with pytest.raises(CheckpointError, match="model.layout is 'other', expected open or causal"):
        ReferenceConfig.from_json({**lists, "layout": "other"}, source)


def test_patches_of_a_point_are_those_around_it():
    weights = patch_weights(np.array([[12.0, 36.0], [24.0, 12.0], [0.0, 95.0]]), 96)
    np.testing.assert_allclose(weights.sum(-1), 1.0)
    assert weights[0].argmax() == 4 and weights[0].max() == 1.0, "column 0 of row 1"
    np.testing.assert_allclose(weights[1][[0, 1]], 0.5)
    assert weights[2].argmax() == 12


def test_every_head_and_layer_learns_and_a_shallow_policy_is_asked_for_the_hops_that_it_has_layers_for(batches):
    assert [layers_for(hops) for hops in hops_asked(24)] == [4, 8, 12, 16, 20]
    assert list(hops_asked(3)) == [0]
    torch.manual_seed(0)
    for layers in (6, 3):
        network = ReferenceNetwork(replace(CONFIG, layers=layers))
        heads, scene_head = BoardHeads(CONFIG.width), torch.nn.Linear(CONFIG.width, 6)
        batch = batches.drawn(4, (0, 4))
        named = first_disc_named(network, heads, batch)  # a place is asked for where the pointer is right
        batch = replace(batch, way=named[..., None].expand_as(batch.way))
        loss, error = board_loss(network, heads, scene_head, batch, nullcontext, np.random.default_rng(0))
        loss.backward()
        parameters = [*network.named_parameters(), *heads.named_parameters()]
        still = [name for name, own in parameters if own.grad is None or not own.grad.abs().sum() > 0]
        assert not still and torch.isfinite(error)


def test_nothing_is_learned_or_chosen_from_what_is_held_out(recorded, tmp_path, capsys):
    name = BOARD_HELD_OUT[0].name
    with pytest.raises(DataError, match=f"{name}: held out, for evaluations alone"):
        record_task(name, tmp_path, 1)
    with pytest.raises(DataError, match="board-held-out: held out, for evaluations alone"):
        load_episodes(recorded, BOARD_HELD_OUT, quiet=True)
    data, out = str(recorded), str(tmp_path / "out")
    for line in (
        ["demonstrations", out, "--tasks", name],
        ["train", data, out, "--tasks", "board-held-out"],
        ["distill", "checkpoints/reference", data, "--adapters", out, "--tasks", "board", name],
        ["calibrate", "checkpoints/reference", data, "--adapters", out, "--tasks", name],
    ):
        assert main(line) == 2, line
        assert "held out, for evaluations alone" in capsys.readouterr().err
    with pytest.raises(DataError, match="held out, for evaluations alone"):
        full_depth_runs(EvaluationSettings(checkpoint="checkpoints/reference", tasks=BOARD_HELD_OUT), 1)
    assert names_of([*BOARD_HELD_OUT, EASY[0]]) == "reach, board-held-out"


def test_what_is_shown_on_chains_held_out_is_chosen_on_those_set_aside_of_their_length():
    chosen = chosen_on([EASY[0], *(task for task in BOARD_HELD_OUT if task.chain.hops == 3)])
    assert chosen == [EASY[0], *(task for task in BOARD_SET_ASIDE if task.chain.hops == 3)]
    assert chosen_on(BOARD_HELD_OUT) == list(BOARD_SET_ASIDE)
    assert chosen_on([*BOARD, *EASY]) == [*BOARD, *EASY]


def test_lessons_come_hop_after_hop_and_reach_no_layer_behind_theirs(batches):
    given = [lesson_at(step, 200) for step in range(201)]
    assert given[-1] is None and given[0] == 0
    assert sorted(given[:-1]) == given[:-1] and set(given[:-1]) == set(range(MOST_HOPS + 1))
    assert lesson_at(0, 0) is None, "without lessons there is none"
    torch.manual_seed(0)
    network = ReferenceNetwork(replace(CONFIG, layers=24))
    heads, scene_head = BoardHeads(CONFIG.width), torch.nn.Linear(CONFIG.width, 6)
    stack = {name for name, _ in network.named_parameters() if name.startswith("layers.")}
    for hops in range(MOST_HOPS + 1):
        network.zero_grad()
        lesson_loss(network, heads, batches.drawn(2, (0, 5), hops=hops), nullcontext, hops).backward()
        reached = {name for name, own in network.named_parameters() if own.grad is not None and own.grad.any()}
        wanted = {name for name in stack if int(name.split(".")[1]) < layers_for(hops)}
        assert reached & stack == wanted
    network.zero_grad()
    batch, random = batches.drawn(2, (0, 5)), np.random.default_rng(0)
    board_loss(network, heads, scene_head, batch, nullcontext, random)[0].backward()
    assert all(own.grad is not None for own in network.parameters())


def test_a_lesson_asks_most_for_chains_that_go_on_from_its_hop(batches):
    chains = batches.drawn(64, (0, 6)).hops
    assert (chains == 4).float().mean() < 0.6 and (chains == 0).any(), "else half of each: two chains are recorded"
    long = batches.drawn(64, (0, 6), hops=4).hops[:, 1:]
    assert 0.8 < (long == 4).float().mean() < 1.0 and (long == 0).any()
    plain, same = batches.drawn(3, (0, 7)), batches.drawn(3, (0, 7), hops=0)
    assert torch.equal(plain.words, same.words) and torch.equal(plain.actions, same.actions)


def first_disc_named(network, heads, batch):
    """Return the discs (B, Q) that the pointer names where the first disc is asked for."""
    with torch.no_grad():
        states = asked_at_once(network, batch)
        state = network.norm(states[min(layers_for(0), len(states) - 1)])
        query = state[:, network.words_at :].unflatten(1, (QUESTIONS, -1))[:, :, -1]
        pointed = heads.points(state[:, : batch.discs.shape[-1]], query).softmax(-1)
        return torch.einsum("bqn,bdn->bqd", pointed, batch.discs).argmax(-1)


def test_a_place_is_asked_for_only_where_the_pointer_names_the_disc_and_never_in_lessons(batches):
    torch.manual_seed(0)
    network, heads, scene_head = ReferenceNetwork(CONFIG), BoardHeads(CONFIG.width), torch.nn.Linear(CONFIG.width, 6)
    batch, random = batches.drawn(2, (0, 9)), np.random.default_rng(0)
    named = first_disc_named(network, heads, batch)
    for shift, asked in ((0, True), (1, False)):
        heads.zero_grad()
        own = replace(batch, way=((named + shift) % DISCS)[..., None].expand_as(batch.way))
        lesson_loss(network, heads, own, nullcontext, 0).backward()
        assert not heads.place.weight.grad.any()
        board_loss(network, heads, scene_head, own, nullcontext, random)[0].backward()
        assert bool(heads.place.weight.grad.any()) is asked


def test_the_rate_rises_anew_where_a_lesson_reaches_further_layers():
    given = np.array([soft_start(step, 1000) for step in range(2000)])
    assert given[0] < 0.05 and (given[900:1000] == 1.0).all() and (given[1100:] == 1.0).all()
    lessons = [lesson_at(step, 1000) for step in range(2000)]
    further = [step for step in range(1, 2000) if lessons[step] != lessons[step - 1]]
    assert np.flatnonzero(np.diff(given) < 0).tolist() == [step - 1 for step in further]
    assert all(soft_start(step, 0) == 1.0 for step in range(3)), "without lessons all is reached from the start"


def test_where_no_chain_is_long_enough_a_lesson_asks_for_those_there_are(recorded):
    short = [task_named(name) for name in RECORDED if task_named(name).chain.hops < MOST_HOPS]
    batches = BoardBatches(recorded, short, CONFIG, torch.device("cpu"), quiet=True)
    assert (batches.drawn(8, (0, 8), hops=MOST_HOPS).hops < MOST_HOPS).all()


def test_lessons_that_were_interrupted_go_on_to_the_same_bits(recorded, tmp_path, monkeypatch):
    tasks = [task_named(name) for name in RECORDED]
    settings = replace(TINY, steps=7, board_lessons=5, save_seconds=0.0)
    train(recorded, tmp_path / "whole", tasks, settings)
    own = Keeper.after_step

    def interrupted(keeper, *given):
        told = own(keeper, *given)
        if keeper._state.step == 3:
            raise KeyboardInterrupt
        return told

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Keeper, "after_step", interrupted)
        train(recorded, tmp_path / "parts", tasks, settings)
    assert int(load_file(tmp_path / "parts" / STATE)["step"]) == 3
    train(recorded, tmp_path / "parts", tasks, settings)
    once, twice = (load_file(tmp_path / run / STATE) for run in ("whole", "parts"))
    assert not [name for name in once if not torch.equal(once[name], twice[name])]


def test_lessons_of_a_board_that_is_not_learned_are_refused(recorded, tmp_path):
    with pytest.raises(DataError, match="--board-lessons 3: no task of the board is learned; name one with --tasks"):
        train(recorded, tmp_path, [task_named("reach")], replace(TINY, steps=3, board_lessons=3))
    with pytest.raises(DataError, match="--board-lessons 3 is more than --steps 2"):
        replace(TINY, board_lessons=3)


def test_a_base_learns_the_words_of_new_tasks_and_keeps_its_own(tmp_path, recorded):
    tasks = [task_named(name) for name in RECORDED]
    base = load_policy(Path("checkpoints/reference"))
    origin = load_origin(tasks, TrainingSettings(base="checkpoints/reference", layout="causal"))
    own, new = base.config.vocabulary, origin.config.vocabulary
    assert new[: len(own)] == own and {"four", "from", "orange"} <= set(new) - set(own)
    assert origin.config.layout == "causal" and origin.config.action == base.config.action
    weights = origin.first_weights()
    torch.testing.assert_close(weights["words.weight"][: len(own) + 2], base.network.words.weight, rtol=0, atol=0)
    assert len(weights["words.weight"]) == len(new) + 2
    ReferenceNetwork(origin.config).load_state_dict(weights)


def test_training_on_the_board_writes_a_policy_that_plays_it(recorded, tmp_path):
    tasks, settings = [task_named(name) for name in RECORDED], replace(TINY, layout="open")
    with pytest.raises(DataError, match="board-red-0 is learned in the layout causal: add --layout causal"):
        train(recorded, tmp_path / "out", tasks, settings)
    train(recorded, tmp_path / "out", tasks, TINY)
    policy = load_policy(tmp_path / "out")
    assert policy.config.layout == "causal"
    assert not [name for name, _ in policy.network.named_parameters() if "board" in name], "training's heads stay there"
    said = read_config(tmp_path / "out")["training"]["right_discs"]
    assert set(said) == {str(hops) for hops in range(MOST_HOPS + 1)}
    settings = EvaluationSettings(tasks=(BOARD_HELD_OUT[0],), seeds=1, max_ticks=3)
    assert len(evaluate(tmp_path / "out", settings).episodes) == 1
