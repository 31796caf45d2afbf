"""Every segment beside torch's own, on the same inputs: what an export prints, and is refused by."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dysl_vla_ros.engines.onnx.exported import (
    FP16,
    FP32,
    HEAD,
    INT8,
    NUMBERS,
    PREPARE,
    Export,
    adapter_name,
    decision_name,
    run_name,
)
from dysl_vla_ros.engines.onnx.modules import OnnxModules, OnnxSummary
from dysl_vla_ros.engines.onnx.policy import OnnxContext, OnnxReferencePolicy
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.skipping.stack import full_result
from dysl_vla_ros.skipping.streams import no_bridge

SAMPLES = 4  # observations, each through every segment
# Largest difference from torch, as a share of the largest value that torch gives: what rounding comes to, with room.
LIMITS = {FP32: 1e-4, FP16: 0.05, INT8: 0.25}
Put = Callable[[NDArray[Any]], Any]


def samples(runtime: Runtime, number: int = SAMPLES) -> Iterator[Observation]:
    """Yield a grey observation and noisy ones, with instructions in turn; always the same."""
    policy, random = runtime.policy, np.random.default_rng(0)
    yield policy.sample()
    for place in range(1, number):
        yield Observation(
            images={name: random.integers(0, 256, (120, 160, 3), dtype=np.uint8) for name in policy.cameras},
            proprioception=random.normal(size=len(policy.proprioception.names)).astype(np.float32),
            instruction=policy.instructions[place % len(policy.instructions)],
        )


def errors_of(
    torch_runtime: Runtime, policy: OnnxReferencePolicy, modules: OnnxModules | None, export: Export, put: Put
) -> dict[str, float]:
    """Return the largest difference of each segment from torch, as a share of torch's largest value there."""
    found: dict[str, float] = {}
    for observation in samples(torch_runtime):
        for segment, error in _errors_at(torch_runtime, policy, modules, export, put, observation):
            found[segment] = max(found.get(segment, 0.0), error)
    return found


def require_equal(errors: Mapping[str, float], weights: str) -> None:
    """Refuse an export that differs from torch by more than its numbers explain.

    Raises:
        DataError: names the segments and their errors.
    """
    limit = LIMITS[weights]
    far = {name: error for name, error in errors.items() if not error <= limit}
    if far:
        listed = ", ".join(f"{name} by {error:.2g}" for name, error in far.items())
        raise DataError(
            f"the export differs from torch more than {weights} explains (at most {limit:g} of the largest value): "
            f"{listed}; nothing was written. Report this, with the versions of onnxruntime and transformers"
        )


def _errors_at(
    torch_runtime: Runtime,
    policy: OnnxReferencePolicy,
    modules: OnnxModules | None,
    export: Export,
    put: Put,
    observation: Observation,
) -> Iterator[tuple[str, float]]:
    """Yield each segment's error on one observation: all get what torch's layer before them gave, at full depth."""
    own, dysl = torch_runtime.policy, torch_runtime.dysl
    context: Any
    kind = np.dtype(NUMBERS[export.weights])

    def given(value: torch.Tensor) -> Any:
        return put(value.numpy().astype(kind))

    with torch.inference_mode():
        hidden, context = own.prepare([observation])
        started, seen = policy.prepare([observation])
        masks_differ = (context.token_mask.numpy() != seen.token_mask.numpy()).any()
        yield PREPARE, max(_apart(hidden, started), float(masks_differ))
        attention = context.attention_mask.expand(1, 1, hidden.shape[1], hidden.shape[1])
        there = OnnxContext(put(context.token_mask.numpy()), put(attention.contiguous().numpy()))
        for first, end in export.runs:
            if dysl is not None and modules is not None and first in dysl.partition.skip_points:
                summary = dysl.modules.summary(first, hidden, context.token_mask)
                other = modules.summary(first, given(hidden), there.token_mask)
                pairs = ((summary.tokens, other.tokens), (summary.vector, other.vector))
                said = dysl.modules.controller(first).probability(summary)  # what a threshold is compared with
                doubt = abs(said - modules.controller(first).probability(other))
                yield decision_name(first), max(doubt, *(_apart(*pair) for pair in pairs))
                adapted = dysl.modules.adapter(first)(hidden, summary)
                handed = OnnxSummary(given(summary.tokens), given(summary.vector), other.logit)
                yield adapter_name(first), _apart(adapted, modules.adapter(first)(given(hidden), handed))
            before = given(hidden)
            for layer in range(first, end):
                hidden = own.layers[layer](hidden, context)
            yield run_name(first, end), _apart(hidden, policy.layers[first](before, there))
        result = full_result(hidden, export.runs[-1][1])
        actions, _ = own.decode(result, context, None, None, no_bridge)
        others, _ = policy.decode(full_result(given(hidden), result.layer_calls), there, None, None, no_bridge)
        yield HEAD, _difference(actions.numpy(), others)


def _apart(wanted: torch.Tensor, found: Any) -> float:
    return _difference(wanted.float().numpy(), found.numpy())


def _difference(wanted: NDArray[np.float32], found: NDArray[Any]) -> float:
    largest = max(float(np.abs(wanted).max()), 1e-6)
    return float(np.abs(wanted - found.astype(np.float32)).max()) / largest
