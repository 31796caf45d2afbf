"""Where data is and how it is read: the options of every verb that reads recordings or learns from data."""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dysl_vla_ros.job_worker.apart import Apart
from dysl_vla_ros.jobs.settings import DataSettings
from dysl_vla_ros.recordings.corrections import HEADER, STAMPS, Corrections, frame_names
from dysl_vla_ros.recordings.source import Choice
from dysl_vla_ros.recordings.topics import remaps
from dysl_vla_ros.simulation.tasks import TASK_CHOICES

OF_APART = ("params", "python", "together")
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


def add_recording_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how bags are read; nothing of it is guessed."""
    options = parser.add_argument_group("recordings", "what a bag does not say by itself")
    options.add_argument(
        "--topic",
        action="append",
        default=[],
        metavar="INPUT:=TOPIC",
        help="which topic serves an input, such as image:=/camera/color/image_raw",
    )
    options.add_argument("--instruction", default="", metavar="TEXT", help="in place of what the bag says")
    options.add_argument(
        "--stamps",
        choices=STAMPS,
        default=HEADER,
        help="stamps of pictures, poses and joints: as recorded in their headers, or when each message was received, "
        "for drivers that left them 0 (default: header)",
    )
    options.add_argument(
        "--frame",
        action="append",
        default=[],
        metavar="FOUND:=WANTED",
        help="what the policy calls the frame that recorded poses and twists are in, such as base_link:=base; the same "
        "frame by another name, nothing is transformed",
    )


def add_apart_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what another project's checkpoint needs: what its files do not say, and where it is computed."""
    options = parser.add_argument_group(
        "another project's checkpoint", "LeRobot's or OpenVLA-OFT's folder, computed in the Python of its library"
    )
    options.add_argument("--params", type=Path, metavar="FILE", help="ROS 2 parameter file: robot.* and model.*")
    options.add_argument(
        "--python", default="", metavar="PATH", help="interpreter to compute in (default: model.python of --params)"
    )
    options.add_argument(
        "--together", type=int, default=4, help="frames of a pass at most; more are quicker and take more memory"
    )


def apart_settings(given: Mapping[str, Any]) -> Apart:
    """Return where and how another project's checkpoint is computed; ``given``: name of an argument -> its value."""
    return Apart(given["params"], given["python"], given["together"])


def recording_choice(given: Mapping[str, Any]) -> Choice:
    """Return how bags are to be read; ``given``: name of an argument -> its value.

    Raises:
        BagError: ``--topic`` or ``--frame`` has another form.
    """
    return Choice(
        remaps(given["topic"]),
        given["instruction"].strip(),
        corrections=Corrections(given["stamps"], frame_names(given["frame"])),
    )


def behind(options: str) -> str:
    """Return options as they stand behind a command, with a space in front; "" where there are none."""
    return f" {options}" if options else ""
