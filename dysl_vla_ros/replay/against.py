"""``--against OTHER``: a checkpoint, a DySL folder, a parameter file, or an earlier ``replay.json``, side by side.

The first three are replayed on the same moments. An earlier replay is compared where the stamps of frames agree.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.control.chunk_time import require_playable
from dysl_vla_ros.errors import BagError
from dysl_vla_ros.interfaces import PolicyDescription
from dysl_vla_ros.policies.checkpoint import read_config
from dysl_vla_ros.policies.layouts import OURS, layout_of
from dysl_vla_ros.records.deviation import figures
from dysl_vla_ros.replay.parameters import ReplayParameters, read_parameters
from dysl_vla_ros.replay.policies import PolicySource, ReplayedPolicy
from dysl_vla_ros.replay.results import FORMAT_VERSION, layer_figures, timing_figures
from dysl_vla_ros.replay.run import FULL, OTHER, OTHER_FULL, SKIPPING, Replay, Side
from dysl_vla_ros.replay.tracks import Track

KINDS = "a checkpoint folder, a DySL folder, a ROS parameter file (.yaml) or an earlier replay.json"


@dataclass
class Against:
    """What a replay is compared with.

    Attributes:
        kind: checkpoint, DySL folder, parameter file or earlier replay.
        name: as the user gave it.
        sides: to be replayed as well.
        earlier: full depth's actions (k, A) and stamps (k,) of an earlier replay, and its skipping as a track.
    """

    kind: str
    name: str
    sides: list[Side]
    earlier: "Earlier | None" = None


@dataclass
class Earlier:
    """What an earlier replay found."""

    stamps: NDArray[np.int64]  # (k,) ns
    full: NDArray[np.float32]  # (k, A)
    track: Track


def load_against(
    path: Path,
    source: PolicySource,
    policy: ReplayedPolicy,
    description: PolicyDescription,
    parameters: ReplayParameters,
) -> Against:
    """Find out what OTHER is, and load it.

    Args:
        path: OTHER.
        source: opens another checkpoint.
        policy: this replay's; shared where OTHER is none of its own.
        description: of this replay's policy.
        parameters: this replay's.

    Raises:
        BagError: it is nothing that can be compared with, or wants other inputs.
        CheckpointError, SettingError, WorkerError: it is damaged or does not belong to this checkpoint.
    """
    name = str(path)
    if path.is_dir():
        if layout_of(path) != OURS or "family" in read_config(path, "--against"):
            other = source.open(name)
            full, skipping = other.side(), other.side()
            require_same_inputs(description, full.description, name)
            sides = [Side(OTHER_FULL, full, parameters.full_depth), Side(OTHER, skipping, parameters.runtime)]
            return Against("checkpoint", name, sides)
        return Against("DySL folder", name, [Side(OTHER, policy.side(name), parameters.runtime)])
    if path.suffix in (".yaml", ".yml"):
        other_parameters = read_parameters(path)
        require_playable(other_parameters.control, description.action)
        return Against("parameter file", name, [Side(OTHER, policy.side(), other_parameters.runtime)])
    if path.suffix == ".json" and path.is_file():
        return Against("earlier replay", name, [], read_earlier(path, description))
    raise BagError(f"--against {path}: no such thing; expected {KINDS}")


def require_same_inputs(one: PolicyDescription, other: PolicyDescription, name: str) -> None:
    """Refuse a policy that could not be given the same moments.

    Raises:
        BagError: names what differs.
    """
    pairs = {
        "cameras": (one.cameras, other.cameras),
        "proprioception": (one.proprioception.names, other.proprioception.names),
        "kind of action": (one.action.kind, other.action.kind),
        "values of an action": (one.action.dimensions, other.action.dimensions),
    }
    faults = [f"{what} {theirs}, this one {ours}" for what, (ours, theirs) in pairs.items() if ours != theirs]
    if faults:
        raise BagError(f"--against {name} cannot be compared moment by moment: it has {'; '.join(faults)}")


def read_earlier(path: Path, description: PolicyDescription) -> Earlier:
    """Read the moments of an earlier ``replay.json``.

    Raises:
        BagError: it is no replay, of another format, or of a policy with other actions.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["format_version"]
        if version != FORMAT_VERSION:
            raise BagError(f"{path}: format_version is {version!r}, this version reads {FORMAT_VERSION}; replay again")
        moments, timings = content["moments"], content["timings"]["moments"]
        policy = content["policy"]
        blocks = tuple((int(first), int(end)) for first, end in policy["blocks"])
        its_own = dataclasses.replace(description, blocks=blocks, layers_total=int(policy["layers_total"]))
        track = Track(OTHER, its_own)
        for moment, milliseconds in zip(moments, timings, strict=True):
            track.append_entry(moment[SKIPPING], milliseconds[SKIPPING])
        stamps = np.array([moment["stamp"] for moment in moments], np.int64)
        full = np.array([moment[FULL]["action"] for moment in moments], np.float32)
    except OSError as error:
        raise BagError(f"--against {path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise BagError(f"--against {path} is no replay.json of this version: {error!r}; replay again") from error
    if full.shape[1:] != (description.action.dimensions,):
        raise BagError(
            f"--against {path}: its actions are {full.shape[1:]}, this policy's {description.action.dimensions}"
        )
    return Earlier(stamps, full, track)


@dataclass(frozen=True)
class Comparison:
    """This replay beside the other, on the moments that both have."""

    rows: NDArray[np.int64]  # (k,) of this replay
    other_rows: NDArray[np.int64]  # (k,) of ``track``
    track: Track
    full: NDArray[np.float32]  # (k, A) the other's full depth


def compare(replay: Replay, against: Against) -> Comparison:
    """Pair the moments.

    Raises:
        BagError: no frame of this replay is in the earlier one.
    """
    if against.earlier is None:
        rows = np.arange(len(replay.moments))
        full = OTHER_FULL if OTHER_FULL in replay.sides else FULL
        return Comparison(rows, rows, replay.track(OTHER), replay.track(full).columns["action"])
    earlier = against.earlier
    _, rows, other_rows = np.intersect1d(replay.moments["stamp"], earlier.stamps, return_indices=True)
    if not rows.size:
        raise BagError(
            f"--against {against.name}: none of its {len(earlier.stamps)} frames has the stamp of one of these "
            f"{len(replay.moments)}: it was made from another recording"
        )
    return Comparison(rows, other_rows, earlier.track, earlier.full[other_rows])


def comparison_figures(replay: Replay, against: Against, pair: Comparison, phase: NDArray[Any]) -> dict[str, Any]:
    """Return the figures of both sides on the moments that both have, and of what lies between them."""
    this = replay.track(SKIPPING)
    own, own_full = this.columns["action"][pair.rows], replay.track(FULL).columns["action"][pair.rows]
    other = pair.track.columns["action"][pair.other_rows]
    chosen, measured = phase[pair.rows], replay.measures
    return {
        "kind": against.kind,
        "name": against.name,
        "moments": len(pair.rows),
        "this": {"layers": layer_figures(this, pair.rows), "deviation": figures(own, own_full, chosen, measured)},
        "other": {
            "layers": layer_figures(pair.track, pair.other_rows),
            "deviation": figures(other, pair.full, chosen, measured),
        },
        "between": {
            "skipping": figures(other, own, chosen, measured),
            "full": figures(pair.full, own_full, chosen, measured),
        },
    }


def comparison_timings(replay: Replay, pair: Comparison) -> dict[str, Any]:
    """Return the milliseconds of both sides on the moments that both have."""
    return {
        "this": timing_figures(replay.track(SKIPPING), pair.rows),
        "other": timing_figures(pair.track, pair.other_rows),
    }
