"""Seconds until `dysl_vla` has printed its help or refused an argument, beside those of torch's import alone.

Both come before torch is loaded: that is held by a test. Who begins changes from round to round.
"""

import subprocess
import sys
import time

ROUNDS = 5
HELP, REFUSED = ("--help",), ("evaluate", "no/such/checkpoint")
DYSL_VLA = (sys.executable, "-c", "import sys; from dysl_vla_ros.commands.main import main; sys.exit(main())")


def command_starts() -> dict[str, list[float]]:
    """Return the seconds of each round: ``help``, ``refusal``, ``torch`` (importing it and nothing else)."""
    commands = {
        "help": (*DYSL_VLA, *HELP),
        "refusal": (*DYSL_VLA, *REFUSED),
        "torch": (sys.executable, "-c", "import torch"),
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(ROUNDS):
        names = list(commands) if number % 2 else list(commands)[::-1]
        for name in names:
            began = time.perf_counter()
            subprocess.run(commands[name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            taken[name].append(time.perf_counter() - began)
    return taken
