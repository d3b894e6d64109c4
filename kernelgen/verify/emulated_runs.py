"""What a validation in the emulator runs of a kernel: small launches as a whole, and one block of a huge one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from kernelgen.verify.cases import POISON
from kernelgen.verify.emulator import Excerpt

if TYPE_CHECKING:
    from kernelgen.program.arguments import ArrayArgument
    from kernelgen.program.launch import Launch
    from kernelgen.program.program import Program
    from kernelgen.program.shape import Shape
    from kernelgen.verify.cases import Array
    from kernelgen.verify.emulator import Argument

EMULATED_SEQ = 5
"""Steps to emulate at least: enough for every buffer that alternates to be reused twice."""

EMULATED_BLOCKS = 24
"""Blocks to emulate, about; the batch is made smaller until no more are needed."""

LONG_SEQ = 24
"""Steps to emulate at least where one block runs alone; seeds differ by up to three more."""

HUGE = 2**32 + 2**20
"""Elements that the smallest array with a batch has where one block runs alone: unsigned 32 bits do not hold its
indices."""

LARGEST_BATCH = 2**31 - 2**10
"""Sequences at most: the batch is an int32."""


def emulated_shape(shape: Shape, launch: Callable[[Shape], Launch], seq: int = EMULATED_SEQ) -> Shape:
    """``shape`` made small enough to emulate: ``seq`` steps, and of the batch what some EMULATED_BLOCKS blocks need.

    Heads and head dimension are compiled into a kernel and stay.
    """
    batch = shape.batch
    while batch > 1 and math.prod(launch(replace(shape, batch=batch)).grid) > EMULATED_BLOCKS:
        batch = batch // 2
    # A batch that fills its last tile proves nothing about the edge; tiles are even.
    ragged = batch - 1 if batch > 2 and batch % 2 == 0 else batch
    return replace(shape, batch=ragged, seq=min(seq, shape.seq))


def emulated_steps(program: Program) -> int:
    """Steps to emulate a program for: more than are under way at once, so that every buffer is reused."""
    return max(EMULATED_SEQ, program.num_stages + 2)


@dataclass(frozen=True)
class Extent:
    """Sizes of a launch, which may be larger than any that a GPU starts: what is emulated is its arithmetic."""

    batch: int
    seq: int
    heads: int


@dataclass(frozen=True)
class Run:
    """What one emulation runs of a launch: all of it, or the last sequences of a large batch.

    launch, launched: the launch and its sizes. shape: of the part that runs, its last sequences, and either all heads
    or the one that is ``head``; nothing else of the arrays exists. blocks: as of emulate. given: the names of the
    inputs that may be null and are not.
    """

    launch: Launch
    launched: Extent
    shape: Shape
    given: tuple[str, ...]
    head: int | None = None
    blocks: tuple[int, ...] | None = None

    def __str__(self) -> str:
        """Which part of a launch it is, after what it is of; nothing for all of it."""
        if self.blocks is None:
            return ""
        rows, batch = self.shape.batch, self.launched.batch
        return f", the last {rows} of {batch:,} sequences, head {self.head} of {self.launched.heads} alone"

    def argument(self, argument: ArrayArgument, array: Array, extents: Mapping[str, int]) -> Argument:
        """What the kernel gets of an array of the part. extents: as of the Program, at the launch's shape."""
        if self.blocks is None:
            return array
        if argument.name == "order":  # of the last sequences, by their numbers among all
            array = array + np.int32(self.launched.batch - self.shape.batch)
        for axis, extent in {"B": self.launched.batch, **extents}.items():
            if axis in argument.axes:
                place = argument.axes.index(axis)
                return Excerpt(array, place, extent - array.shape[place], extent)
        return array

    def among_heads(self, argument: ArrayArgument, array: Array) -> Array:
        """An array of the one head that runs among all heads, the others poisoned."""
        if self.head is None or "H" not in argument.axes:
            return array
        sizes = list(array.shape)
        sizes[argument.axes.index("H")] = self.launched.heads
        full = np.full((*sizes[:-1], sizes[-1] * array.itemsize), POISON, np.uint8).view(array.dtype)
        self.of_head(argument, full)[...] = array
        return full

    def of_head(self, argument: ArrayArgument, array: Array) -> Array:
        """The part of an array that is of the head that runs."""
        if self.head is None or "H" not in argument.axes:
            return array
        axis = argument.axes.index("H")
        return array[(slice(None),) * axis + (slice(self.head, self.head + 1),)]


def whole_run(shape: Shape, launch: Callable[[Shape], Launch], steps: int, seed: int) -> Run:
    """All blocks of a small launch. Even seeds run ``steps`` steps, the others fewer, from 1 on; the inputs that may be
    null are given in turn all, none and some."""
    seq = steps if seed % 2 == 0 else 1 + seed // 2 % max(1, steps - 1)
    small = emulated_shape(shape, launch, seq)
    extent = Extent(small.batch, small.seq, small.heads)
    return Run(launch(small), extent, small, _given(seed // 2 + 2 * (seed % 2)))


def lone_run(shape: Shape, launch: Callable[[Shape], Launch], seed: int) -> Run | None:
    """The last block, or cluster of blocks, of a launch so large that indices need 64 bits, for many steps; what
    whole_run of this seed gives is null and the other way round. None for a schedule whose blocks, or clusters, are not
    each a tile of the batch of one head, and where all blocks of a launch run together."""
    if launch(shape).cooperative:
        return None
    tile, cluster = _batch_tile(shape, launch), launch(shape).cluster
    if tile is None or launch(shape).grid[0] != shape.heads * cluster:
        return None
    seq = LONG_SEQ + seed % 4
    rows = 1 + seed % max(1, tile - 1)  # the last tile is never full
    tiles = min(HUGE // (shape.heads * shape.head_dim), LARGEST_BATCH) // tile
    start = launch(shape)
    start = replace(start, grid=(start.grid[0], tiles + 1, start.grid[2]))
    head = shape.heads - 1 - seed % shape.heads
    part = replace(shape, batch=rows, seq=seq, heads=1)
    given = _given(3 - (seed // 2 + 2 * (seed % 2)) % 4)
    extent = Extent(tiles * tile + rows, seq, shape.heads)
    first = (tiles * shape.heads + head) * cluster
    return Run(start, extent, part, given, head, tuple(range(first, first + cluster)))


def _given(number: int) -> tuple[str, ...]:
    """Which of the inputs that may be null are given, from all (0) to none (3)."""
    return (("initial", "d_last", "input_bias"), ("initial",), ("d_last", "input_bias"), ())[number % 4]


def _batch_tile(shape: Shape, launch: Callable[[Shape], Launch]) -> int | None:
    """How many sequences a block takes; None where blocks along y are something else."""
    shape = replace(shape, seq=1)
    for batch in range(1, 257):
        if launch(replace(shape, batch=batch + 1)).grid[1:] != (1, 1):
            return batch if launch(replace(shape, batch=2 * batch + 1)).grid[1:] == (3, 1) else None
    return None
