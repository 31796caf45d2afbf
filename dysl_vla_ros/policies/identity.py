"""Which model it is that moves the arm: one SHA-256 over everything of the files that decides the motion.

Weights alone do not say it: another centre in the action statistics, another vocabulary or another threshold moves the
arm otherwise. Hashed is what was read, not the text: how a JSON file is laid out, and what it says beside (training,
release, fronts and figures), changes nothing.
"""

import hashlib
import json
from typing import Any


def hash_of(values: Any) -> str:
    """Return the SHA-256 of plain values as hexadecimal digits; the order of keys counts, as that of cameras does."""
    text = json.dumps(values, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def base_hash(family: str, model: Any, weights_hash: str) -> str:
    """Return the hash of a base: its family, all of ``model`` in its ``config.json``, and its weights."""
    return hash_of({"family": family, "model": model, "weights": weights_hash})


def model_hash(base: str, adapters: str | None) -> str:
    """Return the hash of what runs, from that of the base and of its DySL folder; None: every layer runs."""
    return base if adapters is None else hash_of({"base": base, "adapters": adapters})
