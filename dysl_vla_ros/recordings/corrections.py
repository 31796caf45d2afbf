"""What the user says of a recording whose messages lack what the node needs: stamps, or the name of the frame.

Nothing is guessed. A recording that could be used so is refused, and the refusal names the option.
"""

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dysl_vla_ros.errors import BagError
from dysl_vla_ros.readings import nanoseconds

HEADER, RECEIVED = "header", "received"
STAMPS = (HEADER, RECEIVED)


@dataclass(frozen=True)
class Corrections:
    """How messages are read.

    Attributes:
        stamps: ``header``: as recorded; ``received``: when the recorder received each message.
        frames: frame of recorded poses and twists -> frame that the policy means by it.
    """

    stamps: str = HEADER
    frames: Mapping[str, str] = field(default_factory=dict)

    def require_known(self, wanted: Collection[str]) -> None:
        """Refuse to call a frame what the policy does not name.

        Raises:
            BagError: names the option and the policy's frames.
        """
        for found, name in self.frames.items():
            if name not in wanted:
                known = " and ".join(sorted(wanted))
                raise BagError(f"--frame {found}:={name}: the policy names no frame {name!r:.60}; its frame is {known}")


def frame_names(arguments: Iterable[str]) -> dict[str, str]:
    """Read ``base_link:=base`` and the like.

    Raises:
        BagError: another form, or one frame twice.
    """
    names: dict[str, str] = {}
    for argument in arguments:
        found, sign, wanted = argument.partition(":=")
        if not sign or not found or not wanted:
            raise BagError(f"--frame {argument!r:.80} must have the form FOUND:=WANTED, such as base_link:=base")
        if names.setdefault(found, wanted) != wanted:
            raise BagError(f"--frame names {found!r:.60} twice: {names[found]!r:.60} and {wanted!r:.60}")
    return names


class Corrector:
    """Corrects the messages of one reading, and keeps what it met: what was changed, and which option would help."""

    def __init__(self, corrections: Corrections, frame: str) -> None:
        """Correct poses for a policy that wants them in ``frame``."""
        self._corrections, self._frame = corrections, frame
        self._renamed: Counter[str] = Counter()  # frame as recorded -> messages
        self._unstamped: Counter[str] = Counter()  # topic -> messages whose stamp is 0
        self._foreign: dict[tuple[str, str], int] = {}  # (topic, frame that is not the policy's) -> messages

    def correct(self, role: str, topic: str, message: Any, received_ns: int) -> Any:
        """Return a message as the node is to see it.

        Args:
            role: input that it serves.
            topic: its topic, for texts.
            message: of a camera or of proprioception.
            received_ns: when it was received, ns.
        """
        header = getattr(message, "header", None)
        if header is None:
            return message
        changed: dict[str, Any] = {}
        if self._corrections.stamps == RECEIVED:
            kind = type(header.stamp)
            changed["stamp"] = kind(sec=received_ns // 10**9, nanosec=received_ns % 10**9)
        elif nanoseconds(header.stamp) == 0:
            self._unstamped[topic] += 1
        if role == "ee_pose" and header.frame_id not in ("", self._frame):
            if (name := self._corrections.frames.get(header.frame_id)) is not None:
                self._renamed[header.frame_id] += 1
                changed["frame_id"] = name
            else:
                self._foreign[topic, header.frame_id] = self._foreign.get((topic, header.frame_id), 0) + 1
        return dataclasses.replace(message, header=dataclasses.replace(header, **changed)) if changed else message

    def notes(self) -> list[str]:
        """Say what was changed."""
        said = []
        if self._corrections.stamps == RECEIVED:
            said.append("stamps are the times of reception (--stamps received)")
        for found, wanted in self._corrections.frames.items():
            if count := self._renamed[found]:
                said.append(f"frame {found!r:.60} is read as {wanted!r:.60} in {count} poses (--frame)")
        return said

    def fixes(self) -> list[str]:
        """Say which option would let refused messages serve."""
        said = []
        if self._unstamped:
            those = ", ".join(f"{count} of {topic}" for topic, count in sorted(self._unstamped.items()))
            said.append(
                f"messages with the stamp 0: {those}; have the drivers stamp them, or give --stamps received to take "
                "when each was received"
            )
        said += [
            f"{count} messages of {topic} are in frame {found!r:.60}, the policy wants {self._frame!r:.60}: if that is "
            f"the same frame by another name, give --frame {found}:={self._frame}"
            for (topic, found), count in self._foreign.items()
        ]
        return said
