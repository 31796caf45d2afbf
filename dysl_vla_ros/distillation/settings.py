"""What a distillation may change: its stages, and what adapters and controllers are made like. Imports no torch."""

from dataclasses import dataclass

from dysl_vla_ros.errors import DataError

WIDE = 512  # above it a full mix is most of what is trained: 22 of 24 million parameters at 960, 403 of 436 at 4096
WIDE_RANK, WIDE_BOTTLENECK = 48, 64
LEAST_SIZES = {"bottleneck": 1, "queries": 1, "controller_width": 1, "pool_rank": 0}


def fitting_sizes(width: int, per_block: str) -> dict[str, int]:
    """Return sizes of modules for hidden states of ``width`` (see ``DyslModules``).

    At OpenVLA-OFT's shapes, 32 layers of 4096 of which 7 are static, they come to 14 million parameters with one skip
    point a block (the paper's number), and to 30 million with one at every dynamic layer.
    """
    wide = width > WIDE
    bottleneck = WIDE_BOTTLENECK if wide and per_block == "all" else 96
    return {"bottleneck": bottleneck, "queries": 4, "controller_width": 32, "rank": WIDE_RANK if wide else 0}


@dataclass(frozen=True)
class DistillationSettings:
    """What a run may change."""

    hidden_steps: int = 500  # stage 1, hidden states; 0: left out, where adapters are gone on with
    action_steps: int = 1800  # stage 1, action loss
    joint_steps: int = 1200  # stage 2
    batch_size: int = 64
    learning_rate: float = 2e-3  # highest, of every stage
    adapter_rate: float = 1.0  # share of it that adapters take in stage 2
    floor_share: float = 0.5  # of the batches that skip whole blocks; the others skip from any point
    large_error: float = 0.1  # action L1, normalised, that weighs twice its size; 0: all weigh what they are
    controllers: str = "error"  # or "mixture"
    skip_weight: float = 0.1  # lambda of the mixture
    seed: int = 0
    compile: bool = False  # the frozen layers


@dataclass(frozen=True)
class ModuleSettings:
    """Adapters and controllers; None: what fits the width of the policy (``fitting_sizes``).

    Attributes:
        adapter: ``pooled``: with a few pooled tokens; ``token``: token by token, without ``queries`` and ``pool_rank``.
        adapters_per_block: ``all``: at each dynamic layer; ``first``: one a block, no skip from its middle.
        bottleneck: width of an adapter.
        queries: pooled tokens that a block's adapters share.
        pool_rank: rank of the mix of pooled tokens; 0: full.
        controller_width: units of a controller.
    """

    adapter: str = "pooled"
    adapters_per_block: str = "all"
    bottleneck: int | None = None
    queries: int | None = None
    pool_rank: int | None = None
    controller_width: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be made.

        Raises:
            DataError: a size is below what there is.
        """
        faults = [
            f"--{name.replace('_', '-')} must be at least {LEAST_SIZES[name]}, not {size}"
            for name, size in self._given.items()
            if size < LEAST_SIZES[name]
        ]
        if faults:
            raise DataError(f"{'; '.join(faults)} (adapters without pooled tokens: --adapter token)")

    @property
    def _given(self) -> dict[str, int]:
        return {name: size for name in LEAST_SIZES if (size := getattr(self, name)) is not None}

    def sizes(self, width: int) -> dict[str, int]:
        """Return the sizes of modules (see ``DyslModules``) for hidden states of ``width``."""
        given = {name.removeprefix("pool_"): size for name, size in self._given.items()}
        sizes = fitting_sizes(width, self.adapters_per_block) | given
        return sizes if self.adapter == "pooled" else sizes | {"queries": 0, "rank": 0}
