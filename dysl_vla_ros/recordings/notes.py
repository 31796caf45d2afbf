"""What a reader of figures must know of the recording behind them: losses, what was left out, what the user said of it.

Every command that reads recordings says the same, in these words.
"""

from typing import Any

from dysl_vla_ros.recordings.source import Source


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
