"""95% intervals of success: of one method, and of the difference between two, on the same episodes or on others.

Wilson's score interval (Wilson 1927) for a proportion. For a paired difference Newcombe's square-and-add interval:
method 10 of R. G. Newcombe, "Improved confidence intervals for the difference between binomial proportions based on
paired data", Statistics in Medicine 17 (1998), 2635-2650. It joins two Wilson intervals by their correlation, stays
within -1 and 1, and has a width also where every episode ended alike, where Wald's has none. Without pairs the same
with no correlation: method 10 of his "Interval estimation for the difference between independent proportions:
comparison of eleven methods", Statistics in Medicine 17 (1998), 873-890.
"""

import math
from collections.abc import Sequence

Z = 1.959964  # the normal distribution's 97.5th percentile


def wilson(successes: int, episodes: int) -> tuple[float, float]:
    """Return the interval of a proportion; from 0 to 1 where nothing was tried."""
    assert 0 <= successes <= episodes, f"{successes} of {episodes}"
    if episodes == 0:
        return 0.0, 1.0
    share = successes / episodes
    centre = share + Z**2 / (2 * episodes)
    half = Z * math.sqrt(share * (1 - share) / episodes + Z**2 / (4 * episodes**2))
    low, high = ((centre + side) / (1 + Z**2 / episodes) for side in (-half, half))
    return (0.0 if successes == 0 else low), (1.0 if successes == episodes else high)


def paired_difference(one: Sequence[bool], other: Sequence[bool]) -> tuple[float, float, float]:
    """Return the success of ``one`` less that of ``other`` on the same episodes, in the same order, and its interval.

    Returns:
        (difference, low, high); (0, -1, 1) where there are no episodes.
    """
    pairs = list(zip(one, other, strict=True))
    n = len(pairs)
    if n == 0:
        return 0.0, -1.0, 1.0
    both = sum(a and b for a, b in pairs)
    neither = sum(not a and not b for a, b in pairs)
    first, second = sum(one), sum(other)
    return _joined(first, n, second, n, _correlation(both, first - both, second - both, neither))


def difference(one: int, episodes: int, other: int, other_episodes: int) -> tuple[float, float, float]:
    """Return the success of ``one`` less that of ``other``, and its interval, where nothing is known of pairs.

    Of the same episodes it is as a rule wider than :func:`paired_difference`: what is hard for one is for the other.

    Returns:
        (difference, low, high); (0, -1, 1) where either has no episodes.
    """
    if not episodes or not other_episodes:
        return 0.0, -1.0, 1.0
    return _joined(one, episodes, other, other_episodes, 0.0)


def _joined(first: int, n1: int, second: int, n2: int, correlation: float) -> tuple[float, float, float]:
    p1, p2 = first / n1, second / n2
    low1, high1 = wilson(first, n1)
    low2, high2 = wilson(second, n2)
    apart = p1 - p2
    down = _added(p1 - low1, high2 - p2, correlation)
    up = _added(high1 - p1, p2 - low2, correlation)
    return apart, max(-1.0, apart - down), min(1.0, apart + up)


def _added(one: float, other: float, correlation: float) -> float:
    return math.sqrt(max(0.0, one**2 - 2 * correlation * one * other + other**2))


def _correlation(both: int, first: int, second: int, neither: int) -> float:
    """Return phi of the table of pairs, with Newcombe's correction for continuity; 0 where a margin is empty."""
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    if margins == 0:
        return 0.0
    product: float = both * neither - first * second
    if product > 0:
        product = max(0.0, product - (both + first + second + neither) / 2)
    return product / math.sqrt(margins)
