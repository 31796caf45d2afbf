"""Distillation: batched passes are the deployed stack, the base stays frozen, thresholds mean what they say."""

import numpy as np
import pytest
import torch

from dysl_vla_ros.calibration.guidance_values import ContinuityTrace, prior_step, verify_threshold
from dysl_vla_ros.calibration.threshold_search import (
    Trial,
    choose,
    evenness,
    front,
    prior_verdict,
    search,
    set_tolerated_error,
)
from dysl_vla_ros.distillation import activations, stages
from dysl_vla_ros.distillation.activations import Activations, record_activations, teacher_pass
from dysl_vla_ros.distillation.judging import ERROR_FLOOR, TOLERATED, Judge
from dysl_vla_ros.distillation.losses import action_error, controller_loss
from dysl_vla_ros.distillation.passes import (
    decided_pass,
    hard_pass,
    inputs_of,
    quick_layer,
    sample_positions,
    skip_loss,
    soft_pass,
    start_layer,
)
from dysl_vla_ros.distillation.stages import Distillation, DistillationSettings
from dysl_vla_ros.distillation.static_choice import choose_static
from dysl_vla_ros.engines.torch import devices
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.policies.registry import load_policy
from dysl_vla_ros.runs.full_depth import FullDepthRun
from dysl_vla_ros.runtime.folder import DyslFolder
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import GuidanceSettings, RuntimeSettings, SkippingSettings
from dysl_vla_ros.skipping.modules import DyslModules
from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.stack import Skip, SkippableStack
from dysl_vla_ros.skipping.streams import no_bridge
from small_stacks import controller_logit
from tiny_checkpoint import INSTRUCTION, make_tiny_checkpoint

LAYERS = 8
PARTITION = LayerPartition(LAYERS, (0, 4, 7))
COUNT = 24
FULL_DEPTH = RuntimeSettings(SkippingSettings(rule="full"), GuidanceSettings(prior=False, verify=False))


def some_observations(count=COUNT, seed=0):
    random = np.random.default_rng(seed)
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
def checkpoint(tmp_path_factory):
    return make_tiny_checkpoint(tmp_path_factory.mktemp("base"), layers=LAYERS)


@pytest.fixture(scope="module")
def policy(checkpoint):
    return load_policy(checkpoint)


@pytest.fixture(scope="module")
def data(policy):
    return record_activations(policy, some_observations(), COUNT)


@pytest.fixture
def modules(policy):
    torch.manual_seed(1)
    made = DyslModules(PARTITION, policy.streams, bottleneck=16)
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
        return Skip(PARTITION.blocks[block][1], self.modules.adapted(layer, hidden, context.token_mask))


@pytest.mark.parametrize("positions", [(1, 5), (3, 6), (4, 7), (2, 7)])
def test_the_training_pass_is_the_deployed_stack(policy, data, modules, positions):
    batch = data.batch(torch.arange(6))
    with torch.no_grad():
        actions, seen = hard_pass(policy, PARTITION, modules, batch.hidden(1), batch.context, positions)
        for row, observation in enumerate(some_observations(6)):
            start, own = policy.prepare([observation])
            result = SkippableStack(policy.layers).run(start, own, AtPositions(modules, positions))
            single, _ = policy.decode(result, own, None, None, no_bridge)
            # bf16 in the batch's frozen layers, fp16 in the recorded states
            torch.testing.assert_close(actions[row], single[0], atol=0.03, rtol=0.05)
    ends = [end for _, end in PARTITION.blocks]
    assert [state is None for state in seen] == [p == e for p, e in zip(positions, ends, strict=True)]


@pytest.mark.slow
def test_compiled_layers_train_the_same_adapters_but_for_rounding(checkpoint):
    """Within what bf16 leaves uncertain of a short training; without compiling bits are equal (tests below)."""
    errors = {}
    for compiled in (False, True):
        torch.manual_seed(2)
        own = load_policy(checkpoint)
        seen = record_activations(own, some_observations(), COUNT, inputs_of(own, PARTITION))
        job = Distillation(
            PARTITION, DyslModules(PARTITION, own.streams), seen,
            DistillationSettings(hidden_steps=3, action_steps=3, batch_size=8, compile=compiled),
        )  # fmt: skip
        errors[compiled] = (job.train_hidden(), job.train_actions())
    assert errors[True] == pytest.approx(errors[False], rel=0.02)
    assert own.network.llama._attn_implementation == "eager", "layers were compiled"


@pytest.mark.parametrize("has", [True, False])
def test_frozen_layers_are_trained_through_in_bfloat16_exactly_where_the_cpu_has_it(
    has, policy, data, modules, monkeypatch
):
    """Where it does not, bfloat16 is worked out step by step: five times fewer steps a second were measured."""
    monkeypatch.setattr(devices, "cpu_has_bfloat16", lambda: has)
    seen = set()
    projections = [module for module in policy.network.layers[4].modules() if isinstance(module, torch.nn.Linear)]
    hooks = [own.register_forward_hook(lambda _, __, out: seen.add(out.dtype)) for own in projections]
    batch = data.batch(torch.arange(2))
    actions, _ = hard_pass(policy, PARTITION, modules, batch.hidden(1), batch.context, (1, 5))
    for hook in hooks:
        hook.remove()
    assert projections and seen == {torch.bfloat16 if has else torch.float32}
    assert actions.dtype == torch.float32


def test_without_skipping_the_training_pass_is_the_teacher(policy, data, modules):
    batch = data.batch(torch.arange(8))
    with torch.no_grad():
        actions, _ = hard_pass(policy, PARTITION, modules, batch.hidden(1), batch.context, [4, 7])
    assert float(action_error(actions, batch.actions).max()) < 0.02


@pytest.mark.parametrize(("offset", "like"), [(-60.0, [4, 7]), (60.0, [2, 5])])
def test_the_soft_mixture_at_its_extremes_is_full_depth_and_the_hard_skip(policy, data, modules, offset, like):
    for controller in modules.controllers.values():
        controller.offset.fill_(offset)
    batch = data.batch(torch.arange(4))
    with torch.no_grad():
        mixed, probabilities = soft_pass(policy, PARTITION, modules, batch.hidden(1), batch.context, [2, 5])
        wanted, _ = hard_pass(policy, PARTITION, modules, batch.hidden(1), batch.context, like)
    assert all(torch.allclose(p, torch.tensor(float(offset > 0))) for p in probabilities)
    torch.testing.assert_close(mixed, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("per_block", ["all", "first"])
def test_what_controllers_decide_in_a_batch_is_what_the_runtime_does_with_each(policy, data, modules, per_block):
    partition = LayerPartition(LAYERS, PARTITION.static, per_block)
    if per_block == "first":
        weights = modules.state_dict()
        modules = DyslModules(partition, policy.streams, bottleneck=16)
        modules.load_state_dict({name: weights[name] for name in modules.state_dict()})
    for controller in modules.controllers.values():
        controller.outer.weight.data *= 60.0  # of either mind
    batch = data.batch(torch.arange(12))
    logit = 0.3
    with torch.no_grad():
        decided = decided_pass(policy, partition, modules, batch.hidden(1), batch.context, logit)
    runtime = Runtime(policy, DyslFolder(partition, modules.eval(), {}, {}))
    alone = GuidanceSettings(prior=False, verify=False, warmup=0)
    settings = RuntimeSettings(SkippingSettings(threshold=float(torch.sigmoid(torch.tensor(logit)))), alone)
    for row, observation in enumerate(some_observations(12)):
        result = runtime.step(observation, np.zeros((0, 4), np.float32), settings)
        assert LAYERS - result.trace.layer_calls == int(decided.skipped[row])
        own = policy.action.normalise(result.chunk.actions)
        np.testing.assert_allclose(decided.actions[row].numpy(), own, atol=0.03, rtol=0.05)
    assert len(set(decided.skipped.tolist())) > 1, "all decided alike, which proves little"


@pytest.mark.parametrize("per_block", ["all", "first"])
def test_a_floor_share_of_one_draws_the_floor_alone_and_less_draws_every_place(per_block):
    partition = LayerPartition(LAYERS, PARTITION.static, per_block)
    random = np.random.default_rng(0)
    assert {tuple(sample_positions(partition, random, 1.0)) for _ in range(20)} == {(1, 5)}
    drawn = [tuple(sample_positions(partition, random, 0.3)) for _ in range(300)]
    places = [{own[block] for own in drawn} for block in range(2)]
    assert places == ([{1, 2, 3, 4}, {5, 6, 7}] if per_block == "all" else [{1, 4}, {5, 7}])
    assert (4, 7) not in drawn, "skipping nothing teaches nothing"


class OnTheFly:
    """What :class:`Activations` holds, computed anew for every batch."""

    def __init__(self, policy, observations):
        self.policy, self._observations, self.run = policy, observations, quick_layer

    def start(self, partition):
        return start_layer(partition, self.policy)

    def __len__(self):
        return len(self._observations)

    def batch(self, rows):
        passes = [teacher_pass(self.policy, [self._observations[row]]) for row in rows.tolist()]
        hidden = {layer: torch.cat([states[layer] for states, *_ in passes]).clone() for layer in range(LAYERS)}
        contexts = [own for _, contexts, *_ in passes for own in contexts]
        actions = torch.cat([chunk for *_, chunk, _ in passes]).clone()
        own = Activations(hidden, contexts, actions, self.policy, ())
        return own.batch(torch.arange(len(rows)))

    def parts(self, most):
        yield self.batch(torch.arange(min(most, len(self))))


def trained_bits(policy, data, kind="error"):
    torch.manual_seed(0)
    modules = DyslModules(PARTITION, policy.streams, bottleneck=16)
    settings = DistillationSettings(hidden_steps=3, action_steps=3, joint_steps=3, batch_size=6, controllers=kind)
    job = Distillation(PARTITION, modules, data, settings)
    job.train_hidden()
    job.train_actions()
    job.train_joint()
    return modules.state_dict()


def different(one, other):
    return [name for name in one if not torch.equal(one[name], other[name])]


@pytest.mark.parametrize("kind", ["error", "mixture"])
def test_training_on_what_was_remembered_gives_the_bits_of_training_without(policy, kind):
    observations = some_observations(10)
    layers = inputs_of(policy, PARTITION)
    remembered = record_activations(policy, observations, 10, layers, dtype=torch.float32, batch=1)
    assert set(remembered.hidden) < set(range(LAYERS)), "only what this partition needs is kept"
    without = trained_bits(policy, OnTheFly(policy, observations), kind)
    assert different(trained_bits(policy, remembered, kind), without) == []


def test_what_does_not_fit_into_memory_lies_in_a_file_that_goes_with_the_process(policy, tmp_path, monkeypatch):
    observations = some_observations(10)
    inside = record_activations(policy, observations, 10, (1, 4))
    monkeypatch.setattr(activations, "LARGEST_IN_MEMORY", 0)
    outside = record_activations(policy, iter(observations), 50, (1, 4), folder=tmp_path)
    assert list(tmp_path.iterdir()) == [], "it has no name that could be left behind"
    assert len(outside) == 10 and outside.hidden[4].dtype == torch.float16
    for layer in (1, 4):
        assert torch.equal(inside.hidden[layer], outside.hidden[layer])
    assert torch.equal(inside.actions, outside.actions) and inside.similarity == outside.similarity
    with pytest.raises(DataError, match=r"no room for .* GB of hidden states: .* take fewer --observations"):
        record_activations(policy, observations, 10, folder=tmp_path / "nowhere")


def test_skip_loss_is_the_formula():
    p = [torch.tensor([0.25, 0.75]), torch.tensor([1.0, 0.5])]
    # (1 - .5) * (4 - 2) / 5 and (1 - .75) * (7 - 5) / 5, their mean
    assert float(skip_loss(PARTITION, [2, 5], p)) == pytest.approx((0.5 * 2 / 5 + 0.25 * 2 / 5) / 2)


def test_stage_one_explains_the_skipped_change_and_leaves_the_base_as_it_was(policy, data):
    before = {name: value.clone() for name, value in policy.network.state_dict().items()}
    torch.manual_seed(0)
    modules = DyslModules(PARTITION, policy.streams, bottleneck=16)
    settings = DistillationSettings(hidden_steps=60, action_steps=3, joint_steps=3, batch_size=8)
    job = Distillation(PARTITION, modules, data, settings)
    assert job.train_hidden() < 0.9, "1 is what an identity leaves in front of a whole block"
    job.train_actions()
    job.train_joint()
    for name, value in policy.network.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} changed"
    assert any(bool(controller.outer.weight.abs().sum() > 0) for controller in modules.controllers.values())


def test_large_errors_weigh_more_than_their_size_and_at_zero_what_they_are(policy, data):
    def first_loss(large):
        torch.manual_seed(0)
        settings = DistillationSettings(action_steps=1, batch_size=8, large_error=large)
        return Distillation(PARTITION, DyslModules(PARTITION, policy.streams), data, settings).train_actions()

    plain, weighted = first_loss(0.0), first_loss(0.1)
    assert first_loss(1e9) == pytest.approx(plain, rel=1e-5)
    assert weighted >= plain + plain**2 / 0.1, "a mean of squares is no less than the square of the mean"


def test_an_adapter_that_does_nothing_leaves_everything_unexplained_and_a_trained_one_less(policy, data):
    torch.manual_seed(0)
    modules = DyslModules(PARTITION, policy.streams, bottleneck=16)
    job = Distillation(PARTITION, modules, data, DistillationSettings(hidden_steps=60, batch_size=8))
    before = job.judge.reconstruction()
    assert list(before) == list(PARTITION.dynamic)
    assert list(before.values()) == pytest.approx([1.0] * len(before))
    job.train_hidden()
    assert all(0.0 < share < 0.95 for share in job.judge.reconstruction().values())


def test_stage_two_is_judged_on_its_way_and_tells_a_constant_controller_from_a_trained_one(policy, data):
    torch.manual_seed(0)
    modules = DyslModules(PARTITION, policy.streams, bottleneck=16)
    settings = DistillationSettings(joint_steps=180, batch_size=16)
    job = Distillation(PARTITION, modules, data, settings)
    assert job.judge.controllers("error").rank_correlation is None, "untrained, all say the same"
    job.train_joint()
    assert [own.step for own in job.judgements] == [30, 60, 90, 120, 150, 180]
    last = job.judgements[-1]
    assert last.rank_correlation is not None and last.rank_correlation > 0.0
    assert 0.0 <= last.skip_rate <= 1.0


def test_frames_aside_teach_controllers_and_leave_every_bit_of_the_adapters(policy, data):
    """A whole training in which adapters learn from one kind of frame, controllers from another as well."""
    others = record_activations(policy, some_observations(20, seed=9), 20, inputs_of(policy, PARTITION))
    trained = {}
    for aside in (None, (others, others)):
        torch.manual_seed(0)
        modules = DyslModules(PARTITION, policy.streams, bottleneck=16)
        settings = DistillationSettings(joint_steps=60, batch_size=8)
        job = Distillation(PARTITION, modules, data, settings, aside=aside)
        job.train_joint()
        assert [own.step for own in job.judgements_aside] == ([own.step for own in job.judgements] if aside else [])
        batch, floor = others.batch(torch.arange(20)), PARTITION.floor
        with torch.no_grad():
            actions, seen = hard_pass(policy, PARTITION, modules, batch.hidden(1), batch.context, floor)
            wrong = float(controller_loss(modules, floor, seen, action_error(actions, batch.actions)))
        trained[aside is None] = (modules.state_dict(), wrong)
    (with_aside, foreseen), (without, unforeseen) = trained[False], trained[True]
    changed = different(with_aside, without)
    assert changed and all(name.startswith("controllers.") for name in changed)
    assert foreseen < unforeseen, "what is foreseen of their errors is nearer"


@pytest.mark.parametrize(("kind", "foreseen", "rate"), [("error", TOLERATED * 2, 0.0), ("error", TOLERATED / 2, 1.0)])
def test_controllers_are_judged_where_they_tolerate_the_stated_error(policy, data, modules, kind, foreseen, rate):
    for controller in modules.controllers.values():
        controller.outer.weight.data.zero_()
        controller.outer.bias.data.fill_(-np.log(foreseen + ERROR_FLOOR))
    judgement = Judge(PARTITION, modules, data).controllers(kind)
    assert judgement.skip_rate == rate
    if rate == 0.0:
        assert judgement.hard_error < 0.02 < judgement.soft_error, "nothing is skipped, but the mixture mixes"


def test_judging_changes_nothing(policy, data, monkeypatch):
    often = trained_bits(policy, data)
    monkeypatch.setattr(stages, "JUDGEMENTS", 1)
    assert different(trained_bits(policy, data), often) == []


def test_the_mixture_of_the_paper_trains_controllers_too(policy, data):
    torch.manual_seed(0)
    modules = DyslModules(PARTITION, policy.streams, bottleneck=16)
    settings = DistillationSettings(joint_steps=40, batch_size=8, controllers="mixture", skip_weight=20.0)
    Distillation(PARTITION, modules, data, settings).train_joint()
    batch = data.batch(torch.arange(8))
    with torch.no_grad():
        opened = torch.sigmoid(controller_logit(modules, 1, batch.hidden(1), batch.context.token_mask))
    assert float(opened.mean()) > 0.51, "from exactly 0.5, a heavy loss on layers not skipped opens the controllers"


def test_a_controller_says_one_half_where_it_foresees_the_tolerated_error(policy, data, modules):
    batch = data.batch(torch.arange(5))
    controller = modules.controller(2)
    set_tolerated_error(modules, 0.0)
    with torch.no_grad():
        raw = controller_logit(modules, 2, batch.hidden(2), batch.context.token_mask) - controller.offset
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


def full_runs(policy, seen):
    """Return two full-depth runs over the observations."""
    half = len(seen) // 2
    chunks = [policy.action.denormalise(teacher_pass(policy, [own])[2][0].numpy()) for own in seen]
    return [FullDepthRun(tuple(seen[part]), np.stack(chunks[part])) for part in (slice(half), slice(half, None))]


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
    assert choose(trials, 8.0) in kept and choose([*trials, trial(-5.0, 0.9), trial(-5.0, 0.8)], -9.0).error == 0.8


def test_evenness_is_one_for_points_spread_evenly_and_zero_for_one_point():
    partition = LayerPartition(5, (0, 4))
    assert evenness([(1,), (2,), (3,), (4,)], partition) == pytest.approx(1.0)
    assert evenness([(2,)] * 5, partition) == pytest.approx(0.0)
    assert evenness([(1,), (4,)], LayerPartition(5, (0, 4), "first")) == pytest.approx(1.0)


def test_a_prior_that_decides_nothing_is_said_to_do_so():
    assert "spread evenly" in prior_verdict(0.97) and "hardly move" in prior_verdict(0.01)
    assert prior_verdict(0.5) == ""


def test_the_search_finds_thresholds_for_controllers_of_any_scale(policy, modules):
    """The paper's mixture teaches no error: what its controllers say may lie anywhere."""
    with torch.no_grad():
        for controller in modules.controllers.values():
            controller.outer.weight *= 20.0
            controller.outer.bias.fill_(7.0)
    runtime = Runtime(policy, DyslFolder(PARTITION, modules.eval(), {}, {}))
    found = search(runtime, full_runs(policy, some_observations(12)), 1, target=6.5)
    assert len({round(own.layers, 2) for own in found.front}) > 2, "some depth between the extremes"


def test_the_same_seed_finds_the_same_thresholds(policy, modules):
    runtime = Runtime(policy, DyslFolder(PARTITION, modules.eval(), {}, {}))
    runs = full_runs(policy, some_observations(12))
    first, again = (search(runtime, runs, 1, target=6.0, seed=2) for _ in range(2))
    assert (first.best, first.front) == (again.best, again.front)


def test_the_search_leaves_the_controllers_at_its_choice(policy, modules):
    runtime = Runtime(policy, DyslFolder(PARTITION, modules.eval(), {}, {}))
    assert Runtime(policy, None).description.blocks == ()
    found = search(runtime, full_runs(policy, some_observations(12)), 1, target=6.0)
    assert found.best in found.front and found.best.layers >= len(PARTITION.static)
    assert set(found.signals) >= {
        "-C",
        "-dC",
        "drop of C by the candidate",
        "slowness",
        "gripper change",
        "controllers",
    }
    offset = float(np.log(found.best.tolerated_error + ERROR_FLOOR))
    assert all(float(c.offset) == pytest.approx(offset) for c in modules.controllers.values())


def test_the_threshold_that_is_moved_for_a_tolerated_error_is_the_offset_that_is_written(policy, modules):
    """What the search has measured is what the folder then does."""
    runtime = Runtime(policy, DyslFolder(PARTITION, modules.eval(), {}, {}))
    observations = tuple(some_observations(12))
    with torch.inference_mode():
        full = [runtime.step(o, np.zeros((0, 4), np.float32), FULL_DEPTH).chunk.actions for o in observations]
    runs = [FullDepthRun(observations, np.stack(full))]
    best = search(runtime, runs, 1, target=6.5).best
    runtime.reset()
    played, calls, errors = np.zeros((0, 4), np.float32), [], []
    for observation, wanted in zip(observations, full, strict=True):
        result = runtime.step(observation, played, RuntimeSettings(guidance=best.guidance))
        played = result.chunk.actions[:1]
        calls.append(result.trace.layer_calls)
        errors.append(np.abs(policy.action.normalise(played) - policy.action.normalise(wanted[:1])).mean())
    assert np.mean(calls) == pytest.approx(best.layers)
    assert np.mean(errors) == pytest.approx(best.error, abs=1e-6)
