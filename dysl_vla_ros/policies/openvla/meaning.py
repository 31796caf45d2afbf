"""What goes in and out of an OpenVLA-OFT policy: its files say sizes and statistics, the user says all else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dysl_vla_ros.errors import ContractError
from dysl_vla_ros.interfaces import END_EFFECTOR_DELTA, ActionSpec, ProprioceptionSpec
from dysl_vla_ros.policies import contract_meaning
from dysl_vla_ros.policies.openvla.files import OpenVlaFolder
from dysl_vla_ros.policies.openvla.statistics import BOUNDS, STATISTICS, Statistics, choose_statistics
from dysl_vla_ros.policy_options import PolicyOptions

# Its own code tells pictures apart by these names and gives them to the model in this order.
CAMERAS = (
    ("full_image",),
    ("full_image", "wrist_image"),
    ("full_image", "left_wrist_image", "right_wrist_image"),
)
TINY = 1e-8  # added to every range, as in training


@dataclass(frozen=True)
class Meaning:
    """What goes in and out."""

    cameras: tuple[str, ...]  # in the model's order
    proprioception: ProprioceptionSpec
    action: ActionSpec
    state: Statistics
    statistics_key: str


@dataclass(frozen=True)
class Features:
    """What the contract is held against, see :class:`~dysl_vla_ros.policies.contract_meaning.Features`."""

    folder: OpenVlaFolder
    cameras: tuple[str, ...]
    key: str
    statistics: Statistics
    type: str = "openvla_oft"

    @property
    def state_size(self) -> int:
        """Values of proprioception."""
        return self.folder.proprioception

    @property
    def action_size(self) -> int:
        """Values of an action."""
        return self.folder.dimensions

    def where(self, part: str) -> str:
        """Return which file says it, and under which key."""
        if part == "cameras":
            return f"a model of {len(self.cameras)} pictures"
        return f"{self.folder.projector}: fc1.weight" if part == "state" else f"{self.folder.head}: model.fc2.weight"

    @property
    def implied(self) -> Mapping[str, Any]:
        """What the files say of the actions' meaning, as fields of a contract: by their number."""
        return {"action_kind": END_EFFECTOR_DELTA} if self.action_size in (4, 7) else {}

    def contradictions(self, action: ActionSpec) -> list[str]:
        """Return where what the user says of the actions is not what the files say: these say nothing for certain."""
        return []

    def center_and_scale(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return what ``normalised = (action - center) / scale`` is made with."""
        own = self.statistics
        ranges = zip(own.low, own.high, own.mask, strict=True)
        pairs = [(low + 0.5 * (high - low + TINY), 0.5 * (high - low + TINY)) if on else (0.0, 1.0)
                 for low, high, on in ranges]  # fmt: skip
        return tuple(center for center, _ in pairs), tuple(scale for _, scale in pairs)


def meaning_of(folder: OpenVlaFolder, options: PolicyOptions) -> Meaning:
    """Put folder and options together.

    Raises:
        ContractError: something that no file says is not said, or does not fit; all of it is named, with the block of a
            parameter file to fill in.
        CheckpointError: the statistics that are named cannot serve.
    """
    faults = []
    if not options.horizon:
        faults.append(
            "model.horizon is not said, and no file of the checkpoint says it: actions of a chunk, as trained"
        )
    if not options.bounds:
        faults.append(
            f"model.bounds is not said, and no file of the checkpoint says it: {' or '.join(BOUNDS)}, as trained "
            f"(both stand in {folder.path / STATISTICS})"
        )
    bounds = options.bounds or next(iter(BOUNDS))  # where none is said, that is among the faults
    source, key = folder.path / STATISTICS, options.statistics_key
    key, action, state = choose_statistics(folder.statistics, source, folder.sizes, key, bounds)
    cameras, fault = _cameras(tuple(options.robot.cameras))
    faults += [fault] if fault else []
    features = Features(folder, cameras, key, action)
    try:
        meaning = contract_meaning.meaning_of(features, options.robot, max(options.horizon, 1))
    except ContractError as error:
        raise ContractError("; ".join([*faults, str(error)]), error.draft) from error
    if faults:
        raise ContractError("; ".join(faults), contract_meaning.contract_draft(features, options.robot, 1))
    return Meaning(cameras, meaning.proprioception, meaning.action, state, key)


def _cameras(said: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Return the cameras in the model's order, and what is wrong with those that are said."""
    for known in CAMERAS:
        if set(said) == set(known):
            return known, ""
    sets = "; ".join(", ".join(known) for known in CAMERAS)
    nearest = min(CAMERAS, key=lambda known: (abs(len(known) - max(len(said), 2)), known))
    found = ", ".join(said) or "nothing"
    return nearest, (
        f"robot.cameras has {found}, expected the pictures that the model was trained with, one of: {sets}; a "
        "camera is never replaced"
    )
