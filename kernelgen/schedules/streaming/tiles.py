"""What the passes of the streaming schedule share: tiles of the work of a step, and the product that makes one.

A tile is some units of a head for some sequences. All blocks run at the same time; each has one tile for the whole
sequence, or takes several in turn. The formulas are those of cuda/streamed_product.cuh.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic

from constrint import Expr, Problem, cdiv, maximum, minimum
from kernelgen.cells.language import Cell
from kernelgen.emit.kernel import kernel_source
from kernelgen.hardware.profile import Profile
from kernelgen.program.dtypes import Dtype, dtype_info
from kernelgen.program.launch import LaunchRule
from kernelgen.program.program import KernelCall, Program
from kernelgen.program.shape import DTYPES, FEATURES, Shape
from kernelgen.program.tiling import Resources, Tiling
from kernelgen.schedules.shared.batch_tiled import BatchTiled
from kernelgen.schedules.shared.cost import SHARED_BYTES_PER_CLOCK, clocks_per_step
from kernelgen.schedules.shared.limits import CHUNK
from kernelgen.schedules.shared.numbers import Int, Number, as_int

L2_BYTES_PER_CLOCK = 2_300
"""What L2 gives to all multiprocessors together: 4.5 TB/s on an H200, whose clock is 1.98 GHz (measured 2026-11-26)."""

L2_KEPT = 0.8
"""What of L2 a matrix may take that is read in every step and found there in the next one."""

COUNTER_WORDS = 32
"""From one counter to the next (cuda/grid_barrier.cuh)."""

BATCH_TILES = [8, 16, 32, 64, 128, 256]
ROWS_PER_WARP = [8, 16, 32, 64]
"""Sequences of a tile, and of a warp."""

MOST_LINES = 160
"""Rows and columns of a part of K that is long, or short: one of 64 is what all may have."""

MOST_WARPS = 16
"""Of a block."""

MOST_ACCUMULATORS, MOST_REGISTERS = {2: 128, 4: 64, 8: 32}, 255
"""Of a thread; the first by the bytes of an element."""

PART_K = {2: [32, 64, 128], 4: [32, 64, 128, 256], 8: [32, 64]}
"""Of a part of K, by the bytes of an element."""

NUM_STAGES = {2: [3, 4], 4: [3, 4, 6, 8], 8: [3, 4]}
"""Stages of the rings of the matrix and of what it multiplies, by the bytes of an element."""

L2_LATENCY = 1_000
"""Clocks from asking for a part to its being there, of floats: what a ring that is short waits for."""

L2_BYTES_PER_BLOCK = 19
"""What one multiprocessor gets of L2 in a clock, whatever the others do: of floats, 320 to 393 KB a step of 48 blocks
took 18,600 to 20,600 clocks (measured on one H200, 2026-11-27)."""

INDEPENDENT = 8
"""Accumulators that a warp has at least, if a part of K gives it work for as many."""

OVERLAPPING = 4
"""Of floats, instructions along k that are under way at once: each has loads, conversions and sums of its own."""

K_WARPS = [1, 2, 4, 8]
"""Warps that share units and sequences, each with some k of every part; of 16-bit types one alone."""

MOST_SHARING = 8
"""Warps of a block where some share K."""

SPLITTING = {"float32": 3, "tf32": 1}
"""Other instructions for each word of an operand, which are split in two or rounded; of other types none."""

OPERAND_REGISTERS = {4: 16, 8: 24}
"""Of a thread, by the bytes of an element: for both parts of floats and what is made of them, but for the parts of the
columns; for doubles, of which a step has all in two registers each."""

ADDING = {"float32": 4}
"""And for each product of a tile, where sums are kept outside of tensor cores."""

ONE_CHAIN = ("float32", "float64")
"""Of these a warp has one accumulator for each tile, however few it has (sums_in_tensor_cores of cuda/factors.cuh)."""

DOUBLE_STEPS = 2
"""Of doubles, instructions along k that are written out in a row."""

UNROLLED = 8
"""Copies of a thread that are written out in a row."""

MOST_IN_FLIGHT = 96
"""Registers that the compiler loads fragments into ahead of their use, at most."""

EIGHTHS = range(9)
"""How much of the matrix stays in shared memory, in eighths of its parts: what is tried."""


@dataclass(frozen=True)
class ProductSizes(Generic[Number]):
    """The sizes of a StreamedProduct. dtype: of elements. rows: of a block. warps: of a block; k_warps: that
    share a part of it. tiles, column_tiles: of a warp. parts: of K. shared_memory: bytes. streamed: bytes that a block
    copies of the matrix in a step; moving: of the columns."""

    dtype: Dtype
    rows: Number
    warps: Number
    k_warps: Number | int
    tiles: Number
    column_tiles: Number
    parts: Number
    shared_memory: Number
    streamed: Number
    moving: Number

    @property
    def depth(self) -> int:
        """Of k, what an instruction adds up."""
        return 32 // self.dtype.itemsize

    @property
    def least_registers(self) -> Number | int:
        """Of a thread, for the sums; of floats, for both parts of the operands of an instruction too; of doubles,
        for operands."""
        sums = self.tiles * self.column_tiles * 4 * self.dtype.registers
        return sums + (
            0 if self.dtype.itemsize == 2 else 4 * self.column_tiles + OPERAND_REGISTERS[self.dtype.itemsize]
        )


def own_bytes(shape: Shape, rows: Number) -> Number:
    """Of shared memory, what a step knows of the sequences of a tile: three words of each, in two places."""
    return rows * (24 if shape.features else 0)


def product_sizes(
    v: Mapping[str, Number], *, unit_warps: Number, warp_tiles: Number, parts: Number, dtype: Dtype
) -> ProductSizes[Number]:
    """Compute them for tile variables ``v``. unit_warps: warps along the rows, of ``warp_tiles`` tiles of 16 each."""
    rows = unit_warps * warp_tiles * 16
    row_warps = v["batch_tile"] // v["rows_per_warp"]
    k_warps, itemsize = v.get("k_warps", 1), dtype.itemsize
    matrix, columns = rows * v["part_k"] * itemsize, v["batch_tile"] * v["part_k"] * itemsize
    streaming = minimum(parts - v["stationary"], 1)
    ring = v["num_stages"] * columns
    if "k_warps" in v:
        ring = maximum(ring, (k_warps - 1) * rows * v["batch_tile"] * 4)
    ring = ring + v["num_stages"] * streaming * matrix
    return ProductSizes(
        dtype=dtype,
        rows=rows,
        warps=unit_warps * row_warps * k_warps,
        k_warps=k_warps,
        tiles=warp_tiles,
        column_tiles=v["rows_per_warp"] // 8,
        parts=parts,
        shared_memory=v["stationary"] * matrix + ring,
        streamed=(parts - v["stationary"]) * matrix,
        moving=parts * columns,
    )


def stationary_counts(parts: set[int]) -> list[int]:
    """How many parts of the matrix may stay, where it has one of these numbers of parts."""
    return sorted({eighth * count // 8 for count in parts for eighth in EIGHTHS})


def product_registers(v: Mapping[str, Number], s: ProductSizes[Number], matrix_copies: Number) -> dict[str, Int]:
    """What a product takes of a thread's registers. matrix_copies: of a thread, of a part of the matrix."""
    steps = v["part_k"] // s.depth // s.k_warps
    chains: Int = 1
    if s.dtype.name not in ONE_CHAIN:
        chains = maximum(1, minimum(steps, INDEPENDENT // (s.tiles * s.column_tiles)))
    loaded = (4 * s.tiles + 2 * s.column_tiles) * (2 if s.dtype.itemsize == 4 else 1)
    steps = minimum(steps, DOUBLE_STEPS) if s.dtype.itemsize == 8 else steps
    several = minimum(s.parts - 1, 1)  # of one part alone the compiler makes no loop
    streamed = several * minimum(s.parts - v["stationary"], 1)
    in_flight = minimum(steps * loaded, MOST_IN_FLIGHT)
    return {
        "accumulators": s.tiles * s.column_tiles * 4 * chains * s.dtype.registers,
        "fragments": loaded,
        "in_flight": in_flight,
        "loop": several,
        "looped_fragments": several * in_flight,
        "column_copies": several
        * minimum(cdiv(v["batch_tile"] * v["part_k"] * s.dtype.itemsize // CHUNK, 32 * s.warps), UNROLLED),
        "streamed": streamed,
        "copies": streamed * minimum(matrix_copies, UNROLLED),
        "many_parts": minimum(maximum(s.parts - v["num_stages"] + 1, 0), 1),
    }


class Streaming(BatchTiled):
    """A pass of the schedule. Tile variables include ``units``, ``batch_tile``, ``rows_per_warp``, ``part_k``,
    ``stationary``, ``num_stages`` and ``blocks``."""

    package = __package__
    dtypes = DTYPES
    honours = FEATURES
    cooperative = True
    least_units_per_warp: int
    least_warps: int

    def tile_count(self, shape: Shape, v: Mapping[str, Number]) -> Number:
        """Tiles of the work of a step."""
        return shape.heads * cdiv(shape.head_dim, v["units"]) * cdiv(shape.batch, v["batch_tile"])

    def tile_rules(
        self, problem: Problem, cell: Cell, shape: Shape, v: Mapping[str, Expr], s: ProductSizes[Expr]
    ) -> None:
        """Constraints that the passes share."""
        problem.add(v["rows_per_warp"] <= v["batch_tile"], "a warp has no more sequences than a tile")
        problem.add((v["units"] <= 16) | (v["units"] < shape.head_dim + 8), "a tile's units that the head can fill")
        smallest = (v["units_per_warp"] == self.least_units_per_warp) & (v["rows_per_warp"] == min(ROWS_PER_WARP))
        problem.add(
            (s.warps >= self.least_warps) | smallest,
            f"warps of a block: at least {self.least_warps}, or as many as its tile has",
        )
        short = 32 if s.dtype.itemsize < 8 else 0  # 32 doubles are no short part
        problem.add(
            (v["part_k"] > short) | (shape.head_dim <= 32) | (s.rows + v["batch_tile"] > MOST_LINES),
            f"short parts of K only where one of 64 has more than {MOST_LINES} rows and columns",
        )
        problem.add(
            (v["part_k"] < 256) | ((v["stationary"] == s.parts) & (shape.head_dim > 128)),
            "parts of K of 256 where all of the matrix stays in shared memory, of heads of more than 128 units",
        )
        problem.add(
            (v["part_k"] < 128) | (s.rows + v["batch_tile"] <= MOST_LINES),
            f"long parts of K only where one has at most {MOST_LINES} rows and columns",
        )
        problem.add(s.warps <= MOST_WARPS, f"warps of a block: at most {MOST_WARPS}")
        most, sums = MOST_ACCUMULATORS[s.dtype.itemsize], s.tiles * s.column_tiles * 4
        problem.add(sums <= most, f"accumulators of a thread: at most {most}")
        least = self.needs(cell, shape, v).least
        assert least is not None  # both passes know it
        problem.add(least <= MOST_REGISTERS, f"registers of a thread that must live: at most {MOST_REGISTERS}")
        problem.add(v["stationary"] <= s.parts, "no more parts of R stay in shared memory than there are")
        problem.add((v["num_stages"] <= 3) | (v["num_stages"] <= s.parts), "no more stages than there are parts of K")
        problem.add((v["blocks"] == 0) | (v["stationary"] == 0), "parts of R stay where a block has one tile alone")
        if "k_warps" in v:
            problem.add(
                (v["blocks"] == 0) | (sums <= most // 2),
                f"accumulators of a thread where blocks take tiles in turn: at most {most // 2}",
            )
            problem.add((v["k_warps"] == 1) | (v["blocks"] == 0), "K is shared where a block has one tile alone")
            problem.add(v["k_warps"] * s.depth <= v["part_k"], "no more warps share K than a part has instructions")
            problem.add(
                (v["k_warps"] == 1) | (s.warps <= MOST_SHARING),
                f"warps of a block where some share K: at most {MOST_SHARING}",
            )

    def gpu_rules(self, problem: Problem, shape: Shape, profile: Profile, v: Mapping[str, Expr]) -> None:
        """All blocks run at the same time."""
        tiles = self.tile_count(shape, v)
        problem.add(
            (v["blocks"] != 0) | (tiles <= profile.multiprocessors),
            f"tiles that have a block each: at most {profile.multiprocessors} on {profile.name}, one on each "
            "multiprocessor, since all must run at the same time",
        )
        problem.add((v["blocks"] == 0) | (tiles > v["blocks"]), "blocks take tiles in turn where there are more tiles")

    def tile_variables(self, problem: Problem, shape: Shape, profile: Profile, parts: set[int]) -> dict[str, Expr]:
        """Declare those that the passes share: parts of K (how many there may be), and who takes what."""
        itemsize = dtype_info(shape.dtype).itemsize
        found = {
            "part_k": problem.variable("part_k", PART_K[itemsize]),
            "stationary": problem.variable("stationary", stationary_counts(parts)),
            "num_stages": problem.variable("num_stages", NUM_STAGES[itemsize]),
            "blocks": problem.variable("blocks", [0, profile.multiprocessors]),
        }
        if itemsize == 4:
            found["k_warps"] = problem.variable("k_warps", K_WARPS)
        return found

    def rounds(self, shape: Shape, v: Mapping[str, int]) -> tuple[int, int]:
        """How many blocks there are, and how many tiles the busiest takes in turn."""
        tiles = self.tile_count(shape, v)
        blocks = min(tiles, v["blocks"] or tiles)
        return blocks, -(-tiles // blocks)

    def streaming_clocks(self, shape: Shape, v: Mapping[str, int], s: ProductSizes[int]) -> float:
        """Clocks in which the operands of a step's products come: from L2 to all blocks together, and from a block's
        shared memory to its warps."""
        _, rounds = self.rounds(shape, v)
        from_l2 = self.tile_count(shape, v) * (s.streamed + s.moving) / L2_BYTES_PER_CLOCK
        if s.dtype.itemsize > 2:
            from_l2 = max(from_l2, rounds * (s.streamed + s.moving) / L2_BYTES_PER_BLOCK)
        instructions = s.parts * v["part_k"] // s.depth
        read = s.warps // s.k_warps * instructions * (512 * s.tiles + 256 * s.column_tiles)
        in_shared = rounds * (read + s.streamed + s.moving) / SHARED_BYTES_PER_CLOCK
        asked = rounds * s.parts / (v["num_stages"] - 1) * L2_LATENCY if s.dtype.itemsize > 2 else 0.0
        return max(from_l2, in_shared, asked)

    def matrix_chain(self, profile: Profile, rounds: int, v: Mapping[str, int], s: ProductSizes[int]) -> float:
        """The longest run of matrix instructions that wait for each other; the barrier and the first load of each part
        of K count as so many."""
        steps = v["part_k"] // s.depth // s.k_warps
        apart = OVERLAPPING if s.dtype.itemsize > 2 else INDEPENDENT // (s.tiles * s.column_tiles)
        chain = s.dtype.products * steps / max(1, min(steps, apart))
        between = profile.latency("barrier", 32 * s.warps) + profile.latency("shared_load")
        return rounds * s.parts * (chain + between / profile.latency("mma"))

    def matrix(self, profile: Profile, rounds: int, v: Mapping[str, int], s: ProductSizes[int]) -> float:
        """Matrix instructions of a warp, or as many as take the time in which it issues all else of the product."""
        products, instructions = s.tiles * s.column_tiles, rounds * s.parts * v["part_k"] // s.depth // s.k_warps
        name = s.dtype.name
        others = SPLITTING.get(name, 0) * (4 * s.tiles + 2 * s.column_tiles) + ADDING.get(name, 0) * products
        made = s.dtype.products * products
        issued = others + made if others else 0
        return instructions * max(made, issued / profile.latency("mma_interval"))

    def meeting(self, shape: Shape, profile: Profile, v: Mapping[str, int], s: ProductSizes[int]) -> float:
        """Clocks from what a step shares being stored to its being read; a block that has a whole head waits for its
        own threads alone."""
        blocks, rounds = self.rounds(shape, v)
        barriers = rounds * 2 * profile.latency("barrier", 32 * s.warps)
        return barriers + (
            profile.latency("grid_barrier_atomic", blocks) if shape.head_dim > v["units"] else L2_LATENCY
        )

    def missed_bytes(self, shape: Shape, profile: Profile, v: Mapping[str, int], s: ProductSizes[int]) -> float:
        """Bytes of the matrix that come from device memory in a step, since L2 does not keep them."""
        matrix = shape.heads * -(-shape.head_dim // v["units"]) * s.streamed
        return float(max(0.0, matrix - L2_KEPT * (profile.l2_bytes or 0)))

    def tiling(self, cell: Cell, shape: Shape, profile: Profile, values: Mapping[str, int]) -> Tiling:
        """Predicted resources and clocks of one solution."""
        needs, model = self.needs(cell, shape, values), self._model
        registers, threads = as_int(self._registers(shape, profile, needs)), 32 * needs.warps
        blocks, _ = self.rounds(shape, values)
        fit = profile.occupancy(threads, registers, needs.shared_memory)
        resources = Resources(registers, needs.shared_memory, threads, blocks, fit)
        clocks = clocks_per_step(self.work(cell, shape, profile, values), profile, 0, model.weights(shape.dtype))
        return Tiling(self.name, dict(values), resources, clocks)

    def launch(self, shape: Shape, tiling: Tiling) -> LaunchRule:
        """A block for each tile; or as many as take them in turn."""
        v, resources = tiling.values, tiling.resources
        tiles = f"heads * {-(-shape.head_dim // v['units'])} * cdiv(batch, {v['batch_tile']})"
        blocks = f"min({v['blocks']}, {tiles})" if v["blocks"] else tiles
        return LaunchRule((blocks, "1", "1"), resources.threads, resources.shared_memory, cooperative=True)

    def main(self, cell: Cell, shape: Shape, profile: Profile, tiling: Tiling) -> KernelCall:
        """The recurrence's kernel."""
        template = self.template(cell, shape, profile, tiling)
        text = kernel_source(cell, shape, profile.arch, template, backward=self.direction == "backward")
        return KernelCall(text, self.launch(shape, tiling))

    def program(self, cell: Cell, shape: Shape, profile: Profile, tiling: Tiling) -> Program:
        """The kernel of a tiling."""
        return Program(
            self.direction, self.main(cell, shape, profile, tiling), axes=self.axes(cell, shape, tiling.values)
        )
