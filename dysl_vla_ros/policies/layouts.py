"""Whose layout a checkpoint's folder has, and which family loads it. Imports no torch: verbs ask at once."""

from pathlib import Path

from dysl_vla_ros.json_files import read_object
from dysl_vla_ros.policies.checkpoint import MEND

CONFIG = "config.json"
OURS, LEROBOT, OPENVLA = "family", "type", "model_type"
# layout, told by a key of config.json -> its values -> what loads such a folder
LAYOUTS = {
    OURS: {"reference": "dysl_vla_ros.policies.reference:ReferencePolicy"},
    LEROBOT: {
        "smolvla": "dysl_vla_ros.policies.smolvla:SmolVla",
        "pi0": "dysl_vla_ros.policies.pi0:Pi0",
        "pi05": "dysl_vla_ros.policies.pi0:Pi05",
        "xvla": "dysl_vla_ros.policies.xvla:XVla",
    },
    OPENVLA: {"openvla": "dysl_vla_ros.policies.openvla_oft:OpenVlaOftPolicy"},
}


def layout_of(checkpoint: Path) -> str:
    """Return the key of ``config.json`` that says whose layout it is; ours where none does.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        config = read_object(checkpoint / CONFIG, MEND)
    except (FileNotFoundError, NotADirectoryError):
        return OURS  # refused with what is there
    return OURS if "format_version" in config else next((key for key in LAYOUTS if key in config), OURS)
