"""The streamed grid schedule, forward: blocks all over the GPU run a tile of the batch from the first step to the last.

Each block has R of its part of the head's units, in pieces: some stay in its registers and shared memory, and the
others come in every step, ahead of h. The kernel is the template of cuda/streamed_grid_forward.cuh; the formulas here
are its sizes, for integers and for a Problem's variables alike, and the generated source asserts that they agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic

from constrint import Expr, Problem, cdiv, minimum
from kernelgen.cells.language import Cell
from kernelgen.emit.kernel import Template
from kernelgen.hardware.profile import Profile
from kernelgen.program.shape import FEATURES, Shape
from kernelgen.program.task import Direction
from kernelgen.program.tiling import Tiling
from kernelgen.schedules.grid.blocks import nothing_to_share, run_together
from kernelgen.schedules.grid.traffic import exchange
from kernelgen.schedules.shared.batch_tiled import BatchTiled, Needs
from kernelgen.schedules.shared.cost import SHARPNESS, StepWork
from kernelgen.schedules.shared.entries import MAIL, asserted, forward_parameters, sequences, stores
from kernelgen.schedules.shared.forward_step import arrays_written
from kernelgen.schedules.shared.limits import CHUNK, vector_width
from kernelgen.schedules.shared.numbers import Int, Number, once
from kernelgen.symbolic.instructions import cell_cost

SLOTS = 8
"""Steps whose h has a place (cuda/grid_mail.cuh says why)."""

PIECE_K, PIECE_BYTES = 64, 4 * 32 * CHUNK
"""Previous units of a piece of R, which has 16 rows; and its bytes."""

MOST_UNIT_GROUPS = 6
"""Groups of 8 units of a block: a warp has the sums of all of their gates."""

K_SPLITS = [1, 2, 4, 8, 16]
"""Warps of a block."""

TILES = [8, 16, 32]
"""Sequences of a tile of the batch."""

EPILOGUE_ROWS = [4, 8, 16, 32]
"""Sequences of a warp that steps."""

IN_REGISTERS = [0, 2, 4, 5, 6, 8]
"""Pieces of R in a warp's registers."""

MOST_STATIONARY = 12
"""And in its part of shared memory."""

KEPT = [0, 8, 12, 16]
"""Pieces of a warp that L2 is to keep."""

RING = [2, 4, 6, 8]
"""Stages of a warp's ring of pieces."""

NUM_STAGES = [2]
"""Stages of a warp's ring of inputs: a step takes so long that one step ahead is early enough."""

SPARE, SPARE_OF_TILE, SPARE_OF_WIDE = 24, 4, 16
"""Registers that a thread needs besides what it multiplies, for each tile of 16 rows, and with 16 sequences and more:
with fewer some compiled kernels spilled (NVRTC 13.0, sm_90a)."""

PAUSES = [0]
"""Clocks between polls that find something missing."""

ON_CHIP = 0.5
"""Of registers and shared memory, what may hold R: 33 MB on an H200, all of an LSTM of 2,048 units."""

L2_KEEPS = 0.6
"""Of L2, what may be asked to stay: 33 MB of an H200's 63 make a step faster, 42 slower (docs/lab/streamed_grid.md)."""

STREAM_OF_L2 = 2_800
"""Bytes a clock that L2 gives to copies that never wait for anything: 5.5 TB/s, with which measured tilings are met."""

DELIVERY = 1_400
"""Clocks from asking for a piece to its being there, of a memory that is busy (docs/lab/resident.md, 3)."""


@dataclass(frozen=True)
class Sizes(Generic[Number]):
    """The sizes of cuda/streamed_grid_forward.cuh, from a cell, a shape and the tile variables (ints or expressions).

    pieces: of a warp; streamed: those that come in every step; stages: of its ring.
    """

    unit_groups: Number
    epilogue_warps: Number
    sent_units: Number
    tiles: Number
    pairs: Number
    padded_k: Number
    column_tiles: Number
    pieces: Number
    streamed: Number
    stages: Number
    elements: Number
    copies: Number
    writes: Number
    sums: Number
    shared_memory: Number


@once
def sizes(cell: Cell, shape: Shape, v: Mapping[str, Number]) -> Sizes[Number]:
    """Compute the sizes for tile variables ``v``."""
    d = shape.head_dim
    recurrent, inputs, arrays = len(cell.recurrent_gates), len(cell.input_gates), arrays_written(cell, shape)
    rows, epilogue_rows, k_split = v["batch_tile"], v["epilogue_rows"], v["k_split"]
    unit_groups = cdiv(-(-d // 8), v["blocks"])
    sent_units = v["blocks"] * unit_groups * 8
    tiles = cdiv(unit_groups * recurrent, 2)
    pairs = cdiv(cdiv(sent_units, PIECE_K), k_split)
    pieces = tiles * pairs
    streamed = pieces - v["in_registers"] - v["stationary"]
    stages = minimum(v["ring"], streamed)
    step = unit_groups * rows * CHUNK * (arrays + v["num_stages"] * inputs)
    sums = k_split * 2 * recurrent * (rows // 4) * 32 * 4
    vectors = epilogue_rows * 8 // vector_width(d)
    return Sizes(
        unit_groups=unit_groups,
        epilogue_warps=unit_groups * (rows // epilogue_rows),
        sent_units=sent_units,
        tiles=tiles,
        pairs=pairs,
        padded_k=PIECE_K * pairs * k_split,
        column_tiles=rows // 8,
        pieces=pieces,
        streamed=streamed,
        stages=stages,
        elements=epilogue_rows // 4,
        copies=cdiv(inputs * vectors, 32),
        writes=cdiv(arrays * vectors, 32),
        sums=sums,
        shared_memory=step + k_split * (v["stationary"] + stages) * PIECE_BYTES + sums,
    )


def block_counts(head_dim: int) -> list[int]:
    """Into how many blocks the units of a head may be cut: each has up to MOST_UNIT_GROUPS groups of 8 units, and the
    last has some too."""
    groups = -(-head_dim // 8)
    return sorted({-(-groups // share) for share in range(1, MOST_UNIT_GROUPS + 1)} - {1})


def fits_on_chip(cell: Cell, shape: Shape, profile: Profile) -> bool:
    """Whether all of R may stay: then the grid schedule is faster, and few tilings are offered here."""
    matrix = 2 * shape.heads * len(cell.recurrent_gates) * shape.head_dim**2
    of_one = 4 * profile.registers_per_sm + profile.shared_memory_per_block
    return matrix <= ON_CHIP * profile.multiprocessors * of_one


class StreamedGridForward(BatchTiled):
    """See the module."""

    name = "streamed_grid"
    direction: Direction = "forward"
    honours = FEATURES
    package = __package__
    cooperative = True

    def refuses(self, cell: Cell, shape: Shape, profile: Profile) -> str:
        """Why it does not run this."""
        return nothing_to_share(self.name, shape) or super().refuses(cell, shape, profile)

    def variables(self, problem: Problem, cell: Cell, shape: Shape, profile: Profile) -> Mapping[str, Expr]:
        """Declare the tile variables, in the order of the template's fields."""
        large = not fits_on_chip(cell, shape, profile)
        v = {
            "blocks": problem.variable("blocks", block_counts(shape.head_dim)),
            "batch_tile": problem.variable("batch_tile", TILES),
            "epilogue_rows": problem.variable("epilogue_rows", EPILOGUE_ROWS),
            "k_split": problem.variable("k_split", K_SPLITS),
            "in_registers": problem.variable("in_registers", IN_REGISTERS if large else [0]),
            "stationary": problem.variable("stationary", range(MOST_STATIONARY + 1)),
            "kept": problem.variable("kept", KEPT if large else [0]),
            "ring": problem.variable("ring", RING if large else RING[:1]),
            "num_stages": problem.variable("num_stages", NUM_STAGES),
            "pause": problem.variable("pause", PAUSES),
        }
        s = sizes(cell, shape, v)
        problem.add(
            (s.streamed == 1) | (s.shared_memory + v["k_split"] * PIECE_BYTES > profile.shared_memory_per_block),
            "as much of R stays in shared memory as there is room for",
        )
        return v

    def rules(self, problem: Problem, cell: Cell, shape: Shape, v: Mapping[str, Expr]) -> None:
        """Constraints of the template."""
        s = sizes(cell, shape, v)
        rows, epilogue_rows, k_split = v["batch_tile"], v["epilogue_rows"], v["k_split"]
        problem.add((v["blocks"] - 1) * s.unit_groups * 8 < shape.head_dim, "every block of a head has units")
        problem.add(epilogue_rows <= rows, "a warp steps no more sequences than a tile has")
        problem.add(s.epilogue_warps <= k_split, "no more warps that step than warps")
        problem.add(
            (epilogue_rows == 4) | (2 * s.epilogue_warps > k_split), "a warp steps no more sequences than it must"
        )
        problem.add((s.pairs - 1) * k_split < cdiv(s.sent_units, PIECE_K), "every warp has a part of K")
        problem.add(s.streamed >= 1, "some of R comes in every step: where all stays the grid schedule is faster")
        problem.add(v["kept"] <= s.streamed, "L2 keeps no more pieces than come through it")
        problem.add((v["ring"] == RING[0]) | (v["ring"] <= s.streamed), "no more stages than pieces that come")

    def gpu_rules(self, problem: Problem, shape: Shape, profile: Profile, v: Mapping[str, Expr]) -> None:
        """All blocks run at the same time, and L2 can keep what it is to keep."""
        blocks = shape.heads * cdiv(shape.batch, v["batch_tile"]) * v["blocks"]
        run_together(problem, profile, blocks)
        kept = int(L2_KEEPS * (profile.l2_bytes or 0)) // PIECE_BYTES
        problem.add(blocks * v["k_split"] * v["kept"] <= kept, f"pieces of R that L2 is to keep: at most {kept:,}")

    def blocks_per_head(self, v: Mapping[str, int]) -> int:
        """How many share a head. 1 where a tiling lacks it."""
        return v.get("blocks", 1)

    def axes(self, cell: Cell, shape: Shape, v: Mapping[str, int]) -> Mapping[str, str]:
        """The words of the mail."""
        return {"W": f"heads * cdiv(batch, {v['batch_tile']}) * {self._words(cell, shape, v)}"}

    def _words(self, cell: Cell, shape: Shape, v: Mapping[str, int]) -> int:
        """Words of the mail of a head and tile."""
        return SLOTS * sizes(cell, shape, v).padded_k * v["batch_tile"] // 2

    def needs(self, cell: Cell, shape: Shape, v: Mapping[str, Number]) -> Needs[Number]:
        """Warps, shared memory and what lives in a thread's registers."""
        s = sizes(cell, shape, v)
        counts: dict[str, Int] = {
            "weights": 16 * v["in_registers"],
            "tiles": s.tiles,
            "accumulators": 4 * s.tiles * s.column_tiles,
            "polled": 16 * s.column_tiles,
            "states": s.elements * (len(cell.states) - 1),
            "copies": s.copies,
            "writes": s.writes,
        }
        live = sum((counts[name] for name in ("weights", "accumulators", "polled")), SPARE + SPARE_OF_TILE * s.tiles)
        wide = minimum(s.column_tiles - 1, 1)
        return Needs(v["k_split"], s.shared_memory, counts, floor=live + wide * SPARE_OF_WIDE)

    def work(self, cell: Cell, shape: Shape, profile: Profile, v: Mapping[str, int]) -> StepWork:
        """What a block does in one step, for the cost model."""
        s = sizes(cell, shape, v)
        cost = cell_cost(cell)
        rows, k_split = v["batch_tile"], v["k_split"]
        arrays = arrays_written(cell, shape)
        values = shape.batch * shape.heads * shape.head_dim * (len(cell.input_gates) + arrays)
        blocks = shape.heads * -(-shape.batch // rows) * v["blocks"]
        loaded = blocks * s.padded_k * rows * 2
        meeting = exchange(profile, v["blocks"], loaded) + profile.latency("barrier", 32 * k_split)
        # These wait for each other now and then; and pieces go on coming while h is on its way.
        piece = blocks * k_split * PIECE_BYTES
        from_memory = (s.streamed - v["kept"]) * piece * profile.clock_mhz * 1e6 / profile.memory_bandwidth
        through_l2 = s.streamed * piece / STREAM_OF_L2
        asked_for = s.streamed / (v["ring"] - 1) * DELIVERY
        coming = sum(each**SHARPNESS for each in (from_memory, through_l2, asked_for)) ** (1 / SHARPNESS)
        return StepWork(
            warps=k_split,
            epilogue_warps=s.epilogue_warps,
            matrix=4 * s.pieces * s.column_tiles,
            matrix_chain=4 * s.pieces / max(1, k_split // 8),
            shared_bytes=2 * s.sums * -(-s.unit_groups // 2),
            special=s.elements * cost.special,
            arithmetic=s.elements * (cost.arithmetic + (2 + k_split) * len(cell.input_gates)),
            chain_special=cost.chain_special,
            chain_arithmetic=cost.chain_arithmetic + 1 + k_split.bit_length(),
            staged=s.elements * arrays,
            transfers=s.copies + 2 * s.writes,
            device_bytes=2 * values,
            lead=v["num_stages"] - 1,
            exchanges=-(-s.unit_groups // 2) + 1,
            meeting=meeting,
            streamed=max(0.0, coming - meeting),
        )

    def template(self, cell: Cell, shape: Shape, profile: Profile, tiling: Tiling) -> Template:
        """What instantiates cuda/streamed_grid_forward.cuh."""
        return Template(
            header="streamed_grid_forward",
            name="StreamedGridForward",
            arguments="ForwardArguments",
            entry="tilesmith_forward",
            title=f"forward, saves {shape.save}, schedule {self.name}",
            parameters=forward_parameters(shape, *MAIL),
            tiling_struct="StreamedGridTiling",
            tiling=tiling.values,
            asserted={**asserted(tiling), "mail_words": self._words(cell, shape, tiling.values)},
            options=(f"Save::{shape.save}", stores(profile), *sequences(shape)),
        )


SCHEDULE = StreamedGridForward()
"""The streamed grid schedule: as the grid schedule, with a part of R that comes in every step."""
