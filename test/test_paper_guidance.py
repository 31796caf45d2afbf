"""The paper's guidance is searched on full-depth runs, under the controllers that are then played with."""

from dataclasses import replace

import numpy as np
import pytest

from dysl_vla_ros.calibration.paper_guidance import paper_guidance
from dysl_vla_ros.calibration.remembered_passes import RememberedPasses
from dysl_vla_ros.calibration.threshold_search import REMEMBERED_AT, replay
from dysl_vla_ros.runs.full_depth import FullDepthRun
from dysl_vla_ros.settings import RuntimeSettings, SkippingSettings
from runtime_families import UNGUIDED, observation, policy_of, runtime

M = 2


def full_depth_run(tested, count=12):
    seen = tuple(observation(tested.policy, seed) for seed in range(count))
    full = replace(UNGUIDED, skipping=SkippingSettings(rule="full"))
    nothing = np.zeros((0, tested.policy.action.dimensions), np.float32)
    return FullDepthRun(seen, np.stack([tested.step(own, nothing, full).chunk.actions for own in seen]))


def test_what_was_searched_is_what_is_then_played():
    tested = runtime("reference", eagerness=0.0)
    offsets = [float(own.offset) for own in tested.dysl.modules.controllers.values()]
    run = full_depth_run(tested)
    found = paper_guidance(tested, [run], M)
    assert (found.stride, found.verify_on) == ("paper", "first") and found.dead_band > 0.0
    assert [float(own.offset) for own in tested.dysl.modules.controllers.values()] == offsets
    tested.reset()
    played, calls = np.zeros((0, 4), np.float32), []
    for own in run.observations:
        result = tested.step(own, played, RuntimeSettings(guidance=found, actions_per_inference=M))
        played = result.chunk.actions[:M]
        calls.append(result.trace.layer_calls)
    assert np.mean(calls) == pytest.approx(replay(RememberedPasses(tested, [run]), M, REMEMBERED_AT, found).layers)


def test_a_policy_with_a_memory_gets_the_starting_points():
    tested = runtime("stateful", eagerness=0.0)
    found = paper_guidance(tested, [full_depth_run(tested)], 1)
    assert (found.stride, found.verify_on) == ("paper", "first")
    assert policy_of("stateful").initial_state() is not None
