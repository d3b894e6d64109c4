"""The resident schedule, forward: a block runs a tile of the batch from the first step to the last.

R lies in registers and shared memory for the whole sequence, h travels through shared memory, and one barrier a step
is all the synchronisation. The kernel is the template of cuda/resident.cuh; the formulas here are its sizes, and the
generated source asserts that they agree. Every formula works on plain integers and on a Problem's variables alike:
the same text states the constraint and predicts the number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic

from constrint import Expr, Problem, cdiv, minimum
from kernelgen.cells.language import Cell
from kernelgen.emit.kernel import Template
from kernelgen.hardware.profile import Profile
from kernelgen.program.arguments import known_states
from kernelgen.program.dtypes import dtype_info
from kernelgen.program.shape import FEATURES, INPUT_PRODUCT, Shape
from kernelgen.program.task import Direction
from kernelgen.program.tiling import Tiling
from kernelgen.schedules.shared.batch_tiled import (
    BATCH_TILES,
    NUM_STAGES,
    BatchTiled,
    Needs,
    accumulator_additions,
    read_bytes,
)
from kernelgen.schedules.shared.cost import StepWork
from kernelgen.schedules.shared.entries import asserted, forward_parameters, sequences, stores
from kernelgen.schedules.shared.forward_step import arrays_written
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
from kernelgen.symbolic.instructions import cell_cost


@dataclass(frozen=True)
class Sizes(Generic[Number]):
    """The sizes of cuda/resident_sizes.cuh, from a cell, a shape and the tile variables (ints or expressions)."""

    warps: Number
    unit_warps: Number
    unit_groups: Number
    tiles: Number
    k_tiles: Number
    columns: Number
    column_tiles: Number
    elements: Number
    copies: Number
    writes: Number
    copied: Number
    matrices: Number
    input_tiles: Number
    input_k_tiles: Number
    apart_tiles: Number
    shared_memory: Number


@once
def sizes(cell: Cell, shape: Shape, v: Mapping[str, Number]) -> Sizes[Number]:
    """Compute the sizes for tile variables ``v``."""
    d = shape.head_dim
    recurrent, inputs = len(cell.recurrent_gates), len(cell.input_gates)
    units, rows, k_split = v["units_per_warp"], v["batch_tile"], v["k_split"]
    unit_groups = units // 8
    unit_warps = cdiv(d, units)
    warps = unit_warps * k_split
    itemsize, k_depth = dtype_info(shape.dtype).itemsize, k_tile(shape.dtype)
    k_tiles = cdiv(-(-d // k_depth), k_split)
    tiles = cdiv(recurrent * units, 16)
    columns = minimum(rows // 4, 2)
    column_tiles = cdiv(rows, 8)
    row = row_bytes(unit_warps * units, rows, shape.dtype)
    hidden = 4 * k_tiles * k_split * rows * CHUNK
    staged = (arrays_written(cell, shape) - 1) * rows * row
    # What the kernel reads of a step: Wx, or x, laid out as h.
    copied, width = (1, shape.inputs) if shape.inputs else (inputs, d)
    input_k_tiles = cdiv(-(-shape.inputs // k_depth), k_split)
    input_tiles = cdiv(inputs * units, 16) if shape.inputs else 0 * units
    stage = 4 * input_k_tiles * k_split * rows * CHUNK if shape.inputs else inputs * rows * row
    weights = (k_tiles - v["k_tiles_in_registers"]) * tiles
    if shape.inputs:
        weights = weights + (input_k_tiles - v["input_k_tiles_in_registers"]) * input_tiles
    apart = apart_tiles(cell, units) if shape.inputs else 0 * units
    partial = (k_split - 1) * unit_warps * (tiles + apart) * column_tiles * 32 * CHUNK
    elements = unit_groups * column_tiles * columns
    vectors = copied * rows * (width // vector_width(width, itemsize))
    zeros = CHUNK if shape.lengths else 0
    initial = hidden if shape.resets else 0
    return Sizes(
        warps=warps,
        unit_warps=unit_warps,
        unit_groups=unit_groups,
        tiles=tiles,
        k_tiles=k_tiles,
        columns=columns,
        column_tiles=column_tiles,
        elements=elements,
        copies=cdiv(vectors, warps * 32),
        writes=cdiv(arrays_written(cell, shape) * rows * (d // vector_width(d, itemsize)), warps * 32),
        copied=vectors,
        matrices=cdiv(inputs, 3 - columns),
        input_tiles=input_tiles,
        input_k_tiles=input_k_tiles,
        apart_tiles=apart,
        shared_memory=2 * (hidden + staged + zeros)
        + v["num_stages"] * stage
        + warps * weights * 2 * 32 * CHUNK
        + partial
        + initial
        + reset_flags(shape, rows),
    )


def apart_tiles(cell: Cell, units: Number) -> Number:
    """Tiles of W, of warps of 8 or 16 ``units``, that have a gate without a recurrent product, which could begin with
    their sums."""
    ranks = [rank for rank, gate in enumerate(cell.input_gates) if gate not in cell.recurrent_gates]
    pairs = len({rank // 2 for rank in ranks})
    return pairs + (len(ranks) - pairs) * (units // 16)


class Resident(BatchTiled):
    """See the module."""

    name = "resident"
    direction: Direction = "forward"
    dtypes = MULTIPLIED
    honours = (*FEATURES, INPUT_PRODUCT)
    package = __package__

    def variables(self, problem: Problem, cell: Cell, shape: Shape, profile: Profile) -> Mapping[str, Expr]:
        """Declare the tile variables, in the order of the template's fields."""
        k_tiles = -(-shape.head_dim // k_tile(shape.dtype))
        v = {
            "units_per_warp": problem.variable("units_per_warp", [8, 16]),
            "batch_tile": problem.variable("batch_tile", BATCH_TILES),
            "k_split": problem.variable("k_split", range(1, min(4, k_tiles) + 1)),
            "k_tiles_in_registers": problem.variable("k_tiles_in_registers", range(0, k_tiles + 1)),
            "accumulators": problem.variable("accumulators", [1, 2, 4]),
            "num_stages": problem.variable("num_stages", NUM_STAGES),
        }
        if shape.inputs:
            name, most = "input_k_tiles_in_registers", -(-shape.inputs // k_tile(shape.dtype))
            v[name] = problem.variable(name, range(0, most + 1))
            v["overlap_input"] = problem.variable("overlap_input", [1, 0])
        if shape.dtype == "float32":
            v["keeps_rests"] = problem.variable("keeps_rests", [0, 1])
        return v

    def rules(self, problem: Problem, cell: Cell, shape: Shape, v: Mapping[str, Expr]) -> None:
        """Constraints of the template."""
        s = sizes(cell, shape, v)
        problem.add(v["k_tiles_in_registers"] <= s.k_tiles, "no more k-tiles of R in registers than a warp has")
        k_tiles = -(-shape.head_dim // k_tile(shape.dtype))
        problem.add((s.k_tiles - 1) * v["k_split"] < k_tiles, "every warp of a K split has a part of K")
        problem.add(v["accumulators"] <= 2 * s.k_tiles, "no more accumulators than matrix instructions in a row")
        add_float32_rules(problem, shape.dtype, v)
        if shape.inputs:
            in_registers = v["input_k_tiles_in_registers"]
            problem.add(in_registers <= s.input_k_tiles, "no more k-tiles of W in registers than a warp has")

    def needs(self, cell: Cell, shape: Shape, v: Mapping[str, Number]) -> Needs[Number]:
        """Warps, shared memory and what lives in a thread's registers."""
        s = sizes(cell, shape, v)
        of_input: Int = v["input_k_tiles_in_registers"] if shape.inputs else 0
        overlap: Int = v["overlap_input"] if shape.inputs else 0
        fragments: Int = s.tiles * s.k_tiles
        if shape.inputs:  # load_in_turn and multiply_in_turn: of what is in shared memory one k-tile at a time
            shared = minimum(s.k_tiles - v["k_tiles_in_registers"], 1), minimum(s.input_k_tiles - of_input, 1)
            fragments = s.tiles * (v["k_tiles_in_registers"] + shared[0]) + s.input_tiles * (of_input + shared[1])
        counts: dict[str, Int] = {
            "weights": (s.tiles * v["k_tiles_in_registers"] * (1 + v.get("keeps_rests", 0)) + s.input_tiles * of_input)
            * 8,
            "fragments": fragments,
            "loading": minimum(s.k_tiles - v["k_tiles_in_registers"] + s.input_k_tiles - of_input, 1),
            "accumulators": (s.tiles + s.input_tiles * overlap) * s.column_tiles * 4,
            "more_accumulators": (v["accumulators"] - 1) * s.tiles * s.column_tiles * 4,
            "hidden": 4 * s.column_tiles * s.k_tiles,
            "bias": s.tiles * 2 + s.unit_groups * (len(cell.gates) - len(cell.recurrent_gates)),
            "states": s.elements * (len(cell.states) - 1) * (2 if shape.resets else 1),
            "inputs": 0 if shape.inputs else s.unit_groups * s.column_tiles * s.matrices,
            "elements": s.elements,
            "saved_gates": s.elements * (arrays_written(cell, shape) - known_states(cell, shape)),
            "live": minimum(s.elements, 4) * cell_cost(cell).live,
            "split": minimum(v["k_split"] - 1, 1),
            "padded": minimum(s.unit_warps * v["units_per_warp"] - shape.head_dim, 1),
            "copies": s.copies,
            "writes": s.writes,
        }
        return Needs(s.warps, s.shared_memory, counts)

    def work(self, cell: Cell, shape: Shape, profile: Profile, v: Mapping[str, int]) -> StepWork:
        """What a block does in one step, for the cost model."""
        s = sizes(cell, shape, v)
        cost = in_dtype(cell_cost(cell), shape.dtype)
        epilogue_warps = s.unit_warps
        hidden = read_bytes(v["batch_tile"], s.k_tiles, v["accumulators"])
        weights = (s.k_tiles - v["k_tiles_in_registers"]) * s.tiles * 2 * 512
        partial = 2 * (v["k_split"] - 1) * (s.tiles + s.apart_tiles) * s.column_tiles * 512 * epilogue_warps
        kept = v.get("keeps_rests", 0) * v["k_tiles_in_registers"]
        product = Product.of(shape.dtype, s.tiles, s.k_tiles, s.column_tiles, kept)
        of_input = Product.of(shape.dtype, s.input_tiles, s.input_k_tiles, s.column_tiles)
        more_accumulators = accumulator_additions(v["batch_tile"], s.tiles, v["accumulators"])
        arrays = arrays_written(cell, shape)
        values = shape.batch * shape.heads * shape.head_dim * arrays
        added = len(cell.input_gates)
        if shape.inputs:  # the product has their sums already; all heads read the same x
            values += shape.batch * shape.inputs
            hidden += read_bytes(v["batch_tile"], s.input_k_tiles, 1)
            weights += (s.input_k_tiles - v["input_k_tiles_in_registers"]) * s.input_tiles * 2 * 512
            added = 0
        else:
            values += shape.batch * shape.heads * shape.head_dim * added
        return StepWork(
            warps=s.warps,
            epilogue_warps=epilogue_warps,
            matrix=product.matrix + of_input.matrix,
            matrix_chain=multiply_chain(shape.dtype, s.k_tiles, v["accumulators"]),
            shared_bytes=s.warps * (hidden + weights) + partial,
            special=s.elements * cost.special,
            arithmetic=s.elements * (cost.arithmetic + 2 * added)
            + more_accumulators
            + product.arithmetic
            + of_input.arithmetic,
            chain_special=cost.chain_special,
            chain_arithmetic=cost.chain_arithmetic + 1 + v["accumulators"] // 2,
            staged=s.elements * arrays,
            transfers=s.copies + 2 * s.writes,
            device_bytes=dtype_info(shape.dtype).itemsize * values,
            lead=v["num_stages"] - 1,
            exchanges=min(v["k_split"] - 1, 1),
            branches=min(s.copies * 32 * s.warps - s.copied, 1),
        )

    def template(self, cell: Cell, shape: Shape, profile: Profile, tiling: Tiling) -> Template:
        """What instantiates cuda/resident.cuh."""
        return Template(
            header="resident",
            name="Resident",
            arguments="ForwardArguments",
            entry="tilesmith_forward",
            title=f"forward, saves {shape.save}, schedule {self.name}",
            parameters=forward_parameters(shape),
            tiling_struct="ResidentTiling",
            tiling=tiling.values,
            asserted=asserted(tiling),
            options=(f"Save::{shape.save}", stores(profile), *sequences(shape)),
        )


SCHEDULE = Resident()
