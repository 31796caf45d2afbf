"""``dysl_vla monitor``: thin over :func:`dysl_vla_ros.monitor.run.run_monitor`."""

import argparse
import re

from dysl_vla_ros.errors import SettingError

NAME = re.compile(r"/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*/?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--node", default="/dysl_vla", help="full name of the node, its namespace included")
    parser.add_argument("--once", action="store_true", help="listen for some seconds, print once; 1: nothing was heard")
    parser.add_argument("--plain", action="store_true", help="a line a second, as without a terminal")


def check(arguments: argparse.Namespace) -> None:
    """Refuse what no node can be called."""
    if not NAME.fullmatch(arguments.node) or "__" in arguments.node:
        raise SettingError(
            f"--node {arguments.node!r} is no name of a node; expected letters, digits and single _ between /, as in "
            "/left_arm/dysl_vla"
        )


def run(arguments: argparse.Namespace) -> int:
    """Show the node until Ctrl-C."""
    from dysl_vla_ros.monitor.listener import node_name
    from dysl_vla_ros.monitor.run import run_monitor

    return run_monitor(node_name(arguments.node), arguments.once, arguments.plain)
