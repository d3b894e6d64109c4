"""The grid schedule, forward: blocks all over the GPU run a tile of the batch from the first step to the last.

Each block has R of its part of the head's units, and polls for all of h, which comes as messages through global memory.
The kernel is the template of cuda/grid_forward.cuh; the formulas here are its sizes, for integers and for a Problem's
variables alike, and the generated source asserts that they agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic

from constrint import Expr, Problem, cdiv, divides, minimum, table
from kernelgen.cells.language import Cell
from kernelgen.emit.kernel import Template
from kernelgen.hardware.profile import Profile
from kernelgen.program.arguments import known_states
from kernelgen.program.dtypes import dtype_info
from kernelgen.program.shape import FEATURES, SIXTEEN_BITS, Shape
from kernelgen.program.task import Direction
from kernelgen.program.tiling import Tiling
from kernelgen.schedules.grid import spare
from kernelgen.schedules.grid.blocks import nothing_to_share, run_together
from kernelgen.schedules.grid.pacing import AT_ONCE, FORWARD, saved_forward, values_of
from kernelgen.schedules.grid.traffic import exchange
from kernelgen.schedules.shared.batch_tiled import BatchTiled, Needs, accumulator_additions
from kernelgen.schedules.shared.cost import SUB_PARTITIONS, StepWork
from kernelgen.schedules.shared.entries import MAIL, asserted, forward_parameters, sequences, stores
from kernelgen.schedules.shared.forward_step import arrays_written
from kernelgen.schedules.shared.limits import CHUNK, vector_width
from kernelgen.schedules.shared.numbers import Int, Number, once
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

SLOTS = 8
"""Steps whose h has a place (cuda/grid_mail.cuh says why)."""

MOST_UNIT_WARPS = 4
"""Groups of units of a block: each loads all of h, and L2 has so much to give."""

K_SPLITS = [1, 2, 3, 4, 6, 8, 12, 16]
"""Warps that share a group of units."""

TILES = [4, 8, 16, 32]
"""Sequences of a tile of the batch."""

NUM_STAGES = [4, 8]
"""Stages of a warp's ring of inputs: a step takes long enough for few to do."""

MOST_UNPACED = 256
"""Units of a head up to which warps poll as soon as they can: so little is polled that nobody is held up."""

WAY = ("step_warps", "pause", "owner_pause")
"""The variables that say when warps poll."""

MOST_K_TILES_IN_REGISTERS = 4
"""Of more groups of R than these, every second number is tried."""


@dataclass(frozen=True)
class Sizes(Generic[Number]):
    """The sizes of cuda/grid_forward.cuh, from a cell, a shape and the tile variables (ints or expressions).

    read: words of a lane's inputs in a step.
    """

    warps: Number
    product_warps: Number
    unit_warps: Number
    epilogue_warps: Number
    sent_units: Number
    tiles: Number
    k_tiles: Number
    padded_k: Number
    column_tiles: Number
    elements: Number
    copies: Number
    writes: Number
    read: Number
    sums: Number
    shared_memory: Number


@once
def sizes(cell: Cell, shape: Shape, v: Mapping[str, Number]) -> Sizes[Number]:
    """Compute the sizes for tile variables ``v``."""
    d, depth, itemsize = shape.head_dim, k_tile(shape.dtype), dtype_info(shape.dtype).itemsize
    recurrent, inputs, arrays = len(cell.recurrent_gates), len(cell.input_gates), arrays_written(cell, shape)
    units, rows, epilogue_rows, k_split = v["units_per_warp"], v["batch_tile"], v["epilogue_rows"], v["k_split"]
    unit_warps = cdiv(cdiv(d, units), v["blocks"])
    product_warps = unit_warps * k_split
    epilogue_warps = unit_warps * units // 8 * rows // epilogue_rows
    sent_units = v["blocks"] * unit_warps * units
    k_tiles = cdiv(cdiv(sent_units, depth), k_split)
    tiles = cdiv(recurrent * units, 16)
    elements = epilogue_rows // 4
    row = row_bytes(8, epilogue_rows, shape.dtype)
    own = unit_warps * units // 8 * rows * row * (arrays + v["num_stages"] * inputs)
    weights = product_warps * (k_tiles - v["k_tiles_in_registers"]) * tiles * 2 * 32 * CHUNK
    sums = k_split * unit_warps * 2 * tiles * (rows // 4) * 32 * 4
    vectors = epilogue_rows * 8 // vector_width(d, itemsize)
    if shape.dtype in SIXTEEN_BITS:
        read = cdiv(epilogue_rows, 8) * cdiv(inputs, 3 - minimum(elements, 2))
    else:
        read = inputs * elements
    return Sizes(
        warps=product_warps + minimum(v["step_warps"], 1) * epilogue_warps,
        product_warps=product_warps,
        unit_warps=unit_warps,
        epilogue_warps=epilogue_warps,
        sent_units=sent_units,
        tiles=tiles,
        k_tiles=k_tiles,
        padded_k=depth * k_tiles * k_split,
        column_tiles=cdiv(rows, 8),
        elements=elements,
        copies=cdiv(inputs * vectors, 32),
        writes=cdiv(arrays * vectors, 32),
        read=read,
        sums=sums,
        shared_memory=own + weights + 2 * sums,
    )


def block_counts(head_dim: int) -> list[int]:
    """Into how many blocks the units of a head may be cut: each has up to MOST_UNIT_WARPS groups of 8 or 16 units, and
    the last has some too."""
    groups = {-(-head_dim // units) for units in (8, 16)}
    return sorted({-(-count // share) for count in groups for share in range(1, MOST_UNIT_WARPS + 1)} - {1})


def ways_to_pace(shape: Shape) -> list[tuple[int, int, int]]:
    """The values of WAY that are tried."""
    return [way for way in FORWARD if shape.head_dim > MOST_UNPACED or way == (0, AT_ONCE, 0)]


def multiplied(s: Sizes[Number], v: Mapping[str, Number]) -> Number:
    """Registers of what a thread multiplies: R, accumulators and h."""
    accumulators = v["accumulators"] * s.tiles * s.column_tiles * 4
    polled = 4 * s.column_tiles * cdiv(s.k_tiles, 1 + cdiv(8 - minimum(v["batch_tile"], 8), 4))
    return s.tiles * v["k_tiles_in_registers"] * (1 + v.get("keeps_rests", 0)) * 8 + accumulators + polled


def mail_words(cell: Cell, shape: Shape, v: Mapping[str, Number]) -> Number:
    """Words of the mail of a head and a tile of the batch."""
    return SLOTS * sizes(cell, shape, v).padded_k * v["batch_tile"] * dtype_info(shape.dtype).itemsize // 4


class GridForward(BatchTiled):
    """See the module."""

    name = "grid"
    direction: Direction = "forward"
    dtypes = MULTIPLIED
    honours = FEATURES
    package = __package__
    cooperative = True

    def refuses(self, cell: Cell, shape: Shape, profile: Profile) -> str:
        """Why it does not run this."""
        return nothing_to_share(self.name, shape) or super().refuses(cell, shape, profile)

    def variables(self, problem: Problem, cell: Cell, shape: Shape, profile: Profile) -> Mapping[str, Expr]:
        """Declare the tile variables, in the order of the template's fields."""
        k_tiles = -(-shape.head_dim // k_tile(shape.dtype))
        ways = ways_to_pace(shape)
        step = 1 if k_tiles <= MOST_K_TILES_IN_REGISTERS else 2
        in_registers = sorted({*range(0, min(k_tiles, 8) + 1), *range(0, k_tiles + 1, step)})
        v = {
            "blocks": problem.variable("blocks", block_counts(shape.head_dim)),
            "units_per_warp": problem.variable("units_per_warp", [8, 16]),
            "batch_tile": problem.variable("batch_tile", TILES),
            "epilogue_rows": problem.variable("epilogue_rows", TILES),
            "k_split": problem.variable("k_split", K_SPLITS),
            "k_tiles_in_registers": problem.variable("k_tiles_in_registers", in_registers),
            "accumulators": problem.variable("accumulators", [1, 2]),
            "num_stages": problem.variable("num_stages", NUM_STAGES),
            **{name: problem.variable(name, values_of(ways, i)) for i, name in enumerate(WAY)},
        }
        if shape.dtype == "float32":
            v["keeps_rests"] = problem.variable("keeps_rests", [0, 1])
        return v

    def rules(self, problem: Problem, cell: Cell, shape: Shape, v: Mapping[str, Expr]) -> None:
        """Constraints of the template."""
        s = sizes(cell, shape, v)
        rows, epilogue_rows, groups = v["batch_tile"], v["epilogue_rows"], v["units_per_warp"] // 8
        problem.add(
            (v["blocks"] - 1) * s.unit_warps * v["units_per_warp"] < shape.head_dim, "every block of a head has units"
        )
        problem.add(s.unit_warps <= MOST_UNIT_WARPS, f"groups of units of a block: at most {MOST_UNIT_WARPS}")
        problem.add(epilogue_rows <= rows, "a warp steps no more sequences than a tile has")
        together, owners, product_warps = v["step_warps"] == 0, groups * rows, v["k_split"] * epilogue_rows
        problem.add(~together | (owners <= product_warps), "no more warps that step than warps")
        problem.add(
            (epilogue_rows == 4)
            | (together & (2 * owners > product_warps))
            | (~together & (s.epilogue_warps >= SUB_PARTITIONS)),
            "a warp steps no more sequences than it must",
        )
        in_registers = v["k_tiles_in_registers"]
        if shape.dtype in SIXTEEN_BITS:
            problem.add(
                together | ((rows <= 8) & (in_registers == s.k_tiles)),
                "warps of their own step where a step is short, and R in registers",
            )
        else:
            problem.add(
                together | ((rows <= 8) & (in_registers > 0)),
                "warps of their own step where a step is short, and some of R in registers",
            )
        problem.add(together | divides(v["step_warps"], v["k_split"]), "sums come in groups of as many parts")
        problem.add(
            ~together | (v["pause"] == AT_ONCE) | (owners < product_warps),
            "polls are paced where there are warps that wait for those that step",
        )
        problem.add(table([v[name] for name in WAY], ways_to_pace(shape)), "ways to pace polls that are tried")
        problem.add(v["k_tiles_in_registers"] <= s.k_tiles, "no more groups of R in registers than a warp has")
        k_tiles = cdiv(s.sent_units, k_tile(shape.dtype))
        problem.add((s.k_tiles - 1) * v["k_split"] < k_tiles, "every warp of a K split has a part of K")
        problem.add(v["accumulators"] <= 2 * s.k_tiles, "no more accumulator chains than matrix instructions in a row")
        problem.add(
            (rows > 4) | (v["accumulators"] >= 2) | (s.k_tiles == 1),
            "of 4 sequences two groups of h are read at a time, each with accumulators of its own",
        )
        add_float32_rules(problem, shape.dtype, v)

    def gpu_rules(self, problem: Problem, shape: Shape, profile: Profile, v: Mapping[str, Expr]) -> None:
        """All blocks run at the same time."""
        run_together(problem, profile, shape.heads * cdiv(shape.batch, v["batch_tile"]) * v["blocks"])

    def blocks_per_head(self, v: Mapping[str, int]) -> int:
        """How many share a head. 1 where a tiling lacks it."""
        return v.get("blocks", 1)

    def axes(self, cell: Cell, shape: Shape, v: Mapping[str, int]) -> Mapping[str, str]:
        """The words of the mail."""
        return {"W": f"heads * cdiv(batch, {v['batch_tile']}) * {mail_words(cell, shape, v)}"}

    def needs(self, cell: Cell, shape: Shape, v: Mapping[str, Number]) -> Needs[Number]:
        """Warps, shared memory and what lives in a thread's registers."""
        s = sizes(cell, shape, v)
        paired = cdiv(8 - minimum(v["batch_tile"], 8), 4)  # 1 where there are 4 sequences
        multiplying: dict[str, Int] = {
            "weights": s.tiles * v["k_tiles_in_registers"] * (1 + v.get("keeps_rests", 0)) * 8,
            "fragments": s.tiles * s.k_tiles,
            "loading": minimum(s.k_tiles - v["k_tiles_in_registers"], 1),
            "accumulators": s.tiles * s.column_tiles * 4,
            "more_accumulators": (v["accumulators"] - 1) * s.tiles * s.column_tiles * 4,
            "polled": 4 * s.column_tiles * cdiv(s.k_tiles, 1 + paired),
        }
        stepping: dict[str, Int] = {
            "parts": v["k_split"],
            "states": s.elements * (len(cell.states) - 1),
            "inputs": s.read,
            "elements": s.elements,
            "saved_gates": s.elements * (arrays_written(cell, shape) - known_states(cell, shape)),
            "live": minimum(s.elements, 4) * cell_cost(cell).live,
            "copies": s.copies,
            "writes": s.writes,
        }
        together = 1 - minimum(v["step_warps"], 1)
        counts = multiplying | {name: together * count for name, count in stepping.items()}
        least, floor = spare.registers(shape.dtype, v, multiplied(s, v), s.tiles, s.k_tiles, s.column_tiles)
        return Needs(s.warps, s.shared_memory, counts, least, floor)

    def work(self, cell: Cell, shape: Shape, profile: Profile, v: Mapping[str, int]) -> StepWork:
        """What a block does in one step, for the cost model."""
        s = sizes(cell, shape, v)
        dtype, itemsize = shape.dtype, dtype_info(shape.dtype).itemsize
        cost = in_dtype(cell_cost(cell), dtype)
        rows, accumulators = v["batch_tile"], v["accumulators"]
        kept = v.get("keeps_rests", 0) * v["k_tiles_in_registers"]
        product = Product.of(dtype, s.tiles, s.k_tiles, s.column_tiles, kept, are_factors=True)
        weights = (s.k_tiles - v["k_tiles_in_registers"]) * s.tiles * 2 * 512 * s.product_warps
        arrays = arrays_written(cell, shape)
        values = shape.batch * shape.heads * shape.head_dim * (len(cell.input_gates) + arrays)
        blocks = shape.heads * -(-shape.batch // rows) * v["blocks"]
        loaded = blocks * s.unit_warps * s.padded_k * rows * itemsize
        return StepWork(
            warps=s.product_warps,
            epilogue_warps=s.epilogue_warps,
            matrix=product.matrix,
            matrix_chain=multiply_chain(dtype, s.k_tiles, accumulators),
            shared_bytes=weights + 2 * s.sums,
            special=s.elements * cost.special,
            arithmetic=s.elements * (cost.arithmetic + (2 + v["k_split"]) * len(cell.input_gates))
            + accumulator_additions(rows, s.tiles, accumulators),
            chain_special=cost.chain_special,
            chain_arithmetic=cost.chain_arithmetic + 1 + accumulators // 2 + v["k_split"].bit_length(),
            staged=s.elements * arrays,
            transfers=s.copies + 2 * s.writes,
            device_bytes=itemsize * values,
            lead=v["num_stages"] - 1,
            exchanges=1 if s.epilogue_warps < s.warps else 2,  # of the sums; warps that step fence for themselves then
            meeting=exchange(profile, v["blocks"], loaded)
            - saved_forward(loaded, *(v[name] for name in WAY))
            + profile.latency("barrier", 32 * s.product_warps),
            parting=product.arithmetic,
        )

    def template(self, cell: Cell, shape: Shape, profile: Profile, tiling: Tiling) -> Template:
        """What instantiates cuda/grid_forward.cuh."""
        return Template(
            header="grid_forward",
            name="GridForward",
            arguments="ForwardArguments",
            entry="tilesmith_forward",
            title=f"forward, saves {shape.save}, schedule {self.name}",
            parameters=forward_parameters(shape, *MAIL),
            tiling_struct="GridTiling",
            tiling=tiling.values,
            asserted={**asserted(tiling), "mail_words": mail_words(cell, shape, tiling.values)},
            options=(f"Save::{shape.save}", stores(profile), *sequences(shape)),
        )


SCHEDULE = GridForward()
"""The grid schedule: blocks all over the GPU share the recurrent matrix of one head."""
