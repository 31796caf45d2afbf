"""The methods that are compared in closed loop: one entry each, all through the same ``Runtime.step``.

An entry turns a checkpoint, its DySL folder and what is set from calibration scenes into a loaded runtime and the
settings of its steps. Each changes what it names and nothing else; "unguided" is without prior, verification and
warm-up, which are all guidance's. Adding one here is enough for ``dysl_vla evaluate --methods`` and the tests.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from dysl_vla_ros.comparison.method_names import require_method
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.policies.checkpoint import read_config, total_training
from dysl_vla_ros.policies.interface import parameter_count
from dysl_vla_ros.runtime.folder import DyslFolder
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import GuidanceSettings, RuntimeSettings, SkippingSettings
from dysl_vla_ros.skipping.depth_rules import FixedPlan, Oracle, RandomSkipping, StaticOnly
from dysl_vla_ros.skipping.stack import StackContext, StackResult


@dataclass(frozen=True)
class MethodOptions:
    """Where weights lie, and the settings that ``dysl`` runs under; the others start from those."""

    checkpoint: str
    adapters: str = ""  # "": the checkpoint's own `dysl` folder
    settings: RuntimeSettings = RuntimeSettings()
    paper_adapters: str = ""  # a DySL folder trained as the paper says; "": that of ``dysl``
    shallow: str = ""  # checkpoint of a shallower policy
    shallow_distilled: str = ""  # the same, distilled from the full one


@dataclass(frozen=True)
class Matched:
    """What was set from calibration scenes and the depth of ``dysl``, for one set of tasks and one m; None: nothing."""

    depth: float | None = None  # mean layer calls to come to
    probability: float | None = None  # of ``random``
    plan: tuple[int, ...] | None = None  # of ``fixed``: the layer a block is skipped from; a block's end: not at all
    plan_choice: str = ""  # how the plan was chosen
    oracle_threshold: float | None = None  # action L1, normalised
    paper: GuidanceSettings | None = None  # of ``dysl_paper``
    signals: Mapping[str, Mapping[str, float | None]] | None = None  # what each knows of the floor's error; for the eye


@dataclass(frozen=True)
class Trained:
    """What was trained for a method beyond the full policy; None: unknown."""

    parameters: int
    steps: int | None
    seconds: float | None


@dataclass(frozen=True)
class Prepared:
    """A method that can play: call ``begin`` with an episode's seed before each episode."""

    runtime: Runtime
    settings: RuntimeSettings
    trained: Trained
    begin: Callable[[int], None] = lambda seed: None


class Library:
    """Loads each folder once; methods share weights and have a runtime of their own."""

    def __init__(self) -> None:
        self._runtimes: dict[tuple[str, str], Runtime] = {}
        self._shallow: dict[str, Runtime] = {}

    def with_adapters(self, checkpoint: str, adapters: str) -> Runtime:
        """Return a new runtime of a checkpoint with a DySL folder (:meth:`Runtime.load`)."""
        key = (checkpoint, adapters)
        if key not in self._runtimes:
            self._runtimes[key] = Runtime.load(checkpoint, adapters)
            self._runtimes[key].warm_up()
        kept = self._runtimes[key]
        return Runtime(kept.policy, kept.dysl)

    def alone(self, checkpoint: str) -> Runtime:
        """Return a new runtime of a checkpoint that runs every layer, whatever lies beside it."""
        if checkpoint not in self._shallow:
            self._shallow[checkpoint] = Runtime.load_base(Path(checkpoint))
            self._shallow[checkpoint].warm_up()
        return Runtime(self._shallow[checkpoint].policy, None)


Prepare = Callable[[Library, MethodOptions, RuntimeSettings, Matched], Prepared]


@dataclass(frozen=True)
class Method:
    """One entry of the registry."""

    meaning: str
    prepare: Prepare
    adapters: bool = True  # needs a DySL folder
    depth: bool = False  # is set to the mean depth of ``dysl``
    bound: bool = False  # sees what no method can: milliseconds mean nothing
    checkpoint: str = ""  # the field of MethodOptions that must name another checkpoint


def _full(library: Library, options: MethodOptions, settings: RuntimeSettings, _: Matched) -> Prepared:
    runtime = library.with_adapters(options.checkpoint, options.adapters)
    disabled = replace(settings, skipping=replace(settings.skipping, rule="full"))
    return Prepared(runtime, disabled, Trained(0, 0, 0.0))


def _dysl(library: Library, options: MethodOptions, settings: RuntimeSettings, _: Matched) -> Prepared:
    runtime, dysl = _loaded(library, options)
    return Prepared(runtime, settings, _trained(dysl, controllers=True))


def _dysl_paper(library: Library, options: MethodOptions, settings: RuntimeSettings, matched: Matched) -> Prepared:
    runtime, dysl = _loaded(library, replace(options, adapters=options.paper_adapters or options.adapters))
    guidance = matched.paper or settings.guidance
    guidance = replace(guidance, stride="paper", verify_on="first", prior=True, verify=True)
    paper = replace(settings, skipping=SkippingSettings(), guidance=guidance)
    return Prepared(runtime, paper, _trained(dysl, controllers=True))


def _static(library: Library, options: MethodOptions, settings: RuntimeSettings, _: Matched) -> Prepared:
    runtime, dysl = _loaded(library, options)
    runtime.rule_override = lambda points: StaticOnly(dysl.partition, dysl.modules)
    return Prepared(runtime, unguided(settings), _trained(dysl, dysl.partition.floor))


def _fixed(library: Library, options: MethodOptions, settings: RuntimeSettings, matched: Matched) -> Prepared:
    runtime, dysl = _loaded(library, options)
    assert matched.plan is not None
    plan = matched.plan
    runtime.rule_override = lambda points: FixedPlan(dysl.partition, dysl.modules, plan)
    return Prepared(runtime, unguided(settings), _trained(dysl, plan))


def _random(library: Library, options: MethodOptions, settings: RuntimeSettings, matched: Matched) -> Prepared:
    runtime, dysl = _loaded(library, options)
    assert matched.probability is not None
    probability, generator = matched.probability, torch.Generator()
    runtime.rule_override = lambda points: RandomSkipping(dysl.partition, dysl.modules, probability, generator)

    def begin(seed: int) -> None:
        generator.manual_seed(seed)

    return Prepared(runtime, unguided(settings), _trained(dysl), begin)


def _controllers(library: Library, options: MethodOptions, settings: RuntimeSettings, _: Matched) -> Prepared:
    runtime, dysl = _loaded(library, options)
    return Prepared(runtime, unguided(settings), _trained(dysl, controllers=True))


def _guidance(library: Library, options: MethodOptions, settings: RuntimeSettings, _: Matched) -> Prepared:
    runtime, dysl = _loaded(library, options)
    runtime.rule_override = lambda points: FixedPlan(dysl.partition, dysl.modules, points)
    return Prepared(runtime, settings, _trained(dysl))


def _verify(library: Library, options: MethodOptions, settings: RuntimeSettings, _: Matched) -> Prepared:
    runtime, dysl = _loaded(library, options)
    runtime.rule_override = lambda points: StaticOnly(dysl.partition, dysl.modules)
    guidance = replace(settings.guidance, prior=False, verify=True, verify_on="any")
    return Prepared(runtime, replace(settings, guidance=guidance), _trained(dysl, dysl.partition.floor))


def _oracle(library: Library, options: MethodOptions, settings: RuntimeSettings, matched: Matched) -> Prepared:
    runtime, dysl = _loaded(library, options)
    assert matched.oracle_threshold is not None
    threshold, layers, m = matched.oracle_threshold, runtime.policy.layers, settings.actions_per_inference

    def apart(floor: StackResult, full: StackResult, context: StackContext) -> float:
        one, other = (runtime.decoded(result, context) for result in (floor, full))
        return float((one[:, :m] - other[:, :m]).abs().mean())

    runtime.rule_override = lambda points: Oracle(dysl.partition, dysl.modules, layers, apart, threshold)
    return Prepared(runtime, unguided(settings), _trained(dysl, dysl.partition.floor))


def _other_checkpoint(
    field: str, library: Library, options: MethodOptions, settings: RuntimeSettings, _: Matched
) -> Prepared:
    checkpoint = getattr(options, field)
    runtime = library.alone(checkpoint)
    count = parameter_count(runtime.policy)
    return Prepared(runtime, settings, Trained(count, *total_training(read_config(Path(checkpoint)).get("training"))))


METHODS: dict[str, Method] = {
    "full": Method("every layer", _full, adapters=False),
    "dysl": Method("controllers, prior and verification, as calibrated", _dysl),
    "dysl_paper": Method("the paper's stride, and verification of first drops alone", _dysl_paper),
    "static": Method("static layers and adapters, always", _static),
    "fixed": Method("one plan, always: the best of equal mean depth", _fixed, depth=True),
    "random": Method("skips by chance, at equal mean depth", _random, depth=True),
    "controllers": Method("controllers alone, unguided", _controllers),
    "guidance": Method("skips at every allow point, whatever controllers say", _guidance),
    "verify": Method("the floor, and verification of any drop", _verify),
    "oracle": Method("a bound: full depth where the floor's action differs; looking is not counted", _oracle,
                     depth=True, bound=True),
    "shallow": Method("a shallower policy at full depth", partial(_other_checkpoint, "shallow"), adapters=False,
                      checkpoint="shallow"),
    "shallow_distilled": Method("a shallower policy distilled from the full one", adapters=False,
                                prepare=partial(_other_checkpoint, "shallow_distilled"),
                                checkpoint="shallow_distilled"),
}  # fmt: skip


def method_named(name: str) -> Method:
    """Return an entry.

    Raises:
        DataError: there is none; the message lists those there are.
    """
    return METHODS[require_method(name)]


def require_usable(name: str, library: Library, options: MethodOptions) -> None:
    """Load what a method needs, so that nothing is found missing after hours.

    Raises:
        CheckpointError: a folder is missing, damaged, or does not belong to the checkpoint.
        DataError: the method needs a DySL folder, or another checkpoint that was not named.
    """
    method = method_named(name)
    if method.checkpoint:
        folder = getattr(options, method.checkpoint)
        if not folder:
            raise DataError(f"the method {name} is another checkpoint: name it by --{name.replace('_', '-')}")
        library.alone(folder)
    elif method.adapters:
        _loaded(library, options)
        if name == "dysl_paper" and options.paper_adapters:
            _loaded(library, replace(options, adapters=options.paper_adapters))
    else:
        library.with_adapters(options.checkpoint, options.adapters)


def prepare(name: str, m: int, library: Library, options: MethodOptions, matched: Matched) -> Prepared:
    """Load a method for m actions an inference; ``matched`` must hold what the method is set to."""
    method = method_named(name)
    settings = replace(
        options.settings,
        skipping=replace(options.settings.skipping, rule="dysl", enabled=True),
        actions_per_inference=m,
    )
    return method.prepare(library, options, settings, matched)


def unguided(settings: RuntimeSettings) -> RuntimeSettings:
    """Return the settings without prior, verification and warm-up."""
    return replace(settings, guidance=replace(settings.guidance, prior=False, verify=False, warmup=0))


def _loaded(library: Library, options: MethodOptions) -> tuple[Runtime, DyslFolder]:
    runtime = library.with_adapters(options.checkpoint, options.adapters)
    if runtime.dysl is None:
        raise DataError(f"{options.checkpoint} has no `dysl` folder, so nothing can be skipped; name one by --adapters")
    return runtime, runtime.dysl


def _trained(dysl: DyslFolder, positions: Sequence[int] | None = None, controllers: bool = False) -> Trained:
    """Count the adapters at ``positions`` (None: all) with what they share, and controllers if they are heard."""
    modules, blocks = dysl.modules, dysl.partition.blocks
    points = dysl.partition.skip_points
    layers = points if positions is None else [p for p in positions if p in points]
    parts: list[torch.nn.Module] = [modules.adapter(layer) for layer in layers]
    parts += [modules.pools[str(b)] for b, (first, end) in enumerate(blocks)
              if any(first <= layer < end for layer in layers)]  # fmt: skip
    if controllers:
        parts += [modules.controller(layer) for layer in layers]
    count = sum(weight.numel() for part in parts for weight in part.parameters())
    return Trained(count, *total_training(dysl.config.get("training")))
