"""Signals: the rank correlation is Spearman's, and one that knows is told from one that says nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dysl_vla_ros.calibration.remembered_passes import RememberedPasses
from dysl_vla_ros.calibration.signals import judge_signal, measure_signals, rank_correlation, table
from dysl_vla_ros.distillation.judging import ERROR_FLOOR
from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.policies.registry import load_policy
from dysl_vla_ros.runs.full_depth import FullDepthRun
from dysl_vla_ros.runtime.folder import DyslFolder
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import GuidanceSettings, RuntimeSettings, SkippingSettings
from dysl_vla_ros.skipping.modules import DyslModules
from dysl_vla_ros.skipping.partition import LayerPartition
from tiny_checkpoint import INSTRUCTION, make_tiny_checkpoint

PARTITION = LayerPartition(8, (0, 4, 7))
FULL_DEPTH = RuntimeSettings(SkippingSettings(rule="full"), GuidanceSettings(prior=False, verify=False))
FLOOR = RuntimeSettings(SkippingSettings(threshold=0.0), GuidanceSettings(prior=False, verify=False, warmup=0))
values = st.lists(st.integers(-5, 5), min_size=2, max_size=30)


@settings(max_examples=60, deadline=None)
@given(st.data(), values)
def test_it_is_pearsons_of_mean_ranks_written_out(data: st.DataObject, one: list[int]) -> None:
    other = data.draw(st.lists(st.integers(-5, 5), min_size=len(one), max_size=len(one)))
    ranks = [[sum(b < a for b in own) + (sum(b == a for b in own) + 1) / 2 for a in own] for own in (one, other)]
    found = rank_correlation(np.array(one, float), np.array(other, float))
    if len(set(one)) == 1 or len(set(other)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(float(np.corrcoef(ranks)[0, 1]))


def test_any_rising_function_of_the_error_knows_all_of_it() -> None:
    error = np.random.default_rng(0).exponential(size=200)
    for signal, related, caught in ((np.log(error + 1), 1.0, 1.0), (-error, -1.0, 0.0)):
        found = judge_signal(signal, error)
        assert (found.rank_correlation, found.worst_tenth_caught) == (related, caught)
    noise = judge_signal(np.random.default_rng(1).normal(size=20_000), np.random.default_rng(2).normal(size=20_000))
    assert abs(noise.rank_correlation) < 0.03 and noise.worst_tenth_caught == pytest.approx(0.3, abs=0.04)


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """A runtime with random adapters, full-depth runs of it, and the errors that its floor makes on them."""
    policy = load_policy(make_tiny_checkpoint(tmp_path_factory.mktemp("base"), layers=8))
    modules = DyslModules(PARTITION, policy.streams, bottleneck=16)
    for parameter in modules.parameters():
        parameter.data.normal_(std=0.05)
    runtime = Runtime(policy, DyslFolder(PARTITION, modules.eval(), {}, {}))
    random = np.random.default_rng(0)
    runs, errors = [], []
    for _ in range(3):
        seen = tuple(
            Observation(
                {name: random.integers(0, 255, (96, 96, 3), dtype=np.uint8) for name in policy.cameras},
                random.normal(0.3, 0.2, 4).astype(np.float32),
                INSTRUCTION,
            )
            for _ in range(12)
        )
        chunks = {}
        for name, how in (("full", FULL_DEPTH), ("floor", FLOOR)):
            runtime.reset()
            nothing = np.zeros((0, 4), np.float32)
            chunks[name] = np.stack([runtime.step(own, nothing, how).chunk.actions for own in seen])
        runs.append(FullDepthRun(seen, chunks["full"]))
        parts = [policy.action.normalise(chunks[name][:, :1]) for name in ("floor", "full")]
        errors.append(np.abs(parts[0] - parts[1]).mean(axis=(1, 2)))
    return runtime, runs, errors


def test_controllers_that_foresee_the_error_know_it_and_constant_ones_say_nothing(played) -> None:
    runtime, runs, errors = played
    for controller in runtime.dysl.modules.controllers.values():
        controller.outer.weight.data.zero_()
    passes = RememberedPasses(runtime, runs)
    constant = measure_signals(passes, 1)
    assert constant["controllers"].rank_correlation is None and constant["controllers"].worst_tenth_caught is None
    assert "flat" in next(line for line in table(constant) if line.startswith("controllers"))

    told = iter(np.concatenate(errors))
    for moments in passes._moments:  # as if the last controller had been told what will come
        for moment in moments:
            for key in moment.probabilities:
                moment.probabilities[key] = 1.0
            error = next(told)
            moment.probabilities[(1,), 5] = float(1.0 / (1.0 + (error + ERROR_FLOOR) / (0.05 + ERROR_FLOOR)))
    known = measure_signals(passes, 1)
    assert known["controllers"].rank_correlation == pytest.approx(1.0, abs=0.001)
    assert {name: own for name, own in known.items() if name != "controllers"} == {
        name: own for name, own in constant.items() if name != "controllers"
    }


def test_a_run_whose_beginning_has_no_continuity_yet_is_judged_from_where_it_has(played) -> None:
    runtime, runs, _ = played
    signals = measure_signals(RememberedPasses(runtime, runs), 1)
    for name in ("-C", "-dC", "drop of C by the candidate", "slowness", "gripper change"):
        assert signals[name].rank_correlation is not None, name
        assert -1.0 <= signals[name].rank_correlation <= 1.0
