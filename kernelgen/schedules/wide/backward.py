"""The wide schedule, backward: blocks share a head, and send each other their parts of the gradients of h.

A block multiplies the gradients of its own gates with R, turned, by wgmma, for all units of the head; who owns the
units adds the sums that all blocks have stored. The kernel is the template of cuda/wide_backward.cuh; the formulas here
are its sizes, for integers and for a Problem's variables alike, and the generated source asserts that they agree. A
shape that saves "hidden" means that gradients come from outside for h alone, else for every state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic

from constrint import Expr, Problem, cdiv, divides, minimum
from kernelgen.cells.language import Cell
from kernelgen.emit.kernel import Template
from kernelgen.hardware.profile import Profile
from kernelgen.program.arguments import known_states
from kernelgen.program.shape import FEATURES, Shape
from kernelgen.program.task import Direction
from kernelgen.program.tiling import Tiling
from kernelgen.schedules.grid.blocks import run_together
from kernelgen.schedules.shared.backward_step import arrays_read, refuses_recomputing
from kernelgen.schedules.shared.batch_tiled import BatchTiled, Needs
from kernelgen.schedules.shared.cost import SUB_PARTITIONS, StepWork
from kernelgen.schedules.shared.entries import asserted, backward_grid_parameters, sequences, stores
from kernelgen.schedules.shared.limits import CHUNK
from kernelgen.schedules.shared.numbers import Int, Number, once
from kernelgen.schedules.wide.blocks import (
    COLUMNS,
    COUNTER_WORDS,
    K_TILE,
    L2_BYTES_PER_CLOCK,
    MOST_IN_REGISTERS,
    MOST_WARPGROUPS,
    instruction_clocks,
    lacks_warpgroups,
)
from kernelgen.symbolic.derive import derive
from kernelgen.symbolic.instructions import backward_cost

WARPGROUPS = range(1, MOST_WARPGROUPS + 1)
SUM_BYTES = [2, 4]
PREPARED = [0, 1]
"""The values of the tile variables."""

OWNED = 16
"""Units of a warp that owns elements."""

TILE_ROWS = 64
"""Rows of an instruction."""

MOST_ELEMENTS = 32
"""Of a lane."""

MOST_K_TILES = 32
"""In registers, of a tile of rows."""

ASKED = 16
"""Words of sums on their way that a lane asks for at a time."""

SPARE = 34
"""Registers that a thread needs besides R, sums, what it keeps of its elements and a step's values."""

HANDSHAKE = 1_400
"""Clocks from the last store of sums to the first load of them elsewhere: a signal, a poll that sees it, a meeting
(predicted)."""

STORE = 300
"""Clocks in which a warpgroup stores the sums of a tile, and multiplies nothing (predicted); others do meanwhile."""


@dataclass(frozen=True)
class Sizes(Generic[Number]):
    """The sizes of cuda/wide_backward.cuh, from a cell, a shape and the tile variables (ints or expressions).

    unit_tiles: of 16 units, of a block. tiles: of 64 rows, of a warpgroup; k_tiles: of 16 k, of a block. elements: of
    a thread. arrays, stored: of [sequence, unit], read and made in a step.
    """

    warps: Number
    unit_tiles: Number
    tiles: Number
    k_tiles: Number
    elements: Number
    arrays: int
    stored: int
    shared_memory: Number


@once
def sizes(cell: Cell, shape: Shape, v: Mapping[str, Number]) -> Sizes[Number]:
    """Compute the sizes for tile variables ``v``."""
    d, rows, warpgroups = shape.head_dim, v["batch_tile"], v["warpgroups"]
    unit_tiles = d // OWNED // v["blocks"]
    units = unit_tiles * OWNED
    tiles = cdiv(-(-d // TILE_ROWS), warpgroups)
    k_tiles = len(cell.recurrent_gates) * unit_tiles
    arrays = arrays_read(cell, shape, written=True)
    stored = len({*cell.recurrent_gates} | {*cell.input_gates})
    planes = stored * units // 8 * rows * CHUNK + arrays * (units // 8) * (rows + 1) * CHUNK
    weights = warpgroups * tiles * (k_tiles - v["k_tiles_in_registers"]) * TILE_ROWS * K_TILE * 2
    return Sizes(
        warps=4 * warpgroups,
        unit_tiles=unit_tiles,
        tiles=tiles,
        k_tiles=k_tiles,
        elements=rows * units // (128 * warpgroups),
        arrays=arrays,
        stored=stored,
        shared_memory=cdiv(planes + rows * (24 if shape.features else 0), 128) * 128 + weights,
    )


def returned(cell: Cell, shape: Shape) -> int:
    """Bit s is 1 where a gradient of state s lives from step to step: not that of h where R alone returns it, unless it
    waits for the ends of sequences."""
    alone = derive(cell).d_states[0] == 0 and not shape.lengths
    return (1 << len(cell.states)) - (2 if alone else 1)


def block_counts(head_dim: int) -> list[int]:
    """Into how many blocks the units of a head may be cut."""
    return [count for count in range(1, head_dim // OWNED + 1) if head_dim % (count * OWNED) == 0]


def product_clocks(s: Sizes[int], v: Mapping[str, int]) -> float:
    """Clocks of all products of a step of a block."""
    held, rows = v["k_tiles_in_registers"], v["batch_tile"]
    of_k = held * instruction_clocks(rows, shared=False) + (s.k_tiles - held) * instruction_clocks(rows, shared=True)
    return s.warps // 4 * s.tiles * of_k


class WideBackward(BatchTiled):
    """See the module."""

    name = "wide_backward"
    direction: Direction = "backward"
    honours = FEATURES
    package = __package__
    cooperative = True
    least_batch_tile = min(COLUMNS)

    def refuses(self, cell: Cell, shape: Shape, profile: Profile) -> str:
        """Why it does not run this."""
        if reason := super().refuses(cell, shape, profile) or lacks_warpgroups(self.name, profile):
            return reason
        if shape.head_dim % OWNED:
            return (
                f"the {self.name} schedule cuts a head into blocks of {OWNED} units or a multiple; a head of "
                f"{shape.head_dim} has other parts."
            )
        return refuses_recomputing(self.name, shape)

    def variables(self, problem: Problem, cell: Cell, shape: Shape, profile: Profile) -> Mapping[str, Expr]:
        """Declare the tile variables, in the order of the template's fields."""
        k_tiles = min(len(cell.recurrent_gates) * shape.head_dim // K_TILE, MOST_K_TILES)
        return {
            "blocks": problem.variable("blocks", block_counts(shape.head_dim)),
            "batch_tile": problem.variable("batch_tile", COLUMNS),
            "warpgroups": problem.variable("warpgroups", WARPGROUPS),
            "k_tiles_in_registers": problem.variable("k_tiles_in_registers", range(k_tiles + 1)),
            "sum_bytes": problem.variable("sum_bytes", SUM_BYTES),
            "prepared": problem.variable("prepared", PREPARED),
        }

    def rules(self, problem: Problem, cell: Cell, shape: Shape, v: Mapping[str, Expr]) -> None:
        """Constraints of the template."""
        s = sizes(cell, shape, v)
        problem.add(divides(s.unit_tiles, s.warps), f"all warps own {OWNED} units")
        problem.add(
            divides(8 * s.warps * v["blocks"], v["batch_tile"] * (shape.head_dim // OWNED)),
            "all warps own 8 sequences or a multiple",
        )
        problem.add(s.elements <= MOST_ELEMENTS, f"elements of a lane: at most {MOST_ELEMENTS}")
        problem.add(v["warpgroups"] <= -(-shape.head_dim // TILE_ROWS), "every warpgroup has rows of the product")
        problem.add(v["k_tiles_in_registers"] <= s.k_tiles, "no more of R in registers than there is")
        held = s.tiles * v["k_tiles_in_registers"] * 4
        problem.add(held <= MOST_IN_REGISTERS, f"registers of a thread that hold R: at most {MOST_IN_REGISTERS}")

    def gpu_rules(self, problem: Problem, shape: Shape, profile: Profile, v: Mapping[str, Expr]) -> None:
        """All blocks run at the same time."""
        run_together(problem, profile, shape.heads * cdiv(shape.batch, v["batch_tile"]) * v["blocks"])

    def blocks_per_head(self, v: Mapping[str, int]) -> int:
        """How many share a head."""
        return v["blocks"]

    def axes(self, cell: Cell, shape: Shape, v: Mapping[str, int]) -> Mapping[str, str]:
        """The sizes of what blocks share: two slots of sums, counters, and what resets send to the initial states."""
        groups = f"heads * cdiv(batch, {v['batch_tile']})"
        tile = shape.head_dim * v["batch_tile"]
        return {
            "W_sums" if v["sum_bytes"] == 2 else "W_gates": f"{groups} * {v['blocks'] * tile * v['sum_bytes']}",
            "W_carried": f"{groups} * {len(cell.states) * tile if shape.resets else 0}",
            "W_counters": f"{groups} * {COUNTER_WORDS}",
        }

    def needs(self, cell: Cell, shape: Shape, v: Mapping[str, Number]) -> Needs[Number]:
        """Warps, shared memory and what lives in a thread's registers."""
        s = sizes(cell, shape, v)
        counts: dict[str, Int] = {
            "weights": s.tiles * v["k_tiles_in_registers"] * 4,
            "accumulators": v["batch_tile"] // 2,
            "states": s.elements * (returned(cell, shape).bit_count() + len(cell.inputless_biases)),
            "live": backward_cost(cell).live,
            "tiles": s.tiles,
            "asked": minimum(v["blocks"] * v["sum_bytes"], ASKED),
        }
        # As compiled: with less, what is kept or a step's values are spilled.
        values = 3 * counts["live"] + s.elements * 3 // 2
        least = counts["weights"] + counts["accumulators"] + counts["states"] + values + SPARE
        return Needs(s.warps, s.shared_memory, counts, least)

    def work(self, cell: Cell, shape: Shape, profile: Profile, v: Mapping[str, int]) -> StepWork:
        """What a block does in one step, for the cost model."""
        s, cost, rows = sizes(cell, shape, v), backward_cost(cell), v["batch_tile"]
        busiest = -(-s.warps // SUB_PARTITIONS)
        product = product_clocks(s, v)
        blocks = shape.heads * -(-shape.batch // rows) * v["blocks"]
        # Sums are written beside the product, tile by tile, and read when all are there.
        sums = blocks * shape.head_dim * rows * v["sum_bytes"] / L2_BYTES_PER_CLOCK
        exchange = HANDSHAKE + sums + max(0.0, sums - product) + s.tiles * STORE / v["warpgroups"]
        elements = rows * s.unit_tiles * OWNED
        return StepWork(
            warps=s.warps,
            epilogue_warps=s.warps,
            matrix=product / (busiest * profile.latency("mma_interval")),
            matrix_chain=0.0,
            shared_bytes=(s.arrays + 2 * s.stored) * elements * 2,
            # What preparing some of them gains is not measured, and not counted: 0 comes first.
            special=s.elements * cost.special,
            arithmetic=s.elements * (cost.arithmetic + 2 * s.arrays + v["blocks"]),
            chain_special=cost.chain_special,
            chain_arithmetic=cost.chain_arithmetic + 2,
            staged=s.elements * s.stored / 2,
            transfers=(s.arrays + 2 * s.stored) * elements / 8 / (32 * s.warps),
            device_bytes=2 * shape.batch * shape.heads * shape.head_dim * (s.arrays + s.stored),
            lead=1,
            meeting=exchange + 3 * profile.latency("barrier", 32 * s.warps),
        )

    def num_partials(self, shape: Shape, v: Mapping[str, int]) -> str:
        """Of the gradients of biases: one for each tile of the batch and warp along it."""
        row_warps = 4 * v["warpgroups"] * v["blocks"] * OWNED // shape.head_dim
        return f"cdiv(batch, {v['batch_tile']}) * {row_warps}"

    def template(self, cell: Cell, shape: Shape, profile: Profile, tiling: Tiling) -> Template:
        """What instantiates cuda/wide_backward.cuh."""
        known = known_states(cell, shape)
        return Template(
            header="wide_backward",
            name="WideBackward",
            arguments="BackwardArguments",
            entry="tilesmith_backward",
            title=f"backward, gradients of {known} of {len(cell.states)} states, gates saved, schedule {self.name}",
            parameters=backward_grid_parameters(
                shape, carried=shape.resets, stored="d_sums" if tiling.values["sum_bytes"] == 2 else "d_gates"
            ),
            tiling_struct="WideBackwardTiling",
            tiling=tiling.values,
            asserted=asserted(tiling),
            options=(str(known), f"{returned(cell, shape):#x}u", stores(profile), *sequences(shape)),
        )


SCHEDULE = WideBackward()
"""The wide schedule: blocks share a head of many sequences, multiply by wgmma, and scatter their sums."""
