"""How large adapters, pools and controllers are made where nobody says; without torch."""

WIDE = 1024  # above it a full mix would be most of what is trained: 403 of 436 million parameters at 4096
WIDE_RANK, WIDE_BOTTLENECK = 48, 64


def fitting_sizes(width: int, per_block: str) -> dict[str, int]:
    """Return sizes of modules for hidden states of ``width`` (see ``DyslModules``).

    At OpenVLA-OFT's shapes, 32 layers of 4096 of which 7 are static, they come to 14 million parameters with one skip
    point a block (the paper's number), and to 30 million with one at every dynamic layer.
    """
    wide = width > WIDE
    bottleneck = WIDE_BOTTLENECK if wide and per_block == "all" else 96
    return {"bottleneck": bottleneck, "queries": 4, "controller_width": 32, "rank": WIDE_RANK if wide else 0}
