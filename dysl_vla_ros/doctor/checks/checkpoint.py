"""The checkpoint and its DySL folder: every hash, and whether they belong together."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dysl_vla_ros.doctor.examination import Examination
from dysl_vla_ros.doctor.finding import Finding, fail, ok, warn
from dysl_vla_ros.engines import ONNX, TORCH
from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.files import sha256

GET_AGAIN = "name another folder with --checkpoint, or get the files again (with git: `git lfs pull`)"
EXPORT = "run `dysl_vla export CHECKPOINT` where torch is installed, and copy the folder that it names"
REMAKE = "name another DySL folder with --adapters, or make it again with `dysl_vla calibrate` and `dysl_vla distill`"


def base(examination: Examination) -> Iterator[Finding]:
    """Check the base checkpoint's files against their hashes; without torch too."""
    folder = examination.checkpoint
    if foreign := _foreign(folder):
        yield _read_foreign(folder, foreign)
        return
    if fault := hash_fault(folder) or _read_fault(folder):
        yield fail("checkpoint", fault, GET_AGAIN)
        return
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    yield ok(
        "checkpoint", f"{folder}: family {config.get('family')}, {len(config['files'])} files as they were written"
    )


def dysl_folder(examination: Examination) -> Iterator[Finding]:
    """Check the DySL folder's hashes, and that it was made for this base."""
    checkpoint = examination.checkpoint
    folder = Path(examination.adapters) if examination.adapters else checkpoint / "dysl"
    if not examination.adapters and not folder.is_dir():
        yield warn(
            "adapters",
            f"{checkpoint} has no DySL folder: every layer will run",
            "make one with `dysl_vla calibrate` and `dysl_vla distill`, or name one with --adapters",
        )
        return
    if fault := hash_fault(folder):
        yield fail("adapters", fault, REMAKE)
        return
    if foreign := _foreign(checkpoint):
        yield _belongs_to_foreign(checkpoint, foreign, folder)
        return
    if hash_fault(checkpoint) or _read_fault(checkpoint):
        yield warn("adapters", f"{folder}: not compared with a base that is refused", "see the line checkpoint")
        return
    base_hashes = _hashes(checkpoint)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    wanted = _part(config, "base").get("sha256", "")
    if base_hashes and wanted not in list(base_hashes.values()):
        found = ", ".join(f"{name} {digest[:12]}" for name, digest in base_hashes.items())
        yield fail("adapters", f"{folder}: made for the base {str(wanted)[:12]}, this checkpoint has {found}", REMAKE)
        return
    if fault := _load_fault(checkpoint, folder):
        yield fail("adapters", fault, REMAKE)
    else:
        static = _part(config, "partition").get("static")
        count = len(static) if isinstance(static, list) else 0
        yield ok("adapters", f"{folder}: belongs to this base, {count} static layers")


def export(examination: Examination) -> Iterator[Finding]:
    """Check what `dysl_vla export` wrote: it must be of these files. Where none is and torch computes, say nothing."""
    try:
        from dysl_vla_ros.engines.onnx.exported import METADATA, base_of, dysl_of, folder_of, read_export, require_of
        from dysl_vla_ros.policies.exportable import family_of, why_not
        from dysl_vla_ros.policies.reference_config import read_reference
        from dysl_vla_ros.runtime.folder import dysl_beside, read_dysl
    except ImportError:
        return  # numpy is missing, which has a line of its own
    checkpoint = examination.checkpoint
    node = examination.graph.node if examination.graph else None
    told = str(node.parameter("model.runtime", TORCH)) if node else TORCH
    folder = folder_of(checkpoint, examination.adapters, str(node.parameter("model.export", "")) if node else "")
    needed = told == ONNX or (importlib.util.find_spec("torch") is None and not examination.worker_python)
    try:
        if why := why_not(family_of(checkpoint)):
            if needed:
                yield fail(
                    "export", f"{checkpoint}: {why}", "install requirements/torch.txt, set model.runtime to torch"
                )
            return
        if not (folder / METADATA).is_file():
            if needed:
                yield fail("export", f"{folder / METADATA} is missing: ONNX Runtime has nothing to compute", EXPORT)
            return
        files = read_reference(checkpoint)
        own = dysl_beside(checkpoint, examination.adapters)
        dysl = read_dysl(own, files.weights_hash, files.config.layers) if own else None
        said = read_export(folder)
        require_of(said, base_of(files), dysl_of(dysl), folder / METADATA)
    except CheckpointError as error:
        if not (hash_fault(checkpoint) or _read_fault(checkpoint)):  # else the line checkpoint says it
            yield (fail if needed else warn)("export", str(error), EXPORT)
    else:
        graphs = f"{said.weights}, {len(said.files)} files as they were written"
        yield ok("export", f"{folder}: of this checkpoint, {graphs}")


def _belongs_to_foreign(checkpoint: Path, layout: str, folder: Path) -> Finding:
    """Compare a DySL folder with the weights of another project's checkpoint, where one file holds these."""
    from dysl_vla_ros.policies.layouts import LEROBOT
    from dysl_vla_ros.policies.lerobot.folder import WEIGHTS

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    wanted = str(_part(config, "base").get("sha256", ""))
    weights = checkpoint / WEIGHTS
    if layout != LEROBOT or not weights.is_file():
        return warn(
            "adapters",
            f"{folder}: whole, and not compared with {checkpoint}: its weights are several files",
            "configure the node: the worker compares them when it has read them",
        )
    if (found := sha256(weights)) != wanted:
        return fail("adapters", f"{folder}: made for the base {wanted[:12]}, this checkpoint has {found[:12]}", REMAKE)
    return ok("adapters", f"{folder}: belongs to this base")


def hash_fault(folder: Path) -> str:
    """Return why a folder's files are not those that its config.json names, "" where they are."""
    try:
        hashes = _hashes(folder)
    except (OSError, ValueError, RecursionError) as error:
        return f"{folder / 'config.json'} cannot be read: {error}"
    if not hashes:
        return f"{folder / 'config.json'} names no files with their hashes"
    for name, wanted in hashes.items():
        path = folder / name
        if Path(name).name != name:
            return f"{folder / 'config.json'}: file '{name}' must lie in the folder itself; refused"
        if not path.is_file():
            return f"{path} is missing"
        if (found := sha256(path)) != wanted:
            return f"{path} is not the file that was written: its SHA-256 begins {found[:12]}, expected {wanted[:12]}"
    return ""


def _foreign(folder: Path) -> str:
    """Return the layout of another project's folder, "" of ours."""
    try:
        from dysl_vla_ros.policies.layouts import OURS, layout_of
    except ImportError:
        return ""  # numpy is missing, which has a line of its own
    try:
        layout = layout_of(folder)
    except CheckpointError:
        return ""  # told as of any folder
    return "" if layout == OURS else layout


def _read_foreign(folder: Path, layout: str) -> Finding:
    """Check another project's folder as the worker does before anything is loaded; of weights the headers alone."""
    from dysl_vla_ros.policies.layouts import LEROBOT
    from dysl_vla_ros.policies.lerobot.folder import read_folder as read_lerobot
    from dysl_vla_ros.policies.openvla.files import read_folder as read_openvla

    try:
        if layout == LEROBOT:
            found = read_lerobot(folder)
            return ok(
                "checkpoint", f"{folder}: {found.type} of LeRobot's, {len(found.hashes)} files that fit each other"
            )
        shards = read_openvla(folder)
    except CheckpointError as error:
        return fail("checkpoint", str(error), GET_AGAIN)
    sets = ", ".join(shards.statistics)
    return ok("checkpoint", f"{folder}: OpenVLA-OFT, {len(shards.weights)} files of weights, statistics of {sets}")


def _part(config: dict[str, Any], name: str) -> dict[str, Any]:
    part = config.get(name)
    return part if isinstance(part, dict) else {}


def _hashes(folder: Path) -> dict[str, str]:
    path = folder / "config.json"
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise OSError("it is no file")
    config = json.loads(path.read_text(encoding="utf-8"))
    files = config.get("files") if isinstance(config, dict) else None
    return {str(name): str(digest) for name, digest in files.items()} if isinstance(files, dict) else {}


def _read_fault(folder: Path) -> str:
    """Return what the worker would refuse before it reads any weight; "" where torch is not here to import it."""
    try:
        from dysl_vla_ros.policies.checkpoint import read_checkpoint
    except ImportError:
        return ""
    try:
        read_checkpoint(folder)
    except CheckpointError as error:
        return str(error)
    return ""


def _load_fault(checkpoint: Path, folder: Path) -> str:
    """Load both as the worker does and return what it would refuse; without torch what their files say alone."""
    try:
        from dysl_vla_ros.policies.reference_config import read_reference
        from dysl_vla_ros.runtime.folder import read_dysl
        from dysl_vla_ros.runtime.step import Runtime
    except ImportError:
        return ""
    try:
        if importlib.util.find_spec("torch") is None:
            files = read_reference(checkpoint)
            read_dysl(folder, files.weights_hash, files.config.layers)
        else:
            Runtime.load(str(checkpoint), str(folder))
    except CheckpointError as error:
        return str(error)
    return ""
