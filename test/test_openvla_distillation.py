"""Adapters of OpenVLA-OFT, learned with the teacher beside it; prompts of two lengths."""

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
from tiny_openvla import INSTRUCTION, STATE, convert, said, write_tiny_openvla

TEXTS = (INSTRUCTION, "pick up the bowl and put it away")
PARTITION = LayerPartition(8, (0, 4, 7))
SETTINGS = DistillationSettings(action_steps=30, batch_size=4, learning_rate=5e-3, floor_share=1.0, large_error=0.0)


def frame(number: int) -> Observation:
    random = np.random.default_rng(number)
    image = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    state = random.normal(size=STATE).astype(np.float32)
    return Observation({"full_image": image}, state, TEXTS[number % 2])


@pytest.mark.slow
def test_the_floors_error_on_held_out_frames_halves_and_the_teacher_keeps_its_bits(tmp_path: Path) -> None:
    policy = load_policy(convert(write_tiny_openvla(tmp_path / "oft")), options=said("full_image"))
    torch.manual_seed(0)
    modules = DyslModules(PARTITION, policy.streams, bottleneck=16, queries=2, controller_width=4)
    own, others = (
        TeacherBeside(policy, [frame(first + n) for n in range(count)], PARTITION, together=4)
        for first, count in ((0, 16), (100, 8))
    )
    (before,) = own.batches([0], [0], ())
    job = DistillationBeside(PARTITION, modules, own, SETTINGS, others, RunProgress())
    identity = job.judge.floor_error()
    job.train_actions()
    trained = job.judge.floor_error()
    assert trained < 0.5 * identity, f"{trained:.4f} after {SETTINGS.action_steps} steps, {identity:.4f} before"
    (after,) = own.batches([0], [0], ())
    assert torch.equal(before.actions, after.actions)


def test_prompts_of_two_lengths_never_share_a_pass(tmp_path: Path) -> None:
    policy = load_policy(convert(write_tiny_openvla(tmp_path / "oft")), options=said("full_image"))
    teacher = TeacherBeside(policy, [frame(n) for n in range(4)], PARTITION, together=4)
    seen = list(teacher.batches([0, 1, 2, 3], [0] * 4, ()))
    assert [len(batch.frames) for batch in seen] == [2, 2]
    assert len({batch.hidden(1).shape[1] for batch in seen}) == 2, "two lengths"
    for batch in seen:
        assert batch.context.token_mask is None, "nothing is padded"
        for row, own in enumerate(batch.frames):
            (alone,) = replace_frames(teacher, [own]).batches([0], [0], ())
            torch.testing.assert_close(batch.actions[row], alone.actions[0], atol=1e-5, rtol=1e-4)


def replace_frames(teacher: TeacherBeside, frames: list[Observation]) -> TeacherBeside:
    return TeacherBeside(teacher.policy, frames, PARTITION, together=1)
