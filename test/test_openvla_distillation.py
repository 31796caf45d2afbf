"""Adapters of an OpenVLA-OFT, learned with the teacher beside: the floor's error on held-out frames at least halves."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dysl_vla_ros.distillation.beside.progress import RunProgress
from dysl_vla_ros.distillation.beside.stages import DistillationBeside
from dysl_vla_ros.distillation.beside.teacher import TeacherBeside
from dysl_vla_ros.distillation.settings import DistillationSettings
from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.policies.registry import load_policy
from dysl_vla_ros.skipping.modules import DyslModules
from dysl_vla_ros.skipping.partition import LayerPartition
from tiny_openvla import INSTRUCTION, LAYERS, STATE, convert, said, write_tiny_openvla

SETTINGS = DistillationSettings(
    action_steps=40, joint_steps=3, batch_size=4, learning_rate=5e-3, floor_share=1.0, large_error=0.0
)


def frames(count: int, seed: int) -> list[Observation]:
    random = np.random.default_rng(seed)
    return [
        Observation(
            {"full_image": random.integers(0, 256, (40, 48, 3), np.uint8)},
            random.uniform(-1.0, 1.0, STATE).astype(np.float32),
            INSTRUCTION,
        )
        for _ in range(count)
    ]


@pytest.mark.slow
def test_the_floors_error_on_held_out_frames_halves_and_controllers_learn(tmp_path: Path) -> None:
    checkpoint = convert(write_tiny_openvla(tmp_path / "oft"))
    policy = load_policy(checkpoint, torch.device("cpu"), None, said("full_image"))
    before = [weight.clone() for weights in policy.parts().values() for weight in weights]
    partition = LayerPartition(LAYERS, (0, 3, LAYERS - 1))
    torch.manual_seed(0)
    modules = DyslModules(partition, policy.streams, bottleneck=16, queries=2, controller_width=4)
    learned, held_out = (TeacherBeside(policy, seen, partition, together=4) for seen in (frames(32, 0), frames(8, 1)))
    job = DistillationBeside(partition, modules, learned, SETTINGS, held_out, RunProgress())
    identity = job.judge.floor_error()
    job.train_actions()
    trained = job.judge.floor_error()
    assert trained < 0.5 * identity, f"{trained:.4f} after {SETTINGS.action_steps} steps, {identity:.4f} before"
    assert np.isfinite(job.train_joint()) and job.judgements[-1].step == SETTINGS.joint_steps
    after = [weight for weights in policy.parts().values() for weight in weights]
    assert all(map(torch.equal, before, after)), "the teacher stays as it is"
