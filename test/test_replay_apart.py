"""Replay of another project's checkpoint: the worker's protocol changes no figure, and what is missing is said."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dysl_vla_ros.bags.reader import BagReader
from dysl_vla_ros.commands.main import main
from dysl_vla_ros.errors import ObservationError, WorkerError
from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.job_worker.apart import Apart
from dysl_vla_ros.job_worker.opening import opened_worker
from dysl_vla_ros.job_worker.sides import WorkerPolicy
from dysl_vla_ros.recordings.source import Choice, open_source
from dysl_vla_ros.replay.policies import OwnPolicy, ReplayedPolicy
from dysl_vla_ros.replay.run import FULL, SKIPPING, Replay, Side, replay_moments
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import GuidanceSettings, RuntimeSettings, SafetySettings, SkippingSettings
from job_worker_thread import in_a_thread
from joint_bag import write_joint_bag
from test_job_worker import parameters
from tiny_checkpoint import make_dysl
from tiny_openvla import INSTRUCTION, JOINTS, convert, said, write_tiny_openvla

pytestmark = pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")
EVERY_LAYER = RuntimeSettings(SkippingSettings(rule="full"))
WHEREVER_IT_MAY = RuntimeSettings(SkippingSettings(), GuidanceSettings(prior=False, warmup=0))


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("apart")
    checkpoint = convert(write_tiny_openvla(folder / "oft"))
    runtime = Runtime.load(str(checkpoint), "", options=said("full_image"))
    policy = runtime.policy
    made = (policy.family, policy.weights_hash, len(policy.layers), policy.streams)
    make_dysl(checkpoint / "dysl", *made, offset=9.0)
    make_dysl(folder / "other", *made, seed=1, offset=-9.0)
    bag = write_joint_bag(folder / "bag", JOINTS, {"/full_image": (40, 48)}, (INSTRUCTION,) * 2, 4, period=0.1)
    skipping = Runtime.beside(policy, str(checkpoint), "")
    return {
        "checkpoint": checkpoint, "bag": bag, "params": parameters(folder), "other": folder / "other",
        "here": OwnPolicy(skipping, str(checkpoint)),
    }  # fmt: skip


def replayed(bag: Path, policy: ReplayedPolicy, full: RuntimeSettings, skipping: RuntimeSettings) -> Replay:
    sides = [Side(FULL, policy.side(), full), Side(SKIPPING, policy.side(), skipping)]
    with BagReader(bag) as reader:
        choice = Choice(unreadable=policy.unreadable)
        moments = open_source(reader, sides[1].description, SafetySettings(), choice).moments
        return replay_moments(moments, sides, moments.refuse)


def test_a_worker_gives_the_figures_of_this_process_bit_for_bit(there: dict[str, Any], tmp_path: Path) -> None:
    here = replayed(there["bag"], there["here"], EVERY_LAYER, WHEREVER_IT_MAY)
    with opened_worker(there["checkpoint"], tmp_path, Apart(there["params"]), start=in_a_thread) as worker:
        policy = WorkerPolicy(worker, "")
        theirs = replayed(there["bag"], policy, EVERY_LAYER, WHEREVER_IT_MAY)
        assert policy.unreadable("pick </s> up") == there["here"].unreadable("pick </s> up") != ""
        assert worker.frames.count == 1, "frames of a long recording do not add up"
    assert len(here.episodes) == len(theirs.episodes) == 2 and len(here.moments) == 8
    for name in (FULL, SKIPPING):
        one, other = here.track(name), theirs.track(name)
        for column in one.columns._rows.dtype.names:
            if column != "milliseconds":
                np.testing.assert_array_equal(one.columns[column], other.columns[column], err_msg=f"{name}: {column}")
        assert here.sides[name].description.model_hash == theirs.sides[name].description.model_hash
    calls = [here.track(name).columns["calls"].mean() for name in (FULL, SKIPPING)]
    assert calls[0] == 8 and not here.track(SKIPPING).columns["executed"].all(), "something was skipped"


def test_a_step_that_cannot_be_computed_is_the_same_error_and_the_worker_lives_on(
    there: dict[str, Any], tmp_path: Path
) -> None:
    with opened_worker(there["checkpoint"], tmp_path, Apart(there["params"]), start=in_a_thread) as worker:
        policy = WorkerPolicy(worker, "")
        sides = there["here"].side(), policy.side()
        bare, played = Observation({}, np.zeros(8, np.float32), INSTRUCTION), np.zeros((0, 7), np.float32)
        told = []
        for side in sides:
            with pytest.raises(ObservationError) as refused:
                side.step(bare, played, EVERY_LAYER)
            told.append(str(refused.value))
        assert told[0] == told[1] and "full_image" in told[0]
        with pytest.raises(WorkerError, match="elsewhere' is not a folder"):
            policy.side(str(tmp_path / "elsewhere"))
        seen = Observation({"full_image": np.zeros((40, 48, 3), np.uint8)}, np.zeros(8, np.float32), INSTRUCTION)
        one, other = (side.step(seen, played, EVERY_LAYER) for side in sides)
        assert np.array_equal(one.chunk.actions, other.chunk.actions)


def test_what_no_file_says_is_asked_for_before_anything_is_loaded(there: dict[str, Any], capsys: Any) -> None:
    words = ["replay", str(there["bag"]), "--checkpoint", str(there["checkpoint"])]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "--params" in told and "dysl_vla inspect" in told and told.count("\n") == 1


@pytest.mark.slow
def test_the_real_command_replays_another_projects_checkpoint(there: dict[str, Any], tmp_path: Path) -> None:
    words = ["replay", str(there["bag"]), "--checkpoint", str(there["checkpoint"]), "--params", str(there["params"])]
    words += ["--out", str(tmp_path), "--against", str(there["other"])]
    assert main(words) == 0
    found = json.loads((tmp_path / "replay.json").read_text())
    assert found["inferences"] == found["against"]["moments"] == 8
    assert found["policy"]["family"] == "openvla_oft"
    assert found["policy"]["adapters"].startswith(str(there["checkpoint"] / "dysl"))
