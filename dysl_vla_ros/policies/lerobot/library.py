"""LeRobot itself: which version is there, its policy and processors made from a folder that was checked."""

import dataclasses
import importlib
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dysl_vla_ros.errors import CheckpointError, SettingError
from dysl_vla_ros.policies.checkpoint import MEND, looks_like, require_finite
from dysl_vla_ros.policies.lerobot.folder import CONFIG, POSTPROCESSOR, PREPROCESSOR, WEIGHTS, LeRobotFolder
from dysl_vla_ros.policy_options import PolicyOptions

FIRST, BEHIND = (0, 6, 1), (0, 7)  # LeRobot's versions that were tested: from, up to but not
RANGE = "lerobot>=0.6.1,<0.7"
INSTALL = f"pip install 'lerobot[smolvla,pi,xvla]{RANGE.removeprefix('lerobot')}'"
OUT_OF_MEMORY = (torch.OutOfMemoryError, MemoryError)
NAMED = 4  # tensors at fault that are named, of as many as there are
# what a robot does without, of the configurations that have it: real-time chunking, and a compiled model of one shape
WITHOUT = {"rtc_config": None, "compile_model": False}
DTYPES = {None: "", torch.float32: "float32", torch.bfloat16: "bfloat16"}


@dataclasses.dataclass(frozen=True)
class Keys:
    """How a library's loader names the tensors of a file."""

    renamed: Callable[[Any, dict[str, Tensor]], dict[str, Tensor]]  # (policy, by the file's names) -> by the policy's
    unused: tuple[str, ...] = ()  # of the file's, that the loader leaves out


def require_library(path: Path) -> str:
    """Return LeRobot's version in this Python.

    Raises:
        CheckpointError: there is none, or one that was not tested.
    """
    try:
        found = metadata.version("lerobot")
    except metadata.PackageNotFoundError as error:
        raise CheckpointError(
            f"{path} is a checkpoint of LeRobot's, and {sys.executable} (Python {sys.version.split()[0]}) has no "
            f"lerobot; name the Python of a LeRobot environment in model.python ({INSTALL}, in Python 3.12 or later)"
        ) from error
    numbers = tuple(int(it) for it in re.findall(r"\d+", found)[:3])
    if not FIRST <= numbers < BEHIND:
        raise CheckpointError(
            f"{path}: {sys.executable} has lerobot {found}; this version of dysl_vla_ros was tested with {RANGE}: "
            f"install one of these there ({INSTALL}), or name another Python in model.python"
        )
    return found


def versions() -> str:
    """Return the versions that decide which bits are computed, for messages."""
    return ", ".join(f"{name} {metadata.version(name)}" for name in ("lerobot", "torch", "transformers"))


def tokenizer_folder(options: PolicyOptions, needed: Iterable[str], named: str) -> str:
    """Return ``model.tokenizer``, a folder in which the needed files are; "" where the library's cache is to serve.

    Raises:
        SettingError: no such folder, or a file is not in it.
    """
    if not options.tokenizer:
        return ""
    folder = Path(options.tokenizer)
    if not folder.is_dir():
        raise SettingError(f"model.tokenizer '{folder}' is not a folder; name a local copy of {named}")
    if missing := [name for name in needed if not (folder / name).is_file()]:
        raise SettingError(f"model.tokenizer '{folder}' has no {', '.join(missing)}; name a local copy of {named}")
    return str(folder)


def read_configuration(folder: LeRobotFolder, changed: Mapping[str, Any]) -> Any:
    """Return the library's own configuration of a folder, some fields replaced.

    Raises:
        CheckpointError: a field that this LeRobot does not know, or a value that it refuses.
    """
    import draccus
    from lerobot.configs.policies import PreTrainedConfig

    importlib.import_module(f"lerobot.policies.{folder.type}.configuration_{folder.type}")
    kind = PreTrainedConfig.get_choice_class(folder.type)
    known = {it.name for it in dataclasses.fields(kind)}
    values = {name: value for name, value in folder.config.items() if name != "type"}
    if unknown := sorted(values.keys() - known):
        raise CheckpointError(
            f"{folder.path / CONFIG}: lerobot {metadata.version('lerobot')} does not know {', '.join(unknown)}; "
            f"another version wrote this file: install that one where it is within {RANGE}, or train again"
        )
    try:
        with draccus.config_type("json"):
            return draccus.decode(kind, values | {it: WITHOUT[it] for it in WITHOUT if it in known} | dict(changed))
    except Exception as error:  # whatever the library has against it
        raise CheckpointError(f"{folder.path / CONFIG}: {_line(error)}; {MEND}") from error


def make_policy(folder: LeRobotFolder, configuration: Any, kind: Any, named: str, keys: Keys) -> Any:
    """Build and load the library's policy, and compare all of it with the file.

    Args:
        folder: checked.
        configuration: see :func:`read_configuration`.
        kind: the library's class.
        named: what the configuration wants from a hub, for messages.
        keys: how the library's loader names the file's tensors.

    Raises:
        CheckpointError: a tensor is missing, left over, of another shape or value; not enough memory; no such hub.
    """
    file = folder.path / WEIGHTS
    _require_finite(file)
    try:
        with redirect_stdout(sys.stderr):
            policy = kind.from_pretrained(folder.path, config=configuration)
    except OUT_OF_MEMORY as error:
        raise CheckpointError(f"{file}: out of memory on {configuration.device}: {_line(error)}") from error
    except OSError as error:
        raise CheckpointError(_absent_from_hub(folder, named, error)) from error
    except Exception as error:
        if "out of memory" in str(error) or "not enough memory" in str(error):
            raise CheckpointError(f"{file}: out of memory on {configuration.device}: {_line(error)}") from error
        raise CheckpointError(f"{file} does not fit {CONFIG}: {_line(error)}; {MEND}") from error
    _require_same(file, policy, keys)
    return policy.eval().requires_grad_(False)


def make_processors(folder: LeRobotFolder, device: str, tokenizer: str, named: str) -> tuple[Any, Any]:
    """Return the library's pre- and post-processor of a folder.

    Raises:
        CheckpointError: they cannot be made; says what they want from a hub.
    """
    from lerobot.policies.factory import make_pre_post_processors

    importlib.import_module(f"lerobot.policies.{folder.type}.processor_{folder.type}")
    before: dict[str, Any] = {"device_processor": {"device": device}}
    if tokenizer:
        before["tokenizer_processor"] = {"tokenizer_name": tokenizer}
    try:
        return make_pre_post_processors(
            None, str(folder.path), preprocessor_overrides=before, postprocessor_overrides={}
        )
    except OSError as error:
        raise CheckpointError(_absent_from_hub(folder, named, error)) from error
    except Exception as error:
        where = f"{folder.path / PREPROCESSOR} or {POSTPROCESSOR}"
        raise CheckpointError(f"{where}: {_line(error)}; {MEND}") from error


def _absent_from_hub(folder: LeRobotFolder, named: str, error: OSError) -> str:
    return (
        f"{folder.path}: the checkpoint wants {named}, which is not on this machine ({_line(error):.200}); copy it "
        "here and name its folder in model.tokenizer, or fetch it once into HF_HOME"
    )


def _require_finite(file: Path) -> None:
    """Look at every value of a weights file once, a tensor at a time."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (no mapping)
                require_finite(file, name, tensors.get_tensor(name))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is {looks_like(file)}: {error}; {MEND}") from error


def _require_same(file: Path, policy: Any, keys: Keys) -> None:
    """Refuse a policy that is not the file's: the library passes much over without a word."""
    from safetensors import safe_open

    faults, loaded = [], policy.state_dict()
    with safe_open(file, framework="pt") as tensors:
        origins = _origins(policy, list(tensors.keys()), keys)
        for name, value in loaded.items():
            if name not in origins:
                faults.append(f"'{name}' is missing")
            elif not _same(tensors.get_tensor(origins[name]), value):
                faults.append(f"'{name}' is not what the file has")
        used = {origin for name, origin in origins.items() if name in loaded}
        left = sorted(set(tensors.keys()) - used - set(keys.unused))
        faults += [f"'{name}' is not of this model" for name in left]
    if faults:
        more = f" and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        raise CheckpointError(f"{file} does not fit {CONFIG}: {'; '.join(faults[:NAMED])}{more}; {MEND}")


def _origins(policy: Any, names: list[str], keys: Keys) -> dict[str, str]:
    """Return parameter -> the file's tensor that the library's own renaming makes it of, told by sending numbers."""
    numbers = keys.renamed(policy, {name: torch.tensor([[number]]) for number, name in enumerate(names)})
    return {
        name if name.startswith("model.") else f"model.{name}": names[int(number)] for name, number in numbers.items()
    }


def _same(own: Tensor, loaded: Tensor) -> bool:
    """Return whether a parameter is the file's tensor, or that turned over: a loader may do so with a projection."""
    given = own.to(loaded.device, loaded.dtype)
    return torch.equal(given, loaded) or (own.ndim == 2 and torch.equal(given.T, loaded))


def _line(error: BaseException) -> str:
    """Return a library's error as one line, with what it came of."""
    own = f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]
    return f"{own} ({_line(error.__cause__)})" if error.__cause__ is not None else own
