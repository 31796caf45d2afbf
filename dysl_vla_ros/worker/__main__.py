"""The policy worker's process; started by ``WorkerClient``, never by hand.

It never outlives the node: the kernel kills it with the thread that started it, and it ends when the node hangs up.
"""

import argparse
import contextlib
import faulthandler
import importlib
import os
import socket
import sys
import traceback
from pathlib import Path

from dysl_vla_ros import stop_signals
from dysl_vla_ros.parent_process import die_with_parent, end


def main(server: str = "dysl_vla_ros.worker.server") -> int:
    """Bind this process to its parent, then let a module ``serve`` the stream and the shared file."""
    parser = argparse.ArgumentParser(prog="dysl_vla_ros.worker", description=__doc__)
    for name in ("stream", "frames", "parent"):
        parser.add_argument(f"--{name}", type=int, required=True)
    arguments = parser.parse_args()
    bind_to_node(arguments.parent)
    stop_signals.ignore()  # sent to a whole group or service: the node decides when this ends
    faulthandler.enable()
    with contextlib.suppress(OSError):  # when memory runs out, it is the worker that goes, not the node
        Path("/proc/self/oom_score_adj").write_text("500")
    leave_the_link()
    for descriptor in (arguments.stream, arguments.frames):
        os.set_inheritable(descriptor, False)
    serve = importlib.import_module(server).serve

    with socket.socket(fileno=arguments.stream) as stream:
        try:
            return int(serve(stream, arguments.frames))
        except ConnectionError:  # the node hung up in the middle of a message
            return 0
        except Exception as error:  # said before this hangs up: the node then waits for no more words
            traceback.print_exception(error)
            sys.stderr.flush()
            return 1


def bind_to_node(parent: int) -> None:
    """Never outlive the node, and end now if another process than it started this one."""
    try:
        beneath = die_with_parent(parent)
    except OSError as error:
        sys.exit(error.strerror)
    if not beneath:
        sys.exit(
            f"process {os.getppid()} started this worker, not the node ({parent}): model.python must be an "
            "interpreter, not a program that starts one"
        )


def leave_the_link() -> None:
    """Import from the real package folder from now on: the node removes the folder with the link."""
    os.chdir("/")
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "dysl_vla_ros" and hasattr(module, "__path__"):
            module.__path__ = [os.path.realpath(path) for path in module.__path__]


if __name__ == "__main__":
    end(main())
