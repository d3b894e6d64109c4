"""How a kernel is started."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """How to start a kernel. grid: blocks in x, y, z; block: threads; shared_memory: dynamic bytes per block;
    cluster: blocks per cluster along x; cooperative: whether all blocks must be resident together."""

    grid: tuple[int, int, int]
    block: int
    shared_memory: int
    cluster: int = 1
    cooperative: bool = False

    @property
    def num_partials(self) -> int:
        """P: partial sums that a backward kernel leaves of what is summed over the batch, one a block along y."""
        return self.grid[1]
