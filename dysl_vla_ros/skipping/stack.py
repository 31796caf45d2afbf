"""Runs a family's layers one by one under a depth rule, and completes a skipped pass at full depth.

The stack holds references to the family's own layers and changes none of them. A hidden state is never changed in
place, so that the one kept in a :class:`ResumePoint` stays what it was.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from dysl_vla_ros.skipping.streams import Plan

if TYPE_CHECKING:
    from torch import Tensor


class StackContext(Protocol):
    """What a family's layers need beside the hidden state; only the token mask is looked at here."""

    @property
    def token_mask(self) -> "Tensor | None":
        """(B, T) bool, True where a token is real; None: all are."""
        ...


Layer = Callable[["Tensor", Any], "Tensor"]
"""(hidden (B, T, D), context) -> hidden (B, T, D): a decoder layer, bound to its family's way of being called."""


@dataclass(frozen=True)
class Skip:
    """A depth rule's answer: go on at layer ``to`` with ``hidden`` (B, T, D)."""

    to: int
    hidden: "Tensor"


class DepthRule(Protocol):
    """Decides before every layer of one inference."""

    def skip(self, layer: int, hidden: "Tensor", context: StackContext) -> Skip | None:
        """Return None to run ``layer``, or where to go on; ``hidden`` (B, T, D) is what would enter ``layer``."""
        ...


class Controller(Protocol):
    """Says how likely the rest of a block can be skipped."""

    def probability(self, summary: Any) -> float:
        """Return it, 0 to 1, for what was summed up before one of the block's layers; NaN where the hidden state is."""
        ...


class SkipModules(Protocol):
    """What stands in for skipped layers: ``modules.DyslModules``, or the same on an engine that is not torch."""

    def summary(self, layer: int, hidden: Any, token_mask: Any) -> Any:
        """Sum up what would enter ``layer``, for its controller and its adapter."""
        ...

    def controller(self, layer: int) -> Controller:
        """Return the controller in front of ``layer``."""
        ...

    def adapter(self, layer: int) -> Any:
        """Return ``(hidden, summary) -> hidden``, which stands in for ``layer`` and the rest of its block."""
        ...

    def adapted(self, layer: int, hidden: Any, token_mask: Any) -> Any:
        """Return what enters the layer behind the block where ``layer`` and the rest of it are skipped."""
        ...

    def weight_sizes(self) -> Mapping[str, int]:
        """Return how many values each trained weight has, by its name in ``adapters.safetensors``."""
        ...

    def bridge(self, stream: str, layer: int, hidden: Any) -> Any:
        """Return the same for a stream that follows."""
        ...


@dataclass(frozen=True)
class ResumePoint:
    """Where a pass first skipped: nothing before it would change at full depth."""

    layer: int
    hidden: "Tensor"  # (B, T, D) that entered the first skipped layer
    executed_before: tuple[bool, ...]  # flags of the layers before it


@dataclass(frozen=True)
class StackResult:
    """What one pass gives."""

    hidden: "Tensor"  # (B, T, D) that leaves the last layer
    executed: tuple[bool, ...]  # (L,) of a resumed pass: the flags of both together
    layer_calls: int  # layers that this pass ran
    skips: tuple[tuple[int, int], ...]  # (first layer not run, layer gone on at)
    resume_point: ResumePoint | None  # None when nothing was skipped

    @property
    def plan(self) -> Plan:
        """What followers of this pass repeat."""
        return Plan(self.executed, self.skips)


def full_result(hidden: "Tensor", num_layers: int) -> StackResult:
    """Return what a pass through all of ``num_layers`` layers gives, from what has left the last one."""
    return StackResult(hidden, (True,) * num_layers, num_layers, (), None)


class SkippableStack:
    """A stack of layers that a depth rule may leave parts of out."""

    def __init__(self, layers: Sequence[Layer], run_lengths: Sequence[int] | None = None) -> None:
        """Keep references to ``layers``, in order.

        Args:
            layers: of the stack.
            run_lengths: for each layer how many a call of it runs, itself and those behind it; None: itself alone. A
                rule is asked before each call, so that a run may end nowhere but where it has nothing to decide.
        """
        self.layers = tuple(layers)
        self._lengths = tuple(run_lengths) if run_lengths is not None else (1,) * len(self.layers)

    def run(self, hidden: "Tensor", context: StackContext, rule: DepthRule) -> StackResult:
        """Run ``hidden`` (B, T, D) through the layers, asking ``rule`` before each."""
        executed = [False] * len(self.layers)
        skips: list[tuple[int, int]] = []
        resume_point = None
        layer = 0
        while layer < len(self.layers):
            skip = rule.skip(layer, hidden, context)
            if skip is None:
                hidden = self.layers[layer](hidden, context)
                length = self._lengths[layer]
                executed[layer : layer + length] = (True,) * length
                layer += length
                continue
            assert layer < skip.to <= len(self.layers), f"a rule skips from layer {layer} to {skip.to}"
            if resume_point is None:
                resume_point = ResumePoint(layer, hidden, tuple(executed[:layer]))
            skips.append((layer, skip.to))
            layer, hidden = skip.to, skip.hidden
        return StackResult(hidden, tuple(executed), sum(executed), tuple(skips), resume_point)

    def resume(self, point: ResumePoint, context: StackContext) -> StackResult:
        """Run everything from the first skipped layer on; bit-identical to a full pass over the same input.

        ``layer_calls`` counts this pass alone; ``context`` is the one of the first pass.
        """
        hidden, layer = point.hidden, point.layer
        while layer < len(self.layers):
            hidden = self.layers[layer](hidden, context)
            layer += self._lengths[layer]
        calls = len(self.layers) - point.layer
        return StackResult(hidden, point.executed_before + (True,) * calls, calls, (), None)
