"""Every method changes what it names and nothing else, as hooks on the policy's own layers see it."""

from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from dysl_vla_ros.comparison.methods.method import Library, Matched, MethodOptions, prepare, require_usable
from dysl_vla_ros.comparison.methods.registry import METHODS, method_named, option_of
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.evaluation.closed_loop import EvaluationSettings, play_episode
from dysl_vla_ros.interfaces import StepResult
from dysl_vla_ros.policies.checkpoint import total_training
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import GuidanceSettings, RuntimeSettings, SkippingSettings
from dysl_vla_ros.simulation.scene import Scene
from floor_records import write_floors
from tiny_checkpoint import INSTRUCTION, make_tiny_checkpoint, make_tiny_dysl

LAYERS, TICKS, SEED = 8, 7, 3
STATIC, BLOCKS = (0, 2, 5, 7), ((1, 2), (3, 5), (6, 7))
FIRSTS = tuple(first for first, _ in BLOCKS)
PAPER = GuidanceSettings(step=0.02, verify_threshold=0.01, dead_band=0.001, stride="paper", verify_on="first")
VALUES = {
    "random_probability": 0.4, "fixed_plan": [2, 4, 6], "fixed_plan_choice": "by hand", "oracle_threshold": 0.0,
    "paper_guidance": asdict(PAPER), "constant": {"reach": "small"}, "constant_by_set": {"reach": "small"},
    "constant_by_instruction": {"reach": "small", "push": "large"},
}  # fmt: skip
MATCHED = Matched(depth=6.0, values=VALUES)


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    folder = make_tiny_checkpoint(tmp_path_factory.mktemp("base"), layers=LAYERS)
    make_tiny_dysl(folder / "dysl", folder, offset=0.0)
    shallow = make_tiny_checkpoint(tmp_path_factory.mktemp("shallow"), layers=3)
    floors = tmp_path_factory.mktemp("floors")
    for name in ("small", "large"):
        make_tiny_dysl(floors / name, folder)
    write_floors(floors, {"small": (4, {"reach": "1"}), "large": (6, {"reach": "1"})}, {"reach": "1"})
    others = dict.fromkeys(("shallow", "shallow_distilled"), str(shallow))
    return MethodOptions(str(folder), checkpoints=others, floors=str(floors))


@pytest.fixture(scope="module")
def scene():
    with closing(Scene("reach")) as own:
        yield own


@dataclass
class Seen:
    """One inference: what the runtime gave, what hooks saw."""

    result: StepResult
    layers: list[int]  # in the order in which they ran, every pass
    controllers: int  # that were asked


@pytest.fixture(scope="module")
def library():
    return Library()


@pytest.fixture(scope="module")
def play(options, scene, library):
    def playing(name, seed=SEED, m=1, matched=MATCHED, options=options, prepared=None):
        method = prepared or prepare(name, m, library, options, matched)
        runtime, calls, asked, seen = method.runtime, [], [], []
        hooks = [
            layer.register_forward_hook(lambda *_, index=index: calls.append(index))
            for index, layer in enumerate(runtime.policy.network.layers)
        ]
        if runtime.dysl:
            controllers = runtime.dysl.modules.controllers.values()
            hooks += [own.register_forward_hook(lambda *_: asked.append(1)) for own in controllers]

        def watch(_, result):
            seen.append(Seen(result, calls.copy(), len(asked)))
            calls.clear()
            asked.clear()

        settings = EvaluationSettings(method.settings, max_ticks=TICKS)
        method.begin(seed)
        try:
            play_episode(runtime, scene, seed, settings, instruction=INSTRUCTION, watch=watch)
        finally:
            for hook in hooks:
                hook.remove()
        return seen

    return playing


def matched(**values):
    return replace(MATCHED, values=VALUES | values)


def actions(seen):
    return np.stack([own.result.chunk.actions for own in seen])


def test_the_tiny_partition_is_what_these_tests_take_it_for(options, library):
    runtime = library.with_adapters(options.checkpoint, "")
    assert runtime.dysl.partition.static == STATIC and runtime.dysl.partition.blocks == BLOCKS


@pytest.mark.parametrize("name", METHODS)
def test_every_method_plays_counts_its_layers_and_repeats_bit_for_bit(play, name):
    seen, again = play(name), play(name)
    assert len(seen) == TICKS
    np.testing.assert_array_equal(actions(seen), actions(again))
    assert [own.layers for own in seen] == [own.layers for own in again]
    for own in seen:
        trace = own.result.trace
        if not method_named(name).bound:  # a bound looks before it runs
            assert len(own.layers) == trace.layer_calls
        static = STATIC if trace.layers_total == LAYERS else range(trace.layers_total)
        assert all(trace.executed[layer] for layer in static)


def test_full_is_the_base_policy(play, options, scene):
    seen = play("full")
    assert all(own.layers == list(range(LAYERS)) and not own.controllers for own in seen)
    base = Runtime(Runtime.load(options.checkpoint, "").policy, None)
    plain = []
    play_episode(base, scene, SEED, EvaluationSettings(max_ticks=TICKS), instruction=INSTRUCTION,
                 watch=lambda _, result: plain.append(result.chunk.actions))  # fmt: skip
    np.testing.assert_array_equal(actions(seen), np.stack(plain))


def test_dysl_is_the_deployed_runtime(play, options, scene):
    deployed = []
    play_episode(Runtime.load(options.checkpoint, ""), scene, SEED, EvaluationSettings(max_ticks=TICKS),
                 instruction=INSTRUCTION, watch=lambda _, result: deployed.append(result))  # fmt: skip
    seen = play("dysl")
    np.testing.assert_array_equal(actions(seen), np.stack([result.chunk.actions for result in deployed]))
    assert [own.result.trace.executed for own in seen] == [result.trace.executed for result in deployed]
    assert any(own.result.trace.verified for own in seen) and any(own.controllers for own in seen)


def test_dysl_paper_has_the_papers_stride_and_verifies_first_drops_alone(options, library, play):
    method = prepare("dysl_paper", 1, library, options, MATCHED)
    assert method.settings == RuntimeSettings(guidance=PAPER)
    uncalibrated = prepare("dysl_paper", 1, library, options, Matched())
    assert uncalibrated.settings.guidance == GuidanceSettings(stride="paper", verify_on="first")
    assert {own.result.trace.verify_reason for own in play("dysl_paper")} <= {"", "first drop"}


def test_dysl_paper_takes_the_folder_that_was_trained_as_the_paper_says(options, library, tmp_path):
    other = make_tiny_dysl(tmp_path / "paper", Path(options.checkpoint), seed=5)
    named = replace(options, paper_adapters=str(other))
    own, its = (prepare(name, 1, library, named, MATCHED).runtime.dysl for name in ("dysl", "dysl_paper"))
    assert own.config["files"] != its.config["files"]


@pytest.mark.parametrize("m", [1, 4])
def test_static_runs_the_static_layers_alone_from_the_first_inference_on(play, m):
    seen = play("static", m=m)
    assert len(seen) == -(-TICKS // m)
    assert all(own.layers == list(STATIC) and not own.controllers for own in seen)


def test_fixed_runs_its_plan_in_every_inference(play):
    seen = play("fixed")
    assert all(own.layers == [0, 1, 2, 3, 5, 7] for own in seen)
    assert all(own.result.trace.skip_points == (-1, 4, 6) and not own.controllers for own in seen)


def test_random_draws_from_the_seed_of_the_episode_and_asks_no_controller(play, library, options):
    method = prepare("random", 1, library, options, MATCHED)
    first = [own.layers for own in play("random", prepared=method)]
    other = [own.layers for own in play("random", prepared=method, seed=SEED + 1)]
    again = [own.layers for own in play("random", prepared=method)]
    assert first == again != other
    assert len({tuple(layers) for layers in first}) > 1
    assert not any(own.controllers for own in play("random"))
    assert all(own.layers == list(range(LAYERS)) for own in play("random", matched=matched(random_probability=0.0)))


def test_controllers_alone_have_no_allow_point_but_the_first_and_are_never_verified(play):
    for own in play("controllers"):
        trace = own.result.trace
        assert trace.allow_points == FIRSTS and own.controllers
        assert not trace.verified and not trace.full_depth_reason


def test_guidance_alone_skips_at_every_allow_point_and_asks_no_controller(play):
    traces = [own.result.trace for own in play("guidance") if not own.result.trace.full_depth_reason]
    assert traces
    for trace in traces:
        ends = [end for _, end in BLOCKS]
        wanted = [at if at < end else -1 for at, end in zip(trace.allow_points, ends, strict=True)]
        assert list(trace.skip_points) == wanted
    assert not any(own.controllers for own in play("guidance"))


def test_verify_is_the_floor_and_full_depth_where_continuity_would_fall(play):
    seen = [own for own in play("verify") if not own.result.trace.full_depth_reason]
    kinds = set()
    for own in seen:
        trace = own.result.trace
        rest = list(range(1, LAYERS)) if trace.verified else []
        assert own.layers == [*STATIC, *rest] and not own.controllers
        assert trace.verify_reason == ("any drop" if trace.candidate_change < -0.05 else "")
        kinds.add(trace.verified)
    assert True in kinds


def test_the_oracle_runs_the_floor_or_everything_by_the_threshold_and_counts_no_look(play):
    floor, full = play("static"), play("full")
    first = [own.result.chunk.actions for own in (floor[0], full[0])]
    for threshold, layers in ((1e9, len(STATIC)), (0.0, LAYERS)):
        seen = play("oracle", matched=matched(oracle_threshold=threshold))
        assert {own.result.trace.layer_calls for own in seen} == {layers}
        np.testing.assert_array_equal(seen[0].result.chunk.actions, first[0 if threshold else 1])
        assert all(len(own.layers) == len(STATIC) + LAYERS + layers for own in seen), (
            "one look of each kind, then the pass"
        )
    apart = np.abs(np.divide(first[0] - first[1], [0.0125, 0.0125, 0.0125, 0.25]))[:1].mean()
    for share, layers in ((1.001, len(STATIC)), (0.999, LAYERS)):
        seen = play("oracle", matched=matched(oracle_threshold=share * float(apart)))
        assert seen[0].result.trace.layer_calls == layers


def test_a_shallower_policy_is_another_checkpoint_at_full_depth(play):
    for name in ("shallow", "shallow_distilled"):
        seen = play(name)
        assert all(own.layers == [0, 1, 2] for own in seen)


def test_each_method_says_the_names_of_what_it_is_set_to():
    assert {name for own in METHODS for name in method_named(own).sets} == set(VALUES)


def test_what_is_trained_is_what_the_method_uses(options, library):
    count = {name: prepare(name, 1, library, options, MATCHED).trained.parameters for name in METHODS}
    assert count["full"] == 0
    assert 0 < count["fixed"] < count["static"] == count["verify"] == count["oracle"], "the plan keeps block 1 whole"
    assert count["static"] < count["random"] == count["guidance"] < count["dysl"]
    assert count["dysl"] == count["controllers"] == count["dysl_paper"]
    modules = library.with_adapters(options.checkpoint, "").dysl.modules
    assert count["dysl"] == sum(weight.numel() for weight in modules.parameters())
    policy = library.alone(options.checkpoints["shallow"]).policy
    assert count["shallow"] == sum(weight.numel() for weight in policy.network.parameters())


def test_steps_and_seconds_are_those_that_the_folder_tells_and_unknown_otherwise(options, library):
    told = prepare("dysl", 1, library, options, MATCHED)
    assert (told.trained.steps, told.trained.seconds) == (None, None)
    assert prepare("full", 1, library, options, MATCHED).trained.steps == 0
    told.runtime.dysl.config["training"] = {"steps": 3500, "seconds": 900}
    try:
        assert prepare("static", 1, library, options, MATCHED).trained.steps == 3500
        assert prepare("dysl", 4, library, options, MATCHED).trained.seconds == 900
    finally:
        del told.runtime.dysl.config["training"]


@pytest.mark.parametrize(
    ("training", "total"),
    [
        ({"steps": 30, "seconds": 9}, (30, 9)),
        ({"steps": 30, "seconds": 9, "base": "ab", "base_steps": 12, "base_seconds": 4}, (42, 13)),
        ({"steps": 30, "seconds": 9, "base": "ab"}, (None, None)),
        (None, (None, None)),
    ],
)
def test_what_a_base_took_before_it_was_gone_on_from_counts_as_training(training, total):
    assert total_training(training) == total


def test_the_settings_given_hold_for_all_and_skipping_that_is_off_is_turned_on(options, library):
    given = RuntimeSettings(SkippingSettings(enabled=False, threshold=0.7), GuidanceSettings(window=3, warmup=5))
    for name in set(METHODS) - {"full", "dysl_paper"}:
        settings = prepare(name, 4, library, replace(options, settings=given), MATCHED).settings
        assert settings.skipping == SkippingSettings(rule="dysl", threshold=0.7)
        assert settings.guidance.window == 3 and settings.actions_per_inference == 4
    assert prepare("dysl", 1, library, replace(options, settings=given), MATCHED).settings.guidance == given.guidance


def test_what_a_method_lacks_is_named(options, tmp_path):
    with pytest.raises(DataError, match="unknown method 'statc', did you mean static"):
        method_named("statc")
    bare = make_tiny_checkpoint(tmp_path / "bare")
    for name in METHODS:
        if method_named(name).adapters:
            with pytest.raises(DataError, match="has no `dysl` folder"):
                require_usable(name, Library(), MethodOptions(str(bare)))
        elif METHODS[name].checkpoint:
            with pytest.raises(DataError, match=f"name it by {option_of(name)}$"):
                require_usable(name, Library(), MethodOptions(str(bare)))
        elif method_named(name).floors:
            with pytest.raises(DataError, match="name them by --floors$"):
                require_usable(name, Library(), MethodOptions(str(bare)))
            with pytest.raises(DataError, match="cannot be read"):
                require_usable(name, Library(), MethodOptions(str(bare), floors=str(tmp_path)))
        else:
            require_usable(name, Library(), MethodOptions(str(bare)))
