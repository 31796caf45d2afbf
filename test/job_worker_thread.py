"""A command's worker in a thread of this process: the whole conversation, without a start of torch."""

import os
import socket
import threading
from typing import Any

from dysl_vla_ros.job_worker.server import serve


def in_a_thread(spec: Any, stream: int, frames: int) -> None:
    """Serve on descriptors as a process that is started would: see ``JobWorker``."""
    theirs, descriptor = socket.socket(fileno=os.dup(stream)), os.dup(frames)

    def run() -> None:
        with theirs:
            serve(theirs, descriptor, ends_process=False)
        os.close(descriptor)

    threading.Thread(target=run, daemon=True).start()
