"""Closed loop: one inference each m ticks, through the commander, with the trace of every one."""

import math
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import yaml

from dysl_vla_ros.commands.main import printed_log
from dysl_vla_ros.comparison.episode_figures import figures_of
from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.evaluation.calibration_runs import SimulatedRuns, simulated_runs
from dysl_vla_ros.evaluation.closed_loop import (
    SIMULATED_ARM,
    EvaluationSettings,
    full_depth_runs,
    play_episode,
    play_episodes,
)
from dysl_vla_ros.files import shared
from dysl_vla_ros.records.summary import summarise
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import (
    AUTOMATIC,
    GuidanceSettings,
    RuntimeSettings,
    SafetySettings,
    SkippingSettings,
    build,
)
from dysl_vla_ros.simulation.scene import Scene
from dysl_vla_ros.simulation.tasks import CONTROL_PERIOD, TASKS
from tiny_checkpoint import make_tiny_checkpoint, make_tiny_dysl

SHIPPED = Path(__file__).parents[1] / "checkpoints" / "reference"
TICKS = 9


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = make_tiny_checkpoint(tmp_path_factory.mktemp("base"))
    make_tiny_dysl(folder / "dysl", folder)
    return folder


@pytest.fixture(scope="module")
def runtime(checkpoint):
    return Runtime.load(str(checkpoint), "")


@pytest.fixture(scope="module")
def scene():
    return Scene("reach")


def test_the_arm_of_the_evaluation_has_the_limits_of_the_demo_arm():
    file = Path(__file__).parents[1] / "config" / "simulated_arm.yaml"
    (node,) = yaml.safe_load(file.read_text()).values()
    assert build(SafetySettings, node["ros__parameters"]["safety"]) == SIMULATED_ARM


@pytest.mark.parametrize("m", [1, 4])
def test_there_is_one_inference_each_m_ticks(runtime, scene, m):
    settings = EvaluationSettings(RuntimeSettings(actions_per_inference=m), max_ticks=TICKS)
    record = play_episode(runtime, scene, 7, settings, instruction="push the puck")
    assert record.ticks == TICKS
    assert len(record.inferences) == -(-TICKS // m)
    assert record.instruction == "push the puck"


@pytest.mark.parametrize("threshold", [1e-9, 0.3, 1e6])
def test_where_m_is_automatic_the_next_inference_comes_after_as_many_ticks_as_the_chunk_says(runtime, scene, threshold):
    guidance = GuidanceSettings(prior=False, verify=False, verify_threshold=threshold, warmup=0)
    automatic = RuntimeSettings(guidance=guidance, actions_per_inference=AUTOMATIC)
    said = []
    record = play_episode(
        runtime, scene, 7, EvaluationSettings(automatic, max_ticks=3 * TICKS), instruction="push the puck",
        watch=lambda _, result: said.append(result.chunk.actions_to_play),
    )  # fmt: skip
    ticks = [round(inference.time / CONTROL_PERIOD) for inference in record.inferences]
    assert np.diff(ticks).tolist() == said[:-1]
    assert said[:2] == [1, 1], "continuity is not known yet"
    if threshold == 1e6:
        assert set(said[2:]) == {runtime.policy.action.bridged}
    elif threshold == 1e-9:
        assert 1 in said[2:]


def test_an_episode_is_the_same_bit_for_bit_when_played_again(runtime, scene):
    settings = EvaluationSettings(max_ticks=TICKS)
    seen = []
    for _ in range(2):
        actions = []
        play_episode(
            runtime, scene, 7, settings, instruction="push the puck",
            watch=lambda _, result, actions=actions: actions.append(result.chunk.actions),
        )  # fmt: skip
        seen.append(np.stack(actions))
    np.testing.assert_array_equal(seen[0], seen[1])


def test_it_is_noted_when_the_tasks_object_was_moved(runtime):
    with closing(Scene("push")) as scene:

        def play(moved_at):
            seen = []

            def watch(observation, result):
                seen.append(observation)
                if len(seen) == moved_at:  # somebody takes the puck elsewhere
                    scene._env._set_obj_xyz(scene.object_position + [0.1, 0.0, 0.0])

            settings = EvaluationSettings(max_ticks=TICKS)
            return play_episode(runtime, scene, 7, settings, instruction="push the puck", watch=watch)

        assert math.isnan(play(None).object_moved)
        record = play(4)
        assert record.object_moved == pytest.approx(4 * 0.05)
        assert figures_of("full", record, [np.zeros(4, np.float32)] * TICKS).fetching == 4


def test_a_delay_keeps_each_command_back(runtime, scene):
    def moved(delay):
        settings = EvaluationSettings(max_ticks=2, delay=delay)
        play_episode(runtime, scene, 7, settings, instruction="push the puck")
        return scene.observe().ee_position

    assert np.any(moved(0.0) != moved(0.0375))
    with pytest.raises(SettingError, match="from 0 to 10 s, not -0.05"):
        EvaluationSettings(delay=-0.05)


def test_behind_a_delay_of_whole_ticks_the_chunk_before_is_played_on(runtime, scene):
    def play(m, delay, ticks=24):
        settings = EvaluationSettings(RuntimeSettings(actions_per_inference=m), max_ticks=ticks, delay=delay)
        return play_episode(runtime, scene, 7, settings, instruction="push the puck")

    # asked at tick 0, played from tick 3 on; asked again when one more was played, and so on each 4 ticks
    steady = play(1, 0.15)
    assert [round(i.time / 0.05) for i in steady.inferences] == [0, 4, 8, 12, 16, 20]
    assert steady.stops.total() == 3, "only until the first answer"
    # of a chunk of 8 that is entered at its 4th action, 3 must be left for the computation: 2 are played, not m
    for m, asked in ((4, [0, 7, 12, 17, 22, 27, 32]), (8, [0, 8, 13, 18, 23, 28])):
        early = play(m, 0.15, ticks=36)
        assert [round(i.time / 0.05) for i in early.inferences] == asked
        assert early.stops.total() == 3, "only until the first answer"
    # 5 actions of 8 during the computation: 2 lack each time, whatever m is
    dry = play(1, 0.25, ticks=36)
    assert dry.stops.total() > 5


def test_an_evaluation_plays_no_more_actions_than_a_chunk_has(runtime, scene):
    settings = EvaluationSettings(RuntimeSettings(actions_per_inference=9))
    with pytest.raises(SettingError, match="actions_per_inference is 9, but the policy's chunks have 8 actions"):
        play_episode(runtime, scene, 7, settings, instruction="push the puck")


@pytest.mark.slow
def test_processes_play_what_one_process_plays(checkpoint, runtime, scene):
    # the tiny policy knows no word of the canonical instruction but "the"
    settings = EvaluationSettings(
        max_ticks=3, first_seed=3, seeds=3, checkpoint=str(checkpoint), tasks=(TASKS["reach"],)
    )
    together = sorted(play_episodes(settings, jobs=2), key=lambda record: record.seed)
    assert [record.seed for record in together] == [3, 4, 5]
    alone = [play_episode(runtime, scene, seed, settings) for seed in (3, 4, 5)]
    for one, other in zip(together, alone, strict=True):
        assert [i.trace.layer_calls for i in one.inferences] == [i.trace.layer_calls for i in other.inferences]
    summary = summarise(together)
    assert summary["overall"]["episodes"] == 3


@pytest.mark.slow
def test_full_depth_runs_run_every_layer_whatever_the_settings_say(checkpoint):
    settings = EvaluationSettings(
        RuntimeSettings(skipping=SkippingSettings(threshold=0.0)),
        max_ticks=3, first_seed=3, seeds=1, checkpoint=str(checkpoint), tasks=(TASKS["reach"],),
    )  # fmt: skip
    (run,), failed = full_depth_runs(settings, jobs=1)
    assert failed == 1, "three ticks are not enough"
    assert len(run.observations) == len(run.chunks) == 3
    plain = Runtime(Runtime.load(str(checkpoint), "").policy, None)
    for observation, chunk in zip(run.observations, run.chunks, strict=True):
        result = plain.step(observation, np.zeros((0, 4), np.float32), RuntimeSettings())
        np.testing.assert_array_equal(result.chunk.actions, chunk)


@pytest.mark.slow
def test_runs_in_which_full_depth_fails_are_left_out_where_any_succeeds():
    runtime, task = Runtime.load_base(SHIPPED), TASKS["reach"]
    with closing(Scene(task)) as scene:
        ticks = [play_episode(runtime, scene, seed, EvaluationSettings()).ticks for seed in (5000, 5001, 5002)]
    assert min(ticks) < max(ticks) < 200, "all three succeed, not at once"
    fastest = [number for number in ticks if number == min(ticks)]
    for limit, lengths, failures in ((min(ticks), fastest, 3 - len(fastest)), (2, [2, 2, 2], 3)):
        settings = EvaluationSettings(max_ticks=limit, first_seed=5000, seeds=3, checkpoint=str(SHIPPED), tasks=(task,))
        runs, failed = full_depth_runs(settings, jobs=1)
        assert ([len(run.chunks) for run in runs], failed) == (lengths, failures)


def test_that_no_full_depth_run_succeeded_is_told(checkpoint, capsys):
    with printed_log():
        assert len(simulated_runs(checkpoint, 4, SimulatedRuns(("reach",), seeds=1, jobs=1))) == 1
    assert "warning: full depth failed in all of them" in capsys.readouterr().err


def test_runs_to_calibrate_on_are_played_in_one_process_though_no_thresholds_are_there_yet(tmp_path):
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(shared("checkpoints/reference"), checkpoint)
    (checkpoint / "dysl" / "calibration.json").unlink()
    (run,) = simulated_runs(checkpoint, 1, SimulatedRuns(("reach",), seeds=1, jobs=1))
    assert len(run.observations) == len(run.chunks) > 0
