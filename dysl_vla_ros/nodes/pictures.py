"""The newest pictures that belong together, and their conversion beside the control loop.

Which ones do is the judge's business (:mod:`~dysl_vla_ros.control.pairing`). A picture that is a view of its message
(rgb8 and the like) is taken when an observation is made. Decoding JPEG or interpolating bayer takes milliseconds: a
thread of its own does it, when an inference is due and not before, so that no tick waits for it and frames that no step
uses are not decoded. When it is done, the loop is asked again.

What is damaged shows only while it is decoded. From then on such a camera's messages renew nothing
(:meth:`~dysl_vla_ros.control.freshness.Freshness.unusable`) until one of them was decoded: the arm stops by age.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.control.freshness import Freshness
from dysl_vla_ros.control.pairing import Verdict
from dysl_vla_ros.readings import needs_conversion, picture

LEAST_CONTRAST = 4.0  # standard deviation of 8-bit values; sensor noise in the dark has 2 or 3, a scene 20 and more
SAMPLES = 64  # pixels a side that contrast is judged by

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Taken:
    """The pictures of one observation."""

    verdict: Verdict  # whose images they are
    messages: Mapping[str, Any]  # camera -> its message
    pictures: Mapping[str, Picture]  # camera -> (height, width, 3) rgb
    convert_ms: float
    begun: Any  # what :meth:`Pictures.prepare` was given when they were chosen; None: just now


class Pictures:
    """The newest images that belong together. Everything but the conversion itself runs under the control loop's lock.

    Args:
        cameras: the policy's, the first one paces inference.
        lock: the control loop's.
        freshness: is told which cameras send what cannot be decoded.
        on_converted: called under the lock when pictures were converted: they are taken now, or not at all.
        on_damaged: called under the lock with a camera and why its picture could not be converted.
    """

    def __init__(
        self,
        cameras: Sequence[str],
        lock: Any,
        freshness: Freshness,
        on_converted: Callable[[], None],
        on_damaged: Callable[[str, str], None],
    ) -> None:
        """Begin without pictures; :meth:`close` ends the thread."""
        self._cameras, self._lock, self._freshness = tuple(cameras), lock, freshness
        self._on_converted, self._on_damaged = on_converted, on_damaged
        self._newest: dict[str, Any] = {}  # camera -> its newest message
        self._unused: set[str] = set()  # cameras whose newest message was not used yet
        self._verdict: Verdict | None = None  # the newest that was offered
        self._damaged = False  # one of its pictures could not be converted
        self._converting = False
        self._converted: Taken | None = None
        self._generation = 0  # what is converted for an earlier one is dropped
        self._last_used: dict[str, Any] = {}
        self._kinds: dict[str, str] = {}
        self._flat: dict[str, float] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pictures")

    def start(self) -> None:
        """Forget every picture."""
        self._generation += 1
        self._converting, self._converted = False, None
        self._verdict, self._damaged = None, False
        for kept in (self._newest, self._last_used, self._kinds, self._flat):
            kept.clear()
        self._unused.clear()

    def close(self) -> None:
        """End the thread; what it converts at this moment is dropped. Do not hold the lock."""
        with self._lock:
            self._generation += 1
        self._thread.shutdown(wait=True, cancel_futures=True)

    def hear(self, camera: str, message: Any) -> None:
        """Count a message that was accepted."""
        if camera in self._unused:
            self._freshness.dropped(camera)
        self._unused.add(camera)
        self._newest[camera] = message

    def offer(self, verdict: Verdict, look_into: bool) -> None:
        """Keep images that belong together in place of those before.

        Args:
            verdict: one that serves; the items of its parts are the cameras' messages.
            look_into: convert them now: they are in doubt, and no inference asks for them while they stop the arm.
        """
        self._verdict, self._damaged = verdict, False
        if look_into:
            self._begin(None)

    def coming(self) -> Verdict | None:
        """Return whose pictures would be taken now, None before the first."""
        return self._verdict if self._converted is None else self._converted.verdict

    def prepare(self, begun: Any) -> bool:
        """Whether pictures can be taken now; if not, they are being converted, and ``on_converted`` comes.

        Args:
            begun: kept with the pictures that are chosen now, see :class:`Taken`.
        """
        if self._converted is not None or self._verdict is None:
            return True
        if self._damaged:  # wait for the next ones
            return False
        if not any(needs_conversion(message) for message in self._messages(self._verdict).values()):
            return True
        self._begin(begun)
        return False

    def take(self) -> Taken:
        """Return the pictures for one observation; there must be some (:meth:`coming`)."""
        taken = self._converted
        if taken is None:
            assert self._verdict is not None
            started = time.perf_counter()
            messages = self._messages(self._verdict)
            pictures = {camera: picture(message) for camera, message in messages.items()}
            taken = Taken(self._verdict, messages, pictures, (time.perf_counter() - started) * 1e3, None)
        self._converted = None
        self._note_used(taken)
        return taken

    def change(self) -> str:
        """Return what is new about the size or encoding of the pictures that would be taken now, "" where nothing is.

        Said once; the first pictures after :meth:`start` are no change.
        """
        verdict = self.coming()
        changes = []
        for camera, message in ({} if verdict is None else self._messages(verdict)).items():
            kind = self._kind(camera, message)
            before = self._kinds.get(camera, kind)
            self._kinds[camera] = kind
            if kind != before:
                changes.append(f"{self._freshness.topic(camera)}: pictures are {kind} now, they were {before}")
        return "; ".join(changes)

    def warnings(self) -> list[str]:
        """Return what is odd about the pictures that were used last, but no reason to stop."""
        return [
            f"no contrast: {self._freshness.topic(camera)} shows one colour (standard deviation {deviation:.1f} of "
            "255); is the lens covered, the light off, or the exposure wrong?"
            for camera, deviation in self._flat.items()
            if deviation < LEAST_CONTRAST
        ]

    def _messages(self, verdict: Verdict) -> dict[str, Any]:
        return {camera: verdict.parts[camera].item for camera in self._cameras}

    def _kind(self, camera: str, message: Any) -> str:
        if self._converted is not None:
            height, width = self._converted.pictures[camera].shape[:2]
            return f"{width}x{height} {getattr(message, 'format', '') or getattr(message, 'encoding', '')}".strip()
        return f"{message.width}x{message.height} {message.encoding}"

    def _note_used(self, taken: Taken) -> None:
        for camera in self._cameras:
            message, shown = taken.messages[camera], taken.pictures[camera]
            before = self._last_used.get(camera)
            if before is not None and before is not message:
                self._freshness.note_identical(camera, _same_bytes(before.data, message.data))
            self._last_used[camera] = message
            if self._newest.get(camera) is message:
                self._unused.discard(camera)
            elif before is not message:  # counted when the newer one came, which waits for its partner still
                self._freshness.dropped(camera, -1)
            across, down = max(1, shown.shape[1] // SAMPLES), max(1, shown.shape[0] // SAMPLES)
            self._flat[camera] = float(shown[::down, ::across].std())

    # -- conversion ----------------------------------------------------------------------------------------------------

    def _begin(self, begun: Any) -> None:
        if not self._converting and self._verdict is not None:
            self._converting = True
            self._thread.submit(self._convert, self._generation, self._verdict, begun)

    def _convert(self, generation: int, verdict: Verdict, begun: Any) -> None:
        started = time.perf_counter()
        messages = self._messages(verdict)
        pictures: dict[str, Picture] = {}
        faults: dict[str, str] = {}
        for camera, message in messages.items():
            try:
                pictures[camera] = picture(message)
            except Exception as error:  # whatever a decoder raises is the picture's fault, and must not end in a wait
                faults[camera] = str(error) or repr(error)
        convert_ms = (time.perf_counter() - started) * 1e3
        with self._lock:
            if generation != self._generation:
                return
            self._converting = False
            if faults and self._verdict is verdict:
                self._damaged = True
            for camera, why in faults.items():
                self._freshness.unusable(camera, verdict.parts[camera].arrival, why)
                self._on_damaged(camera, why)
            for camera in pictures:
                self._freshness.proved(camera, verdict.parts[camera].arrival)
            if len(pictures) == len(self._cameras):
                self._converted = Taken(verdict, messages, pictures, convert_ms, begun)
            self._on_converted()
            self._converted = None  # the loop had no use for them: the next time there are newer ones


def _same_bytes(one: Any, other: Any) -> bool:
    return bool(np.array_equal(np.frombuffer(one, np.uint8), np.frombuffer(other, np.uint8)))
