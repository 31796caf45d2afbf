"""How long a checkpoint may take to load, where the user does not say."""

from pathlib import Path

from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.json_files import read_object
from dysl_vla_ros.settings import ModelSettings

OWN = 60.0  # s
# s: LeRobot's imports alone take 12 s of one core, and 100 s were seen where its 5 GB were not cached; 15 GB of an
# OpenVLA-OFT are read and hashed
FOREIGN = 300.0
OTHERS_KEYS, OWN_KEY = {"type", "model_type"}, "format_version"  # of config.json


def load_limit(model: ModelSettings) -> float:
    """Return the longest time in s for starting, loading and warming up; of a folder of another project's, more."""
    if model.load_timeout:
        return model.load_timeout
    try:
        config = read_object(Path(model.checkpoint) / "config.json", "")
    except (CheckpointError, OSError):
        return OWN  # it is refused soon enough
    return FOREIGN if OTHERS_KEYS & config.keys() and OWN_KEY not in config else OWN
