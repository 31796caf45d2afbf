"""A DySL folder: what distillation and calibration leave beside a base checkpoint, which stays as it was.

``config.json`` says which base the folder belongs to, its partition, the sizes of its modules and the SHA-256 of
``adapters.safetensors``, which holds adapters and controllers; ``calibration.json`` has the guidance values that the
settings' 0.0 and "" stand for. Distillation leaves none of it: such a folder is refused until it is calibrated.
Whatever does not fit is refused; nothing is guessed.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dysl_vla_ros
from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.json_files import build_from, read_object
from dysl_vla_ros.policies.checkpoint import read_checkpoint, read_tensors, write_checkpoint
from dysl_vla_ros.policies.identity import hash_of
from dysl_vla_ros.policies.weights_header import load_exactly, read_shapes, require_fitting
from dysl_vla_ros.settings import WARMUP, GuidanceSettings, check
from dysl_vla_ros.skipping.partition import PER_BLOCK, LayerPartition
from dysl_vla_ros.skipping.streams import Stream

if TYPE_CHECKING:
    from dysl_vla_ros.skipping.modules import DyslModules

CONFIG, WEIGHTS, CALIBRATION = "config.json", "adapters.safetensors", "calibration.json"
CALIBRATED = ("step", "verify_threshold", "dead_band", "stride", "verify_on", "warmup")  # fields of GuidanceSettings
MODULE_SIZES = ("bottleneck", "queries", "controller_width", "rank")
SIZES_SINCE = {"rank": 0}  # what folders from before a size was there were made with
# of a folder that is run by a parameter file, which sets every value: nothing was measured
UNCALIBRATED = {
    "step": 1.0, "verify_threshold": 1.0, "dead_band": 0.0, "stride": "integral", "verify_on": "any", "warmup": WARMUP,
}  # fmt: skip
RULES = ("dysl", "static")  # that a folder may bring; the first where it names none
LARGEST_SIZE = 65536  # of a module: a damaged number must not become an allocation
REMAKE = "name another DySL folder, or make this one again with `dysl_vla calibrate` and `dysl_vla distill`"


@dataclass(frozen=True)
class TrialGuidance:
    """Of a trial's guidance what is shown."""

    step: float = math.nan
    verify_threshold: float = math.nan


@dataclass(frozen=True)
class TrialNotes:
    """What ``calibration.json`` says of one trial of the search."""

    tolerated_error: float | None = None
    layers: float = math.nan
    error: float = math.nan
    worst_error: float = math.nan
    verified_share: float = math.nan
    guidance: TrialGuidance = TrialGuidance()


@dataclass(frozen=True)
class CalibrationNotes:
    """What ``calibration.json`` may say beside the guidance values: how they were found. There may be more."""

    actions_per_inference: int = 1
    runs: int = 0
    inferences: int = 0
    chosen: TrialNotes = TrialNotes()
    front: tuple[TrialNotes, ...] = ()
    signals: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DyslFolder:
    """Trained modules for one base checkpoint, ready to run."""

    partition: LayerPartition
    modules: "DyslModules"
    config: Mapping[str, Any] = field(default_factory=dict)  # what config.json holds
    calibrated: Mapping[str, float | str] = field(default_factory=dict)  # guidance values, see CALIBRATED

    @property
    def module_sizes(self) -> dict[str, int]:
        """What ``modules`` were made with, as :func:`save_dysl` takes it; of a folder that was read."""
        return {name: (SIZES_SINCE | dict(self.config["modules"]))[name] for name in MODULE_SIZES}

    @property
    def rule(self) -> str:
        """The depth rule that the folder was made for, see ``skipping.rule``."""
        return str(self.config.get("rule", RULES[0]))

    @property
    def motion_hash(self) -> str:
        """SHA-256 of all of the folder that decides the motion: skip points, weights, guidance values."""
        partition = dataclasses.asdict(self.partition)
        weights = self.config.get("files", {}).get(WEIGHTS, "")  # "": made here, not read
        own = {"rule": self.rule} if self.rule != RULES[0] else {}  # hashes of folders without one stay what they were
        return hash_of({"partition": partition, "weights": weights, "guidance": dict(self.calibrated)} | own)


def save_dysl(
    folder: Path,
    partition: LayerPartition,
    modules: "DyslModules",
    *,
    family: str,
    base_sha256: str,
    choice: str,
    module_sizes: Mapping[str, int],
    calibration: Mapping[str, Any] | None,
    training: Mapping[str, Any] | None = None,
    beside: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write a DySL folder, weights as fp16: all of its files, or those that were there stay as they were.

    Args:
        folder: made where it is missing.
        partition: of the base's stack.
        modules: made for ``partition``.
        family: of the base policy.
        base_sha256: hash of the base's weights, as ``PolicyDescription.weights_hash`` has it.
        choice: how the static layers were chosen, ``spread`` or ``informative``.
        module_sizes: ``bottleneck``, ``queries``, ``controller_width`` and, where it is not 0, ``rank`` that
            ``modules`` were made with.
        calibration: what ``calibration.json`` will hold: ``guidance`` (see CALIBRATED), ``actions_per_inference``,
            anything else that is worth keeping; None: thresholds are not searched yet, those of earlier modules go.
        training: what the modules were trained with: ``steps`` and ``seconds``; None: unknown.
        beside: reports that are written with them, file name -> plain values.

    Raises:
        CheckpointError: ``calibration`` lacks a guidance value or has one that is out of range; nothing is written.
        DataError: the folder cannot be written to.
    """
    module_sizes = SIZES_SINCE | dict(module_sizes)
    assert set(module_sizes) == set(MODULE_SIZES), f"sizes {sorted(module_sizes)}"
    layers = {"num_layers": partition.num_layers, "static": list(partition.static), "choice": choice}
    if calibration is not None:
        _guidance_values(calibration, folder / CALIBRATION)
    config = {
        "base": {"family": family, "sha256": base_sha256},
        "partition": layers | {"per_block": partition.per_block},
        "modules": dict(module_sizes) | {"adapter": adapter_kind(module_sizes["queries"])},
        "package_version": dysl_vla_ros.__version__,
    }
    if training:
        config["training"] = dict(training)
    written = {name: dict(values) for name, values in (beside or {}).items()}
    written |= {} if calibration is None else {CALIBRATION: dict(calibration)}
    outdated = (CALIBRATION,) if calibration is None else ()
    write_checkpoint(folder, config, {WEIGHTS: modules.state_dict()}, written, outdated)


def adapter_kind(queries: int) -> str:
    """Return the name of adapters with so many pooled tokens: "token" (by token) or "pooled"."""
    return "pooled" if queries else "token"


def dysl_beside(checkpoint: Path, adapters: str) -> Path | None:
    """Return the DySL folder that a checkpoint runs with; None: it has none of its own and no other was named.

    Args:
        checkpoint: folder of the base.
        adapters: as ``model.adapters``: a DySL folder, or "" for the checkpoint's own.
    """
    own = checkpoint / "dysl"
    return Path(adapters) if adapters else own if own.exists() else None


@dataclass(frozen=True)
class DyslFiles:
    """What a DySL folder's files say of it, but for the weights."""

    config: Mapping[str, Any]
    partition: LayerPartition
    module_sizes: Mapping[str, int]  # what the modules are made with
    calibrated: Mapping[str, float | str]


def load_dysl(
    folder: Path, weights_hash: str | None, num_layers: int, streams: Sequence[Stream], *, calibrated: bool = True
) -> DyslFolder:
    """Read a DySL folder and check that it belongs to a base with ``num_layers`` layers and these ``streams``.

    Args:
        folder: to read.
        weights_hash: SHA-256 of the base's weights; None: of any base with as many layers of this width. Then it is no
            more than a beginning to train from.
        num_layers: of the base.
        streams: of the base, the leading one first.
        calibrated: false: to train or to calibrate it; thresholds that were never searched are no fault then.

    Raises:
        CheckpointError: a file is missing, damaged, of another format or base; the message names the file, what was
            found, what was expected, and the mend.
    """
    from dysl_vla_ros.skipping.modules import DyslModules  # imports torch

    files = read_dysl(folder, weights_hash, num_layers, calibrated=calibrated)
    partition, sizes = files.partition, files.module_sizes
    _require_streams(lambda: DyslModules(partition, streams, **sizes), folder / WEIGHTS, streams)
    modules = DyslModules(partition, streams, **sizes)
    load_exactly(modules, read_tensors(folder / WEIGHTS), folder / WEIGHTS)
    return DyslFolder(partition, modules.eval().requires_grad_(False), files.config, files.calibrated)


def read_dysl(folder: Path, weights_hash: str | None, num_layers: int, *, calibrated: bool = True) -> DyslFiles:
    """Read and check all of a DySL folder but the weights, without torch. Arguments: see :func:`load_dysl`.

    Raises:
        CheckpointError: see :func:`load_dysl`.
    """
    config = read_checkpoint(folder, "DySL folder")
    path = folder / CONFIG
    base = _entry(config, "base", dict, path)
    family, sha256 = (_entry(base, name, str, path, "base.") for name in ("family", "sha256"))
    if weights_hash is not None and sha256 != weights_hash:
        raise CheckpointError(
            f"{path}: base.sha256 is {sha256} (of family {family!r}), this checkpoint's weights have {weights_hash}; "
            f"{REMAKE}"
        )
    if WEIGHTS not in _entry(config, "files", dict, path):
        raise CheckpointError(f"{path}: files names {', '.join(config['files'])}, expected {WEIGHTS}; {REMAKE}")
    partition = _partition(_entry(config, "partition", dict, path), num_layers, path)
    if (rule := config.get("rule", RULES[0])) not in RULES:
        raise CheckpointError(f"{path}: rule is {rule!r:.60}, expected {' or '.join(RULES)}; {REMAKE}")
    sizes = _module_sizes(_entry(config, "modules", dict, path), path)
    path = folder / CALIBRATION
    values = _guidance_values(_read_calibration(path), path) if calibrated or path.exists() else {}
    return DyslFiles(config, partition, sizes, values)


def _require_streams(make: "Callable[[], DyslModules]", path: Path, streams: Sequence[Stream]) -> None:
    """Refuse adapters that are not those of streams so many and so wide: the hidden states of another policy."""
    found = read_shapes(path)
    try:
        require_fitting(make, found, path)
    except CheckpointError as error:
        wanted = ", ".join(f"{stream.name} of width {stream.width}" for stream in streams)
        raise CheckpointError(
            f"{error}; expected are adapters for {wanted}, as this checkpoint has; {REMAKE}"
        ) from error


def _entry(values: Mapping[str, Any], name: str, kind: type[Any], path: Path, parent: str = "") -> Any:
    if type(values.get(name)) is not kind:
        found = f"{values[name]!r:.60}" if name in values else "nothing"
        raise CheckpointError(f"{path}: {parent}{name} is {found}, expected a JSON {kind.__name__}; {REMAKE}")
    return values[name]


def _partition(values: Mapping[str, Any], num_layers: int, path: Path) -> LayerPartition:
    found = _entry(values, "num_layers", int, path, "partition.")
    if found != num_layers:
        raise CheckpointError(f"{path}: partition.num_layers is {found}, this checkpoint has {num_layers}; {REMAKE}")
    _entry(values, "choice", str, path, "partition.")
    static = _entry(values, "static", list, path, "partition.")
    if not all(type(layer) is int for layer in static):
        raise CheckpointError(f"{path}: partition.static is {static!s:.60}, expected whole numbers; {REMAKE}")
    per_block = values.get("per_block", "all")  # as folders before this entry were made
    if per_block not in PER_BLOCK:
        expected = " or ".join(PER_BLOCK)
        raise CheckpointError(f"{path}: partition.per_block is {per_block!r:.60}, expected {expected}; {REMAKE}")
    try:
        return LayerPartition(num_layers, tuple(static), per_block)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}; {REMAKE}") from error


def _module_sizes(values: Mapping[str, Any], path: Path) -> dict[str, int]:
    values = SIZES_SINCE | dict(values)
    sizes = {name: _entry(values, name, int, path, "modules.") for name in MODULE_SIZES}
    smallest = {"bottleneck": 1, "queries": 0, "controller_width": 1, "rank": 0}
    faults = [
        f"{name} is {size}, expected {smallest[name]} to {LARGEST_SIZE}"
        for name, size in sizes.items()
        if not smallest[name] <= size <= LARGEST_SIZE
    ]
    kind = values.get("adapter", adapter_kind(sizes["queries"]))
    if kind != adapter_kind(sizes["queries"]):
        faults.append(f"adapter is {kind!r}, with {sizes['queries']} queries it is {adapter_kind(sizes['queries'])!r}")
    if faults:
        raise CheckpointError(f"{path}: modules: {'; '.join(faults)}; {REMAKE}")
    return sizes


def _read_calibration(path: Path) -> dict[str, Any]:
    try:
        values = read_object(path, REMAKE)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} is missing: no thresholds were searched for these adapters; run `dysl_vla calibrate CHECKPOINT "
            f"[DATA] --adapters {path.parent}`"
        ) from error
    build_from(CalibrationNotes, values, "", path, REMAKE, lenient=True)
    return values


def _guidance_values(calibration: Mapping[str, Any], path: Path) -> dict[str, float | str]:
    """Return the CALIBRATED values of ``calibration``; every fault is named at once."""
    guidance = _entry(calibration, "guidance", dict, path)
    fields = {field.name: field for field in dataclasses.fields(GuidanceSettings)}
    values: dict[str, float | str] = {}
    faults = []
    for name in CALIBRATED:
        if name not in guidance:
            if name == "warmup":
                continue  # folders from before it was calibrated
            faults.append(f"guidance.{name} is missing")
            continue
        value = guidance[name]
        if type(value) is int and isinstance(fields[name].default, float):
            value = float(value)  # JSON's 1 is 1.0 here
        fault = check(f"guidance.{name}", value, fields[name])
        # What means "as calibrated" cannot be what was calibrated; a dead band of 0.0 is none
        if not fault and name != "dead_band" and value == fields[name].default:
            fault = f"guidance.{name} is {value!r}, which stands for no value"
        if fault:
            faults.append(fault)
        values[name] = float(value) if type(value) is int else value  # numbers go to the node as floats
    if faults:
        raise CheckpointError(f"{path}: {'; '.join(faults)}; {REMAKE}")
    return values
