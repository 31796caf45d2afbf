"""What a method is, and what methods share: the folders they load, what they are set to, what was trained for them.

A method turns a checkpoint, its DySL folder and what was set on calibration scenes into a loaded runtime and the
settings of its steps.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dysl_vla_ros.comparison.constant_floors import read_floors
from dysl_vla_ros.comparison.methods.registry import METHODS, method_named, option_of
from dysl_vla_ros.engines import ONNX, TORCH
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.policies.checkpoint import total_training
from dysl_vla_ros.runs.full_depth import FullDepthRun
from dysl_vla_ros.runtime.folder import DyslFolder
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import RuntimeSettings

if TYPE_CHECKING:
    from dysl_vla_ros.comparison.plan import Comparison
    from dysl_vla_ros.policies.interface import VlaPolicy


@dataclass(frozen=True)
class MethodOptions:
    """Where weights lie, and the settings that ``dysl`` runs under; the others start from those."""

    checkpoint: str
    adapters: str = ""  # "": the checkpoint's own `dysl` folder
    settings: RuntimeSettings = RuntimeSettings()
    paper_adapters: str = ""  # a DySL folder trained as the paper says; "": that of ``dysl``
    checkpoints: Mapping[str, str] = field(default_factory=dict)  # by method: those that are another checkpoint
    floors: str = ""  # folder that ``dysl_vla floors --evaluate`` wrote; "": no method is chosen among floors
    export: str = ""  # of ONNX Runtime: of ``checkpoint`` with ``adapters``; "": where it is written by default

    @property
    def exports(self) -> Mapping[tuple[str, str], str]:
        """Folders of exports that do not lie where they are written by default, by checkpoint and DySL folder."""
        return {(self.checkpoint, self.adapters): self.export} if self.export else {}


@dataclass(frozen=True)
class Matched:
    """What was set from calibration scenes and the depth of ``dysl``, for one set of tasks and one m; None: nothing."""

    depth: float | None = None  # mean layer calls to come to
    values: Mapping[str, Any] = field(default_factory=dict)  # plain ones, by the names in ``Method.sets``
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
    """Loads each folder once for each runtime, on ``device``; methods share weights and have a runtime of their own."""

    def __init__(self, device: str = "cpu", exports: Mapping[tuple[str, str], str] | None = None) -> None:
        """Load onto ``device``; ``exports``: see :attr:`MethodOptions.exports`."""
        self._device, self._exports = device, dict(exports or {})
        self._bases: dict[str, Runtime] = {}  # on torch
        self._runtimes: dict[tuple[str, str, str], Runtime] = {}

    def policy(self, checkpoint: str, engine: str = TORCH) -> "VlaPolicy":
        """Return a base checkpoint's policy.

        Raises:
            CheckpointError: it is missing or damaged, or was not exported.
            SettingError: the device is not there.
        """
        if engine == ONNX:  # graphs are those of a base and one DySL folder; any of them has the base's layers
            loaded = (own.policy for (base, _, on), own in self._runtimes.items() if (base, on) == (checkpoint, engine))
            return next(loaded, None) or self.with_adapters(checkpoint, "", engine).policy
        if checkpoint not in self._bases:
            self._bases[checkpoint] = Runtime.load_base(Path(checkpoint), self._device)
            self._bases[checkpoint].warm_up()
        return self._bases[checkpoint].policy

    def with_adapters(self, checkpoint: str, adapters: str, engine: str = TORCH) -> Runtime:
        """Return a new runtime of a checkpoint with a DySL folder, as :meth:`Runtime.load` finds it."""
        key = (checkpoint, adapters, engine)
        if key not in self._runtimes:
            if engine == ONNX:
                export = self._exports.get((checkpoint, adapters), "")
                self._runtimes[key] = Runtime.load(checkpoint, adapters, self._device, engine=engine, export=export)
            else:
                self._runtimes[key] = Runtime.beside(self.policy(checkpoint), checkpoint, adapters)
            self._runtimes[key].warm_up()
        kept = self._runtimes[key]
        return Runtime(kept.policy, kept.dysl)

    def alone(self, checkpoint: str, engine: str = TORCH) -> Runtime:
        """Return a new runtime of a checkpoint that runs every layer, whatever lies beside it."""
        return Runtime(self.policy(checkpoint, engine), None)


@dataclass(frozen=True)
class CalibrationScenes:
    """What a method may be set up on: full-depth runs in scenes that no table has."""

    comparison: "Comparison"
    library: Library
    m: int
    depth: float | None  # to come to; None: of no method that is set up
    runs: Callable[[], Sequence[FullDepthRun]]  # on the set of tasks at hand; played when they are asked for
    runs_of_all: Callable[[], Sequence[FullDepthRun]]  # on every set

    @property
    def options(self) -> MethodOptions:
        """Where weights lie."""
        return self.comparison.options

    def loaded(self, adapters: str | None = None) -> tuple[Runtime, DyslFolder]:
        """See :func:`loaded`."""
        return loaded(self.library, self.options, adapters, self.comparison.runtime)


@dataclass(frozen=True)
class MethodInputs:
    """What a method is prepared from."""

    library: Library
    options: MethodOptions
    settings: RuntimeSettings  # those of ``dysl``, with the rule ``dysl`` and the m that is played
    values: Mapping[str, Any]  # what was set, by the names in ``Method.sets``
    task: str = ""  # of the episodes, where the method is prepared for one (``Method.by_task``)
    engine: str = TORCH  # what computes it

    def loaded(self, adapters: str | None = None) -> tuple[Runtime, DyslFolder]:
        """See :func:`loaded`."""
        return loaded(self.library, self.options, adapters, self.engine)

    def alone(self, checkpoint: str) -> Runtime:
        """See :meth:`Library.alone`."""
        return self.library.alone(checkpoint, self.engine)


Prepare = Callable[[MethodInputs], Prepared]


@dataclass(frozen=True)
class Method:
    """One method: an entry of the registry."""

    meaning: str
    prepare: Prepare
    adapters: bool = True  # needs a DySL folder
    folder: Callable[[MethodOptions], str] = lambda options: options.adapters  # which one
    depth: bool = False  # is set to the mean depth of ``dysl``
    without_depth: Callable[["Comparison"], bool] = lambda comparison: False  # unless it can do without
    set_up: Callable[[CalibrationScenes], Mapping[str, Any]] | None = None  # gives plain values, before it is played
    sets: tuple[str, ...] = ()  # their names, as `results.json` has them
    bound: bool = False  # sees what no method can: milliseconds mean nothing
    guided: bool = False  # its allow points decide on depth
    floors: bool = False  # is chosen among what ``dysl_vla floors`` trained and played
    by_task: bool = False  # is prepared for each task anew


def prepare(
    name: str,
    m: int,
    library: Library,
    options: MethodOptions,
    matched: Matched,
    task: str = "",
    runtime: str = TORCH,
) -> Prepared:
    """Load a method for m actions an inference on a runtime, for a task if it asks for one.

    ``matched`` must hold what the method is set to.
    """
    settings = replace(
        options.settings,
        skipping=replace(options.settings.skipping, rule="dysl", enabled=True),
        actions_per_inference=m,
    )
    return method_named(name).prepare(MethodInputs(library, options, settings, matched.values, task, runtime))


def require_usable(name: str, library: Library, options: MethodOptions, runtime: str = TORCH) -> None:
    """Load what a method needs, so that nothing is found missing after hours.

    Raises:
        CheckpointError: a folder is missing, damaged, does not belong to the checkpoint, or was not exported.
        DataError: the method needs a DySL folder, another checkpoint or floors that were not named.
    """
    method = method_named(name)
    if METHODS[name].checkpoint:
        folder = options.checkpoints.get(name, "")
        if not folder:
            raise DataError(f"the method {name} is another checkpoint: name it by {option_of(name)}")
        library.alone(folder, runtime)
    elif method.floors:
        if not options.floors:
            raise DataError(f"the method {name} is chosen among floors: name them by --floors")
        read_floors(Path(options.floors))
    elif method.adapters:
        loaded(library, options, method.folder(options), runtime)
    else:
        library.with_adapters(options.checkpoint, options.adapters, runtime)


def unguided(settings: RuntimeSettings) -> RuntimeSettings:
    """Return the settings without prior, verification and warm-up."""
    return replace(settings, guidance=replace(settings.guidance, prior=False, verify=False, warmup=0))


def loaded(
    library: Library, options: MethodOptions, adapters: str | None = None, engine: str = TORCH
) -> tuple[Runtime, DyslFolder]:
    """Return a new runtime with the DySL folder that is named, None: that of ``dysl``, and the folder.

    Raises:
        DataError: there is none.
    """
    runtime = library.with_adapters(options.checkpoint, options.adapters if adapters is None else adapters, engine)
    if runtime.dysl is None:
        raise DataError(f"{options.checkpoint} has no `dysl` folder, so nothing can be skipped; name one by --adapters")
    return runtime, runtime.dysl


def trained(dysl: DyslFolder, positions: Sequence[int] | None = None, controllers: bool = False) -> Trained:
    """Count the adapters at ``positions`` (None: all) with what they share, and controllers if they are heard."""
    points = dysl.partition.skip_points
    layers = points if positions is None else [p for p in positions if p in points]
    names = [f"adapters.{layer}." for layer in layers]
    names += [f"pools.{block}." for block, (first, end) in enumerate(dysl.partition.blocks)
              if any(first <= layer < end for layer in layers)]  # fmt: skip
    if controllers:
        names += [f"controllers.{layer}." for layer in layers]
    count = sum(size for name, size in dysl.modules.weight_sizes().items() if name.startswith(tuple(names)))
    return Trained(count, *total_training(dysl.config.get("training")))
