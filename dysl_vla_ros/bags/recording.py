"""A recording that goes on in a thread of its own: whoever hands messages over never waits for the disk.

A disk that is too slow fills a queue of limited size; then messages are dropped and counted. A disk that is full ends
the recording and nothing else.
"""

import collections
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dysl_vla_ros.bags.metadata import OfferedQos
from dysl_vla_ros.bags.writer import FLUSH_PERIOD, BagWriter
from dysl_vla_ros.errors import BagError

QUEUE_LIMIT = 256 << 20  # bytes of messages that wait for the disk
CLOSE_LIMIT = 6.0  # s for the disk to take what is left


@dataclass(frozen=True)
class RecordingStatus:
    """Figures of a recording."""

    messages: int  # taken by the bag
    on_disk: int  # of them, synced
    bytes_on_disk: int
    dropped: int  # lost, because the disk was too slow or the recording had ended
    waiting: int  # in the queue
    seconds: float  # since the beginning
    fault: str  # why it ended before it was asked to, "" while all is well


class Recording:
    """A bag that is being written. Every method may be called from any thread.

    Args:
        folder: of the bag; new or empty.
        ros_distro: noted in the bag.
        queue_limit: bytes of messages that may wait for the disk.

    Raises:
        BagError: the folder holds something, or cannot be written to.
    """

    def __init__(self, folder: Path, ros_distro: str = "", queue_limit: int = QUEUE_LIMIT) -> None:
        """Make the bag and begin."""
        self._writer = BagWriter(folder, ros_distro)
        self._queue_limit = queue_limit
        self._changed = threading.Condition()
        self._work: collections.deque[tuple[int, Callable[[], None]]] = collections.deque()  # bytes, what to do
        self._waiting_bytes = 0
        self._dropped = 0
        self._closing = False
        self._fault = ""
        self._begin = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
        self._thread.start()

    def add_topic(self, name: str, kind: str, qos: Sequence[OfferedQos] = ()) -> None:
        """Announce a topic: full name, "sensor_msgs/msg/Image", what its publishers offer."""
        self._put(0, lambda: self._writer.add_topic(name, kind, qos))

    def put(self, topic: str, time_ns: int, raw: bytes, published_ns: int | None = None) -> None:
        """Hand a message over: when it was received and sent, ns, and its CDR. Never waits."""
        if not self._put(len(raw), lambda: self._writer.write(topic, time_ns, raw, published_ns)):
            with self._changed:
                self._dropped += 1

    def status(self) -> RecordingStatus:
        """Return the present figures."""
        writer = self._writer
        with self._changed:
            return RecordingStatus(
                messages=writer.messages,
                on_disk=writer.on_disk,
                bytes_on_disk=writer.bytes_on_disk,
                dropped=self._dropped,
                waiting=len(self._work),
                seconds=time.monotonic() - self._begin,
                fault=self._fault,
            )

    def close(self) -> RecordingStatus:
        """Write what waits and the index; return the last figures. Idempotent."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(CLOSE_LIMIT)
        if self._thread.is_alive():
            self._fault = self._fault or (
                f"the disk did not take the rest within {CLOSE_LIMIT:g} s; "
                f"{self._writer.on_disk} of {self._writer.messages} messages are on it"
            )
        return self.status()

    def _put(self, size: int, work: Callable[[], None]) -> bool:
        with self._changed:
            if self._closing or self._fault or self._waiting_bytes + size > self._queue_limit:
                return False
            self._work.append((size, work))
            self._waiting_bytes += size
            self._changed.notify_all()
            return True

    def _run(self) -> None:
        try:
            while self._write_what_waits():
                pass
            self._writer.close()
        except BagError as error:
            self._end(str(error))
        except Exception as error:  # ours: the recording ends, and says so
            self._end(f"the recording failed: {type(error).__name__}: {error}")
            raise

    def _write_what_waits(self) -> bool:
        """Write what waits, flush what is due; return whether more may come."""
        with self._changed:
            self._changed.wait_for(lambda: self._work or self._closing, FLUSH_PERIOD)
            closing = self._closing
        while self._work:
            size, work = self._work.popleft()
            work()
            with self._changed:
                self._waiting_bytes -= size
        self._writer.flush_if_due()
        return not closing

    def _end(self, fault: str) -> None:
        with self._changed:
            self._fault = fault
            self._dropped += len(self._work)
            self._work.clear()
            self._waiting_bytes = 0
        with contextlib.suppress(BagError):
            self._writer.close()
