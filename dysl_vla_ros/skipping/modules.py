"""The only trained parts: adapters that stand in for skipped layers, controllers that say when.

After the paper's figure of the method; the pooled term is ours (it lets tokens mix a little, which a bottleneck that
works token by token cannot do). Padding tokens are left out of every pooling: what stands in them reaches no other
token's output and no controller.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.probability import probability_of
from dysl_vla_ros.skipping.streams import Stream

NORM_EPSILON = 1e-6


class Summary(NamedTuple):
    """What the controller and the adapter of a skip point look at: computed once for both."""

    tokens: Tensor  # (B, T, D) the hidden state, each token scaled to a mean square of 1; padding is 0
    vector: Tensor  # (B, D) what was pooled over the real tokens

    def detach(self) -> "Summary":
        """Return the same, through which nothing learns."""
        return Summary(self.tokens.detach(), self.vector.detach())


class BlockPool(nn.Module):
    """Sums up a hidden state for the skip points of a block, which share it: few parameters, computed once.

    A few learned queries pool over all tokens by the softmax of their product with each, mixed to one vector; with no
    queries it is the mean of the tokens, and there is nothing to learn. A mix of all values with all grows with the
    square of the width: at 4096 it would be 67 million parameters a block. ``rank`` makes it one of low rank.
    """

    def __init__(self, width: int, queries: int = 4, rank: int = 0) -> None:
        """Make ``queries`` queries over tokens of ``width`` values; ``rank`` of the mix, 0: full."""
        super().__init__()
        if queries:
            self.queries = nn.Parameter(torch.randn(queries, width) * 0.5)
            values = queries * width
            self.mix = (
                nn.Sequential(nn.Linear(values, rank, bias=False), nn.Linear(rank, width))
                if rank
                else nn.Linear(values, width)
            )
        self.learned = queries > 0

    def forward(self, hidden: Tensor, token_mask: Tensor | None = None) -> Summary:
        """Sum up ``hidden`` (B, T, D); ``token_mask`` (B, T) is True where a token is real, at least once a row."""
        # The root mean square by way of the norm: two operations less than ``functional.rms_norm`` comes apart into.
        length = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
        tokens = hidden * torch.rsqrt(length.square() / hidden.shape[-1] + NORM_EPSILON)
        if token_mask is not None:
            # A weight of zero would not be enough: zero times infinity in a padding token is NaN.
            tokens = torch.where(token_mask[:, :, None], tokens, 0.0)
        if not self.learned:
            count = hidden.shape[1] if token_mask is None else token_mask.sum(dim=1, keepdim=True)
            return Summary(tokens, tokens.sum(dim=1) / count)
        mask = None if token_mask is None else token_mask[:, None, None, :]
        states = tokens[:, None]  # as if of one head: with four dimensions the kernel starts sooner
        queries = self.queries.expand(len(hidden), 1, -1, -1)
        pooled = functional.scaled_dot_product_attention(queries, states, states, attn_mask=mask)  # (B, 1, Q, D)
        return Summary(tokens, self.mix(pooled.flatten(1)))


class SkipAdapter(nn.Module):
    """Maps the hidden state before a skipped layer to the input of the next static layer.

    A bottleneck with a residual, whose last layer is zero at the start: an untrained adapter is the identity.
    """

    def __init__(self, width: int, bottleneck: int, pooled: bool = True) -> None:
        """Make an adapter of hidden ``width``; ``pooled`` False: it works token by token."""
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.pooled = nn.Linear(width, bottleneck, bias=False) if pooled else None
        self.up = nn.Linear(bottleneck, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: Tensor, summary: Summary) -> Tensor:
        """Return (B, T, D) for ``hidden`` (B, T, D) and its block's summary of it."""
        narrow = self.down(summary.tokens)  # (B, T, bottleneck)
        if self.pooled is not None:
            narrow += self.pooled(summary.vector)[:, None, :]
        return hidden + self.up(functional.silu(narrow))


class SkipController(nn.Module):
    """Says how likely the rest of a block can be skipped, from what was pooled before one of its layers.

    The last layer is zero at the start: an untrained controller says 0.5, which exceeds no sensible threshold.
    ``offset`` is added to the logit; calibration sets it, training leaves it alone.
    """

    offset: Tensor

    def __init__(self, width: int, hidden: int = 32) -> None:
        """Make a controller over vectors of ``width`` values with ``hidden`` units."""
        super().__init__()
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, 1)
        self.register_buffer("offset", torch.zeros(()))
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, summary: Summary) -> Tensor:
        """Return the logit (B,) of skipping."""
        return self.outer(functional.silu(self.inner(summary.vector)))[:, 0] + self.offset

    def probability(self, summary: Summary) -> float:
        """Return the skip probability, 0 to 1, of a single observation; NaN where the logit is."""
        logit = self(summary)
        assert len(logit) == 1, f"one decision for one observation, not for a batch of {len(logit)}"
        return probability_of(logit.item())


class StreamModules(nn.Module):
    """What stands in for the skipped layers of one stream: an adapter a skip point, a pool a block.

    The leading stream has a controller a skip point beside them.
    """

    def __init__(
        self,
        partition: LayerPartition,
        width: int,
        bottleneck: int = 96,
        queries: int = 4,
        rank: int = 0,
        controller_width: int = 0,
    ) -> None:
        """Make untrained modules for hidden states of ``width``; see :class:`DyslModules`."""
        super().__init__()
        self.pools = nn.ModuleDict()
        self.adapters = nn.ModuleDict()
        if controller_width:
            self.controllers = nn.ModuleDict()
        self._block_of: dict[int, str] = {}
        for block, points in enumerate(partition.points):
            self.pools[str(block)] = BlockPool(width, queries, rank)
            for layer in points:
                self._block_of[layer] = str(block)
                self.adapters[str(layer)] = SkipAdapter(width, bottleneck, pooled=queries > 0)
                if controller_width:
                    self.controllers[str(layer)] = SkipController(width, controller_width)

    def summary(self, layer: int, hidden: Tensor, token_mask: Tensor | None) -> Summary:
        """Sum up ``hidden`` (B, T, D), which would enter ``layer``, for its controller and its adapter."""
        summary = self.pools[self._block_of[layer]](hidden, token_mask)
        assert isinstance(summary, Summary)
        return summary

    def adapted(self, layer: int, hidden: Tensor, token_mask: Tensor | None) -> Tensor:
        """Return (B, T, D), which enters the layer behind the block, where ``layer`` and the rest of it are skipped."""
        return self.adapter(layer)(hidden, self.summary(layer, hidden, token_mask))

    def adapter(self, layer: int) -> SkipAdapter:
        """Return the adapter that stands in for ``layer`` and the rest of its block."""
        module = self.adapters[str(layer)]
        assert isinstance(module, SkipAdapter)
        return module


class DyslModules(StreamModules):
    """All that is trained for a policy: modules of the leading stream, its controllers, and modules of each follower.

    ``pools``, ``adapters`` and ``controllers`` are the leading stream's: the names of every DySL folder so far.
    """

    def __init__(
        self,
        partition: LayerPartition,
        streams: Sequence[Stream],
        bottleneck: int = 96,
        queries: int = 4,
        controller_width: int = 32,
        rank: int = 0,
    ) -> None:
        """Make untrained modules.

        Args:
            partition: of the leading stack; followers repeat its plan.
            streams: of the policy, the leading one first.
            bottleneck: of every adapter.
            queries: of every pool; 0: adapters work token by token.
            controller_width: hidden units of every controller.
            rank: of every pool's mix; 0: full.
        """
        lead, *followers = streams
        super().__init__(partition, lead.width, bottleneck, queries, rank, controller_width)
        self.followers = nn.ModuleDict(
            {own.name: StreamModules(partition, own.width, bottleneck, queries, rank) for own in followers}
        )

    def bridge(self, stream: str, layer: int, hidden: Tensor) -> Tensor:
        """Return what enters the layer behind the block where ``stream`` skips from ``layer`` on: a ``Bridge``."""
        follower = self.followers[stream]
        assert isinstance(follower, StreamModules)
        kind = follower.adapter(layer).up.weight.dtype  # in training float32, whatever the policy computes in
        return follower.adapted(layer, hidden.to(kind), None).to(hidden.dtype)

    def weight_sizes(self) -> Mapping[str, int]:
        """Return how many values each trained weight has, by its name."""
        return {name: weight.numel() for name, weight in self.named_parameters()}

    def controller(self, layer: int) -> SkipController:
        """Return the controller in front of ``layer``."""
        module = self.controllers[str(layer)]
        assert isinstance(module, SkipController)
        return module
