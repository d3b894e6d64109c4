"""The wide schedule, forward: for batches so large that a step is bound by its product.

Blocks all over the GPU share a head and keep R on the chip; the product is wgmma, and h goes through L2. The kernel is
the template of cuda/wide_forward.cuh; the formulas here are its sizes, for integers and for a Problem's variables
alike, and the generated source asserts that they agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic

from constrint import Expr, Problem, cdiv, divides, maximum
from kernelgen.cells.language import Cell
from kernelgen.emit.kernel import Template
from kernelgen.hardware.profile import Profile
from kernelgen.program.shape import FEATURES, Shape
from kernelgen.program.task import Direction
from kernelgen.program.tiling import Tiling
from kernelgen.schedules.grid.blocks import run_together
from kernelgen.schedules.shared.batch_tiled import BatchTiled, Needs
from kernelgen.schedules.shared.cost import SUB_PARTITIONS, StepWork
from kernelgen.schedules.shared.entries import asserted, forward_grid_parameters, sequences, stores
from kernelgen.schedules.shared.forward_step import arrays_written
from kernelgen.schedules.shared.limits import CHUNK
from kernelgen.schedules.shared.numbers import Int, Number, once
from kernelgen.schedules.wide.blocks import (
    COLUMNS,
    COUNTER_WORDS,
    K_TILE,
    MOST_IN_REGISTERS,
    MOST_WARPGROUPS,
    instruction_clocks,
    lacks_warpgroups,
)
from kernelgen.symbolic.instructions import cell_cost

UNITS_PER_WARP = [8, 16]
BATCH_TILES = [16, 32, 64, 128]
TURNS = [1, 2]
K_PARTS = [1, 2, 4]
NUM_STAGES = [1, 2]
"""The values of the tile variables."""

LEAST_UNITS = 32
"""Of a block: four warps of 8."""

SPARE = 42
"""Registers that a thread needs besides R, sums and states."""

TRANSFER_BARRIER = 8
"""Bytes of a barrier that counts what has come."""

HANDSHAKE = 1_800
"""Clocks from the last store of h to the first copy of it elsewhere: a signal, a poll that sees it, two meetings and a
load from L2 (predicted)."""

HIDDEN_BYTES_PER_CLOCK = 60
"""Of h, what comes from L2 to each multiprocessor while all load: 64 KB in 1,100 clocks (measured on one H200,
2026-11-28)."""


@dataclass(frozen=True)
class Sizes(Generic[Number]):
    """The sizes of cuda/wide_forward.cuh, from a cell, a shape and the tile variables (ints or expressions).

    units: of a block. rows: sequences of a turn. tiles: of 64 rows, of a warpgroup; weights: bytes of R of a block that
    shared memory holds. elements: of a thread, of all turns.
    """

    warps: Number
    units: Number
    rows: Number
    tiles: Number
    weights: Number
    elements: Number
    shared_memory: Number


def _whole(count: Number) -> Number:
    """Bytes that begin where wgmma may read."""
    return cdiv(count, 128) * 128


@once
def sizes(cell: Cell, shape: Shape, v: Mapping[str, Number]) -> Sizes[Number]:
    """Compute the sizes for tile variables ``v``."""
    d, inputs, arrays = shape.head_dim, len(cell.input_gates), arrays_written(cell, shape)
    warps, rows = d // (v["blocks"] * v["units_per_warp"]), v["batch_tile"] // v["turns"]
    units = d // v["blocks"]
    tiles = cdiv(len(cell.recurrent_gates) * v["units_per_warp"], 16)
    plane = units // 8 * (rows + 1) * CHUNK
    turn = _whole(maximum(d // 8 * rows * CHUNK, arrays * plane))
    weights = warps * tiles * (d // K_TILE - v["k_tiles_in_registers"]) * 16 * K_TILE * 2
    barriers = cdiv(v["turns"] * v["k_parts"] * TRANSFER_BARRIER, CHUNK) * CHUNK
    own = v["batch_tile"] * (24 if shape.features else 0)
    return Sizes(
        warps=warps,
        units=units,
        rows=rows,
        tiles=tiles,
        weights=weights,
        elements=v["batch_tile"] * v["units_per_warp"] // 32,
        shared_memory=_whole(v["turns"] * turn + v["num_stages"] * inputs * plane) + weights + barriers + own,
    )


def block_counts(head_dim: int) -> list[int]:
    """Into how many blocks the units of a head may be cut."""
    return [count for count in range(1, head_dim // LEAST_UNITS + 1) if head_dim % (count * LEAST_UNITS) == 0]


def keeps_own(cell: Cell, shape: Shape, v: Mapping[str, int]) -> bool:
    """Whether a block multiplies by its own units while h of the others is on its way: results leave these a place."""
    units = shape.head_dim // v["blocks"]
    foreign = (shape.head_dim - units) // K_TILE
    results = arrays_written(cell, shape) * (units // 8) * (v["batch_tile"] + 1) * CHUNK
    return v["turns"] == 1 and foreign >= v["k_parts"] and results <= foreign * 2 * v["batch_tile"] * CHUNK


def product_clocks(s: Sizes[int], k_tiles: int, v: Mapping[str, int]) -> float:
    """Clocks of all products of a step of a block: what tensor cores take, or shared memory to give the factors."""
    held = v["k_tiles_in_registers"]
    of_k = held * instruction_clocks(s.rows, shared=False) + (k_tiles - held) * instruction_clocks(s.rows, shared=True)
    return v["turns"] * s.warps // 4 * s.tiles * of_k


class WideForward(BatchTiled):
    """See the module."""

    name = "wide"
    direction: Direction = "forward"
    honours = FEATURES
    package = __package__
    cooperative = True
    least_batch_tile = min(BATCH_TILES)

    def refuses(self, cell: Cell, shape: Shape, profile: Profile) -> str:
        """Why it does not run this."""
        if reason := super().refuses(cell, shape, profile):
            return reason
        if reason := lacks_warpgroups(self.name, profile):
            return reason
        if shape.head_dim % LEAST_UNITS:
            return (
                f"the {self.name} schedule cuts a head into blocks of {LEAST_UNITS} units or a multiple; a head of "
                f"{shape.head_dim} has other parts."
            )
        return ""

    def variables(self, problem: Problem, cell: Cell, shape: Shape, profile: Profile) -> Mapping[str, Expr]:
        """Declare the tile variables, in the order of the template's fields."""
        k_tiles = shape.head_dim // K_TILE
        return {
            "blocks": problem.variable("blocks", block_counts(shape.head_dim)),
            "units_per_warp": problem.variable("units_per_warp", UNITS_PER_WARP),
            "batch_tile": problem.variable("batch_tile", BATCH_TILES),
            "turns": problem.variable("turns", TURNS),
            "k_tiles_in_registers": problem.variable("k_tiles_in_registers", range(0, min(k_tiles, 40) + 1, 2)),
            "k_parts": problem.variable("k_parts", K_PARTS),
            "num_stages": problem.variable("num_stages", NUM_STAGES),
        }

    def rules(self, problem: Problem, cell: Cell, shape: Shape, v: Mapping[str, Expr]) -> None:
        """Constraints of the template."""
        s = sizes(cell, shape, v)
        problem.add(divides(4 * v["blocks"] * v["units_per_warp"], shape.head_dim), "all blocks have whole warpgroups")
        problem.add(s.warps <= 4 * MOST_WARPGROUPS, f"warpgroups of a block: at most {MOST_WARPGROUPS}")
        problem.add(divides(v["k_parts"], shape.head_dim // K_TILE), "parts of K are alike")
        problem.add(
            (v["batch_tile"] >= min(COLUMNS) * v["turns"]) & (s.rows <= max(COLUMNS)),
            f"sequences that take a turn: {min(COLUMNS)} to {max(COLUMNS)}",
        )
        problem.add(v["num_stages"] >= v["turns"], "inputs of one turn come while those of another are read")
        held = s.tiles * v["k_tiles_in_registers"] * 4
        problem.add(held <= MOST_IN_REGISTERS, f"registers of a thread that hold R: at most {MOST_IN_REGISTERS}")

    def gpu_rules(self, problem: Problem, shape: Shape, profile: Profile, v: Mapping[str, Expr]) -> None:
        """All blocks run at the same time."""
        run_together(problem, profile, shape.heads * cdiv(shape.batch, v["batch_tile"]) * v["blocks"])

    def blocks_per_head(self, v: Mapping[str, int]) -> int:
        """How many share a head. 1 where a tiling lacks it."""
        return v.get("blocks", 1)

    def axes(self, cell: Cell, shape: Shape, v: Mapping[str, int]) -> Mapping[str, str]:
        """The sizes of what blocks share: two slots of h, and counters."""
        groups = f"heads * cdiv(batch, {v['batch_tile']})"
        return {
            "W_hidden": f"{groups} * {2 * shape.head_dim * v['batch_tile']}",
            "W_counters": f"{groups} * {v['turns'] * COUNTER_WORDS}",
        }

    def needs(self, cell: Cell, shape: Shape, v: Mapping[str, Number]) -> Needs[Number]:
        """Warps, shared memory and what lives in a thread's registers."""
        s = sizes(cell, shape, v)
        counts: dict[str, Int] = {
            "weights": s.tiles * v["k_tiles_in_registers"] * 4,
            "accumulators": s.tiles * v["batch_tile"] // 2,
            "states": s.elements * (len(cell.states) - 1),
            "arrays": arrays_written(cell, shape),
            "live": cell_cost(cell).live,
        }
        # Given a whole block's share the compiler takes it; what is multiplied, and the states, must live.
        least = counts["weights"] + counts["accumulators"] + counts["states"] + SPARE
        return Needs(s.warps, s.shared_memory, counts, least)

    def work(self, cell: Cell, shape: Shape, profile: Profile, v: Mapping[str, int]) -> StepWork:
        """What a block does in one step, for the cost model."""
        s, cost, arrays, inputs = (
            sizes(cell, shape, v),
            cell_cost(cell),
            arrays_written(cell, shape),
            len(cell.input_gates),
        )
        turns, parts = v["turns"], v["k_parts"]
        busiest = -(-s.warps // SUB_PARTITIONS)
        foreign = 1 - 1 / v["blocks"] if keeps_own(cell, shape, v) else 1.0
        product = foreign * product_clocks(s, shape.head_dim // K_TILE, v)
        # Of one turn; the first part of K is waited for, the others come beside the product. Of two turns little hides
        # behind the other's product: as measured (docs/lab/wide_forward.md), they take as long as one after the other.
        load = foreign * s.rows * shape.head_dim * 2 / HIDDEN_BYTES_PER_CLOCK
        exchange = HANDSHAKE + load / parts + max(0.0, load * (1 - 1 / parts) - product / turns)
        meetings = 3 if turns == 1 else turns * (parts + 2)
        vectors = v["batch_tile"] * s.units / 8
        return StepWork(
            warps=s.warps,
            epilogue_warps=s.warps,
            matrix=product / (busiest * profile.latency("mma_interval")),
            matrix_chain=0.0,
            shared_bytes=(inputs + 2 * arrays) * v["batch_tile"] * s.units * 2,
            special=s.elements * cost.special,
            arithmetic=s.elements * (cost.arithmetic + 2 * inputs),
            chain_special=cost.chain_special,
            chain_arithmetic=cost.chain_arithmetic + 2,
            staged=s.elements * arrays / 2,
            transfers=(inputs + 2 * arrays + 2) * vectors / (32 * s.warps),
            device_bytes=2 * shape.batch * shape.heads * shape.head_dim * (inputs + arrays),
            lead=v["num_stages"] if turns == 1 else 0,
            meeting=turns * exchange + meetings * profile.latency("barrier", 32 * s.warps),
        )

    def template(self, cell: Cell, shape: Shape, profile: Profile, tiling: Tiling) -> Template:
        """What instantiates cuda/wide_forward.cuh."""
        return Template(
            header="wide_forward",
            name="WideForward",
            arguments="ForwardArguments",
            entry="tilesmith_forward",
            title=f"forward, saves {shape.save}, schedule {self.name}",
            parameters=forward_grid_parameters(shape, carried=False),
            tiling_struct="WideTiling",
            tiling=tiling.values,
            asserted={**asserted(tiling), "keeps_own": int(keeps_own(cell, shape, tiling.values))},
            options=(f"Save::{shape.save}", stores(profile), *sequences(shape)),
        )


SCHEDULE = WideForward()
"""The wide schedule: blocks share a head of many sequences, and multiply by wgmma."""
