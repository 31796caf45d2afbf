"""The only trained parts: adapters that stand in for skipped layers, controllers that say when.

After the paper's figure of the method; the pooled term is ours (it lets tokens mix a little, which a bottleneck that
works token by token cannot do). Padding tokens are left out of every pooling: what stands in them reaches no other
token's output and no controller.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from dysl_vla_ros.skipping.partition import LayerPartition

NORM_EPSILON = 1e-6


def attention_pool(hidden: Tensor, queries: Tensor, token_mask: Tensor | None) -> Tensor:
    """Pool normalised tokens by the softmax of their product with each query.

    Args:
        hidden: (B, T, D), already normalised, finite; each row holds at least one real token.
        queries: (Q, D).
        token_mask: (B, T) bool, True where a token is real; None: all are.

    Returns:
        (B, Q, D).
    """
    scores = (queries * hidden.shape[-1] ** -0.5) @ hidden.transpose(1, 2)  # (B, Q, T)
    if token_mask is not None:
        scores = scores.masked_fill(~token_mask[:, None, :], float("-inf"))
    return scores.softmax(dim=-1) @ hidden  # (B, Q, D)


def _without_padding(tokens: Tensor, token_mask: Tensor | None) -> Tensor:
    # A weight of zero is not enough: zero times what infinity in a padding token became would still be NaN.
    return tokens if token_mask is None else tokens.masked_fill(~token_mask[:, :, None], 0.0)


def _normalised(hidden: Tensor) -> Tensor:
    return functional.rms_norm(hidden, (hidden.shape[-1],), eps=NORM_EPSILON)


class PooledQueries(nn.Module):
    """A few learned queries that pool over all tokens, mixed to one vector: what the adapters of a block share."""

    def __init__(self, width: int, queries: int = 4) -> None:
        """Make ``queries`` queries over tokens of ``width`` values."""
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, width) * 0.5)
        self.mix = nn.Linear(queries * width, width)

    def forward(self, tokens: Tensor, token_mask: Tensor | None) -> Tensor:
        """Return (B, D) for normalised ``tokens`` (B, T, D)."""
        tokens = _without_padding(tokens, token_mask)
        pooled = attention_pool(tokens, self.queries, token_mask)  # (B, Q, D)
        return self.mix(pooled.flatten(1))  # (B, D)


class SkipAdapter(nn.Module):
    """Maps the hidden state before a skipped layer to the input of the next static layer.

    A bottleneck with a residual, whose last layer is zero at the start: an untrained adapter is the identity.
    ``pool`` belongs to the block (:class:`DyslModules` owns it): its parameters are not this module's own, or they
    would be stored once for each adapter.
    """

    def __init__(self, width: int, bottleneck: int, pool: PooledQueries | None) -> None:
        """Make an adapter of hidden ``width``; ``pool`` None: it works token by token."""
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=NORM_EPSILON)
        self.down = nn.Linear(width, bottleneck)
        self.pooled = nn.Linear(width, bottleneck, bias=False) if pool is not None else None
        self.up = nn.Linear(bottleneck, width)
        self._shared = (pool,)  # a tuple: not registered
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: Tensor, token_mask: Tensor | None = None) -> Tensor:
        """Return (B, T, D) for ``hidden`` (B, T, D); ``token_mask`` (B, T) is True where a token is real."""
        tokens = _normalised(hidden)  # once, for both uses: at batch 1 each small operation counts
        narrow = self.down(tokens * self.norm.weight)  # (B, T, bottleneck)
        (pool,) = self._shared
        if pool is not None and self.pooled is not None:
            narrow = narrow + self.pooled(pool(tokens, token_mask))[:, None, :]
        return hidden + self.up(functional.silu(narrow))


class SkipController(nn.Module):
    """Says how likely the rest of a block can be skipped, from the hidden state before one of its layers.

    The last layer is zero at the start: an untrained controller says 0.5, which exceeds no sensible threshold.
    ``offset`` is added to the logit; calibration sets it, training leaves it alone.
    """

    offset: Tensor

    def __init__(self, width: int, hidden: int = 32) -> None:
        """Make a controller over tokens of ``width`` values with ``hidden`` units."""
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, width) * 0.5)
        self.inner = nn.Linear(2 * width, hidden)
        self.outer = nn.Linear(hidden, 1)
        self.register_buffer("offset", torch.zeros(()))
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, hidden: Tensor, token_mask: Tensor | None = None) -> Tensor:
        """Return the logit (B,) for ``hidden`` (B, T, D); ``token_mask`` (B, T) is True where a token is real."""
        tokens = _without_padding(_normalised(hidden), token_mask)
        count = hidden.shape[1] if token_mask is None else token_mask.sum(dim=1, keepdim=True)
        mean = tokens.sum(dim=1) / count  # (B, D)
        pooled = attention_pool(tokens, self.query, token_mask)[:, 0]  # (B, D)
        inner = functional.silu(self.inner(torch.cat([mean, pooled], dim=-1)))
        return self.outer(inner)[:, 0] + self.offset

    def probability(self, hidden: Tensor, token_mask: Tensor | None = None) -> Tensor:
        """Return the skip probability (B,), 0 to 1."""
        return torch.sigmoid(self(hidden, token_mask))


class DyslModules(nn.Module):
    """One adapter and one controller for every skip point of a partition, one pool for every block."""

    def __init__(
        self, partition: LayerPartition, width: int, bottleneck: int = 96, queries: int = 4, controller_width: int = 32
    ) -> None:
        """Make untrained modules for a stack of hidden ``width``; ``queries`` 0: adapters work token by token."""
        super().__init__()
        self.pools = nn.ModuleDict()
        self.adapters = nn.ModuleDict()
        self.controllers = nn.ModuleDict()
        for block, points in enumerate(partition.points):
            pool = PooledQueries(width, queries) if queries > 0 else None
            if pool is not None:
                self.pools[str(block)] = pool
            for layer in points:
                self.adapters[str(layer)] = SkipAdapter(width, bottleneck, pool)
                self.controllers[str(layer)] = SkipController(width, controller_width)

    def adapter(self, layer: int) -> SkipAdapter:
        """Return the adapter that stands in for ``layer`` and the rest of its block."""
        module = self.adapters[str(layer)]
        assert isinstance(module, SkipAdapter)
        return module

    def controller(self, layer: int) -> SkipController:
        """Return the controller in front of ``layer``."""
        module = self.controllers[str(layer)]
        assert isinstance(module, SkipController)
        return module
