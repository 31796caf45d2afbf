"""Distillation: batched passes are the deployed stack, the base stays frozen, thresholds mean what they say."""

import numpy as np
import pytest
import torch

from dysl_vla_ros.distillation.activations import record_activations
from dysl_vla_ros.distillation.guidance_calibration import ContinuityTrace, prior_step, verify_threshold
from dysl_vla_ros.distillation.passes import action_error, hard_pass, skip_loss, soft_pass
from dysl_vla_ros.distillation.stages import ERROR_FLOOR, Distillation, DistillationSettings
from dysl_vla_ros.distillation.static_choice import choose_static
from dysl_vla_ros.distillation.threshold_search import Trial, choose, evenness, front, search, set_tolerated_error
from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.policies.registry import load_policy
from dysl_vla_ros.runtime.folder import DyslFolder
from dysl_vla_ros.runtime.recording import FullDepthRun
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import GuidanceSettings, RuntimeSettings, SkippingSettings
from dysl_vla_ros.skipping.modules import DyslModules
from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.stack import Skip, SkippableStack
from tiny_checkpoint import INSTRUCTION, make_tiny_checkpoint

LAYERS = 8
PARTITION = LayerPartition(LAYERS, (0, 4, 7))
COUNT = 24
FULL_DEPTH = RuntimeSettings(SkippingSettings(enabled=False), GuidanceSettings(prior=False, verify=False))


def some_observations(count=COUNT):
    random = np.random.default_rng(0)
    texts = (INSTRUCTION, "open the drawer")
    return [
        Observation(
            images={name: random.integers(0, 255, (96, 96, 3), dtype=np.uint8) for name in ("image", "wrist_image")},
            proprioception=random.normal(0.3, 0.2, 4).astype(np.float32),
            instruction=texts[index % 2],  # two lengths, so that padding differs within a batch
        )
        for index in range(count)
    ]


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return load_policy(make_tiny_checkpoint(tmp_path_factory.mktemp("base"), layers=LAYERS))


@pytest.fixture(scope="module")
def data(policy):
    return record_activations(policy, some_observations(), COUNT)


@pytest.fixture
def modules(policy):
    torch.manual_seed(1)
    made = DyslModules(PARTITION, policy.width, bottleneck=16)
    for parameter in made.parameters():  # untrained adapters are the identity, which would prove little
        torch.nn.init.normal_(parameter, std=0.05)
    return made


class AtPositions:
    def __init__(self, modules, positions):
        self.modules, self.positions = modules, positions

    def skip(self, layer, hidden, context):
        block = PARTITION.block_of(layer)
        if block is None or self.positions[block] != layer:
            return None
        return Skip(PARTITION.blocks[block][1], self.modules.adapter(layer)(hidden, context.token_mask))


@pytest.mark.parametrize("positions", [(1, 5), (3, 6), (4, 7), (2, 7)])
def test_the_training_pass_is_the_deployed_stack(policy, data, modules, positions):
    hidden, context, _ = data.batch(torch.arange(6))
    with torch.no_grad():
        actions, seen = hard_pass(policy, PARTITION, modules, hidden[:, 1], context, positions)
        for row, observation in enumerate(some_observations(6)):
            start, own = policy.prepare(observation)
            result = SkippableStack(policy.layers).run(start, own, AtPositions(modules, positions))
            single, _ = policy.decode(result.hidden, own, None)
            # bf16 in the batch's frozen layers, fp16 in the recorded states
            torch.testing.assert_close(actions[row], single[0], atol=0.03, rtol=0.05)
    ends = [end for _, end in PARTITION.blocks]
    assert [state is None for state in seen] == [p == e for p, e in zip(positions, ends, strict=True)]


def test_without_skipping_the_training_pass_is_the_teacher(policy, data, modules):
    hidden, context, teacher = data.batch(torch.arange(8))
    with torch.no_grad():
        actions, _ = hard_pass(policy, PARTITION, modules, hidden[:, 1], context, [4, 7])
    assert float(action_error(actions, teacher).max()) < 0.02


@pytest.mark.parametrize(("offset", "like"), [(-60.0, [4, 7]), (60.0, [2, 5])])
def test_the_soft_mixture_at_its_extremes_is_full_depth_and_the_hard_skip(policy, data, modules, offset, like):
    for controller in modules.controllers.values():
        controller.offset.fill_(offset)
    hidden, context, _ = data.batch(torch.arange(4))
    with torch.no_grad():
        mixed, probabilities = soft_pass(policy, PARTITION, modules, hidden[:, 1], context, [2, 5])
        wanted, _ = hard_pass(policy, PARTITION, modules, hidden[:, 1], context, like)
    assert all(torch.allclose(p, torch.tensor(float(offset > 0))) for p in probabilities)
    torch.testing.assert_close(mixed, wanted, atol=1e-5, rtol=1e-4)


def test_skip_loss_is_the_formula():
    p = [torch.tensor([0.25, 0.75]), torch.tensor([1.0, 0.5])]
    # (1 - .5) * (4 - 2) / 5 and (1 - .75) * (7 - 5) / 5, their mean
    assert float(skip_loss(PARTITION, [2, 5], p)) == pytest.approx((0.5 * 2 / 5 + 0.25 * 2 / 5) / 2)


def test_stage_one_explains_the_skipped_change_and_leaves_the_base_as_it_was(policy, data):
    before = {name: value.clone() for name, value in policy.network.state_dict().items()}
    torch.manual_seed(0)
    modules = DyslModules(PARTITION, policy.width, bottleneck=16)
    settings = DistillationSettings(hidden_steps=60, action_steps=3, joint_steps=3, batch_size=8)
    job = Distillation(PARTITION, modules, data, settings)
    assert job.train_hidden() < 0.9, "1 is what an identity leaves in front of a whole block"
    job.train_actions()
    job.train_joint()
    for name, value in policy.network.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} changed"
    assert any(bool(controller.outer.weight.abs().sum() > 0) for controller in modules.controllers.values())


def test_the_mixture_of_the_paper_trains_controllers_too(policy, data):
    torch.manual_seed(0)
    modules = DyslModules(PARTITION, policy.width, bottleneck=16)
    settings = DistillationSettings(joint_steps=40, batch_size=8, controllers="mixture", skip_weight=20.0)
    Distillation(PARTITION, modules, data, settings).train_joint()
    hidden, context, _ = data.batch(torch.arange(8))
    with torch.no_grad():
        opened = modules.controller(1).probability(hidden[:, 1], context.token_mask)
    assert float(opened.mean()) > 0.51, "from exactly 0.5, a heavy loss on layers not skipped opens the controllers"


def test_a_controller_says_one_half_where_it_foresees_the_tolerated_error(policy, data, modules):
    hidden, context, _ = data.batch(torch.arange(5))
    controller = modules.controller(2)
    set_tolerated_error(modules, 0.0)
    with torch.no_grad():
        raw = controller(hidden[:, 2], context.token_mask) - controller.offset
        for row in range(5):
            foreseen = float(torch.exp(-raw[row])) - ERROR_FLOOR
            set_tolerated_error(modules, foreseen)
            logit = raw[row] + controller.offset
            assert float(torch.sigmoid(logit)) == pytest.approx(0.5, abs=1e-4)


def test_the_floor_with_the_smaller_error_is_chosen(data):
    choice = choose_static(data, 4, steps=(20, 10))
    assert set(choice.floor_errors) == {"spread", "informative"}
    assert choice.floor_errors[choice.choice] == min(choice.floor_errors.values())
    assert len(choice.similarity) == LAYERS
    assert choose_static(data, 4, "spread").choice == "spread"


def made_trace():
    random = np.random.default_rng(3)
    return ContinuityTrace(
        change=random.normal(0, 0.05, 2000), candidate=random.normal(0, 0.1, 2000), falls=random.exponential(0.2, 300)
    )


def test_eta_lets_the_ninetieth_percentile_of_the_falls_close_the_longest_block():
    trace = made_trace()
    step = prior_step(trace, LayerPartition(12, (0, 4, 11)))
    assert np.mean(trace.falls / step >= 6) == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("verify_on", ["first", "any"])
@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
def test_eta1_verifies_the_stated_share(verify_on, share):
    trace = made_trace()
    level = verify_threshold(trace, verify_on, share)
    verified = trace.candidate < -level
    if verify_on == "first":
        verified &= trace.change >= -level
    assert np.mean(verified) == pytest.approx(share, abs=0.02)


def trial(layers, error):
    return Trial(0.1, GuidanceSettings(), layers, 1.0, error, error, 0.1, 0.5)


def test_the_front_holds_no_trial_that_another_beats_and_the_choice_keeps_to_its_target():
    random = np.random.default_rng(1)
    trials = [trial(float(a), float(b)) for a, b in random.random((40, 2)) * (20, 1)]
    kept = front(trials)
    for one in trials:
        beaten = any(o.layers <= one.layers and o.error <= one.error and o is not one for o in trials)
        assert (one in kept) == (not beaten)
    best = choose(trials, 8.0)
    assert best.layers <= 8.0
    assert best.error == min(t.error for t in trials if t.layers <= 8.0)
    assert choose(trials, -1.0).layers == min(t.layers for t in trials)


def test_evenness_is_one_for_points_spread_evenly_and_zero_for_one_point():
    partition = LayerPartition(5, (0, 4))
    assert evenness([(1,), (2,), (3,), (4,)], partition) == pytest.approx(1.0)
    assert evenness([(2,)] * 5, partition) == pytest.approx(0.0)
    assert evenness([(1,), (4,)], LayerPartition(5, (0, 4), "first")) == pytest.approx(1.0)


def test_the_search_leaves_the_controllers_at_its_choice(policy, modules):
    runtime = Runtime(policy, DyslFolder(PARTITION, modules.eval(), {}, {}))
    seen = some_observations(12)
    runtime_full = Runtime(policy, None)
    runs = []
    for part in (seen[:6], seen[6:]):
        with torch.inference_mode():
            chunks = []
            for observation in part:
                hidden, context = policy.prepare(observation)
                for layer in policy.layers:
                    hidden = layer(hidden, context)
                actions = policy.decode(hidden, context, None)[0][0].numpy()
                chunks.append(policy.action.denormalise(actions))
        runs.append(FullDepthRun(tuple(part), np.stack(chunks)))
    assert runtime_full.description.blocks == ()
    best, kept = search(runtime, runs, 1, target=6.0)
    assert kept and best.layers >= len(PARTITION.static)
    offset = float(np.log(best.tolerated_error + ERROR_FLOOR))
    assert all(float(c.offset) == pytest.approx(offset) for c in modules.controllers.values())


def test_the_threshold_that_is_moved_for_a_tolerated_error_is_the_offset_that_is_written(policy, modules):
    """What the search has measured is what the folder then does."""
    runtime = Runtime(policy, DyslFolder(PARTITION, modules.eval(), {}, {}))
    observations = tuple(some_observations(12))
    with torch.inference_mode():
        full = [runtime.step(o, np.zeros((0, 4), np.float32), FULL_DEPTH).chunk.actions for o in observations]
    runs = [FullDepthRun(observations, np.stack(full))]
    best, _ = search(runtime, runs, 1, target=6.5)
    runtime.reset()
    played, calls, errors = np.zeros((0, 4), np.float32), [], []
    for observation, wanted in zip(observations, full, strict=True):
        result = runtime.step(observation, played, RuntimeSettings(guidance=best.guidance))
        played = result.chunk.actions[:1]
        calls.append(result.trace.layer_calls)
        errors.append(np.abs(policy.action.normalise(played) - policy.action.normalise(wanted[:1])).mean())
    assert np.mean(calls) == pytest.approx(best.layers)
    assert np.mean(errors) == pytest.approx(best.error, abs=1e-6)
