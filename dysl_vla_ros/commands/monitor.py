"""``dysl_vla monitor``: thin over :func:`dysl_vla_ros.monitor.run.run_monitor`."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--node", default="/dysl_vla", help="full name of the node, its namespace included")
    parser.add_argument("--once", action="store_true", help="listen for some seconds, print once; 1: nothing was heard")
    parser.add_argument("--plain", action="store_true", help="a line a second, as without a terminal")


def run(arguments: argparse.Namespace) -> int:
    """Show the node until Ctrl-C."""
    from dysl_vla_ros.monitor.listener import node_name
    from dysl_vla_ros.monitor.run import run_monitor

    return run_monitor(node_name(arguments.node), arguments.once, arguments.plain)
