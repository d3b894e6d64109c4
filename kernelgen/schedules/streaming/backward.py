"""The streaming schedule, backward: R and the gates' gradients come from L2 in every step, for any head and any batch.

The kernel is the template of cuda/streaming_backward.cuh; the formulas here are its sizes, for integers and for a
Problem's variables alike, and the generated source asserts that they agree. A shape that saves "hidden" means that
gradients come from outside for h alone, else for every state.
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
from kernelgen.program.program import Program
from kernelgen.program.shape import Shape
from kernelgen.program.task import Direction
from kernelgen.program.tiling import Tiling
from kernelgen.schedules.shared.backward_step import arrays_read, refuses_recomputing
from kernelgen.schedules.shared.batch_tiled import Needs
from kernelgen.schedules.shared.cost import StepWork
from kernelgen.schedules.shared.entries import asserted, backward_grid_parameters, sequences, stores
from kernelgen.schedules.shared.limits import CHUNK, vector_width
from kernelgen.schedules.shared.numbers import Int, Number
from kernelgen.schedules.shared.parameter_gradients import with_parameter_gradients
from kernelgen.schedules.streaming.tiles import (
    BATCH_TILES,
    COUNTER_WORDS,
    PART_K,
    ROWS_PER_WARP,
    ProductSizes,
    Streaming,
    own_bytes,
    product_registers,
    product_sizes,
)
from kernelgen.symbolic.instructions import backward_cost

UNITS = [16, 32, 64, 128]
UNITS_PER_WARP = [16, 32, 64]
"""Units of a tile, and of a warp."""

MOST_ELEMENTS = 64
"""Of a lane: each has a step, and what it reads and makes passes through shared memory at once."""

SPARE = 100
"""Registers that a thread needs besides its sums and the gradients of its states."""


@dataclass(frozen=True)
class Sizes(Generic[Number]):
    """The sizes of cuda/streaming_backward.cuh, from a cell, a shape and the tile variables (ints or expressions).

    arrays, stored: of [sequence, unit], read and made in a step.
    """

    product: ProductSizes[Number]
    elements: Number
    arrays: int
    stored: int
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
        warp_tiles=warp_units // 16,
        parts=len(cell.recurrent_gates) * cdiv(shape.head_dim, v["part_k"]),
        dtype=dtype,
    )
    arrays = arrays_read(cell, shape, written=True)
    stored = len({*cell.recurrent_gates} | {*cell.input_gates})
    row = (units * itemsize // CHUNK // 2 * 2 + 1) * CHUNK
    return Sizes(
        product=product,
        elements=warp_units // 8 * product.column_tiles * 2,
        arrays=arrays,
        stored=stored,
        copies=cdiv(units * v["part_k"] // vector_width(shape.head_dim, itemsize), product.warps * 32),
        shared_memory=product.shared_memory
        + max(arrays, stored) * v["batch_tile"] * row
        + own_bytes(shape, v["batch_tile"]),
    )


class StreamingBackward(Streaming):
    """See the module."""

    name = "streaming_backward"
    direction: Direction = "backward"
    least_units_per_warp = min(UNITS_PER_WARP)
    least_warps = 8

    def refuses(self, cell: Cell, shape: Shape, profile: Profile) -> str:
        """Why it does not run this."""
        return super().refuses(cell, shape, profile) or refuses_recomputing(self.name, shape)

    def variables(self, problem: Problem, cell: Cell, shape: Shape, profile: Profile) -> Mapping[str, Expr]:
        """Declare the tile variables, in the order of the template's fields."""
        parts = {len(cell.recurrent_gates) * -(-shape.head_dim // k) for k in PART_K[dtype_info(shape.dtype).itemsize]}
        return {
            "units": problem.variable("units", UNITS),
            "batch_tile": problem.variable("batch_tile", BATCH_TILES),
            "units_per_warp": problem.variable("units_per_warp", UNITS_PER_WARP),
            "rows_per_warp": problem.variable("rows_per_warp", ROWS_PER_WARP),
            **self.tile_variables(problem, shape, profile, parts),
        }

    def rules(self, problem: Problem, cell: Cell, shape: Shape, v: Mapping[str, Expr]) -> None:
        """Constraints of the template."""
        s = sizes(cell, shape, v)
        problem.add(v["units_per_warp"] <= v["units"], "a warp has no more units than a tile")
        problem.add(s.elements <= MOST_ELEMENTS, f"elements of a lane: at most {MOST_ELEMENTS}")
        self.tile_rules(problem, cell, shape, v, s.product)

    def axes(self, cell: Cell, shape: Shape, v: Mapping[str, int]) -> Mapping[str, str]:
        """The sizes of what blocks share: two slots of the gates' gradients, counters, the gradients of tiles that are
        taken in turn, and what resets send to the initial states."""
        s = sizes(cell, shape, v)
        groups = f"heads * cdiv(batch, {v['batch_tile']})"
        kept = len(cell.states) + len(cell.inputless_biases)
        kept += v.get("k_warps", 1) * len(cell.states) if shape.resets else 0
        carried = -(-shape.head_dim // v["units"]) * v["units"] * v["batch_tile"] * kept
        return {
            "W_gates": f"{groups} * {2 * s.product.parts * v['part_k'] * v['batch_tile']}",
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
            "states": alone * s.elements * (len(cell.states) + len(cell.inputless_biases)) * p.dtype.registers,
            "arrays": (s.arrays + s.stored) * p.dtype.registers,
            "live": backward_cost(cell).live * p.dtype.registers,
        }
        return Needs(p.warps, s.shared_memory, counts, p.least_registers + counts["states"] + SPARE)

    def work(self, cell: Cell, shape: Shape, profile: Profile, v: Mapping[str, int]) -> StepWork:
        """What a block does in one step, for the cost model."""
        s = sizes(cell, shape, v)
        p, cost = s.product, backward_cost(cell)
        _, rounds = self.rounds(shape, v)
        elements = rounds * s.elements
        itemsize = p.dtype.itemsize
        values = shape.batch * shape.heads * shape.head_dim * (s.arrays + s.stored)
        vectors = v["batch_tile"] * v["units"] // vector_width(shape.head_dim, itemsize)
        return StepWork(
            warps=p.warps,
            epilogue_warps=p.warps // p.k_warps,
            matrix=self.matrix(profile, rounds, v, p),
            matrix_chain=self.matrix_chain(profile, rounds, v, p),
            shared_bytes=rounds * (s.arrays + 3 * s.stored) * v["batch_tile"] * v["units"] * itemsize,
            special=elements * cost.special,
            arithmetic=elements * (cost.arithmetic + 2 * s.arrays),
            chain_special=cost.chain_special,
            chain_arithmetic=cost.chain_arithmetic + 2,
            staged=elements * s.stored * itemsize / 4,
            transfers=rounds * (s.arrays + 4 * s.stored) * vectors / (32 * p.warps),
            device_bytes=itemsize * values + self.missed_bytes(shape, profile, v, p),
            lead=1,
            meeting=self.meeting(shape, profile, v, p),
            streamed=self.streaming_clocks(shape, v, p),
        )

    def template(self, cell: Cell, shape: Shape, profile: Profile, tiling: Tiling) -> Template:
        """What instantiates cuda/streaming_backward.cuh."""
        known = known_states(cell, shape)
        return Template(
            header="streaming_backward",
            name="StreamingBackward",
            arguments="BackwardArguments",
            entry="tilesmith_backward",
            title=f"backward, gradients of {known} of {len(cell.states)} states, gates saved, schedule {self.name}",
            parameters=backward_grid_parameters(shape, carried=tiling.values["blocks"] != 0 or shape.resets),
            tiling_struct="StreamingTiling",
            tiling=tiling.values,
            asserted=asserted(tiling),
            options=(str(known), stores(profile), *sequences(shape)),
        )

    def program(self, cell: Cell, shape: Shape, profile: Profile, tiling: Tiling) -> Program:
        """The kernel of a tiling, and what makes the gradients of R and b of what it leaves."""
        v = tiling.values
        partials = f"cdiv(batch, {v['batch_tile']}) * {v['batch_tile'] // v['rows_per_warp']}"
        recurrence = super().program(cell, shape, profile, tiling)
        return with_parameter_gradients(recurrence, cell, shape, profile, partials)


SCHEDULE = StreamingBackward()
"""The streaming schedule: R and the gates' gradients come from L2 in every step."""
