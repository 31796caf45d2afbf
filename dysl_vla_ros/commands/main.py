"""``dysl_vla``: finds the verb's module, lets it declare its arguments, runs it, turns errors into one line.

A verb is a module with ``add_arguments(parser)``, ``check(arguments)`` and ``run(arguments) -> int`` (the exit code).
Only the module of the verb that was asked for is imported, so that ``dysl_vla --help`` needs neither torch nor ROS.
``check`` refuses arguments without importing torch or the simulator, which take many seconds: what is wrong with a
command line is said at once.
"""

import argparse
import contextlib
import importlib
import importlib.util
import io
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from dysl_vla_ros import __version__
from dysl_vla_ros.commands import INSTALL_TORCH
from dysl_vla_ros.errors import DyslVlaError
from dysl_vla_ros.files import DISK_FAULTS, FREE_SPACE
from dysl_vla_ros.ros_environment import environment_fault

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # as a shell reports a program that SIGINT ended


class Verb(NamedTuple):
    """One subcommand: the module that implements it and what it does, in one line."""

    module: str
    help: str
    needs: str = ""  # a module of ROS or of requirements/{simulation,torch}.txt without which the verb cannot run


# In the order in which somebody who starts from nothing would use them.
VERBS = {
    "demo": Verb("dysl_vla_ros.commands.demo", "watch the shipped policy move a simulated arm through ROS 2", "rclpy"),
    "demonstrations": Verb("dysl_vla_ros.commands.demonstrations", "record scripted experts in simulation", "mujoco"),
    "train": Verb(
        "dysl_vla_ros.commands.train", "train the reference policy on demonstrations, at full depth", "torch"
    ),
    "calibrate": Verb("dysl_vla_ros.commands.calibrate", "choose static layers and guidance thresholds", "torch"),
    "floors": Verb(
        "dysl_vla_ros.commands.floors", "say what is lost where every block is skipped, for many choices", "torch"
    ),
    "distill": Verb(
        "dysl_vla_ros.commands.distill", "train adapters and controllers that skip the other layers", "torch"
    ),
    "tune": Verb("dysl_vla_ros.commands.tune", "find thresholds and guidance for a machine, on recordings"),
    "evaluate": Verb("dysl_vla_ros.commands.evaluate", "measure success, depth and time in simulation", "mujoco"),
    "replay": Verb("dysl_vla_ros.commands.replay", "prove on a recording what skipping costs and saves"),
    "monitor": Verb("dysl_vla_ros.commands.monitor", "watch a running node live: layers, latency, stops", "rclpy"),
    "doctor": Verb("dysl_vla_ros.commands.doctor", "check machine, transport, cameras, clocks and files, with the fix"),
    "export": Verb("dysl_vla_ros.commands.export", "write a checkpoint as graphs for ONNX Runtime", "torch"),
    "convert": Verb(
        "dysl_vla_ros.commands.convert", "make safetensors of the pickles in an OpenVLA-OFT folder, once", "torch"
    ),
    "inspect": Verb(
        "dysl_vla_ros.commands.inspect", "say what a checkpoint is, and how long a step takes here", "torch"
    ),
}

FIXES = {
    "rclpy": "source the setup.bash of your ROS 2 and of this package, or run `make demo` in its folder",
    "torch": INSTALL_TORCH,
    "mujoco": "it comes with pip install 'dysl_vla_ros[simulation]', or `make setup` in the package's folder",
}

# Packages of requirements/torch.txt, by their modules: what a verb meets that it needs for some arguments alone.
OF_TORCH = ("torch", "transformers", "safetensors", "accelerate", "optuna", "simplejpeg", "onnx")

DESCRIPTION = """\
Vision-language-action policies that skip layers when the moment allows it (DySL-VLA), for ROS 2."""

EPILOGUE = """\
from nothing to a policy that skips layers, in this order:
  dysl_vla demonstrations --help     the data: scripted experts in the simulator
  dysl_vla train --help              the policy at full depth: a checkpoint folder
  dysl_vla calibrate --help          which layers stay, which may be skipped
  dysl_vla floors --help             (if you like) how good static layers alone are, for many choices
  dysl_vla distill --help            adapters and controllers: a `dysl` folder beside the checkpoint
  dysl_vla tune --help               thresholds and guidance for this machine, a parameter file
  dysl_vla evaluate --help           success and depth, full and skipping side by side

see it first:  dysl_vla demo
what is wrong? dysl_vla doctor --live
on a robot:    ros2 launch dysl_vla_ros dysl_vla.launch.py checkpoint:=FOLDER image:=/camera/color/image_raw
               dysl_vla monitor

exit codes: 0 done; 1 ran, but failed its criteria; 2 what you gave is wrong (one line says what); 130 interrupted"""


class _ShowDefaults(argparse.ArgumentDefaultsHelpFormatter):
    """Adds an option's default to its help, unless the help says it or there is nothing to say."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        says_it = "default" in (action.help or "") or action.default in (None, "", False, [])
        return action.help if says_it else super()._get_help_string(action)


def available_verbs() -> dict[str, Verb]:
    """Return the verbs whose modules are installed (a machine without ROS lacks those that need it)."""
    return {name: verb for name, verb in VERBS.items() if importlib.util.find_spec(verb.module) is not None}


def build_parser(verbs: dict[str, Verb], chosen: str | None = None) -> argparse.ArgumentParser:
    """Make the parser; only the ``chosen`` verb's module is imported and declares its arguments."""
    parser = argparse.ArgumentParser(
        prog="dysl_vla",
        description=DESCRIPTION,
        epilog=EPILOGUE,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=20),
    )
    parser.add_argument("--version", action="version", version=f"dysl_vla_ros {__version__}")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True, title="verbs")
    for name, verb in verbs.items():
        subparser = subparsers.add_parser(
            name,
            help=verb.help,
            description=verb.help[0].upper() + verb.help[1:] + ".",
            formatter_class=_ShowDefaults,
        )
        if name == chosen:
            importlib.import_module(verb.module).add_arguments(subparser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``dysl_vla`` with these arguments (default: the process's own) and return the exit code."""
    for stream in (sys.stdout, sys.stderr):  # what the terminal's encoding lacks is shown as ?, and raises nothing
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    arguments_given = list(sys.argv[1:] if argv is None else argv)
    verbs = available_verbs()
    chosen = next((word for word in arguments_given if not word.startswith("-")), None)
    try:
        arguments = build_parser(verbs, chosen).parse_args(arguments_given)
        verb = verbs[arguments.verb]
        if verb.needs and importlib.util.find_spec(verb.needs) is None:
            raise DyslVlaError(f"{verb.needs} is not installed here; {FIXES[verb.needs]}")
        if verb.needs == "rclpy" and (fault := environment_fault(os.environ)):
            raise DyslVlaError(f"ROS cannot start: {fault}")
        module = importlib.import_module(verb.module)
        module.check(arguments)
        with printed_log():
            code = int(module.run(arguments))
        sys.stdout.flush()  # a full disk that the output goes to is met here, not by Python's end
        return code
    except DyslVlaError as error:
        _say(f"dysl_vla {chosen}: error: {error}")
        return EXIT_USER_ERROR
    except ModuleNotFoundError as error:
        if error.name not in OF_TORCH:
            raise
        _say(f"dysl_vla {chosen}: error: {error.name} is not installed here; {INSTALL_TORCH}")
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        _say(f"dysl_vla {chosen}: interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # `dysl_vla inspect X | head`: the reader has what it wants
        _forget_output()
        return 0
    except OSError as error:
        if error.errno not in DISK_FAULTS:
            raise
        where = error.filename or f"the output or a temporary file in {tempfile.gettempdir()}"
        _say(f"dysl_vla {chosen}: error: cannot write {where}: {error.strerror}; {FREE_SPACE}")
        _forget_output()
        return EXIT_USER_ERROR


def _say(text: str) -> None:
    """Print to stderr; where that goes to a full disk as well, the exit code says it."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr)


def _forget_output() -> None:
    """Let what cannot be written any more go nowhere: Python would try once more at its end."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Print; an output that is full or gone is met by who prints, as with every other line."""
        if record.levelno >= logging.WARNING:
            print(f"warning: {record.getMessage()}", file=sys.stderr, flush=True)
        else:
            print(record.getMessage(), flush=True)


@contextmanager
def printed_log() -> Iterator[None]:
    """Print what is logged below ``dysl_vla_ros`` meanwhile."""
    logger, lines = logging.getLogger("dysl_vla_ros"), _Lines(logging.INFO)
    before = logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(lines)


if __name__ == "__main__":  # for another Python, the worker's: PYTHON -m dysl_vla_ros.commands.main doctor
    sys.exit(main())
