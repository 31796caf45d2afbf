"""A board of discs on which an instruction sets how many steps it takes to find the goal.

Nine discs in nine colours lie on a 3 x 3 board, each with a dot in the colour of another one; the dots lead once
through all discs and back. "Push the puck two on from red" starts at the red disc and follows two dots. A chain is a
colour and a number of dots to follow. There are 45, of three kinds by :func:`kind_of`, the one place that divides them.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.floating[Any]]
Kind = Literal["trained", "set_aside", "held_out"]

DISC_COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.9, 0.1, 0.1), "orange": (1.0, 0.5, 0.0), "yellow": (1.0, 0.95, 0.1),
    "green": (0.05, 0.6, 0.1), "cyan": (0.2, 0.9, 0.95), "blue": (0.1, 0.15, 0.95),
    "violet": (0.6, 0.1, 0.8), "white": (1.0, 1.0, 1.0), "black": (0.05, 0.05, 0.05),
}  # fmt: skip
NUMBERS = ("", "one", "two", "three", "four")
MOST_HOPS = len(NUMBERS) - 1

SIDE = 3  # discs
DISCS = SIDE * SIDE
PITCH = 0.10  # m between the centres of two cells
CENTRE = (0.0, 0.78)  # m: x and y of the board's middle
JITTER = 0.0125  # m: a disc's most from its cell's centre, each axis: a quarter of the pitch in all
DISC_RADIUS, DOT_RADIUS = 0.038, 0.019  # m
PUCK_LOW, PUCK_HIGH = (-0.12, 0.56), (0.12, 0.60)  # m: x and y of the puck at first, between robot and board
NEAR = 0.04  # m: the puck's most from the goal's centre ...
STAY = 0.5  # s: ... for so long: a puck that slides across a disc is not there yet
SCENES_A_CHAIN = 100  # for demonstrations


@dataclass(frozen=True)
class Chain:
    """What an instruction of the board asks for: start at a disc, follow dots."""

    colour: str  # of the disc where it starts
    hops: int  # dots to follow, 0 to 4

    @property
    def number(self) -> int:
        """The number of its colour in ``DISC_COLOURS``."""
        return list(DISC_COLOURS).index(self.colour)

    @property
    def words(self) -> str:
        """The goal in words: "red", "two on from red"."""
        return f"{NUMBERS[self.hops]} on from {self.colour}" if self.hops else self.colour


CHAINS = tuple(Chain(colour, hops) for hops in range(MOST_HOPS + 1) for colour in DISC_COLOURS)


def kind_of(chain: Chain) -> Kind:
    """Tell who may learn from a chain: up to one hop, and of longer ones a third, everybody (``trained``).

    A third of the longer ones are ``set_aside``: the policy learns from them, its adapters do not, so that controllers
    and thresholds meet there what an adapter does not know. Nobody learns or chooses from those ``held_out``.
    """
    third = (chain.number + chain.hops) % 3
    if chain.hops < 2 or third == 2:
        return "trained"
    return "held_out" if third == 0 else "set_aside"


@dataclass(frozen=True)
class BoardLayout:
    """Where the discs of one scene lie and where their dots lead; discs are numbered by their cells, row by row."""

    places: Vectors  # (9, 2) m: x and y of the centres
    colours: NDArray[np.int64]  # (9,) of each disc, a number of ``DISC_COLOURS``
    following: NDArray[np.int64]  # (9,) the disc that each dot leads to

    def way(self, chain: Chain) -> list[int]:
        """Return the discs from the start to the goal, ``hops + 1`` of them."""
        way = [int(np.argmax(self.colours == chain.number))]
        for _ in range(chain.hops):
            way.append(int(self.following[way[-1]]))
        return way

    def goal(self, chain: Chain) -> Vectors:
        """Return where a chain ends, (2,) m."""
        return self.places[self.way(chain)[-1]]


def board_layout(seed: int) -> BoardLayout:
    """Return a scene's board: every chain has the same one."""
    random = np.random.default_rng((seed, 8))
    rows, columns = np.divmod(np.arange(DISCS), SIDE)
    cells = PITCH * (np.stack([columns, rows], 1) - (SIDE - 1) / 2) + CENTRE
    places = cells + random.uniform(-JITTER, JITTER, cells.shape)
    return BoardLayout(places, random.permutation(DISCS), _ring(random))


def _ring(random: np.random.Generator) -> NDArray[np.int64]:
    order = random.permutation(DISCS)
    following = np.empty_like(order)
    following[order] = np.roll(order, -1)
    return following


def relaid(layout: BoardLayout, chain: Chain, random: np.random.Generator) -> BoardLayout:
    """Return a board with the same places, other colours and other dots, on which a chain ends at the same disc."""
    goal, following = layout.way(chain)[-1], _ring(random)
    before = np.argsort(following)  # the disc whose dot leads to each
    start = goal
    for _ in range(chain.hops):
        start = before[start]
    colours = random.permutation(DISCS)
    there = int(np.argmax(colours == chain.number))
    colours[[there, start]] = colours[[start, there]]
    return BoardLayout(layout.places, colours, following)


def first_demonstration(chain: Chain) -> int:
    """Return the seed from which a chain's demonstrations go up: each chain has scenes of its own."""
    return SCENES_A_CHAIN * CHAINS.index(chain)


def shown_at(layout: BoardLayout, chain: Chain, seed: int, tick: int) -> BoardLayout:
    """Return the board that a demonstration shows at a tick: three scenes of four are laid out anew at each.

    A policy without memory then learns from as many boards as there are frames, and not from one an episode.
    """
    return relaid(layout, chain, np.random.default_rng((seed, 10, CHAINS.index(chain), tick))) if seed % 4 else layout


def puck_place(seed: int) -> Vectors:
    """Return where the puck of a scene lies at first, (2,) m."""
    return np.random.default_rng((seed, 9)).uniform(PUCK_LOW, PUCK_HIGH)
