"""Which families `dysl_vla export` exports, and why not the others: every family of the registry is named here."""

from pathlib import Path

from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.json_files import read_object
from dysl_vla_ros.policies.checkpoint import MEND, read_config
from dysl_vla_ros.policies.layouts import CONFIG, LAYOUTS, OURS, layout_of

EXPORTED = ("reference",)
WHY_NOT = {
    "smolvla": "the family smolvla is not exported: its expert reads keys and values that each layer of the VLM leaves "
    "behind, and segments hand on hidden states alone",
    "pi0": "the family pi0 is not exported: its expert reads keys and values that each layer of PaliGemma leaves "
    "behind, and segments hand on hidden states alone",
    "pi05": "the family pi05 is not exported: its expert reads keys and values that each layer of PaliGemma leaves "
    "behind, and segments hand on hidden states alone",
    "xvla": "the family xvla is not exported: the same layers run in every flow step and follow the first one's plan, "
    "and segments are made for one pass",
    "openvla": "the family openvla is not exported: graphs are written for each family, and nobody has written and "
    "checked those of its two vision towers and seven billion weights",
}


def family_of(checkpoint: Path) -> str:
    """Return the family that a checkpoint's ``config.json`` names.

    Raises:
        CheckpointError: it names none that is known.
    """
    layout = layout_of(checkpoint)
    config = read_config(checkpoint) if layout == OURS else read_object(checkpoint / CONFIG, MEND)
    name, known = config.get(layout), LAYOUTS[layout]
    if not isinstance(name, str) or name not in known:
        raise CheckpointError(
            f"{checkpoint / CONFIG}: unknown {layout} {name!r:.80}; this version knows {', '.join(known)}"
        )
    return name


def why_not(family: str) -> str:
    """Return one sentence on why a family is not exported, by its name; "" where it is."""
    return "" if family in EXPORTED else WHY_NOT[family]
