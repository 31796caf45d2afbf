"""ONNX Runtime computes what torch computes: the same decisions, actions up to rounding, the same trace."""

import dataclasses
import math
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from dysl_vla_ros.engines.engine import Engine, StepPolicy
from dysl_vla_ros.engines.onnx import pictures
from dysl_vla_ros.engines.onnx.exported import runs_of
from dysl_vla_ros.engines.onnx.pictures import to_square
from dysl_vla_ros.engines.torch.engine import TorchEngine
from dysl_vla_ros.interfaces import Observation, StepResult
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import FULL_DEPTH, OPEN, GuidanceSettings, RuntimeSettings, SkippingSettings
from dysl_vla_ros.skipping.partition import PER_BLOCK, LayerPartition
from onnx_exports import load, make_exported, observations
from small_stacks import partitions

FRAMES = 1000
TOLERANCE = 1e-4  # of actions in the policy's normalised units
NEAR = 1e-3  # of a threshold: there rounding may decide
VERIFYING = GuidanceSettings(prior=False, warmup=0, verify_on="any", verify_threshold=1e-9, stride="integral", step=1.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_exported(tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module")
def both(checkpoint: Path) -> tuple[Runtime, Runtime]:
    return Runtime.load(str(checkpoint), ""), load(checkpoint)


def stepped(runtime: Runtime, number: int, wanted: RuntimeSettings) -> list[StepResult]:
    runtime.reset()
    played = np.zeros((0, runtime.policy.action.dimensions), np.float32)
    results = []
    for seen in observations(runtime, number):
        results.append(runtime.step(seen, played, wanted))
        # the same for both: a difference of rounding must not grow from step to step
        played = np.round(results[-1].chunk.actions[:1], 3)
    return results


def near_threshold(result: StepResult, threshold: float) -> bool:
    return any(abs(own - threshold) < NEAR for own in result.trace.controller_outputs if not math.isnan(own))


@pytest.mark.parametrize(
    "wanted",
    [
        FULL_DEPTH,
        RuntimeSettings(SkippingSettings(rule="static"), OPEN),
        RuntimeSettings(SkippingSettings(threshold=0.5), OPEN),
        RuntimeSettings(SkippingSettings(threshold=0.5), VERIFYING),
        RuntimeSettings(SkippingSettings(threshold=0.4)),
    ],
    ids=["full depth", "static", "controllers", "verifying", "guided"],
)
def test_the_same_layers_run_and_actions_are_the_same_up_to_rounding(
    both: tuple[Runtime, Runtime], wanted: RuntimeSettings
) -> None:
    ours, theirs = (stepped(runtime, 12, wanted) for runtime in both)
    far = 0
    for one, other in zip(ours, theirs, strict=True):
        if near_threshold(one, wanted.skipping.threshold):
            continue
        far += 1
        for name in ("executed", "layer_calls", "allow_points", "skip_points", "verified", "full_depth_reason"):
            assert getattr(one.trace, name) == getattr(other.trace, name), name
        np.testing.assert_allclose(one.trace.controller_outputs, other.trace.controller_outputs, atol=TOLERANCE)
        action = both[0].policy.action
        assert action.distance(one.chunk.actions, other.chunk.actions) < TOLERANCE
    assert far >= 6, "every decision was near the threshold: nothing is tested"


def test_what_verification_completes_is_full_depth_bit_for_bit(both: tuple[Runtime, Runtime]) -> None:
    runtime = both[1]
    wanted = RuntimeSettings(SkippingSettings(threshold=0.0), VERIFYING)
    found = [own for own in stepped(runtime, 12, wanted) if own.trace.verified]
    assert found, "nothing was verified: nothing is tested"
    full = stepped(runtime, 12, FULL_DEPTH)
    for own in found:
        same = [np.array_equal(own.chunk.actions, other.chunk.actions) for other in full]
        assert any(same), "what the first pass left was written over"


def test_both_engines_say_the_same_of_the_policy(both: tuple[Runtime, Runtime]) -> None:
    ours, theirs = (dataclasses.replace(runtime.description, floor_ms=0.0) for runtime in both)
    assert ours == theirs
    for runtime, kind in zip(both, (TorchEngine, Engine), strict=True):
        assert isinstance(runtime.policy, StepPolicy) and isinstance(runtime.policy.engine, kind)
    assert both[1].check_instruction("push the teapot") == both[0].check_instruction("push the teapot") != ()


def test_a_budget_cuts_on_onnx_too(both: tuple[Runtime, Runtime]) -> None:
    runtime = both[1]
    runtime.warm_up()
    wanted = RuntimeSettings(SkippingSettings(threshold=1.0), OPEN, budget_ms=1e-6)
    result = stepped(runtime, 2, wanted)[-1]
    assert result.trace.budget_cut and sum(result.trace.executed) == len(runtime.dysl.partition.static)
    assert runtime.description.floor_ms > 0.0


def test_full_depth_runs_without_a_dysl_folder_in_one_graph(tmp_path: Path) -> None:
    from dysl_vla_ros.engines.onnx.exporting.export import export_checkpoint
    from tiny_checkpoint import make_tiny_checkpoint

    checkpoint = make_tiny_checkpoint(tmp_path / "base", 5)
    assert export_checkpoint(checkpoint).export.runs == ((0, 5),)
    ours, theirs = Runtime.load(str(checkpoint), ""), load(checkpoint)
    one, other = (stepped(runtime, 2, RuntimeSettings())[-1] for runtime in (ours, theirs))
    assert other.trace.executed == (True,) * 5 and other.trace.layer_calls == 5
    assert ours.policy.action.distance(one.chunk.actions, other.chunk.actions) < TOLERANCE


@given(partitions(), st.sampled_from(PER_BLOCK))
def test_runs_end_wherever_something_may_be_decided_and_cover_the_stack(drawn: LayerPartition, per_block: str) -> None:
    partition = dataclasses.replace(drawn, per_block=per_block)
    runs = runs_of(partition)
    assert [layer for first, end in runs for layer in range(first, end)] == list(range(partition.num_layers))
    begins = {first for first, _ in runs}
    assert begins >= set(partition.skip_points) | {end for _, end in partition.blocks}


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([24, 48, 72, 96]), st.integers(0, 99))
def test_a_picture_is_shrunk_as_torch_shrinks_it(height: int, width: int, size: int, seed: int) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    tensor = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255.0
    wanted = functional.interpolate(tensor, (size, size), mode="area").numpy()
    for small in (0, 2**17):  # both ways of summing
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pictures, "SMALL", small)
            np.testing.assert_allclose(to_square(picture, size), wanted, atol=2e-6)


SHORT_OF_MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from dysl_vla_ros.engines import ONNX
from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import FULL_DEPTH
from dysl_vla_ros.worker.server import reason

def memory(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) << 10

runtime = Runtime.load(sys.argv[1], "", engine=ONNX)
seen, nothing = runtime.policy.sample(), np.zeros((0, 4), np.float32)
large = np.zeros((3000, 12000, 3), np.uint8)
usual = runtime.step(seen, nothing, FULL_DEPTH).chunk.actions
before = memory("VmRSS")
resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + (1 << 20), resource.RLIM_INFINITY))
try:
    runtime.step(Observation({name: large for name in seen.images}, seen.proprioception, seen.instruction), nothing,
                 FULL_DEPTH)
    print("no error")
except Exception as error:
    print(type(error).__name__)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert np.array_equal(runtime.step(seen, nothing, FULL_DEPTH).chunk.actions, usual)
print(memory("VmRSS") - before < (32 << 20), "torch" in sys.modules)
"""


def test_out_of_memory_in_a_step_is_an_error_and_the_next_step_is_as_ever(checkpoint: Path) -> None:
    assert resource.getrlimit(resource.RLIMIT_AS)[1] == resource.RLIM_INFINITY, "this test lowers the limit"
    done = subprocess.run(
        [sys.executable, "-c", SHORT_OF_MEMORY, str(checkpoint)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    *errors, last = done.stdout.splitlines()
    assert len(errors) == 1 and "no error" not in errors
    assert last == "True False", f"memory was not given back, or torch was imported: {done.stdout}"


@pytest.mark.slow
def test_on_rendered_frames_the_shipped_policy_decides_alike(tmp_path: Path) -> None:
    """A thousand frames of closed-loop episodes; where a controller is near the threshold rounding may decide."""
    from dysl_vla_ros.engines.onnx.exporting.export import export_checkpoint
    from dysl_vla_ros.evaluation.closed_loop import EvaluationSettings, play_episode
    from dysl_vla_ros.files import shared
    from dysl_vla_ros.simulation.scene import Scene

    shipped = shared("checkpoints/reference")
    export = export_checkpoint(shipped, output=tmp_path / "export").folder
    ours, theirs = Runtime.load(str(shipped), ""), load(shipped, export=str(export))
    nothing = np.zeros((0, ours.policy.action.dimensions), np.float32)
    wanted = RuntimeSettings(SkippingSettings(threshold=0.5), OPEN)
    apart, near = [0.0], 0

    def compare(seen: Observation, _: StepResult) -> None:
        nonlocal near
        one, other = (runtime.step(seen, nothing, wanted) for runtime in (ours, theirs))
        if near_threshold(one, wanted.skipping.threshold):
            near += 1
            return
        assert one.trace.executed == other.trace.executed
        apart.append(ours.policy.action.distance(one.chunk.actions, other.chunk.actions))

    player, seed = Runtime.load(str(shipped), ""), 30_000
    while len(apart) + near <= FRAMES:
        for task in ("reach", "push", "drawer-open"):
            play_episode(player, Scene(task), seed, EvaluationSettings(max_ticks=120), watch=compare)
        seed += 1
    print(f"{len(apart) - 1} frames, {near} more near the threshold, actions apart at most {max(apart):.1e}")
    assert max(apart) < TOLERANCE and near < FRAMES / 20
