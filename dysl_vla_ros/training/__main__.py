"""One process of a training run: ``torchrun`` or ``accelerate launch``, with ``-m dysl_vla_ros.training DATA OUT``."""

import argparse
import sys

from dysl_vla_ros.errors import DyslVlaError
from dysl_vla_ros.simulation.tasks import tasks_named
from dysl_vla_ros.training.launching import end_with_launcher, said_reason, say_reason
from dysl_vla_ros.training.options import add_arguments, settings_from


def main() -> int:
    """Train; return the exit code."""
    parser = argparse.ArgumentParser(prog="dysl_vla_ros.training", description=__doc__)
    add_arguments(parser)
    arguments = parser.parse_args()
    end_with_launcher()
    from dysl_vla_ros.training.behaviour_cloning import train

    try:
        train(arguments.data, arguments.output, tasks_named(arguments.tasks), settings_from(vars(arguments)))
    except DyslVlaError as error:
        if not say_reason(str(error)):
            print(f"dysl_vla_ros.training: error: {error}", file=sys.stderr)
        return 2
    except RuntimeError:
        if said_reason():  # another process has ended, and with it the connection to it
            return 1
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
