"""Pools, controllers and adapters on ONNX Runtime: ``SkipModules`` of exported segments."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dysl_vla_ros.engines.onnx.exported import adapter_name, decision_name
from dysl_vla_ros.engines.onnx.sessions import Segment
from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.probability import probability_of
from dysl_vla_ros.skipping.streams import no_bridge


@dataclass(frozen=True)
class OnnxSummary:
    """What a decision leaves on the device: for the adapter tokens and vector, for the controller its logit."""

    tokens: Any  # (1, T, D)
    vector: Any  # (1, D)
    logit: Any  # (1,) float32


class OnnxController:
    """The pool's segment has computed the logit as well: one call a decision."""

    def probability(self, summary: OnnxSummary) -> float:
        """Return the skip probability, 0 to 1; NaN where the logit is."""
        return probability_of(float(summary.logit.numpy()[0]))


class OnnxModules:
    """What stands in for skipped layers of the one stream that the reference family has."""

    bridge = staticmethod(no_bridge)

    def __init__(
        self, partition: LayerPartition, open_segment: Callable[[str], Segment], sizes: Mapping[str, int] | None = None
    ) -> None:
        """Open the segments of all skip points by their names; ``sizes``: what :meth:`weight_sizes` returns."""
        self._sizes = dict(sizes or {})
        self._decisions = {layer: open_segment(decision_name(layer)) for layer in partition.skip_points}
        self._adapters = {layer: open_segment(adapter_name(layer)) for layer in partition.skip_points}
        self._controller = OnnxController()

    def weight_sizes(self) -> Mapping[str, int]:
        """Return how many values each trained weight of the exported folder has, by its name."""
        return self._sizes

    def summary(self, layer: int, hidden: Any, token_mask: Any) -> OnnxSummary:
        """Sum up ``hidden`` (1, T, D), which would enter ``layer``, for its controller and its adapter."""
        return OnnxSummary(*self._decisions[layer](hidden, token_mask))

    def controller(self, layer: int) -> OnnxController:
        """Return the controller in front of ``layer``."""
        return self._controller

    def adapter(self, layer: int) -> Callable[[Any, OnnxSummary], Any]:
        """Return the adapter that stands in for ``layer`` and the rest of its block."""
        segment = self._adapters[layer]
        return lambda hidden, summary: segment(hidden, summary.tokens, summary.vector)[0]

    def adapted(self, layer: int, hidden: Any, token_mask: Any) -> Any:
        """Return (1, T, D), which enters the layer behind the block, where ``layer`` and the rest of it are skipped."""
        return self.adapter(layer)(hidden, self.summary(layer, hidden, token_mask))
