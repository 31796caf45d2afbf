"""Static layers, and the blocks of dynamic layers between them (paper, section on dynamic-static layers)."""

from dataclasses import dataclass
from functools import cached_property

from dysl_vla_ros.errors import CheckpointError

PER_BLOCK = ("all", "first")


@dataclass(frozen=True)
class LayerPartition:
    """Which layers of a stack always run (static); all others are dynamic.

    The dynamic layers between two neighbouring static layers form a block; two static layers side by side form none.
    First and last layer are static, so that every block is followed by a layer that its adapters can aim at.

    Attributes:
        num_layers: of the stack.
        static: rising.
        per_block: which dynamic layers are skip points, with a controller and an adapter of their own: ``all``, or the
            ``first`` of each block alone (*ours*: one decision a block, few parameters where blocks are long).

    Raises:
        CheckpointError: ``static`` is not a rising list of layers with the first and the last one in it, or
            ``per_block`` is neither.
    """

    num_layers: int
    static: tuple[int, ...]
    per_block: str = "all"

    def __post_init__(self) -> None:
        """Refuse what is no partition; every fault is named at once."""
        faults = []
        if self.num_layers < 1:
            faults.append(f"a stack has at least 1 layer, not {self.num_layers}")
        if list(self.static) != sorted(set(self.static)):
            faults.append("static layers must rise and none may come twice")
        outside = [layer for layer in self.static if not 0 <= layer < self.num_layers]
        if outside:
            faults.append(f"layers {outside} are not among 0 to {self.num_layers - 1}")
        missing = sorted({0, self.num_layers - 1} - set(self.static))
        if missing and self.num_layers >= 1:
            faults.append(f"first and last layer must be static, {missing} is missing")
        if self.per_block not in PER_BLOCK:
            faults.append(f"adapters per block are {' or '.join(PER_BLOCK)}, not {self.per_block!r}")
        if faults:
            raise CheckpointError(f"static layers {list(self.static)} of {self.num_layers}: {'; '.join(faults)}")

    @classmethod
    def full(cls, num_layers: int) -> "LayerPartition":
        """Return the partition in which every layer is static and nothing can be skipped."""
        return cls(num_layers, tuple(range(num_layers)))

    @cached_property
    def blocks(self) -> tuple[tuple[int, int], ...]:
        """Blocks as (first dynamic layer, one past the last): the second is the next static layer."""
        pairs = zip(self.static[:-1], self.static[1:], strict=True)
        return tuple((before + 1, after) for before, after in pairs if after - before > 1)

    @cached_property
    def dynamic(self) -> tuple[int, ...]:
        """All layers that may be skipped, rising."""
        return tuple(layer for first, end in self.blocks for layer in range(first, end))

    @cached_property
    def points(self) -> tuple[range, ...]:
        """Skip points of each block, from its first layer on."""
        return tuple(range(first, end if self.per_block == "all" else first + 1) for first, end in self.blocks)

    @cached_property
    def places(self) -> tuple[tuple[int, ...], ...]:
        """Where each block can be left: its skip points and, last, its end, at which nothing of it is skipped."""
        return tuple((*points, end) for points, (_, end) in zip(self.points, self.blocks, strict=True))

    @cached_property
    def floor(self) -> tuple[int, ...]:
        """Where each block is left when it is skipped whole: its first layer."""
        return tuple(first for first, _ in self.blocks)

    @cached_property
    def skip_points(self) -> tuple[int, ...]:
        """All layers that have a controller and an adapter, rising."""
        return tuple(layer for points in self.points for layer in points)

    def block_at(self, layer: int) -> int | None:
        """Return the index of the block that can be left at ``layer``, None where there is no skip point."""
        block = self.block_of(layer)
        return block if block is not None and layer in self.points[block] else None

    def block_of(self, layer: int) -> int | None:
        """Return the index of the block that ``layer`` is in, None for a static layer."""
        for index, (first, end) in enumerate(self.blocks):
            if first <= layer < end:
                return index
        return None
