"""``dysl_vla describe``: what a checkpoint wants and gives, loaded the way the policy worker loads it."""

import argparse

from dysl_vla_ros.interfaces import PolicyDescription


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("checkpoint", help="folder of the base checkpoint")
    parser.add_argument("--adapters", default="", help="DySL folder (default: the checkpoint's own `dysl`)")


def run(arguments: argparse.Namespace) -> int:
    """Load the checkpoint, every hash checked, and print one line a fact."""
    from dysl_vla_ros.runtime.step import Runtime

    print(text(Runtime.load(arguments.checkpoint, arguments.adapters).description))
    return 0


def text(described: PolicyDescription) -> str:
    """Return the lines: inputs as topics and parameters know them, outputs with units, what may be skipped."""
    action, proprioception = described.action, described.proprioception
    dynamic = described.layers_total - len(described.static_layers)
    blocks = ", ".join(f"{first}-{end - 1}" for first, end in described.blocks) or "none: no DySL folder"
    facts = {
        "family": described.family,
        "model hash": described.model_hash,
        "cameras": f"{', '.join(described.cameras)} (the first one paces inference)",
        "proprioception": ", ".join(map("{} [{}]".format, proprioception.names, proprioception.units))
        + f", frame {proprioception.frame}",
        "actions": f"{action.horizon} a chunk, {action.time_step:g} s each, translation [m]"
        + (", rotation [rad]" if action.has_rotation else "")
        + f", gripper opening 0..1, frame {action.frame}",
        "layers": f"{described.layers_total}, of which {dynamic} may be skipped",
        "blocks": blocks,
        "calibrated": ", ".join(f"{name} {value}" for name, value in described.calibrated.items()) or "nothing",
        "instructions": "; ".join(described.instructions) or "none named",
    }
    return "\n".join(f"{name + ':':16}{value}" for name, value in facts.items())
