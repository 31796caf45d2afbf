"""What memory a run with the teacher beside needs, by part, from sizes alone: said before it starts.

An upper estimate in whole terms, not a measurement: of a layer that is computed again on the way back everything is
counted twice that its matrices give out for a token.
"""

from dataclasses import dataclass

from dysl_vla_ros.policies.interface import VlaPolicy
from dysl_vla_ros.skipping.partition import LayerPartition

GIGABYTE = 1e9
WHILE_LEARNING = 16  # bytes a parameter in float32: itself, its gradient, two moments of the optimiser
HEADS = 32  # of attention, at most: what a layer's scores are estimated by
LIBRARIES = 1.0  # GB that a device's libraries and what they leave between two allocations take
KEPT_BY_ADAPTER = 4  # hidden states in float32 that one adapter keeps for the way back
ACTION_TOKENS = 64  # of a follower, at most


@dataclass(frozen=True)
class MemorySizes:
    """Of a policy what its memory follows from."""

    parameters: int
    layer_parameters: int  # of one leading layer
    layers: int
    width: int  # D
    tokens: int  # T of a frame
    value_bytes: int  # of one number in the policy's own numbers
    followers: tuple[tuple[int, int], ...] = ()  # (width, parameters of a layer) each

    @classmethod
    def of(cls, policy: VlaPolicy, tokens: int) -> "MemorySizes":
        """Take them from a policy, of which a frame has ``tokens``."""
        parts, layers = policy.parts(), len(policy.layers)
        lead, *others = policy.streams

        def share(name: str) -> int:
            return sum(weight.numel() for weight in parts.get(name, ())) // layers

        followers = tuple((own.width, share(own.name)) for own in others)
        size = policy.dtype.itemsize
        return cls(policy.weight_count, share("stack"), layers, lead.width, tokens, size, followers)


def memory_need(sizes: MemorySizes, partition: LayerPartition, trained: int, together: int) -> dict[str, float]:
    """Return what a run needs, part -> GB, the largest first.

    Args:
        sizes: of the policy.
        partition: whose modules are trained.
        trained: parameters of the modules.
        together: frames of a pass at most.
    """
    tokens = together * sizes.tokens
    state = tokens * sizes.width  # values of one hidden state
    kept = len({*partition.skip_points, *(end for _, end in partition.blocks)}) + 2
    values = tokens * sizes.layer_parameters / sizes.width  # that a layer's matrices give out
    scores = together * HEADS * sizes.tokens**2
    need = {
        "the policy's weights": sizes.parameters * sizes.value_bytes,
        "adapters and controllers, their gradients and the optimiser": trained * WHILE_LEARNING,
        f"the teacher's hidden states of {together} frames": kept * state * sizes.value_bytes,
        "the student's hidden states, one a layer": sizes.layers * state * 4,
        "one layer and the adapters on the way back": (
            2 * values * sizes.value_bytes + 6 * scores + KEPT_BY_ADAPTER * (len(partition.blocks) + 1) * state * 4
        ),
    }
    if sizes.followers:
        own = sum(parameters / width for width, parameters in sizes.followers)
        need["keys and values for the followers, the teacher's and the student's"] = (
            2 * sizes.layers * 2 * state * sizes.value_bytes
        )
        need["the followers' layers in one step"] = (
            sizes.layers * together * (2 * ACTION_TOKENS * own * 4 + HEADS * ACTION_TOKENS * sizes.tokens * 8)
        )
    need["libraries and what lies between"] = LIBRARIES * GIGABYTE
    return dict(sorted(((name, size / GIGABYTE) for name, size in need.items()), key=lambda item: -item[1]))


def memory_lines(need: dict[str, float], there: float | None) -> list[str]:
    """Return a small table of :func:`memory_need`; ``there``: GB that are free now, None: nobody knows."""
    total = sum(need.values())
    lines = ["memory that this needs, by an upper estimate:"]
    lines += [f"{size:9.2f} GB  {name}" for name, size in need.items()]
    free = "" if there is None else f", {there:.1f} GB are free"
    lines.append(f"{total:9.2f} GB  in all{free}")
    if there is not None and total > there:
        lines.append("that may be too little: take fewer frames a pass (--together 1), or model.dtype bfloat16")
    return lines
