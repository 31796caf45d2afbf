"""The parameters as a Markdown page: ``python -m dysl_vla_ros.settings_table > docs/parameters.md``."""

import dataclasses
import json

from dysl_vla_ros.robot_contract import CAMERAS, ENTRIES, TEXT
from dysl_vla_ros.settings import GROUPS

HEAD = """\
# Parameters of the node `dysl_vla`

Made from `dysl_vla_ros/settings.py` by `python -m dysl_vla_ros.settings_table`; a test holds the two equal.

`model.*` is read when the node is configured (`deactivate` and `cleanup` first). Everything else may be set while the
node runs and acts on the next step; a set of several is taken whole or not at all, and a refusal says why. 0.0, or an
empty choice, stands for "as calibrated" where the meaning says so: the DySL folder's own value is used, and shown in
`/diagnostics`. Write `1.0`, not `1`, where a number has a point.

A parameter file counts for the nodes that its sections name: `/**/dysl_vla:` in every namespace, `/left/dysl_vla:`, as
`ros2 param dump /left/dysl_vla` writes it, in that one alone. A launch whose node no section fits is refused, and so is
such a file by `dysl_vla evaluate`, `replay` and `tune`; a node that is started by itself warns. An argument of a launch
file that is not given overrides nothing of `params_file`, `use_sim_time` included; only `replay.launch.py` is on the
time of `/clock` whatever the file says.
"""
ROBOT = """\
## robot and safety.joint

What the user says of the arm; the node reads it when it is configured ([joint-arms.md](joint-arms.md),
[pose-arms.md](pose-arms.md)). An empty list or text, and 0.0, say nothing.
"""


def table() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for group in GROUPS:
        parts.append(f"## {group.group}\n\n{(group.__doc__ or '').strip()}\n")
        parts.append("| parameter | default | range | unit | meaning |\n|---|---|---|---|---|")
        for field in dataclasses.fields(group):
            low, high = field.metadata["low"], field.metadata["high"]
            span = "" if low is None else f"{low:g} to {high:g}"
            span = span or ", ".join(f'`"{choice}"`' for choice in field.metadata["choices"])
            default = f'"{field.default}"' if isinstance(field.default, str) else str(field.default).lower()
            unit, meaning = field.metadata["unit"], field.metadata["meaning"]
            parts.append(f"| `{group.group}.{field.name}` | `{default}` | {span} | {unit} | {meaning} |")
        parts.append("")
    parts.append(ROBOT)
    parts.append("| parameter | default | what it is | meaning |\n|---|---|---|---|")
    parts.append(f"| `{CAMERAS}<name>` | | {TEXT} | topic of this camera of the policy |")
    parts += [f"| `{name}` | `{json.dumps(own)}` | {kind} | {said} |" for name, (kind, _, own, said) in ENTRIES.items()]
    parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    print(table(), end="")
