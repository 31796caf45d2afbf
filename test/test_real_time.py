"""Time that goes on while the policy computes: virtual, by what inferences cost, so that episodes repeat."""

import json
import time
from contextlib import closing

import numpy as np
import pytest

from dysl_vla_ros.commands.main import main
from dysl_vla_ros.control.commander import Commander
from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.evaluation.closed_loop import UNDERRUN, EvaluationSettings, play_episode
from dysl_vla_ros.evaluation.real_time import RealTime, phase
from dysl_vla_ros.runtime.cost_model import CostModel
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import RuntimeSettings, SkippingSettings
from dysl_vla_ros.simulation.scene import STEPS_PER_TICK, Scene
from dysl_vla_ros.simulation.tasks import CONTROL_PERIOD, SIMULATION_STEP
from tiny_checkpoint import make_tiny_checkpoint, make_tiny_dysl

LAYERS, TICKS = 6, 24
FULL, FLOOR = RuntimeSettings(SkippingSettings(rule="full")), RuntimeSettings(SkippingSettings(rule="static"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = make_tiny_checkpoint(tmp_path_factory.mktemp("base"), layers=LAYERS)
    make_tiny_dysl(folder / "dysl", folder)
    return folder


@pytest.fixture(scope="module")
def runtime(checkpoint):
    return Runtime.load(str(checkpoint), "")


@pytest.fixture(scope="module")
def scene():
    with closing(Scene("reach")) as own:
        yield own


def played(runtime, scene, slow_down, settings=FULL, seed=8, chunk=0):
    """Play an episode in which layers are all that costs."""
    cost = {runtime.policy.weights_hash: CostModel(base=0.0, layer=1.0, verification=0.0, spread=0.0)}
    real_time = RealTime(slow_down, full_ms=float(LAYERS), costs=cost)
    evaluation = EvaluationSettings(settings, max_ticks=TICKS, real_time=real_time, chunk=chunk)
    return play_episode(runtime, scene, seed, evaluation, instruction="push the puck")


def looks(record) -> list[float]:
    """Return when the policy looked, in control periods."""
    return [inference.time / CONTROL_PERIOD for inference in record.inferences]


@pytest.mark.parametrize("slow_down", [0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("seed", range(STEPS_PER_TICK))
def test_the_policy_looks_again_at_the_image_behind_the_tick_that_played_its_answer(runtime, scene, slow_down, seed):
    record = played(runtime, scene, slow_down, seed=seed)
    tick = phase(seed) / STEPS_PER_TICK  # of a period, behind the image
    first_tick = np.ceil(slow_down - tick) + tick  # at which the answer is there
    between = np.floor(first_tick) + 1
    assert looks(record) == pytest.approx(list(np.arange(len(record.inferences)) * between))
    assert record.ticks == TICKS


def test_what_costs_less_answers_earlier_and_more_often(runtime, scene):
    full, floor = (played(runtime, scene, 3.0, settings) for settings in (FULL, FLOOR))
    share = floor.inferences[0].trace.layer_calls / LAYERS
    assert share < 1.0
    assert np.diff(looks(full)) == pytest.approx(3.0 + 1)
    assert np.diff(looks(floor)) == pytest.approx(np.ceil(3.0 * share) + 1)
    assert floor.stops[UNDERRUN] < full.stops[UNDERRUN], "the first answer comes earlier"


def test_the_clock_on_the_wall_changes_nothing(runtime, scene, monkeypatch):
    def at_what_pace(pause):
        seen = []
        step = Runtime.step

        def late(self, *arguments, **more):
            time.sleep(pause)  # a machine under load
            result = step(self, *arguments, **more)
            seen.append(result.chunk.actions)
            return result

        with monkeypatch.context() as patched:
            patched.setattr(Runtime, "step", late)
            record = played(runtime, scene, 1.5)
        return record, np.stack(seen)

    (one, actions), (other, slower) = at_what_pace(0.0), at_what_pace(0.02)
    np.testing.assert_array_equal(actions, slower)
    assert looks(one) == looks(other) and one.stops == other.stops


def test_of_a_chunk_of_one_nothing_is_left_while_the_next_is_computed(runtime, scene, monkeypatch):
    indices = []
    tick = Commander.tick
    monkeypatch.setattr(Commander, "tick", lambda self: _noted(tick(self), indices))
    record = played(runtime, scene, 3.0, chunk=1)
    assert indices and set(indices) == {0}
    assert record.stops[UNDERRUN] > TICKS / 2
    assert played(runtime, scene, 3.0).stops[UNDERRUN] <= 3, "chunks of 8 bridge it"


def _noted(command, indices):
    if command:
        indices.append(command.index)
    return command


def test_time_advances_by_whole_steps_and_the_episode_lasts_its_ticks(runtime, scene):
    record = played(runtime, scene, 1.0, seed=2)
    assert record.seconds == pytest.approx(TICKS * CONTROL_PERIOD, abs=STEPS_PER_TICK * SIMULATION_STEP)


def test_slow_downs_that_are_none_are_refused_and_delays_beside_real_time():
    for wrong in (0.0, -1.0, 21.0, float("nan")):
        with pytest.raises(SettingError, match="control periods"):
            RealTime(wrong)
    with pytest.raises(SettingError, match="exclude each other"):
        EvaluationSettings(real_time=RealTime(1.0), delay=0.1)


@pytest.mark.slow
def test_the_command_line_draws_a_curve_and_measures_once(checkpoint, tmp_path, capsys):
    line = ["evaluate", str(checkpoint), "--methods", "full", "static", "--tasks", "reach", "--seeds", "1"]
    line += ["--jobs", "1", "--max-ticks", "4", "--calibration-seeds", "0", "--out", str(tmp_path)]
    line += ["--real-time", "1", "3", "--chunk", "1", "8"]
    assert main(line) == 0
    assert "easy tasks, chunks of 8" in capsys.readouterr().out
    values = json.loads((tmp_path / "real_time.json").read_text())
    rows = {(row["method"], row["slow_down"], row["chunk"]) for row in values["rows"]}
    assert rows == {(method, slow, chunk) for method in ("full", "static") for slow in (1.0, 3.0) for chunk in (1, 8)}
    assert (tmp_path / "real_time.png").stat().st_size > 10_000
    costs = (tmp_path / "costs.json").read_bytes()
    assert main(line) == 0, "it goes on: nothing is measured or played again"
    assert (tmp_path / "costs.json").read_bytes() == costs
