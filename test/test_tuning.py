"""Tuning: remembered passes are the deployed runtime, bit for bit; a search keeps its target or says that it cannot."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dysl_vla_ros.calibration.remembered_passes import RememberedPasses
from dysl_vla_ros.calibration.tuning import Target, deviations, front, measure, tune
from dysl_vla_ros.calibration.tuning_report import PAGE, PARAMS, PLOT, RESULT, pareto_plot
from dysl_vla_ros.commands.main import main
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.interfaces import ActionSpec
from dysl_vla_ros.params_file import read_params_file
from dysl_vla_ros.recordings.full_depth import full_depth_runs
from dysl_vla_ros.runs.full_depth import FullDepthRun, Part, split_episodes, split_runs, thin_out
from dysl_vla_ros.runtime.cost_model import CostModel, fit_cost, measure_cost
from dysl_vla_ros.runtime.folder import DyslFolder
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import FULL_DEPTH, GuidanceSettings, RuntimeSettings, SkippingSettings
from dysl_vla_ros.simulation.scene import Scene
from dysl_vla_ros.skipping.modules import DyslModules
from dysl_vla_ros.skipping.partition import LayerPartition
from joint_arm import joint_positions
from recorded_bag import record
from runtime_families import families, nothing, observation
from runtime_families import runtime as family_runtime
from tiny_bag import write_tiny_bag
from tiny_checkpoint import INSTRUCTION, make_tiny_checkpoint, make_tiny_dysl

COST = CostModel(base=5.0, layer=1.0, verification=1.0, spread=0.5)
OTHER = "open the drawer"
REFERENCE = Path(__file__).parents[1] / "checkpoints" / "reference"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("tuning")
    checkpoint = make_tiny_checkpoint(root / "base", layers=8)
    make_tiny_dysl(checkpoint / "dysl", checkpoint, offset=0.0)
    bag = write_tiny_bag(root / "bag", ticks=16, episodes=(INSTRUCTION, OTHER) * 3)
    return checkpoint, bag


@pytest.fixture(scope="module")
def runtime(folders):
    torch.set_num_threads(1)
    return Runtime.load(str(folders[0]), "")


@pytest.fixture(scope="module")
def runs(folders, runtime):
    return full_depth_runs([folders[1]], runtime)


@pytest.fixture(scope="module")
def sides(runtime, runs):
    return tuple(RememberedPasses(runtime, side) for side in split_runs(runs))


def before_of(runtime):
    return RuntimeSettings(guidance=GuidanceSettings().resolved(runtime.dysl.calibrated))


def some_settings(count, m):
    random, turns = np.random.default_rng(7), np.random.default_rng(8)
    return [
        RuntimeSettings(
            SkippingSettings(threshold=float(random.uniform(0.2, 0.8))),
            GuidanceSettings(
                window=int(random.integers(1, 6)),
                step=float(np.exp(random.uniform(-5, 0))),
                verify_threshold=float(np.exp(random.uniform(-5, -1))),
                dead_band=float(random.choice((-1.0, 0.01))),
                stride=str(random.choice(("paper", "integral"))),
                warmup=int(random.integers(0, 4)),
                verify_on=str(random.choice(("first", "any"))),
                prior=bool(random.random() < 0.8),
                verify=bool(random.random() < 0.8),
                verify_every=int(turns.choice((0, 0, 3))),
                verify_while=float(turns.choice((0.0, 0.01))),
            ),
            m,
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    ("m", "per_block"),
    [pytest.param(1, "all", marks=pytest.mark.slow), pytest.param(3, "all", marks=pytest.mark.slow), (1, "first")],
)
def test_remembered_passes_are_the_deployed_runtime_bit_for_bit(runtime, runs, m, per_block):
    if per_block == "first":
        partition = LayerPartition(8, runtime.dysl.partition.static, "first")
        modules = DyslModules(partition, runtime.policy.streams, bottleneck=8, queries=2, controller_width=4)
        weights = runtime.dysl.modules.state_dict()
        modules.load_state_dict({name: weights[name] for name in modules.state_dict()})
        runtime = Runtime(runtime.policy, DyslFolder(partition, modules.eval(), {}, runtime.dysl.calibrated))
    passes = RememberedPasses(runtime, runs[:2])
    seen = set()
    for settings in some_settings(12, m):
        remembered = iter(passes.replay(settings))
        for run in runs[:2]:
            runtime.reset()
            played = np.zeros((0, 4), np.float32)
            for each in run.observations:
                real = runtime.step(each, played, settings)
                played = real.chunk.actions[:m]
                step = next(remembered)
                assert np.array_equal(step.actions, real.chunk.actions)
                assert (step.layer_calls, step.verified) == (real.trace.layer_calls, real.trace.verified)
                assert step.allow_points == real.trace.allow_points
                seen.add((step.layer_calls, step.verified))
    assert len(seen) > (6 if per_block == "all" else 4), "the settings differ too little to prove anything"
    assert {True, False} == {verified for _, verified in seen}
    assert passes.computed < 12 * sum(len(run.chunks) for run in runs[:2]), "nothing was remembered"


@families
def test_remembered_passes_of_every_family_are_its_deployed_runtime_bit_for_bit(family):
    """Decoding with a memory and with noise included."""
    deployed, m = family_runtime(family, eagerness=0.0), 2
    policy = deployed.policy
    seen = tuple(observation(policy, seed) for seed in range(6))
    full_depth = Runtime(policy, None)
    chunks = np.stack([full_depth.step(each, nothing(policy), FULL_DEPTH).chunk.actions for each in seen])
    passes = RememberedPasses(deployed, [FullDepthRun(seen, chunks)])
    verified = []
    for settings in some_settings(8, m):
        deployed.reset()
        played = nothing(policy)
        for each, step in zip(seen, passes.replay(settings), strict=True):
            real = deployed.step(each, played, settings)
            played = real.chunk.actions[:m]
            assert np.array_equal(step.actions, real.chunk.actions)
            assert (step.layer_calls, step.verified) == (real.trace.layer_calls, real.trace.verified)
            verified.append(step.verified)
    assert {True, False} == set(verified)
    floors = list(passes.at_floor(m))
    assert floors[0][0].shape == chunks.shape


def test_the_same_settings_again_compute_nothing(runtime, runs):
    passes = RememberedPasses(runtime, runs[:1])
    first = measure(passes, before_of(runtime), COST)
    computed = passes.computed
    assert measure(passes, before_of(runtime), COST) == first
    assert passes.computed == computed > 0


def test_full_depth_deviates_by_nothing(runtime, runs):
    closed = dataclasses.replace(before_of(runtime), skipping=SkippingSettings(threshold=1.0))
    figures = measure(RememberedPasses(runtime, runs[:1]), closed, COST)
    assert figures.deviation < 1e-4 and figures.layers == 8.0 and figures.verified == 0.0
    assert figures.milliseconds == figures.milliseconds_p95 == 13.0


@given(
    lengths=st.lists(st.integers(1, 200), min_size=1, max_size=12),
    instructions=st.integers(1, 3),
    share=st.floats(0.1, 0.5),
)
def test_a_split_uses_every_inference_at_most_once_and_holds_something_of_each_instruction_out(
    lengths, instructions, share
):
    episodes = [(f"do {number % instructions}", length) for number, length in enumerate(lengths)]
    try:
        learned, held_out = split_episodes(episodes, share)
    except DataError as error:
        assert "too few" in str(error)
        assert max(lengths) < 20 or len(lengths) == 1
        return
    cells = [(part.episode, place) for part in (*learned, *held_out) for place in range(part.start, part.end)]
    assert len(cells) == len(set(cells)) == sum(lengths)
    by_text = {episodes[part.episode][0] for part in held_out}
    several = [text for text in dict(episodes) if sum(own == text for own, _ in episodes) > 1]
    assert set(several) <= by_text


def test_a_single_episode_is_split_by_time():
    learned, held_out = split_episodes([("do it", 90)], 1 / 3)
    assert learned == [Part(0, 0, 60)] and held_out == [Part(0, 60, 90)]


def test_thinning_out_keeps_whole_runs_from_all_over_the_recording(runs):
    assert thin_out(runs, 10_000) == runs
    few = thin_out(runs, 48)
    assert [next(n for n, run in enumerate(runs) if run is own) for own in few] == [0, 2, 4]


def test_the_cost_model_finds_what_steps_were_made_of_though_some_met_another_process():
    random = np.random.default_rng(0)
    calls, verified = random.integers(5, 48, 200), random.integers(0, 2, 200)
    measured = 3.0 + 0.5 * calls + 2.0 * verified + random.normal(0, 0.05, 200)
    measured[::20] += 30.0
    cost = fit_cost(np.stack([np.ones(200), calls, verified], axis=1), measured)
    assert (cost.base, cost.layer, cost.verification) == pytest.approx((3.0, 0.5, 2.0), abs=0.06)
    assert cost.milliseconds(np.array([10.0]), np.array([1.0])) == pytest.approx(10.0, abs=0.1)


def test_a_real_machine_has_a_cost(runtime, runs):
    cost = measure_cost(runtime, [observation for run in runs for observation in run.observations], steps=12)
    assert cost.base > 0.0 and cost.layer >= 0.0 and cost.verification >= 0.0 and np.isfinite(cost.spread)


def test_the_deviation_is_the_translations_with_gripper_and_rotation_on_top():
    spec = ActionSpec(8, 0.05, True, (0.0,) * 7, (0.01, 0.01, 0.01, 0.1, 0.1, 0.1, 0.5))
    wanted = np.zeros((3, 7), np.float32)
    given_ = wanted.copy()
    given_[0, 0], given_[1, 6], given_[2, 3] = 0.003, 0.5, 0.1
    found = deviations(given_, wanted, spec)
    assert found["translation"] == pytest.approx([3.0, 0.0, 0.0])
    assert found["rotation"] == pytest.approx([0.0, 0.0, np.degrees(0.1)], rel=1e-5)
    assert found["deviation"] == pytest.approx([3.0, 10.0, 10.0])  # one scale of the gripper is one of translation


def test_the_deviation_of_joints_is_the_furthest_ones_with_the_others_in_its_unit():
    spec = joint_positions()  # shoulder in rad, elbow in deg, wrist in range_100, jaw in percent
    scale = np.array(spec.scale)
    wanted = np.zeros((4, 4), np.float32)
    given_ = np.diag(scale).astype(np.float32)  # each row moves one value by its scale
    found = deviations(given_, wanted, spec)
    assert list(found) == ["joint_degrees", "joint_percent", "gripper", "deviation"]
    degrees = [np.degrees(scale[0]), scale[1]]
    assert found["joint_degrees"] == pytest.approx([*degrees, 0.0, 0.0], rel=1e-5)
    assert found["deviation"] == pytest.approx([*degrees, max(degrees), max(degrees)], rel=1e-5)


@pytest.mark.parametrize("target", [Target(milliseconds=11.0), Target(deviation=2.0)], ids=str)
def test_the_same_seed_finds_the_same_and_never_worse_than_before(runtime, sides, target):
    found = tune(*sides, before_of(runtime), target, COST, trials=24, seed=3)
    again = tune(*sides, before_of(runtime), target, COST, trials=24, seed=3)
    assert found == again and len(found.trials) == 24
    assert target.score(found.choice.figures) <= target.score(found.before.figures)
    assert found.choice.figures == measure(sides[1], found.choice.settings, COST), "figures are of held-out runs"
    assert found.met == target.met(found.choice.figures)
    stages = [trial.stage for trial in found.trials]
    assert stages == sorted(stages, key=("before", "start", "searched").index)


def test_a_target_below_the_floor_is_not_met_and_the_nearest_is_chosen(runtime, sides):
    found = tune(*sides, before_of(runtime), Target(milliseconds=1.0), COST, trials=16)
    assert not found.met
    assert found.choice.figures.milliseconds == min(trial.figures.milliseconds for trial in found.finalists)


def test_the_front_holds_no_trial_that_another_beats(runtime, sides):
    trials = tune(*sides, before_of(runtime), Target(milliseconds=11.0), COST, trials=24).trials
    kept = front(trials)
    for one, other in itertools.product(trials, kept):
        a, b = one.figures, other.figures
        assert not (a.milliseconds <= b.milliseconds and a.deviation < b.deviation)


def grid_of(before, outputs):
    """Thirty points as a person would lay them out: thresholds by quantiles, steps and verification by factors."""
    return [
        RuntimeSettings(
            SkippingSettings(threshold=float(np.quantile(outputs, quantile))),
            dataclasses.replace(before.guidance, step=before.guidance.step * step, verify_threshold=verify),
        )
        for quantile, step, verify in itertools.product((0.1, 0.3, 0.5, 0.7, 0.9), (0.25, 1.0, 4.0), (0.05, 0.2))
    ]


def test_the_choice_is_no_worse_than_the_best_of_a_grid_on_a_few_frames(runtime, sides):
    passes, _ = sides
    target, before = Target(milliseconds=11.0), before_of(runtime)
    found = tune(passes, passes, before, target, COST, trials=120)
    grid = grid_of(before, passes.outputs())
    best = min((measure(passes, settings, COST) for settings in grid), key=target.score)
    assert target.score(found.choice.figures) <= target.score(best)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("target", [Target(milliseconds=10.0), Target(deviation=0.5)], ids=str)
def test_the_choice_is_no_worse_than_the_best_of_a_grid_with_the_shipped_policy(target, tmp_path):
    """Both are found on the runs that are searched, and hold on those that were held out."""
    pytest.importorskip("mujoco")
    reference = Runtime.load(str(REFERENCE), "")
    full_depth = RuntimeSettings(SkippingSettings(rule="full"))
    bags = [
        record(tmp_path / task, reference, Scene(task), 45, seeds=range(4), settings=full_depth).path
        for task in ("reach", "drawer-close", "pick-place")
    ]
    passes, judges = (RememberedPasses(reference, s) for s in split_runs(full_depth_runs(bags, reference)))
    cost, before = CostModel(base=5.0, layer=0.6, verification=1.0, spread=2.0), before_of(reference)
    found = tune(passes, judges, before, target, cost)
    best_settings = min(grid_of(before, passes.outputs()), key=lambda s: target.score(measure(passes, s, cost)))
    for side in (passes, judges):
        own, best = (measure(side, settings, cost) for settings in (found.choice.settings, best_settings))
        print(f"choice {target.score(own)}, best of the grid {target.score(best)}")
        assert target.score(own) <= target.score(best)


@pytest.mark.slow
def test_tune_writes_a_file_that_is_the_choice_and_refuses_to_write_over_it(folders, tmp_path, capsys):
    checkpoint, bag = folders
    out = tmp_path / "tuned"
    arguments = ["tune", str(bag), "--checkpoint", str(checkpoint), "--out", str(out), "--trials", "12"]
    assert main([*arguments, "--target-ms", "1000"]) == 0
    said = capsys.readouterr().out
    assert "searched on 64 inferences, judged on 32" in said and "next: ros2 launch" in said
    result = json.loads((out / RESULT).read_text())
    read = read_params_file(out / PARAMS)
    assert {name: getattr(read.groups[name.split(".")[0]], name.split(".")[1]) for name in read.given} == result[
        "choice"
    ]["parameters"]
    assert all(name.startswith(("skipping.", "guidance.")) for name in read.given)
    text = (out / PARAMS).read_text()
    assert f"# dysl_vla tune {bag} --checkpoint" in text and "kept on runs that were not searched on" in text
    page = (out / PAGE).read_text()
    assert "<svg" in page and "<script" not in page and "src=" not in page and "<link" not in page
    assert (out / PLOT).read_text().startswith("<?xml")
    assert len(result["trials"]) == 12 and result["met"] is True

    assert main([*arguments, "--target-ms", "1000"]) == 2
    assert "has tuned.yaml, tune.json, tune.svg, tune.html already" in capsys.readouterr().err
    assert (out / PARAMS).read_text() == text
    assert main([*arguments, "--target-ms", "0.001", "--force"]) == 1
    assert "not met: at most 0.001 ms an inference in the mean; the nearest found has" in capsys.readouterr().err
    assert "NOT kept" in (out / PARAMS).read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target-ms", "-3"], "--target-ms must be a positive number"),
        (["--max-deviation", "nan"], "--max-deviation must be a positive number"),
        (["--target-ms", "9", "--trials", "3"], "--trials must be 10 or more"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(folders, tmp_path, capsys, arguments, said):
    checkpoint, bag = folders
    out = tmp_path / "out"
    assert main(["tune", str(bag), "--checkpoint", str(checkpoint), "--out", str(out), *arguments]) == 2
    assert said in capsys.readouterr().err and not out.exists()


def test_what_is_no_bag_and_what_has_no_adapters_is_refused_by_name(folders, tmp_path, capsys):
    checkpoint, bag = folders
    given_ = ["--out", str(tmp_path / "out"), "--target-ms", "9"]
    assert main(["tune", str(checkpoint), "--checkpoint", str(checkpoint), *given_]) == 2
    assert "is no bag (metadata.yaml, .mcap, .db3)" in capsys.readouterr().err
    bare = make_tiny_checkpoint(tmp_path / "bare")
    assert main(["tune", str(bag), "--checkpoint", str(bare), *given_]) == 2
    assert "has no adapters, so nothing can be skipped" in capsys.readouterr().err


def test_the_plot_shows_every_trial(runtime, sides):
    found = tune(*sides, before_of(runtime), Target(milliseconds=11.0), COST, trials=12)
    drawing = pareto_plot(found, Target(milliseconds=11.0))
    for text in ("choice, held-out runs", "before, held-out runs", "on all runs", "at most 11 ms"):
        assert text in drawing


def test_runs_without_a_fall_of_continuity_are_refused(runtime, runs):
    still = [FullDepthRun(run.observations, np.repeat(run.chunks[:1], len(run.chunks), axis=0)) for run in runs]
    passes = RememberedPasses(runtime, still)
    with pytest.raises(DataError, match="continuity never fell"):
        tune(passes, passes, before_of(runtime), Target(milliseconds=11.0), COST, trials=12)
