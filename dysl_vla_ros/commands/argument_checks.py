"""Refusals that the verbs share, and options that do nothing. No torch, no simulator: both are said at once.

Each refusal looks at what costs nothing to look at; what needs every byte (hashes, damage, whether two folders belong
together) is refused where it is loaded.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dysl_vla_ros.errors import BagError, DataError, SettingError
from dysl_vla_ros.interfaces import END_EFFECTOR_DELTA, KINDS
from dysl_vla_ros.job_worker.apart import require_params
from dysl_vla_ros.jobs.learning_data import DataSettings, kind_of
from dysl_vla_ros.params_file import read_params_file
from dysl_vla_ros.policies.checkpoint import read_config
from dysl_vla_ros.policies.layouts import LEROBOT, OPENVLA, OURS, layout_of
from dysl_vla_ros.policies.openvla.files import read_folder
from dysl_vla_ros.settings import ModelSettings, build
from dysl_vla_ros.simulation.tasks import require_learnable, tasks_named


def require_policy(checkpoint: Path, adapters: str | Path | None = None) -> None:
    """Refuse folders that are no checkpoint or no DySL folder.

    Args:
        checkpoint: folder of the base.
        adapters: DySL folder; "" or None: none was named.

    Raises:
        CheckpointError: one is missing, or its ``config.json`` cannot be read.
    """
    if layout_of(checkpoint) == OPENVLA:
        read_folder(checkpoint)
    else:
        read_config(checkpoint)
    if adapters:
        require_dysl(Path(adapters))


def require_dysl(folder: Path) -> None:
    """Refuse what is no DySL folder.

    Raises:
        CheckpointError: it is missing, or its ``config.json`` cannot be read.
    """
    read_config(folder, "DySL folder")


def require_computable(checkpoint: Path, given: Mapping[str, Any]) -> bool:
    """Refuse a checkpoint that cannot be learned from; return whether it is another project's, computed by a worker.

    Args:
        checkpoint: folder of the base.
        given: name of an argument -> its value.

    Raises:
        CheckpointError: the folder cannot be read.
        DataError: nothing says what another project's files do not.
        SettingError: the parameter file cannot be read.
    """
    if given["params"]:
        read_params_file(given["params"])
    layout = layout_of(checkpoint)
    if layout == OURS:
        require_policy(checkpoint)
        return False
    if layout == LEROBOT:
        from dysl_vla_ros.policies.lerobot.folder import read_folder as read_lerobot

        read_lerobot(checkpoint)
    else:
        require_policy(checkpoint)
    require_params(checkpoint, given["params"])
    require_numbers(given, **({"together": 1} if "together" in given else {}))
    return True


def require_simulated(checkpoint: Path) -> None:
    """Refuse a policy that the simulator's arm cannot play, before anything is loaded.

    Raises:
        SettingError: its actions are of joints, or absolute poses.
    """
    model = read_config(checkpoint).get("model") if layout_of(checkpoint) == OURS else None
    action = model.get("action") if isinstance(model, dict) else None
    kind = action.get("kind", END_EFFECTOR_DELTA) if isinstance(action, dict) else END_EFFECTOR_DELTA
    if kind in KINDS and kind != END_EFFECTOR_DELTA:
        raise SettingError(
            f"{checkpoint} gives actions of the kind {kind}, and the simulator's arm takes a twist of its end "
            f"effector; measure it on recordings: `dysl_vla replay BAG --checkpoint {checkpoint}` (docs/joint-arms.md)"
        )


def require_bag(path: Path) -> None:
    """Refuse what holds no recording.

    Raises:
        BagError: it is not there, or is no bag.
    """
    from dysl_vla_ros.bags.folder import find_files

    find_files(path)


def require_there(path: Path, option: str, what: str) -> None:
    """Refuse a path of which nothing more is known yet.

    Raises:
        BagError: nothing is there.
    """
    if not path.exists():
        raise BagError(f"{option} {path}: no such file or folder; name {what}")


def require_data(paths: Sequence[Path], settings: DataSettings) -> None:
    """Refuse what neither demonstrations nor bags are, and settings that do not go with them.

    Raises:
        DataError: neither, a mixture, or an unknown task.
    """
    require_learnable(tasks_named(settings.tasks))
    kind_of(paths, settings)


def require_device(name: str) -> None:
    """Refuse what is no name of a device; whether it is there only torch can say.

    Raises:
        DataError: it is none.
    """
    try:
        build(ModelSettings, {"device": name})
    except SettingError as error:
        raise DataError(f"--device{str(error).removeprefix('model.device')}") from error


def require_numbers(given: Mapping[str, Any], **least: float) -> None:
    """Refuse numbers below the least that makes sense, all at once.

    Args:
        given: name of an argument -> its value.
        least: name of an argument -> its least value.

    Raises:
        DataError: names every option that is below it, or not finite.
    """
    faults = [
        f"--{name.replace('_', '-')} must be at least {low:g}, not {given[name]}"
        for name, low in least.items()
        if not low <= given[name] < float("inf")
    ]
    if faults:
        raise DataError("; ".join(faults))


def idle_options(
    given: Mapping[str, Any], add_arguments: Callable[[argparse.ArgumentParser], None], names: Sequence[str]
) -> list[str]:
    """Return those of some options that were given another value than their default, as they are typed.

    Args:
        given: name of an argument -> its value.
        add_arguments: the verb's, which declared them.
        names: of the options, as in ``given``.
    """
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    return [f"--{name.replace('_', '-')}" for name in names if given[name] != parser.get_default(name)]


def warn_of_idle_options(
    given: Mapping[str, Any],
    add_arguments: Callable[[argparse.ArgumentParser], None],
    *groups: tuple[bool, Sequence[str], str],
) -> None:
    """Say which options do nothing.

    Args:
        given: name of an argument -> its value.
        add_arguments: the verb's.
        groups: whether this holds for the command line, the options that then do nothing, and why.
    """
    for holds, names, why in groups:
        if holds and (found := idle_options(given, add_arguments, names)):
            print(f"warning: without effect: {', '.join(found)}: {why}", file=sys.stderr)
