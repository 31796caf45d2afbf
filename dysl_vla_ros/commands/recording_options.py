"""How recordings are read: the options that every command with bags has, in one place."""

import argparse
import shlex
from typing import TYPE_CHECKING, Any

from dysl_vla_ros.recordings.corrections import HEADER, STAMPS, Corrections, frame_names
from dysl_vla_ros.recordings.topics import remaps

if TYPE_CHECKING:
    from dysl_vla_ros.recordings.source import Choice


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


def corrections(arguments: argparse.Namespace) -> Corrections:
    """Return what was said of stamps and frames.

    Raises:
        BagError: ``--frame`` has another form.
    """
    return Corrections(arguments.stamps, frame_names(arguments.frame))


def recording_choice(arguments: argparse.Namespace, policy: Any) -> "Choice":
    """Return how bags are to be read for a policy.

    Raises:
        BagError: ``--topic`` or ``--frame`` has another form.
    """
    from dysl_vla_ros.recordings.instructions import instruction_judge
    from dysl_vla_ros.recordings.source import Choice

    return Choice(
        remaps(arguments.topic),
        arguments.instruction.strip(),
        corrections=corrections(arguments),
        unreadable=instruction_judge(policy),
    )


def recording_words(arguments: argparse.Namespace) -> str:
    """Return the options that were given, as they are typed, with a space in front; "" where there are none."""
    words = [word for topic in arguments.topic for word in ("--topic", topic)]
    words += ["--instruction", arguments.instruction] if arguments.instruction.strip() else []
    words += ["--stamps", arguments.stamps] if arguments.stamps != HEADER else []
    words += [word for frame in arguments.frame for word in ("--frame", frame)]
    return f" {shlex.join(words)}" if words else ""
