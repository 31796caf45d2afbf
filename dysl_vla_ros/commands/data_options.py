"""What ``calibrate``, ``distill`` and ``floors`` learn from: the options that say where it is and how it is read."""

import argparse
import os
from collections.abc import Mapping
from typing import Any

from dysl_vla_ros.commands.recording_options import add_recording_arguments, recording_choice
from dysl_vla_ros.jobs.settings import DataSettings
from dysl_vla_ros.simulation.tasks import TASK_CHOICES

SIMULATED_RUNS = ("seeds", "jobs")  # options of the full-depth runs that are played for the thresholds


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what says how the data is read, and what is played where no bag is there to hold anything out of."""
    parser.add_argument(
        "--tasks", nargs="+", metavar="TASK", help=f"simulator: of {TASK_CHOICES} (default: easy, hard)"
    )
    parser.add_argument("--seeds", type=int, default=2, help="simulator: full-depth runs a task for the thresholds")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="simulator: processes that play the runs")
    add_recording_arguments(parser)


def data_settings(given: Mapping[str, Any]) -> DataSettings:
    """Return how the data is read; ``given``: name of an argument -> its value.

    Raises:
        BagError: ``--topic`` or ``--frame`` has another form.
    """
    return DataSettings(tuple(given["tasks"] or ()), recording_choice(given))
