"""What ``dysl_vla inspect`` prints of a folder of LeRobot's."""

from collections.abc import Mapping
from typing import Any


def lines(found: Mapping[str, Any]) -> list[str]:
    """Return an explanation (see ``policies.lerobot.explanation``) as lines of text."""
    gigabytes = {name: f"{size / 1e9:.2f} GB in {name}" for name, size in found["memory_bytes"].items()}
    action, state = found["action"], found["state"]
    told = {
        "family": f"{found['family']} of LeRobot's",
        "base weights": found["weights_hash"],
        "parameters": f"{found['parameters']:,} ({', '.join(f'{k} {v:,}' for k, v in found['parts'].items())})",
        "memory": ", ".join(gigabytes.values()),
        "layers": f"{found['layers']['total']}, of which {found['layers']['skippable']} may be skipped: all but the "
        "first and the last",
        "cameras": ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in found["cameras"].items()),
        "state": f"{state['values']} values, normalised by {state['normalised']}",
        "action": f"{action['values']} values, {action['horizon']} a chunk, normalised by {action['normalised']}",
        "from a hub": f"{found['hub']}; a local copy is named in model.tokenizer",
    }
    width = max(map(len, told)) + 2
    text = [found["checkpoint"], *(f"  {name:<{width}}{value}" for name, value in told.items())]
    for stream in found["streams"]:
        times = f"{stream['passes']} flow steps a chunk" if stream["passes"] > 1 else "once a chunk"
        shape = f"{stream['layers']} layers of width {stream['width']}, {times}"
        text.append(f"  {'stream ' + stream['name']:<{width}}{shape}")
    text += [
        "",
        "what no file says and a parameter file must: names, units, kind, time step",
        "",
        found["contract"],
    ]
    if found["refused"]:
        text += ["it would be refused here:", *(f"  {why}" for why in found["refused"])]
    return text
