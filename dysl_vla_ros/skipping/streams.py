"""Tokens that pass through layers beside each other: one stream leads, others follow its plan.

A policy whose actions come from an expert of its own (flow matching) has two stacks of equal length: the first reads
the observation once, the expert's layers read what its layers have left, once in every flow step. Which layers run is
decided once, on the leading stream; every pass of a follower repeats that plan, with adapters of its own width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Stream:
    """Tokens with adapters of their own."""

    name: str
    width: int  # D of its hidden state
    passes: int = 1  # through all of its layers, at full depth: of a follower the flow steps


@dataclass(frozen=True)
class Plan:
    """What a pass did, and what followers repeat."""

    executed: tuple[bool, ...]  # (L,)
    skips: tuple[tuple[int, int], ...] = ()  # (first layer not run, layer gone on at), rising

    @classmethod
    def full(cls, num_layers: int) -> "Plan":
        """Return the plan of a pass through all of ``num_layers`` layers."""
        return cls((True,) * num_layers)


Bridge = Callable[[str, int, "Tensor"], "Tensor"]
"""(stream, first layer not run, hidden (B, T, D) before it) -> hidden (B, T, D) that enters the layer gone on at."""


def no_bridge(stream: str, layer: int, hidden: "Tensor") -> "Tensor":
    """Refuse: the bridge of a pass that skips nothing."""
    raise AssertionError(f"the stream {stream!r} skips from layer {layer}, and there are no adapters")


def follow(
    plan: Plan, hidden: "Tensor", run: "Callable[[int, Tensor], Tensor]", stream: str, bridge: Bridge
) -> "Tensor":
    """Take a follower's ``hidden`` (B, T, D) through one pass of a plan.

    Args:
        plan: of the leading stream's pass.
        hidden: what enters the follower's first layer.
        run: (layer, hidden (B, T, D)) -> hidden (B, T, D): the follower's layer of that number.
        stream: the follower's name.
        bridge: where layers are skipped.
    """
    onward, layer = dict(plan.skips), 0
    while layer < len(plan.executed):
        if layer in onward:
            hidden, layer = bridge(stream, layer, hidden), onward[layer]
        else:
            hidden, layer = run(layer, hidden), layer + 1
    return hidden
