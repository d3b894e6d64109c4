"""Tiles of the kernel of dR and db (cuda/parameter_gradients.cuh): which there are, what they need, what they cost.

Heads of up to MEASURED_UP_TO units in 16 bits have the tile that a rule gives, which measurements found
(docs/lab/resident_backward.md, 12; docs/lab/cluster_backward.md, 3). All others have the one that the cost model likes
best.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from kernelgen.hardware.profile import Profile

MEASURED_UP_TO = 512
"""Units of a head for which the rule's tiles were measured."""

COLUMNS = {2: 64, 4: 64, 8: 32}
"""Columns of a tile of the rule's at most, by the bytes of an element: a thread keeps 64 float32 sums then, or half
as many of float64."""

WIDE, WIDE_UP_TO = 128, 256
"""Where as many columns cut the product evenly, BLOCKS of such tiles fit a multiprocessor and blocks may share the
steps, a tile of the rule's has these: it reads half as much. Larger products have tiles enough without."""

ROWS = 128
"""Rows of a tile of the rule's at most."""

WARPS = 4
"""Of a block: those that a tile does not need share its steps."""

DEPTH, NUM_STAGES = {2: 64, 4: 32, 8: 16}, 3
"""Steps of a stage, by the bytes of an element, and stages: two blocks fit on a multiprocessor, each with two stages on
their way."""

TILE_STEPS = {2: 16, 4: 8, 8: 4}
"""Steps that a matrix instruction adds up, by the bytes of an element; every step group has as many of these."""

BLOCKS = 2
"""Blocks a multiprocessor that cutting the steps into parts aims at, where they fit."""

SHORTEST = 4
"""Stages that a part has at least."""

LARGE = ((2, 2, 4, 128), (2, 4, 4, 256), (4, 2, 4, 128), (2, 4, 4, 128), (2, 2, 4, 64))
"""Further tiles for the cost model: warps of rows, warps of columns, tiles of 16 rows a warp, columns. A warp of 64
rows and 64 columns reads a third less of shared memory, for what it multiplies, than one of 32 rows."""

MOST_SUMS = {2: 144, 4: 80, 8: 40}
"""Sums that a thread keeps, by the bytes of an element; with what it multiplies they must fit its registers."""

OTHER_REGISTERS = {2: 100, 4: 140, 8: 140}
"""Of a thread, beside its sums, by the bytes of an element."""


@dataclass(frozen=True)
class Tiling:
    """The tile variables of cuda/parameter_gradients.cuh, in the order of its struct."""

    row_warps: int
    warp_tiles: int
    columns: int
    step_groups: int
    depth: int
    num_stages: int
    parts: int
    inputless: bool
    cluster: bool
    column_warps: int = 1
    floats: bool = False

    @property
    def rows(self) -> int:
        """Rows of the product that a block makes."""
        return 16 * self.row_warps * self.warp_tiles

    @property
    def warps(self) -> int:
        """Of a block."""
        return self.row_warps * self.column_warps * self.step_groups

    @property
    def threads(self) -> int:
        """Of a block."""
        return 32 * self.warps

    @property
    def sums(self) -> int:
        """Float32 sums of a thread: of the product, and one column more."""
        return 4 * self.warp_tiles * (self.columns // self.column_warps // 8 + 1)

    def registers(self, itemsize: int) -> int:
        """Of a thread, about."""
        return min(self.sums * max(1, itemsize // 4) + OTHER_REGISTERS[itemsize], 255)

    def shared_memory(self, itemsize: int) -> int:
        """Bytes of shared memory of a block. itemsize: bytes of an element."""
        exchanging = max(self.step_groups - 1, int(self.cluster and self.parts > 1))
        exchange = exchanging * self.row_warps * self.column_warps * self.sums * 128
        row = stage_row_bytes(self.rows, itemsize) + stage_row_bytes(self.columns, itemsize)
        return max(self.num_stages * self.depth * row, exchange)

    def fit(self, profile: Profile, itemsize: int) -> int:
        """How many blocks a multiprocessor runs at a time; 0 where none fits."""
        return profile.occupancy(self.threads, self.registers(itemsize), self.shared_memory(itemsize))


def stage_row_bytes(count: int, itemsize: int) -> int:
    """Bytes of ``count`` elements of one step in a stage (the template's function of that name)."""
    return 16 * (count // 8 | 1) if itemsize == 2 else count * itemsize + 32


@dataclass(frozen=True)
class Product:
    """What is to be made. rows, columns: of the product of one of ``heads``, padded. steps: that it sums over.
    itemsize: bytes of an element. products: matrix instructions for one product."""

    rows: int
    columns: int
    heads: int
    steps: int
    itemsize: int
    inputless: bool
    products: int = 1

    def blocks(self, tiling: Tiling) -> int:
        """Tiles of a head."""
        return -(-self.rows // tiling.rows) * -(-self.columns // tiling.columns)


def ruled(product: Product, profile: Profile) -> Tiling:
    """The rule's tile: twice as high as wide, up to ROWS, and as many parts of the steps as fill the GPU with its
    blocks, but no power of two where they are no cluster."""
    columns, cluster = product.columns, shares_steps(product, profile)
    most = COLUMNS[product.itemsize]
    whole = _fitting(_tile(product, 16 * -(-columns // (16 * -(-columns // most)))), product, profile)
    fit = whole.fit(profile, product.itemsize)
    if cluster and product.itemsize == 2 and columns % WIDE == 0 and columns <= WIDE_UP_TO:
        wide = _tile(product, WIDE)
        wide_fit = wide.fit(profile, product.itemsize)
        if wide_fit >= BLOCKS:
            whole, fit = wide, wide_fit
    blocks = product.heads * product.blocks(whole)
    longest = product.steps / (SHORTEST * whole.depth)
    wanted = min(max(1, min(BLOCKS, fit)) * profile.multiprocessors / blocks, longest)
    if not cluster:
        return replace(whole, parts=max(1, int(wanted)))
    parts = 1 << max(0, round(math.log2(wanted)))  # others than powers of two leave multiprocessors idle
    return replace(whole, parts=min(parts, profile.portable_cluster), cluster=True)


def shares_steps(product: Product, profile: Profile) -> bool:
    """Whether blocks that have parts of the steps are clusters, which add their sums as float32."""
    return profile.portable_cluster > 1 and product.itemsize < 8


def _fitting(tiling: Tiling, product: Product, profile: Profile) -> Tiling:
    """The same with stages as short as the GPU's shared memory makes them."""
    least = TILE_STEPS[product.itemsize] * tiling.step_groups
    while not tiling.fit(profile, product.itemsize) and tiling.depth % (2 * least) == 0:
        tiling = replace(tiling, depth=tiling.depth // 2)
    return tiling


def _tile(product: Product, columns: int) -> Tiling:
    """A tile of that many columns, of all steps."""
    row_warps = -(-min(2 * columns, product.rows, ROWS) // 32)
    return Tiling(
        row_warps=row_warps,
        warp_tiles=2,  # half the loads of h for a product that one would take
        columns=columns,
        step_groups=max(1, WARPS // row_warps) if product.itemsize < 8 else 1,
        depth=DEPTH[product.itemsize],
        num_stages=NUM_STAGES,
        parts=1,
        inputless=product.inputless,
        cluster=False,
    )


def tilings(product: Product, profile: Profile, clocks: Clocks) -> list[Tiling]:
    """The rule's tile and LARGE ones, each with several depths and parts, that fit; fastest first by the cost model."""
    found = dict.fromkeys(
        each
        for each in _candidates(product, profile)
        if each.depth % (TILE_STEPS[product.itemsize] * each.step_groups) == 0
        and each.fit(profile, product.itemsize) > 0
    )
    return sorted(found, key=lambda tiling: clocks.predict(product, tiling, profile))


def _candidates(product: Product, profile: Profile) -> Iterator[Tiling]:
    first, cluster = ruled(product, profile), shares_steps(product, profile)
    deep = DEPTH[product.itemsize]
    yield first
    shapes = [first] + [
        replace(first, row_warps=rows, column_warps=across, warp_tiles=tiles, columns=columns, step_groups=1)
        for rows, across, tiles, columns in LARGE
    ]
    for shape in shapes:
        if shape.sums > MOST_SUMS[product.itemsize]:
            continue
        for depth, stages in ((deep, 3), (deep, 4), (deep // 2, 3), (deep // 2, 4)):
            for parts in (1, 2, 4, 8) if cluster else (first.parts,):
                shorter = parts > 1 and parts * SHORTEST * depth > product.steps
                if parts <= max(1, profile.portable_cluster if cluster else parts) and not shorter:
                    yield replace(shape, depth=depth, num_stages=stages, parts=parts)


@dataclass(frozen=True)
class Clocks:
    """The cost model: coefficients of clocks that a multiprocessor's share of the work takes.

    tensor: of the matrix instructions. shared: of the bytes that warps read and copies write in shared memory, at its
    full rate. cache: of the bytes that come from L2, at L2_BYTES_PER_CLOCK. stage: clocks of a stage that nothing
    hides, by the blocks that run at a time. exchange: of the bytes that the blocks of a cluster read of each other, at
    the rate of shared memory. fixed: clocks of a launch.
    """

    tensor: float
    shared: float
    cache: float
    stage: float
    exchange: float
    fixed: float

    def predict(self, product: Product, tiling: Tiling, profile: Profile) -> float:
        """Clocks of the kernel."""
        coefficients: dict[str, float] = asdict(self)
        return sum(coefficients[name] * value for name, value in work(product, tiling, profile).items())


L2_BYTES_PER_CLOCK = 22.0
"""That a multiprocessor gets where all read: in the order of 5 TB/s of an H200."""

SHARED_BYTES_PER_CLOCK = 128.0
"""CUDA C++ Programming Guide: 32 banks of 4 bytes."""


def work(product: Product, tiling: Tiling, profile: Profile) -> dict[str, float]:
    """What the busiest multiprocessor does, by the coefficients' names (see Clocks), in clocks at full rates."""
    blocks, cluster = product.heads * product.blocks(tiling) * tiling.parts, tiling.parts if tiling.cluster else 1
    # Clusters leave multiprocessors idle, where their blocks find no others of the same part of the GPU.
    clusters = profile.clusters_that_fit.get(cluster, profile.multiprocessors // cluster)
    mine = -(-blocks // (clusters * cluster))
    waves = -(-mine // max(1, tiling.fit(profile, product.itemsize)))
    stages = -(-product.steps // (tiling.parts * tiling.depth))
    steps = mine * stages * tiling.depth
    columns = tiling.columns + (8 if tiling.column_warps == 1 else 0)  # else few blocks make the sum for db
    products = product.products * product.itemsize / 2  # of floats, each adds half as many steps
    interval = profile.latency("mma_interval") / 4
    warp = 16 * tiling.warp_tiles + tiling.columns // tiling.column_warps
    read = tiling.row_warps * tiling.column_warps * warp * product.itemsize
    copied = (tiling.rows + tiling.columns) * product.itemsize
    shared = tiling.parts > 1 and tiling.cluster
    return {
        "tensor": steps / 16 * products * (tiling.rows // 16) * (columns // 8) * interval,
        "shared": steps * (read + copied) / SHARED_BYTES_PER_CLOCK,
        "cache": steps * copied / L2_BYTES_PER_CLOCK,
        "stage": stages * waves,
        "exchange": mine * 4 * tiling.rows * tiling.columns / SHARED_BYTES_PER_CLOCK if shared else 0.0,
        "fixed": 1.0,
    }
