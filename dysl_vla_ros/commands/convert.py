"""``dysl_vla convert``: thin over :func:`dysl_vla_ros.policies.openvla.convert.convert_folder`."""

import argparse
from pathlib import Path

from dysl_vla_ros.policies.openvla.files import read_config

EPILOGUE = """\
OpenVLA-OFT publishes its action head and its projector of proprioception as pickles (action_head--*.pt,
proprio_projector--*.pt). A pickle can run any code when it is opened, so neither the node nor any other command opens
one. This one reads both with torch's loader for weights alone, takes the 'module.' off their keys, and writes
action_head--*.safetensors and proprio_projector--*.safetensors beside them. The pickles stay as they are. What holds
anything but exactly these tensors is refused, and then nothing is written.

from a download to a folder that runs:
  dysl_vla convert FOLDER       once
  dysl_vla inspect FOLDER       what it is, and what a parameter file must say of it
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("folder", type=Path, help="an OpenVLA-OFT checkpoint as it was downloaded or trained")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOGUE


def check(arguments: argparse.Namespace) -> None:
    """Refuse a folder that is none of OpenVLA-OFT's."""
    read_config(arguments.folder)


def run(arguments: argparse.Namespace) -> int:
    """Convert, and say what was written."""
    from dysl_vla_ros.policies.openvla.convert import convert_folder

    written = convert_folder(arguments.folder)
    for path in written:
        print(f"wrote {path}")
    if not written:
        print(f"nothing to do: {arguments.folder} has its head and its projector as safetensors")
    return 0
