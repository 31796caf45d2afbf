"""Adapters of LeRobot's policies: learned with the teacher beside, and the library's object is what it was before."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from families import FAMILIES, PARTITION, observation

from dysl_vla_ros.distillation.beside.progress import RunProgress
from dysl_vla_ros.distillation.beside.stages import DistillationBeside
from dysl_vla_ros.distillation.beside.teacher import TeacherBeside
from dysl_vla_ros.distillation.passes import decoded, hard_stack
from dysl_vla_ros.distillation.settings import DistillationSettings
from dysl_vla_ros.skipping.depth_rules import FixedPlan, FullDepth
from dysl_vla_ros.skipping.modules import DyslModules
from dysl_vla_ros.skipping.stack import SkippableStack
from dysl_vla_ros.skipping.streams import no_bridge

# and the highest learning rate
STEPS = {"smolvla": (100, 3e-3), "pi0": (30, 5e-3), "pi05": (100, 5e-3), "xvla": (60, 5e-3)}
SETTINGS = DistillationSettings(joint_steps=3, batch_size=16, floor_share=1.0, large_error=0.0)
FEW = replace(SETTINGS, action_steps=20, learning_rate=1e-2, batch_size=4)  # are enough for one family
families = pytest.mark.parametrize("family", FAMILIES)


def frames(count: int, seed: int) -> list[Any]:
    return [observation(seed + number) for number in range(count)]


def job_for(policy: Any, settings: DistillationSettings = SETTINGS, **how: Any) -> DistillationBeside:
    torch.manual_seed(0)
    modules = DyslModules(PARTITION, policy.streams, bottleneck=16, queries=2, controller_width=4)
    how = {"together": 16} | how
    learned, held_out = (TeacherBeside(policy, seen, PARTITION, **how) for seen in (frames(64, 0), frames(16, 1000)))
    return DistillationBeside(PARTITION, modules, learned, settings, held_out, RunProgress())


@pytest.mark.slow
@families
def test_the_floors_error_on_held_out_frames_halves_and_controllers_learn(family: str, loaded: Any) -> None:
    policy, (steps, rate) = loaded(family), STEPS[family]
    before = policy.reference_chunk(observation(3), 5)
    job = job_for(policy, replace(SETTINGS, action_steps=steps, learning_rate=rate))
    require_halved(job)
    assert math.isfinite(job.train_joint()) and job.judgements[-1].step == SETTINGS.joint_steps
    assert torch.equal(policy.reference_chunk(observation(3), 5), before)


def test_the_floors_error_of_a_flow_halves_within_a_few_steps(loaded: Any) -> None:
    require_halved(job_for(loaded("pi0"), FEW))


def require_halved(job: DistillationBeside) -> None:
    identity = job.judge.floor_error()
    job.train_actions()
    trained, steps = job.judge.floor_error(), job.settings.action_steps
    assert trained < 0.5 * identity, f"{trained:.4f} after {steps} steps, {identity:.4f} before"


@families
def test_what_trains_is_what_is_deployed(family: str, loaded: Any) -> None:
    policy = loaded(family)
    job = job_for(policy)
    with torch.no_grad():
        for parameter in job.modules.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        (batch,) = job.data.batches([0, 1], [7, 8], (), iter([0.5]))
        result, _ = hard_stack(policy, PARTITION, job.modules, batch.hidden(1), batch.context, (1, 4), start=1)
        actions = decoded(policy, job.modules, result, batch.context, None, batch.noise)
        for row, seed in enumerate((7, 8)):
            stack, noise = SkippableStack(policy.layers), policy.noise([seed])
            hidden, context = policy.prepare([observation(row)], noise)
            full = policy.decode(stack.run(hidden, context, FullDepth()), context, None, noise, no_bridge)[0]
            torch.testing.assert_close(batch.actions[row], full[0], atol=1e-4, rtol=1e-3)
            alone = stack.run(hidden, context, FixedPlan(PARTITION, job.modules, (1, 4)))
            own = policy.decode(alone, context, None, noise, job.modules.bridge)[0]
            torch.testing.assert_close(actions[row], own[0], atol=1e-4, rtol=1e-3)


@families
def test_layers_computed_again_on_the_way_back_give_the_same_gradients_and_the_library_keeps_its_bits(
    family: str, loaded: Any
) -> None:
    policy = loaded(family, torch.bfloat16)
    before = policy.reference_chunk(observation(3), 5)
    short = DistillationSettings(hidden_steps=1, action_steps=2, batch_size=2)
    found = []
    for checkpointing in (True, False):
        job = job_for(policy, short, together=2, checkpointing=checkpointing)
        assert all(map(math.isfinite, (job.train_hidden(), job.train_actions())))
        learned = job.modules.followers[policy.streams[1].name].adapter(PARTITION.floor[0]).parameters()
        assert all(parameter.grad is not None for parameter in learned), "the follower's adapters learn too"
        found.append(job.modules.state_dict())
    assert torch.equal(policy.reference_chunk(observation(3), 5), before)
    policy.check_against_library()
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], atol=1e-5, rtol=1e-4)
