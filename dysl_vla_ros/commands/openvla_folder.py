"""What ``dysl_vla inspect`` prints of a folder of OpenVLA-OFT's."""

from collections.abc import Mapping
from typing import Any

from dysl_vla_ros.commands.tables import listing, size_in_words, table_of


def show_openvla(found: Mapping[str, Any]) -> None:
    """Print what a foreign checkpoint's files say, and what they lack."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    layers, inputs = found["layers"], found["inputs"]
    about = {
        "family": f"{found['family']}, explained by its files alone: nothing was loaded",
        "layers": f"{layers['total']} of width {layers['width']}; may be skipped: {layers['skipped']}",
        "streams": ", ".join(layers["streams"]),
        "cameras": "one of: " + "; ".join(", ".join(names) for names in inputs["cameras"]),
        "proprioception": f"{inputs['proprioception']} values",
        "instruction": inputs["instruction"],
        "action": f"{found['action_values']} values",
        "data sets": ", ".join(found["statistics"]),
    }
    console.print(listing(found["checkpoint"], about))
    weights = table_of("weights", "part", "parameters", "share")
    for name, count in found["parts"].items():
        weights.add_row(name, f"{count:,}", f"{100 * count / found['parameters']:.1f} %")
    memory = ", ".join(f"{size_in_words(size)} in {name}" for name, size in found["memory_bytes"].items())
    weights.caption = f"{memory}; {size_in_words(found['disk_bytes'])} on disk"
    console.print(weights)
    console.print(listing("refused without these parameters, which no file says", found["missing"]))
    console.print("to be filled in, and given with --params or to the node with params_file:=\n")
    console.print(found["contract"], soft_wrap=True)
