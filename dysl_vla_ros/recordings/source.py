"""From an open bag to its moments: topics found, the recorded run read, the streams joined; what is said of it.

What a reader of figures must know of the recording behind them (losses, what was left out, what the user said of it),
every command that reads recordings says in the same words (:func:`reading_notes`).
"""

import functools
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dysl_vla_ros.errors import BagError, InstructionError
from dysl_vla_ros.interfaces import PolicyDescription
from dysl_vla_ros.readings import instruction_fault
from dysl_vla_ros.recordings.corrections import HEADER, Corrections
from dysl_vla_ros.recordings.history import History, read_history
from dysl_vla_ros.recordings.moments import Moments
from dysl_vla_ros.recordings.topics import BagTopics, find_topics
from dysl_vla_ros.settings import ControlSettings, SafetySettings


@dataclass(frozen=True)
class Choice:
    """What of a bag is to be used, and how.

    Attributes:
        remapped: role -> topic, where names do not say it (:func:`~dysl_vla_ros.recordings.topics.remaps`).
        instruction: in place of the bag's; "": the bag's.
        rate: of the node's control ticks, Hz (control.rate).
        every: each n-th frame of the first camera.
        actions_between: action time steps between two frames that are used; 0: any number.
        corrections: what the user says of stamps and frames.
        unreadable: says why the policy cannot read an instruction, "" where it can
            (:func:`instruction_judge`).
        chosen: further choice among the frames, by their number.
    """

    remapped: Mapping[str, str] = field(default_factory=dict)
    instruction: str = ""
    rate: float = ControlSettings.rate
    every: int = 1
    actions_between: int = 0
    corrections: Corrections = field(default_factory=Corrections)
    unreadable: Callable[[str], str] = instruction_fault
    chosen: Callable[[int], bool] = lambda frame: True

    def told(self) -> dict[str, Any]:
        """Return what the user said of the recording, as plain values for result files; {}: nothing."""
        said = {
            "topics": dict(self.remapped),
            "instruction": self.instruction,
            "stamps": "" if self.corrections.stamps == HEADER else self.corrections.stamps,
            "frames": dict(self.corrections.frames),
        }
        return {name: value for name, value in said.items() if value}

    def as_options(self) -> str:
        """Return what the user said of the recording as it is typed behind a command; "": nothing."""
        words = [word for role, topic in self.remapped.items() for word in ("--topic", f"{role}:={topic}")]
        words += ["--instruction", self.instruction] if self.instruction else []
        words += ["--stamps", self.corrections.stamps] if self.corrections.stamps != HEADER else []
        words += [word for own in self.corrections.frames.items() for word in ("--frame", ":=".join(own))]
        return shlex.join(words)


@dataclass(frozen=True)
class Source:
    """What a bag has for a policy."""

    topics: BagTopics
    history: History
    moments: Moments


def open_source(
    reader: Any, description: PolicyDescription, safety: SafetySettings, choice: Choice, *, history: bool = True
) -> Source:
    """Find what serves a policy in an open bag.

    Args:
        reader: an open :class:`~dysl_vla_ros.bags.reader.BagReader`.
        description: the policy's.
        safety: the ages that end an episode.
        choice: what is to be used.
        history: false: neither recorded actions nor resets are looked for.

    Raises:
        BagError: an input of the policy is not there, or it cannot read the user's instruction or frames.
    """
    choice.corrections.require_known({description.proprioception.frame, description.action.frame})
    if choice.instruction and (fault := choice.unreadable(choice.instruction)):
        raise BagError(f"--instruction {choice.instruction!r:.80}: {fault}")
    topics = find_topics(
        reader.topics,
        description,
        choice.remapped,
        instruction=choice.instruction,
        first_message=lambda topic: _first_message(reader, topic),
    )
    frames = choice.corrections.frames
    recorded = read_history(reader, topics.outputs, description, frames) if history else History()
    moments = Moments(
        reader,
        topics,
        description,
        safety,
        tick=1.0 / choice.rate,
        every=choice.every,
        actions_between=choice.actions_between,
        chosen=choice.chosen,
        instruction=choice.instruction,
        corrections=choice.corrections,
        unreadable=choice.unreadable,
        history=recorded,
    )
    return Source(topics, recorded, moments)


def require_moments(count: int, moments: Moments, path: Any) -> None:
    """Refuse a bag of which no frame served.

    Raises:
        BagError: says why, the commonest reason first, and which option would help.
    """
    if count:
        return
    refusals = sorted(moments.refused.values(), key=lambda refusal: -refusal.count)[:3]
    why = "; ".join([*(f"{own.count} times: {own.example}" for own in refusals), *moments.corrector.fixes()])
    raise BagError(f"{path}: none of {moments.frames} frames can serve: {why or 'there are none'}")


def _first_message(reader: Any, topic: str) -> Any:
    try:
        return next((entry.message for entry in reader.messages([topic])), None)
    except BagError:
        return None


def damage_of(reader: Any, source: Source) -> list[str]:
    """Return what of a bag was lost, messages that could not be read among it, once it was gone through."""
    unreadable = source.moments.unreadable
    lost = [f"{unreadable} messages could not be read: their bytes are damaged"] if unreadable else []
    return [*reader.damage, *lost]


def reading_notes(reader: Any, source: Source) -> list[str]:
    """Return what is to be said of a bag that was gone through, in sentences; nothing where everything served."""
    moments, damage = source.moments, damage_of(reader, source)
    whole = reader.damage[len(reader.damage) - len(reader.set_backs) :]  # of these nothing is lost
    notes = [f"{text}." if text in whole else f"The bag is damaged: {text}." for text in damage]
    notes += [f"{_capital(text)}." for text in moments.corrector.notes()]
    left_out = moments.left_out_instructions.values()
    notes += [f"{_capital(str(own))} ({own.frames} frames).".replace("\n", " ") for own in left_out]
    others = [own for key, own in moments.refused.items() if not key.startswith("instruction: ")]
    if refused := sum(own.count for own in others):
        worst = max(others, key=lambda own: own.count)
        those = "all of them" if worst.count == refused else f"{worst.count} of them"
        notes.append(f"{refused} messages or frames could not serve, {those}: {worst.example}.")
    return notes + [f"{_capital(text)}." for text in moments.corrector.fixes()]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def instruction_judge(policy: Any) -> Callable[[str], str]:
    """Return a function that says why ``policy`` cannot read an instruction, in its own words; "" where it can.

    Args:
        policy: a :class:`~dysl_vla_ros.policies.interface.VlaPolicy`.
    """

    @functools.cache
    def judge(text: str) -> str:
        if fault := instruction_fault(text):
            return fault
        try:
            policy.check_instruction(text)
        except InstructionError as error:
            return str(error)
        return ""

    return judge
