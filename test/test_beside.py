"""The teacher beside the student: the same method as over recorded activations, resumed with the same bits."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from dysl_vla_ros.distillation import stage_report
from dysl_vla_ros.distillation.beside.progress import Interrupted, ResumeWithin, RunProgress
from dysl_vla_ros.distillation.beside.stages import DistillationBeside
from dysl_vla_ros.distillation.beside.static_choice import choose_static_beside, measure_similarity
from dysl_vla_ros.distillation.beside.teacher import TeacherBeside, alike
from dysl_vla_ros.distillation.passes import decoded, hard_stack, inputs_of, plain_layer
from dysl_vla_ros.distillation.settings import DistillationSettings
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.skipping.depth_rules import FixedPlan, FullDepth
from dysl_vla_ros.skipping.modules import DyslModules
from dysl_vla_ros.skipping.stack import SkippableStack
from dysl_vla_ros.skipping.streams import no_bridge
from runtime_families import FAMILIES_UNDER_TEST, PARTITION, observation, policy_of
from small_stacks import trained_like

BATCHED = pytest.mark.parametrize("family", [name for name in FAMILIES_UNDER_TEST if name != "stateful"])
SHORT = DistillationSettings(hidden_steps=4, action_steps=5, joint_steps=6, batch_size=6, floor_share=0.3)
TEXTS = ("pick it up", "put it into the tray")


def frames_of(policy, count: int = 12, seed: int = 0) -> list[Observation]:
    """Return frames of two instructions, whose prompts may be of two lengths."""
    known = policy.instructions or TEXTS
    seen = (observation(policy, seed + number) for number in range(count))
    return [replace(own, instruction=known[number % 2 % len(known)]) for number, own in enumerate(seen)]


def teacher_of(policy, count: int = 12, seed: int = 0, **how) -> TeacherBeside:
    return TeacherBeside(policy, frames_of(policy, count, seed), PARTITION, **{"together": 3} | how)


def job_of(policy, modules, settings=SHORT, progress=RunProgress(), resume=None, **how) -> DistillationBeside:  # noqa: B008
    held_out = teacher_of(policy, 6, 100)
    return DistillationBeside(PARTITION, modules, teacher_of(policy, **how), settings, held_out, progress, resume)


def new_modules(policy) -> DyslModules:
    torch.manual_seed(0)
    return DyslModules(PARTITION, policy.streams, bottleneck=8, rank=4)


def bits(modules) -> list[bytes]:
    return [value.numpy().tobytes() for value in modules.state_dict().values()]


@BATCHED
@pytest.mark.parametrize("plan", [(1, 5), (3, 7), (4, 6)])
def test_what_trains_is_what_is_deployed(family: str, plan) -> None:
    policy, modules = policy_of(family), trained_like(PARTITION, policy_of(family).streams)
    teacher = teacher_of(policy)
    with torch.no_grad():
        for batch in teacher.batches([0, 1, 2, 4], [7, 8, 9, 10], (), iter([0.5] * 4)):
            assert len({frame.instruction for frame in batch.frames}) == 1
            start = teacher.start(PARTITION)
            given = (policy, PARTITION, modules, batch.hidden(start), batch.context, plan)
            result, _ = hard_stack(*given, start=start, run=plain_layer)
            actions = decoded(policy, modules, result, batch.context, None, batch.noise)
            for row, (frame, seed) in enumerate(zip(batch.frames, batch.seeds, strict=True)):
                hidden, context = policy.prepare([frame])
                stack, noise = SkippableStack(policy.layers), policy.noise([seed])
                full = policy.decode(stack.run(hidden, context, FullDepth()), context, None, noise, no_bridge)[0]
                torch.testing.assert_close(batch.actions[row], full[0], atol=1e-4, rtol=1e-4)
                alone = stack.run(hidden, context, FixedPlan(PARTITION, modules, plan))
                own = policy.decode(alone, context, None, noise, modules.bridge)[0]
                torch.testing.assert_close(actions[row], own[0], atol=1e-4, rtol=1e-4)


@BATCHED
def test_probes_of_full_depth_are_the_teachers_target(family: str) -> None:
    policy = policy_of(family)
    (batch,) = teacher_of(policy).batches([0], [3], (), iter([0.7]))
    hidden, context = policy.prepare(batch.frames)
    result, noise = SkippableStack(policy.layers).run(hidden, context, FullDepth()), policy.noise([3])
    assert torch.equal(policy.probe(result, context, None, noise, batch.halfway, no_bridge), batch.target)
    assert (batch.halfway is None) == (len(policy.streams) == 1)


@BATCHED
def test_a_few_steps_move_everything_that_learns_and_leave_the_teacher_alone(family: str) -> None:
    policy, modules = policy_of(family), new_modules(policy_of(family))
    before = {name: [weight.clone() for weight in weights] for name, weights in policy.parts().items()}
    (seen,) = teacher_of(policy).batches([0], [1], (), None)
    untrained = copy.deepcopy(modules.state_dict())
    job = job_of(policy, modules, replace(SHORT, joint_steps=20))
    assert all(map(math.isfinite, (job.train_hidden(), job.train_actions(), job.train_joint())))
    assert len(job.judgements) == 4 and job.judgements[-1].step == 20
    same = [name for name, value in modules.state_dict().items() if torch.equal(value, untrained[name])]
    assert [name for name in same if not name.endswith("offset")] == []
    for name, weights in policy.parts().items():
        assert all(map(torch.equal, weights, before[name])), f"training changed {name}"
    (again,) = teacher_of(policy).batches([0], [1], (), None)
    assert torch.equal(again.actions, seen.actions), "the teacher's bits"


@BATCHED
def test_computing_layers_again_on_the_way_back_gives_the_same_gradients(family: str) -> None:
    policy, found = policy_of(family), []
    for checkpointing in (True, False):
        modules = new_modules(policy)
        job_of(policy, modules, replace(SHORT, action_steps=3), checkpointing=checkpointing).train_actions()
        found.append(modules.state_dict())
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], atol=1e-6, rtol=1e-5)


def test_how_many_frames_share_a_pass_changes_no_gradient() -> None:
    policy, found = policy_of("reference"), []
    for together in (1, 6):
        modules = trained_like(PARTITION, policy.streams).requires_grad_(True)
        job_of(policy, modules, replace(SHORT, action_steps=1, floor_share=1.0), together=together).train_actions()
        found.append([parameter.grad for parameter in modules.adapters["1"].parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


@BATCHED
@pytest.mark.parametrize("ends", [6, 13, *(pytest.param(step, marks=pytest.mark.slow) for step in (0, 3, 9))])
def test_a_resumed_run_has_the_bits_of_one_that_was_never_interrupted(family: str, ends: int, tmp_path) -> None:
    policy, whole = policy_of(family), new_modules(policy_of(family))
    resume = ResumeWithin(tmp_path / "whole", {}, "d")
    records = stage_report.run_stages(stage_report.stages_of(job_of(policy, whole, resume=resume)), resume, whole)
    steps = [0]

    def interrupted() -> bool:
        steps[0] += 1
        return steps[0] > ends

    first = new_modules(policy)
    resume = ResumeWithin(tmp_path, {}, "d")
    job = job_of(policy, first, progress=RunProgress(interrupted=interrupted), resume=resume)
    with pytest.raises(Interrupted):
        stage_report.run_stages(stage_report.stages_of(job), resume, first)
    second = new_modules(policy)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(1.0)  # whatever it begins with, the state on disk counts
    resume = ResumeWithin(tmp_path, {}, "d")
    told: list[tuple[str, int]] = []
    progress = RunProgress(lambda label, done, *_: told.append((label, done)))
    job = job_of(policy, second, progress=progress, resume=resume)
    again = stage_report.run_stages(stage_report.stages_of(job), resume, second)
    assert len(told) == 15 - ends, "what was learned is not learned again"
    assert bits(second) == bits(whole)
    assert [dict(own) | {"seconds": 0} for own in again] == [dict(own) | {"seconds": 0} for own in records]
    assert ResumeWithin(tmp_path, {}, "other frames").records == []


def test_frames_go_together_where_instruction_and_sizes_of_pictures_are_equal() -> None:
    def frame(text: str, height: int) -> Observation:
        return Observation({"image": np.zeros((height, 4, 3), np.uint8)}, np.zeros(2, np.float32), text)

    frames = [frame("a", 4), frame("b", 4), frame("a", 5), frame("a", 4), frame("a", 4)]
    assert list(alike(frames, 2)) == [[0, 3], [4], [1], [2]]


def test_static_layers_are_chosen_by_similarity_and_short_trainings() -> None:
    policy = policy_of("flow")
    seen, others = frames_of(policy, 10), frames_of(policy, 4, 50)
    similarity = measure_similarity(policy, seen, RunProgress(), 3)
    assert len(similarity) == 8 and all(-1.0 <= value <= 1.0 for value in similarity)
    told: set[str] = set()
    progress = RunProgress(lambda label, *_: told.add(label))
    choice = choose_static_beside(policy, seen, others, 3, "auto", replace(SHORT, hidden_steps=2), progress, 3)
    assert set(choice.floor_errors) == {"spread", "informative"} and choice.similarity == similarity
    assert choice.floor_errors[choice.choice] == min(choice.floor_errors.values())
    assert any("teacher at full depth" in label for label in told) and any("actions" in label for label in told)
    assert choose_static_beside(policy, seen, others, 3, "spread", SHORT, RunProgress(), 3).floor_errors == {}


def test_a_decoding_memory_and_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="decodes with a memory"):
        teacher_of(policy_of("stateful"))
    policy = FAMILIES_UNDER_TEST["flow"].make()
    with torch.no_grad():
        policy.leads[2].linear2.weight.fill_(float("nan"))
    with pytest.raises(DataError, match="not finite"):
        next(teacher_of(policy).parts(4))


def test_inputs_that_are_kept_end_with_their_batch() -> None:
    policy = policy_of("flow")
    for batch in teacher_of(policy).parts(4):
        assert set(batch.states) == set(inputs_of(policy, PARTITION)) | {1}
    for batch in teacher_of(policy).batches([0, 1], [0, 0], (), iter([0.1, 0.2])):
        assert set(batch.states) == {1}
