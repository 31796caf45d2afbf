"""How many examples a property is tried on: fewer in `make test`, all in `make test-all` (SLOW=1)."""

import os


def examples(quick: int, thorough: int) -> int:
    """Return one of the two."""
    return thorough if os.environ.get("SLOW") else quick
