"""How a kernel is started: at one shape, and as a rule for all batches and numbers of steps."""

from __future__ import annotations

from dataclasses import dataclass

from kernelgen.errors import LaunchError
from kernelgen.program.rules import Sized, evaluate, sizes_of

MOST_BLOCKS_X = 2**31 - 1
MOST_BLOCKS = 65535
"""Blocks of a grid along x, and along y or z (CUDA C++ Programming Guide, "Compute Capabilities")."""


@dataclass(frozen=True)
class Launch:
    """How to start a kernel. grid: blocks in x, y, z; block: threads; shared_memory: dynamic bytes per block;
    cluster: blocks per cluster along x; cooperative: whether all blocks must be resident together."""

    grid: tuple[int, int, int]
    block: int
    shared_memory: int
    cluster: int = 1
    cooperative: bool = False


@dataclass(frozen=True)
class LaunchRule:
    """A Launch whose grid depends on batch, heads and seq: text that rules.evaluate understands."""

    grid: tuple[str, str, str]
    block: int
    shared_memory: int
    cluster: int = 1
    cooperative: bool = False

    def at(self, shape: Sized) -> Launch:
        """The launch at a shape. Raises ConfigError for a rule that cannot be evaluated, LaunchError for a grid that no
        GPU has."""
        sizes = sizes_of(shape)
        x, y, z = (evaluate(rule, sizes) for rule in self.grid)
        for blocks, most, along in ((x, MOST_BLOCKS_X, "x"), (y, MOST_BLOCKS, "y"), (z, MOST_BLOCKS, "z")):
            if blocks > most:
                raise LaunchError(
                    f"{shape} would be {blocks:,} blocks along {along}, and a grid has at most {most:,}; cut the batch "
                    "into several"
                )
        return Launch((x, y, z), self.block, self.shared_memory, self.cluster, self.cooperative)
