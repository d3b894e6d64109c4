"""The resident schedule, backward: a block runs a tile of the batch from the last step to the first.

The kernel is the template of cuda/resident_backward.cuh; the formulas here are its sizes, for integers and for a
Problem's variables alike, and the generated source asserts that they agree. A shape that saves "hidden" means that
gradients come from outside for h alone, else for every state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic

from constrint import Expr, Problem, cdiv, maximum, minimum
from kernelgen.cells.language import Cell
from kernelgen.emit.kernel import Template
from kernelgen.hardware.profile import Profile
from kernelgen.program.arguments import known_states
from kernelgen.program.dtypes import dtype_info
from kernelgen.program.shape import FEATURES, SIXTEEN_BITS, Shape
from kernelgen.program.task import Direction
from kernelgen.program.tiling import Tiling
from kernelgen.schedules.shared.backward_step import UNITS, arrays_read, recomputed_gates
from kernelgen.schedules.shared.batch_tiled import (
    BATCH_TILES,
    NUM_STAGES,
    BatchTiled,
    Needs,
    accumulator_additions,
    read_bytes,
)
from kernelgen.schedules.shared.cost import StepWork
from kernelgen.schedules.shared.entries import PARTIAL_SUMS, asserted, backward_parameters, sequences, stores
from kernelgen.schedules.shared.limits import CHUNK, vector_width
from kernelgen.schedules.shared.numbers import Int, Number, once
from kernelgen.schedules.shared.resets import reset_flags
from kernelgen.schedules.shared.stationary import (
    MULTIPLIED,
    Product,
    add_float32_rules,
    in_dtype,
    k_tile,
    multiply_chain,
    row_bytes,
)
from kernelgen.symbolic.derive import Backward, derive
from kernelgen.symbolic.instructions import backward_cost


@dataclass(frozen=True)
class Sizes(Generic[Number]):
    """The sizes of cuda/resident_backward.cuh. Plain integers down to stored; the others follow the tile variables.

    k_tiles: of R transposed. recomputed_gates: how many gates have a product that is recomputed, recompute_k_tiles: of
    R for it. arrays: in a ring's stage. stored: gates whose gradients go to shared memory. inputless_products: gates
    without an input, of which the kernel sums the products for the gradient of R; partial_tiles: tiles of sums of each.
    """

    warps: int
    k_tiles: int
    recomputed_gates: int
    recompute_k_tiles: int
    arrays: int
    stored: int
    inputless_products: int
    partial_tiles: int
    columns: Number
    column_tiles: Number
    elements: Number
    copies: Number
    writes: Number
    shared_memory: Number


@once
def sizes(cell: Cell, shape: Shape, v: Mapping[str, Number]) -> Sizes[Number]:
    """Compute the sizes for tile variables ``v``."""
    recurrent, inputs = {*cell.recurrent_gates}, {*cell.input_gates}
    rows, warps = v["batch_tile"], -(-shape.head_dim // UNITS)
    padded = warps * UNITS
    k_tiles, recomputed, inputless = _k_tiles(cell, shape), recomputed_gates(cell, shape), len(cell.inputless_products)
    arrays = arrays_read(cell, shape)
    recompute_k_tiles = _recompute_k_tiles(cell, shape)
    row = row_bytes(max(padded, k_tile(shape.dtype) * recompute_k_tiles), rows, shape.dtype)
    buffers = 2 * (4 * k_tiles * rows * CHUNK + len(inputs - recurrent) * rows * row)
    ring = maximum(v["num_stages"] * arrays * rows * row, warps * 32 * CHUNK)
    weights = warps * (k_tiles - v["k_tiles_in_registers"]) * 2 * 32 * CHUNK
    if recomputed:
        weights = (
            weights + warps * (recompute_k_tiles - v["recompute_k_tiles_in_registers"]) * recomputed * 2 * 32 * CHUNK
        )
    vectors = rows * (shape.head_dim // vector_width(shape.head_dim, dtype_info(shape.dtype).itemsize))
    columns = minimum(rows // 4, 2)
    column_tiles = cdiv(rows, 8)
    elements = 2 * column_tiles * columns
    return Sizes(
        warps=warps,
        k_tiles=k_tiles,
        recomputed_gates=recomputed,
        recompute_k_tiles=recompute_k_tiles,
        arrays=arrays,
        stored=len(recurrent | inputs),
        inputless_products=inputless,
        partial_tiles=-(-shape.head_dim // 8),
        columns=columns,
        column_tiles=column_tiles,
        elements=elements,
        copies=cdiv(arrays * vectors, warps * 32),
        writes=cdiv(max(1, len(inputs)) * vectors, warps * 32),
        shared_memory=buffers + ring + weights + reset_flags(shape, rows),
    )


def _k_tiles(cell: Cell, shape: Shape) -> int:
    """K-tiles of rows of R, all gates of the padded units."""
    return -(-len(cell.recurrent_gates) * -(-shape.head_dim // UNITS) * UNITS // k_tile(shape.dtype))


def _recompute_k_tiles(cell: Cell, shape: Shape) -> int:
    """K-tiles of columns of R, for the gates that are recomputed."""
    return -(-shape.head_dim // k_tile(shape.dtype)) if recomputed_gates(cell, shape) else 0


class ResidentBackward(BatchTiled):
    """See the module."""

    name = "resident_backward"
    direction: Direction = "backward"
    dtypes = MULTIPLIED
    honours = FEATURES
    package = __package__

    def variables(self, problem: Problem, cell: Cell, shape: Shape, profile: Profile) -> Mapping[str, Expr]:
        """Declare the tile variables, in the order of the template's fields."""
        k_tiles, recompute_k_tiles = _k_tiles(cell, shape), _recompute_k_tiles(cell, shape)
        variables = {
            "batch_tile": problem.variable("batch_tile", BATCH_TILES),
            "k_tiles_in_registers": problem.variable("k_tiles_in_registers", range(0, k_tiles + 1)),
            "accumulators": problem.variable("accumulators", [n for n in (1, 2, 4, 8) if n <= 2 * k_tiles]),
            "num_stages": problem.variable("num_stages", NUM_STAGES),
        }
        if recompute_k_tiles:
            name = "recompute_k_tiles_in_registers"
            variables[name] = problem.variable(name, range(0, recompute_k_tiles + 1))
        if shape.dtype == "float32":
            variables["keeps_rests"] = problem.variable("keeps_rests", [0, 1])
        return variables

    def rules(self, problem: Problem, cell: Cell, shape: Shape, v: Mapping[str, Expr]) -> None:
        """A constraint of the template."""
        s = sizes(cell, shape, v)
        if s.inputless_products:
            problem.add(v["num_stages"] >= 3, "a stage of the ring is held for the products of gates without an input")
        add_float32_rules(problem, shape.dtype, v)

    def needs(self, cell: Cell, shape: Shape, v: Mapping[str, Number]) -> Needs[Number]:
        """Warps, shared memory and what lives in a thread's registers."""
        s = sizes(cell, shape, v)
        code: Backward = derive(cell)
        biased = {*code.gates} if shape.recompute else {*code.gates} - {*code.saved_gates}
        kept = v.get("recompute_k_tiles_in_registers", 0)
        counts: dict[str, Int] = {
            "weights": (v["k_tiles_in_registers"] * (1 + v.get("keeps_rests", 0)) + kept * s.recomputed_gates) * 8,
            "fragments": s.k_tiles + s.recompute_k_tiles * s.recomputed_gates,
            "loading": minimum(s.k_tiles - v["k_tiles_in_registers"], 1) + minimum(s.recompute_k_tiles - kept, 1),
            "more_accumulators": (v["accumulators"] - 1) * s.column_tiles * 4,
            "hidden": 4 * s.column_tiles * (s.k_tiles + s.recompute_k_tiles),
            "sums": 4 * s.column_tiles * s.recomputed_gates,
            "bias": 2 * len(biased & {*cell.bias_gates}),
            "partial_sums": s.inputless_products * (4 * s.partial_tiles + 2 * s.column_tiles)
            + 2 * len(cell.inputless_biases),
            "states": s.elements * len(cell.states) * (2 if shape.resets else 1),
            "inputs": 2 * s.column_tiles * cdiv(s.arrays, 3 - s.columns),
            "ready": s.elements * (backward_cost(cell).ready + known_states(cell, shape)),
            "elements": s.elements,
            "live": minimum(s.elements, 4) * backward_cost(cell).live,
            "padded": min(s.warps * UNITS - shape.head_dim, 1),
            "copies": s.copies,
            "writes": s.writes,
        }
        return Needs(s.warps, s.shared_memory, counts)

    def work(self, cell: Cell, shape: Shape, profile: Profile, v: Mapping[str, int]) -> StepWork:
        """What a block does in one step, for the cost model."""
        s = sizes(cell, shape, v)
        dtype = shape.dtype
        cost = in_dtype(backward_cost(cell), dtype)
        kept = v.get("keeps_rests", 0) * v["k_tiles_in_registers"]
        product = Product.of(dtype, 1, s.k_tiles, s.column_tiles, kept)
        recomputed = Product.of(dtype, s.recomputed_gates, s.recompute_k_tiles, s.column_tiles)
        recompute_loaded = s.recompute_k_tiles - v.get("recompute_k_tiles_in_registers", 0)
        loaded = s.k_tiles - v["k_tiles_in_registers"] + recompute_loaded * s.recomputed_gates
        rows, accumulators = v["batch_tile"], v["accumulators"]
        reading = read_bytes(rows, s.k_tiles, accumulators) + read_bytes(rows, s.recompute_k_tiles, 1) + loaded * 1024
        reading += min(s.inputless_products, 1) * s.partial_tiles * s.column_tiles * 128
        inputless = s.inputless_products * s.partial_tiles * s.column_tiles / 2
        if dtype not in SIXTEEN_BITS:
            inputless *= 2 * dtype_info(dtype).products
        values = shape.batch * shape.heads * shape.head_dim * (s.arrays + len(cell.input_gates))
        return StepWork(
            warps=s.warps,
            epilogue_warps=s.warps,
            matrix=product.matrix + recomputed.matrix + inputless,
            matrix_chain=multiply_chain(dtype, s.k_tiles, v["accumulators"]),
            shared_bytes=s.warps * reading,
            special=s.elements * cost.special,
            arithmetic=s.elements * (cost.arithmetic + 2 * s.arrays)
            + accumulator_additions(rows, 1, accumulators)
            + product.arithmetic
            + recomputed.arithmetic,
            chain_special=cost.chain_special,
            chain_arithmetic=cost.chain_arithmetic + 1 + v["accumulators"] // 2,
            staged=s.elements * s.stored,
            transfers=s.copies + 2 * s.writes,
            device_bytes=dtype_info(dtype).itemsize * values,
            lead=v["num_stages"] - 1 - min(s.inputless_products, 1),
        )

    def template(self, cell: Cell, shape: Shape, profile: Profile, tiling: Tiling) -> Template:
        """What instantiates cuda/resident_backward.cuh."""
        known, gates = known_states(cell, shape), "recomputed" if shape.recompute else "saved"
        return Template(
            header="resident_backward",
            name="ResidentBackward",
            arguments="BackwardArguments",
            entry="tilesmith_backward",
            title=f"backward, gradients of {known} of {len(cell.states)} states, gates {gates}, schedule {self.name}",
            parameters=backward_parameters(shape, PARTIAL_SUMS),
            tiling_struct="ResidentBackwardTiling",
            tiling=tiling.values,
            asserted=asserted(tiling),
            options=(str(known), f"Gates::{gates}", stores(profile), *sequences(shape)),
        )


SCHEDULE = ResidentBackward()
