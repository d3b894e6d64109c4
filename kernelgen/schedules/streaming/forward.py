"""The streaming schedule, forward: R and h come from L2 in every step, for any head dimension and any batch.

The kernel is the template of cuda/streaming_forward.cuh; the formulas here are its sizes, for integers and for a
Problem's variables alike, and the generated source asserts that they agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic

from constrint import Expr, Problem, cdiv, minimum
from kernelgen.cells.language import Cell
from kernelgen.emit.kernel import Template
from kernelgen.hardware.profile import Profile
from kernelgen.program.dtypes import dtype_info
from kernelgen.program.shape import Shape
from kernelgen.program.task import Direction
from kernelgen.program.tiling import Tiling
from kernelgen.schedules.shared.batch_tiled import Needs
from kernelgen.schedules.shared.cost import StepWork
from kernelgen.schedules.shared.entries import asserted, forward_grid_parameters, sequences, stores
from kernelgen.schedules.shared.forward_step import arrays_written
from kernelgen.schedules.shared.limits import CHUNK, vector_width
from kernelgen.schedules.shared.numbers import Int, Number
from kernelgen.schedules.streaming.tiles import (
    BATCH_TILES,
    COUNTER_WORDS,
    PART_K,
    ROWS_PER_WARP,
    UNROLLED,
    ProductSizes,
    Streaming,
    own_bytes,
    product_registers,
    product_sizes,
)
from kernelgen.symbolic.instructions import cell_cost

UNITS = [8, 16, 32, 64, 128]
UNITS_PER_WARP = [8, 16, 32, 64]
"""Units of a tile, and of a warp."""

SPARE = 87
"""Registers that a thread needs besides its sums, its states and the addresses of its copies of R."""

SPARE_IN_TURN = 10
"""And where states come from memory, for each number of the step that lives at once."""


@dataclass(frozen=True)
class Sizes(Generic[Number]):
    """The sizes of cuda/streaming_forward.cuh, from a cell, a shape and the tile variables (ints or expressions)."""

    product: ProductSizes[Number]
    elements: Number
    copies: Number
    shared_memory: Number


def sizes(cell: Cell, shape: Shape, v: Mapping[str, Number]) -> Sizes[Number]:
    """Compute the sizes for tile variables ``v``."""
    units, warp_units = v["units"], v["units_per_warp"]
    dtype = dtype_info(shape.dtype)
    itemsize = dtype.itemsize
    product = product_sizes(
        v,
        unit_warps=units // warp_units,
        warp_tiles=cdiv(len(cell.recurrent_gates) * warp_units, 16),
        parts=cdiv(shape.head_dim, v["part_k"]),
        dtype=dtype,
    )
    planes = max(len(cell.input_gates), arrays_written(cell, shape))
    row = (units * itemsize // CHUNK // 2 * 2 + 1) * CHUNK
    return Sizes(
        product=product,
        elements=warp_units // 8 * product.column_tiles * 2,
        copies=cdiv(product.rows * v["part_k"] // vector_width(shape.head_dim, itemsize), product.warps * 32),
        shared_memory=product.shared_memory + planes * v["batch_tile"] * row + own_bytes(shape, v["batch_tile"]),
    )


class StreamingForward(Streaming):
    """See the module."""

    name = "streaming"
    direction: Direction = "forward"
    least_units_per_warp = min(UNITS_PER_WARP)
    least_warps = 4

    def variables(self, problem: Problem, cell: Cell, shape: Shape, profile: Profile) -> Mapping[str, Expr]:
        """Declare the tile variables, in the order of the template's fields."""
        parts = {-(-shape.head_dim // k) for k in PART_K[dtype_info(shape.dtype).itemsize]}
        return {
            "units": problem.variable("units", UNITS),
            "batch_tile": problem.variable("batch_tile", BATCH_TILES),
            "units_per_warp": problem.variable("units_per_warp", UNITS_PER_WARP),
            "rows_per_warp": problem.variable("rows_per_warp", ROWS_PER_WARP),
            **self.tile_variables(problem, shape, profile, parts),
        }

    def rules(self, problem: Problem, cell: Cell, shape: Shape, v: Mapping[str, Expr]) -> None:
        """Constraints of the template."""
        problem.add(v["units_per_warp"] <= v["units"], "a warp has no more units than a tile")
        self.tile_rules(problem, cell, shape, v, sizes(cell, shape, v).product)

    def axes(self, cell: Cell, shape: Shape, v: Mapping[str, int]) -> Mapping[str, str]:
        """The sizes of what blocks share: two slots of h, counters, the states of tiles that are taken in turn."""
        s = sizes(cell, shape, v)
        groups = f"heads * cdiv(batch, {v['batch_tile']})"
        carried = -(-shape.head_dim // v["units"]) * v["units"] * v["batch_tile"] * len(cell.states)
        return {
            "W_hidden": f"{groups} * {2 * s.product.parts * v['part_k'] * v['batch_tile']}",
            "W_carried": f"{groups} * {carried}",
            "W_counters": f"{groups} * {COUNTER_WORDS}",
        }

    def needs(self, cell: Cell, shape: Shape, v: Mapping[str, Number]) -> Needs[Number]:
        """Warps, shared memory and what lives in a thread's registers."""
        s = sizes(cell, shape, v)
        p = s.product
        alone = 1 - minimum(v["blocks"], 1)
        counts: dict[str, Int] = {
            **product_registers(v, p, s.copies),
            "states": alone * s.elements * len(cell.states) * p.dtype.registers,
            "bias": v["units_per_warp"] // 8 * len(cell.bias_gates) * p.dtype.registers,
            "arrays": arrays_written(cell, shape) * p.dtype.registers,
            "live": cell_cost(cell).live * p.dtype.registers,
        }
        # Given a whole block's share the compiler takes it; what must live is sums, states and some addresses.
        read = set().union(*(expression.free_symbols for expression in cell.next_states))
        kept = len(cell.states) - (cell.state_symbols[0] not in read)  # else h lives in shared memory alone
        least = (
            p.least_registers + alone * s.elements * kept * p.dtype.registers + SPARE + 2 * minimum(s.copies, UNROLLED)
        )
        least = least + (1 - alone) * SPARE_IN_TURN * cell_cost(cell).live
        return Needs(p.warps, s.shared_memory, counts, least + 2 * minimum(v["stationary"], 1))

    def work(self, cell: Cell, shape: Shape, profile: Profile, v: Mapping[str, int]) -> StepWork:
        """What a block does in one step, for the cost model."""
        s = sizes(cell, shape, v)
        p, cost, arrays = s.product, cell_cost(cell), arrays_written(cell, shape)
        _, rounds = self.rounds(shape, v)
        elements = rounds * s.elements
        itemsize = p.dtype.itemsize
        values = shape.batch * shape.heads * shape.head_dim * (len(cell.input_gates) + arrays)
        vectors = v["batch_tile"] * v["units"] // vector_width(shape.head_dim, itemsize)
        return StepWork(
            warps=p.warps,
            epilogue_warps=p.warps // p.k_warps,
            matrix=self.matrix(profile, rounds, v, p),
            matrix_chain=self.matrix_chain(profile, rounds, v, p),
            shared_bytes=rounds * (len(cell.input_gates) + 2 * arrays) * v["batch_tile"] * v["units"] * itemsize,
            special=elements * cost.special,
            arithmetic=elements * (cost.arithmetic + 2 * len(cell.input_gates)),
            chain_special=cost.chain_special,
            chain_arithmetic=cost.chain_arithmetic + 2,
            staged=elements * arrays * itemsize / 4,
            transfers=rounds * (len(cell.input_gates) + 2 * arrays + 2) * vectors / (32 * p.warps),
            device_bytes=itemsize * values + self.missed_bytes(shape, profile, v, p),
            lead=1,
            meeting=self.meeting(shape, profile, v, p),
            streamed=self.streaming_clocks(shape, v, p),
        )

    def template(self, cell: Cell, shape: Shape, profile: Profile, tiling: Tiling) -> Template:
        """What instantiates cuda/streaming_forward.cuh."""
        return Template(
            header="streaming_forward",
            name="StreamingForward",
            arguments="ForwardArguments",
            entry="tilesmith_forward",
            title=f"forward, saves {shape.save}, schedule {self.name}",
            parameters=forward_grid_parameters(shape, carried=tiling.values["blocks"] != 0),
            tiling_struct="StreamingTiling",
            tiling=tiling.values,
            asserted=asserted(tiling),
            options=(f"Save::{shape.save}", stores(profile), *sequences(shape)),
        )


SCHEDULE = StreamingForward()
"""The streaming schedule: R and h come from L2 in every step."""
