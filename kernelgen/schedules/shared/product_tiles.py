"""Tiles of the kernel of a matrix product (cuda/matrix_product.cuh): which there are, what they need, what they cost.

There are few, so that one binary serves many sizes: three for each dtype and way in which the matrices lie. How many
blocks of a cluster share a tile is no part of a binary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from kernelgen.hardware.profile import Profile

TILES = ((1, 2, 4, 2, 64), (2, 2, 2, 2, 64), (2, 4, 1, 4, 128))
"""Warps of rows, warps of columns, groups of warps that share the depth, tiles of 16 rows a warp, columns: 32 x 64 and
64 x 64 for products that would leave multiprocessors idle, and 128 x 128, which reads half as much."""

DOUBLE_TILES = ((1, 2, 2, 2, 64), (2, 2, 1, 2, 64), (4, 2, 1, 2, 64))
"""The same of float64, whose sums take twice the registers, and in shared memory twice the room: the largest is 128 x
64."""

PARTS = (1, 2, 4)
"""Blocks of a cluster that share a tile's depth; eight were always slower (docs/lab/matrix_product.md)."""

STAGE_BYTES = 128
"""Of a matrix row in a stage: a line of the cache."""

MOST_STAGES = 6
"""With five on their way a block that is alone on its multiprocessor waits little for L2."""

BLOCKS = 2
"""Blocks a multiprocessor that the number of stages leaves room for, where that leaves FEWEST_STAGES."""

FEWEST_STAGES = 3

OTHER_REGISTERS = {1: 64, 2: 56, 3: 96}
"""Of a thread, beside its sums, by the matrix instructions for one product."""


@dataclass(frozen=True)
class ProductTiling:
    """The tile variables of cuda/matrix_product.cuh, in the order of its struct but for ``parts``: how many blocks of a
    cluster share a tile, which the kernel asks the GPU for."""

    row_warps: int
    column_warps: int
    depth_groups: int
    warp_tiles: int
    columns: int
    depth: int
    num_stages: int
    a_width: int
    b_width: int
    out_width: int
    a_transposed: bool
    b_transposed: bool
    floats: bool
    parts: int = 1

    @property
    def rows(self) -> int:
        """Rows of a tile."""
        return 16 * self.row_warps * self.warp_tiles

    @property
    def threads(self) -> int:
        """Of a block."""
        return 32 * self.row_warps * self.column_warps * self.depth_groups

    @property
    def sums(self) -> int:
        """Of a thread."""
        return 4 * self.warp_tiles * (self.columns // self.column_warps // 8)

    def registers(self, itemsize: int, products: int) -> int:
        """Of a thread, about. itemsize: bytes of an element. products: matrix instructions for one product."""
        return min(self.sums * max(1, itemsize // 4) + OTHER_REGISTERS[products], 255)

    def shared_memory(self, itemsize: int) -> int:
        """Bytes of shared memory of a block (shared_bytes of the template)."""
        number = max(4, itemsize)
        stage = self._stage(self.a_transposed, self.rows, itemsize) + self._stage(
            self.b_transposed, self.columns, itemsize
        )
        sums = self.depth_groups * self.rows * (self.columns * number + 32)
        of_stages = self.num_stages * self.depth
        places = of_stages if self.a_transposed else self.rows
        places += of_stages if self.b_transposed else self.columns
        return max(self.num_stages * stage, sums) + self.columns * number + 8 * places

    def _stage(self, transposed: bool, count: int, itemsize: int) -> int:
        """Bytes of a stage of a matrix (StageOfMatrix of the template)."""
        rows, elements = (self.depth, count) if transposed else (count, self.depth)
        if itemsize == 2 or (itemsize == 4 and not transposed):
            return rows * 16 * (elements * itemsize // 16 | 1)
        return rows * (elements * itemsize + 32)

    def fit(self, profile: Profile, itemsize: int, products: int) -> int:
        """How many blocks a multiprocessor runs at a time; 0 where none fits."""
        return profile.occupancy(self.threads, self.registers(itemsize, products), self.shared_memory(itemsize))


@dataclass(frozen=True)
class ProductWork:
    """What is to be multiplied. itemsize, out_itemsize: bytes of an element. products: matrix instructions for one
    product. widths: elements of the vectors of a, b and out."""

    rows: int
    columns: int
    depth: int
    itemsize: int
    out_itemsize: int
    products: int
    widths: tuple[int, int, int]
    a_transposed: bool
    b_transposed: bool
    floats: bool

    def blocks(self, tiling: ProductTiling) -> int:
        """Of the launch."""
        return -(-self.rows // tiling.rows) * -(-self.columns // tiling.columns) * tiling.parts

    def fit(self, tiling: ProductTiling, profile: Profile) -> int:
        """How many of them a multiprocessor runs at a time; 0 where none fits."""
        return tiling.fit(profile, self.itemsize, self.products)

    def stages(self, tiling: ProductTiling) -> int:
        """Of a block."""
        return math.ceil(math.ceil(self.depth / tiling.depth) / tiling.parts)


def tilings(work: ProductWork, profile: Profile, clocks: ProductClocks) -> list[ProductTiling]:
    """Every tile that fits, with every number of parts that has work for each; fastest first by the cost model."""
    return sorted(_candidates(work, profile), key=lambda tiling: clocks.predict(work, tiling, profile))


def _candidates(work: ProductWork, profile: Profile) -> Iterator[ProductTiling]:
    depth = STAGE_BYTES // work.itemsize
    most_parts = min(profile.portable_cluster if work.itemsize < 8 else 1, math.ceil(work.depth / depth))
    for rows, across, groups, tiles, columns in DOUBLE_TILES if work.itemsize == 8 else TILES:
        tile = ProductTiling(
            row_warps=rows,
            column_warps=across,
            depth_groups=groups,
            warp_tiles=tiles,
            columns=columns,
            depth=depth,
            num_stages=MOST_STAGES,
            a_width=work.widths[0],
            b_width=work.widths[1],
            out_width=work.widths[2],
            a_transposed=work.a_transposed,
            b_transposed=work.b_transposed,
            floats=work.floats,
        )
        if (fitting := _with_stages(tile, work, profile)) is not None:
            yield from (replace(fitting, parts=parts) for parts in PARTS if parts <= most_parts)


def _with_stages(tile: ProductTiling, work: ProductWork, profile: Profile) -> ProductTiling | None:
    """The same with as many stages as leave room for BLOCKS, or else, where those are too few, as fit; None where two
    do not."""
    fits: dict[ProductTiling, int] = {}
    for num_stages in range(tile.num_stages, 1, -1):
        each = replace(tile, num_stages=num_stages)
        fits[each] = work.fit(each, profile)
        if fits[each] >= BLOCKS and num_stages >= FEWEST_STAGES:
            return each
    return next((each for each, fit in fits.items() if fit), None)


L2_BYTES_PER_CLOCK = 22.0
"""That a multiprocessor gets where all read: in the order of 5 TB/s of an H200."""

MOST_BYTES_PER_CLOCK = 64.0
"""That one gets where few others read."""

SHARED_BYTES_PER_CLOCK = 128.0
"""CUDA C++ Programming Guide: 32 banks of 4 bytes."""

CLUSTER_BYTES_PER_CLOCK = 16.0
"""Of sums that a block reads from the others of its cluster, as measured (docs/lab/matrix_product.md)."""


@dataclass(frozen=True)
class ProductClocks:
    """The cost model: coefficients of clocks.

    tensor: of the matrix instructions. shared: of the bytes that warps read and copies write in shared memory, at its
    full rate. cache: of the bytes that come from L2. load: of the latency of a load from global memory. stage: clocks
    of a stage that nothing hides. exchange: clocks of a cluster that adds its parts, beside the bytes that it reads.
    fixed: clocks of a launch.
    """

    tensor: float
    shared: float
    cache: float
    load: float
    stage: float
    exchange: float
    fixed: float

    def predict(self, work: ProductWork, tiling: ProductTiling, profile: Profile) -> float:
        """Clocks of the kernel. Blocks that run together share tensor cores, shared memory and L2; a stage takes as
        long as the busiest of these, or as its loads, of which all stages but one are on their way at once."""
        blocks, fit = work.blocks(tiling), max(1, work.fit(tiling, profile))
        clusters = profile.clusters_that_fit.get(tiling.parts, profile.multiprocessors // tiling.parts)
        waves = -(-blocks // (clusters * tiling.parts * fit))
        together = min(-(-blocks // profile.multiprocessors), fit)
        active = min(blocks, profile.multiprocessors)
        rate = min(MOST_BYTES_PER_CLOCK, L2_BYTES_PER_CLOCK * profile.multiprocessors / active)
        instructions = work.products * work.itemsize / 2 * tiling.depth / 16  # k16 steps of a stage
        tensor = instructions * (tiling.rows // 16) * (tiling.columns // 8) * profile.latency("mma_interval") / 4
        warp = 16 * tiling.warp_tiles + tiling.columns // tiling.column_warps
        read = tiling.row_warps * tiling.column_warps * warp * tiling.depth * work.itemsize
        copied = (tiling.rows + tiling.columns) * tiling.depth * work.itemsize
        load = self.load * profile.latency("global_load")
        busy = self.tensor * tensor + self.shared * (read + copied) / SHARED_BYTES_PER_CLOCK
        stage = max(together * busy, together * self.cache * copied / rate, load / (tiling.num_stages - 1))
        tile = tiling.rows * tiling.columns
        left = tile * max(4, work.itemsize) * 2 * tiling.depth_groups / SHARED_BYTES_PER_CLOCK
        written = tile * work.out_itemsize / tiling.parts / rate
        from_others = tile * 4 * (tiling.parts - 1) / tiling.parts
        exchange = self.exchange + together * from_others / CLUSTER_BYTES_PER_CLOCK if tiling.parts > 1 else 0.0
        turn = load + work.stages(tiling) * (stage + self.stage) + together * (left + written) + exchange
        return self.fixed + waves * turn
