"""What can be an instruction, and the hash under which reports name it."""

import hashlib
import unicodedata

MAX_INSTRUCTION = 500  # characters


def instruction_fault(text: str) -> str:
    """Say why a text cannot be an instruction, or "" if it can. Blank texts are no fault here: they mean "wait"."""
    if len(text) > MAX_INSTRUCTION:
        return f"the instruction has {len(text)} characters; at most {MAX_INSTRUCTION} are taken"
    for place, character in enumerate(text):
        if character == "\ufffd":
            return f"character {place} of the instruction is U+FFFD: it was not valid UTF-8"
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            return f"character {place} of the instruction is the control character U+{ord(character):04X}"
    return ""


def instruction_hash(text: str) -> str:
    """Return the SHA-256 of an instruction, as ``~/skip_report`` carries it."""
    return hashlib.sha256(text.encode()).hexdigest()
