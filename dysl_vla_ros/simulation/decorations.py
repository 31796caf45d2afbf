"""What stands in a scene to be seen and cannot be touched: markers of goals, blocks that nothing refers to.

Everything is a function of the seed and of where the puck lies, so that the same scene can be had under each of the
instructions that are valid in it.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.simulation.board import DISC_COLOURS, DISC_RADIUS, DOT_RADIUS, BoardLayout
from dysl_vla_ros.simulation.tasks import Colour

Vectors = NDArray[np.floating[Any]]

MARKER_RADIUS = 0.03  # m
BLOCK_HALF_SIZE = 0.022  # m
GOAL_LOW, GOAL_HIGH = (-0.18, 0.78), (0.18, 0.90)  # m: x and y of markers; wider than push-v3's, or three would not fit
MARKERS_APART = 0.12  # m
OFF_THE_WAY = 0.085  # m of a marker from the puck's straight way to another: pushed there, it is never counted here
PUCK_FREE = 0.10  # m from the puck to each marker: success, within 0.05, must be worked for
BLOCK_PLACES = ((-0.36, -0.26), (0.26, 0.36))  # m: x, one block on each side of where hand and puck go
BLOCK_DEPTHS = (0.58, 0.82)  # m: y
DISC_HEIGHT, DOT_HEIGHT = 0.002, 0.004  # m above the table: a dot is seen on its disc
BLOCK_COLOURS: tuple[Colour, ...] = ((0.9, 0.8, 0.1), (0.55, 0.2, 0.7), (0.9, 0.5, 0.1), (0.2, 0.7, 0.75))


@dataclass(frozen=True)
class Decoration:
    """One thing that is drawn."""

    shape: Literal["ball", "block", "disc"]
    position: tuple[float, float, float]  # m, centre
    half_size: float  # m: radius, or half an edge; a disc is flat
    colour: Colour


def marker_positions(seed: int, puck: Vectors, count: int) -> Vectors:
    """Return the places (count, 3) of markers, m: apart, away from the puck (3,) and off its way to the others."""
    random = np.random.default_rng((seed, 2))
    while True:
        places = random.uniform(GOAL_LOW, GOAL_HIGH, (count, 2))
        if _fit(places, np.asarray(puck, dtype=np.float64)[:2]):
            return np.column_stack([places, np.full(count, puck[2])])


def _fit(places: Vectors, puck: Vectors) -> bool:
    for number, place in enumerate(places):
        way = place - puck
        if np.linalg.norm(way) < PUCK_FREE:
            return False
        for other in np.delete(places, number, axis=0):
            along = np.clip((other - puck) @ way / (way @ way), 0.0, 1.0)
            if (
                np.linalg.norm(other - place) < MARKERS_APART
                or np.linalg.norm(puck + along * way - other) < OFF_THE_WAY
            ):
                return False
    return True


def distractors(seed: int) -> tuple[Decoration, ...]:
    """Return two blocks that nothing refers to, of different colours, beside where hand and puck go."""
    random = np.random.default_rng((seed, 3))
    colours = random.permutation(len(BLOCK_COLOURS))
    return tuple(
        Decoration(
            "block",
            (float(random.uniform(*places)), float(random.uniform(*BLOCK_DEPTHS)), BLOCK_HALF_SIZE),
            BLOCK_HALF_SIZE,
            BLOCK_COLOURS[colour],
        )
        for places, colour in zip(BLOCK_PLACES, colours, strict=False)
    )


def board(layout: BoardLayout) -> tuple[Decoration, ...]:
    """Return a board's discs with their dots."""
    colours = list(DISC_COLOURS.values())
    return tuple(
        Decoration("disc", (float(x), float(y), height), radius, colours[colour])
        for (x, y), own, shown in zip(layout.places, layout.colours, layout.colours[layout.following], strict=True)
        for height, radius, colour in ((DISC_HEIGHT, DISC_RADIUS, own), (DOT_HEIGHT, DOT_RADIUS, shown))
    )
