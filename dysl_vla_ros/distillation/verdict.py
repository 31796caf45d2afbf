"""Whether a distillation was worth it: its floor beside the one that it began with, and beside what is of use."""

from collections.abc import Mapping, Sequence
from typing import Any

USEFUL_FLOOR = 0.05  # action L1, normalised; above it most layers have to run, whatever controllers have learned
BETTER = 0.99  # times the floor at the start: less than that has been learned
HARMED = 1.25  # times the floor of stage 1: what stage 2 may lose of it, which evens out in no run that was of use


def verdicts(start: float, records: Sequence[Mapping[str, Any]], *, gone_on: bool) -> list[str]:
    """Return a sentence for each thing that is wrong with a distillation, with what to do.

    Args:
        start: action L1 of the floor before training, on the frames to judge by, normalised.
        records: of the stages, first to last (see :mod:`~dysl_vla_ros.distillation.stage_report`).
        gone_on: it began with the adapters of an earlier one; else with new ones, which are the identity.
    """
    floors = [record["floor_error"] for record in records if "floor_error" in record]
    if not floors:
        return []
    found, end = [], floors[-1]
    if end > BETTER * start:
        begun = "the adapters that it went on from have" if gone_on else "the identity has, without any training,"
        remedy = "keep those" if gone_on else "do not use them"
        found.append(
            f"the floor is {end:.4f}, no better than the {start:.4f} that {begun} on the same held-out frames: "
            f"{remedy}; train again with more --observations and --action-steps, or a smaller --learning-rate"
        )
    if len(floors) > 1 and end > HARMED * floors[0]:
        found.append(
            f"stage 2 has made the floor worse, {floors[0]:.4f} before it and {end:.4f} after: train again with a "
            "smaller --adapter-rate (0: adapters stay as stage 1 has left them), or with --controllers error"
        )
    if end > USEFUL_FLOOR:
        found.append(
            f"the floor is {end:.4f}; above {USEFUL_FLOOR:g} controllers and verification have to run most layers: "
            "record more, train longer (--action-steps), or choose more static layers (`dysl_vla calibrate "
            "--static-ratio 0.3`)"
        )
    return found
