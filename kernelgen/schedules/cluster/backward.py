"""The cluster schedule, backward: the blocks of a cluster run a tile of the batch from the last step to the first.

Each block has R of its part of the head's units, runs their pointwise step, and sends its partial sums of the gradient
of h to the blocks that own the units. The kernel is the template of cuda/cluster_backward.cuh; the formulas here are
its sizes, for integers and for a Problem's variables alike, and the generated source asserts that they agree. A shape
that saves "hidden" means that gradients come from outside for h alone, else for every state.
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
from kernelgen.program.shape import FEATURES, Shape
from kernelgen.program.task import Direction
from kernelgen.program.tiling import Tiling
from kernelgen.schedules.shared.backward_step import UNITS, arrays_read, refuses_recomputing
from kernelgen.schedules.shared.batch_tiled import BatchTiled, Needs, accumulator_additions, read_bytes
from kernelgen.schedules.shared.cost import StepWork
from kernelgen.schedules.shared.entries import GRADIENTS, asserted, backward_parameters, sequences
from kernelgen.schedules.shared.limits import CHUNK, lacks_clusters, vector_width
from kernelgen.schedules.shared.numbers import Int, Number, once
from kernelgen.schedules.shared.resets import reset_flags
from kernelgen.symbolic.derive import Backward, derive
from kernelgen.symbolic.instructions import backward_cost

CLUSTERS = [2, 4, 8, 16]
"""Blocks that share a head: what hardware schedules well; 16 need a special attribute."""

TILES = [4, 8, 16, 32]
"""Sequences per cluster."""

NUM_STAGES = [4, 8]
"""Stages of the ring of saved values: a step takes long enough for few to do."""

TILES_PER_WARP = [1, 2, 3, 4, 6, 8]
"""Tiles of 16 previous units whose part of the product a warp has."""

SLOTS = 3
"""Of messages."""

MOST_K_TILES_IN_REGISTERS = 8
"""Of more groups of R than these, every second number is tried."""

ADDED = 52.0
"""Clocks that an owner of 16 units takes for each block's sums of 4 more sequences (docs/lab/cluster_backward.md)."""


SPARE = 80
"""Registers of a thread beside those of what it multiplies: with all of R of 4 x 256 in registers the LSTM spills some
100 bytes (NVRTC 13.5, sm_90a)."""


@dataclass(frozen=True)
class Sizes(Generic[Number]):
    """The sizes of cuda/cluster_backward.cuh, from a cell, a shape and the tile variables (ints or expressions).

    groups: of R transposed, a warp's K. sent: bytes of the messages that a block gets in a step.
    """

    warps: Number
    unit_warps: Number
    padded_units: Number
    k_tiles: Number
    arrays: int
    stored: int
    columns: Number
    column_tiles: Number
    elements: Number
    copies: Number
    writes: Number
    sent: Number
    shared_memory: Number


@once
def sizes(cell: Cell, shape: Shape, v: Mapping[str, Number]) -> Sizes[Number]:
    """Compute the sizes for tile variables ``v``."""
    recurrent, inputs = {*cell.recurrent_gates}, {*cell.input_gates}
    rows, cluster, tiles = v["batch_tile"], v["cluster"], v["tiles_per_warp"]
    unit_warps = cdiv(-(-shape.head_dim // UNITS), cluster)
    padded = unit_warps * UNITS
    warps = cluster * unit_warps // tiles
    k_tiles = cdiv(len(recurrent) * padded, 32)
    arrays = arrays_read(cell, shape, written=True)
    row = (padded // CHUNK * 2 + 1) * CHUNK
    buffers = 2 * (4 * k_tiles * rows * CHUNK + len(inputs - recurrent) * rows * row)
    ring = maximum(v["num_stages"] * arrays * rows * row, warps * 32 * CHUNK)
    weights = warps * (k_tiles - v["k_tiles_in_registers"]) * tiles * 2 * 32 * CHUNK
    sent = unit_warps * cluster * UNITS * rows * 4
    vectors = rows * (padded // vector_width(shape.head_dim))
    columns = minimum(rows // 4, 2)
    column_tiles = cdiv(rows, 8)
    elements = 2 * column_tiles * columns
    return Sizes(
        warps=warps,
        unit_warps=unit_warps,
        padded_units=padded,
        k_tiles=k_tiles,
        arrays=arrays,
        stored=len(recurrent | inputs),
        columns=columns,
        column_tiles=column_tiles,
        elements=elements,
        copies=cdiv(arrays * vectors, warps * 32),
        writes=cdiv(max(1, len(inputs | recurrent)) * vectors, warps * 32),
        sent=sent,
        shared_memory=buffers + ring + weights + SLOTS * sent + reset_flags(shape, rows),
    )


class ClusterBackward(BatchTiled):
    """See the module."""

    name = "cluster_backward"
    direction: Direction = "backward"
    honours = FEATURES
    package = __package__

    def refuses(self, cell: Cell, shape: Shape, profile: Profile) -> str:
        """Why it does not run this."""
        if reason := super().refuses(cell, shape, profile) or lacks_clusters(self.name, profile):
            return reason
        return refuses_recomputing(self.name, shape)

    def variables(self, problem: Problem, cell: Cell, shape: Shape, profile: Profile) -> Mapping[str, Expr]:
        """Declare the tile variables, in the order of the template's fields."""
        warps = -(-shape.head_dim // UNITS)
        most = -(-len(cell.recurrent_gates) * -(-warps // min(CLUSTERS)) * UNITS // 32)
        step = 1 if most <= MOST_K_TILES_IN_REGISTERS else 2
        return {
            "cluster": problem.variable("cluster", CLUSTERS),
            "batch_tile": problem.variable("batch_tile", TILES),
            "tiles_per_warp": problem.variable("tiles_per_warp", TILES_PER_WARP),
            "k_tiles_in_registers": problem.variable("k_tiles_in_registers", range(0, most + 1, step)),
            "accumulators": problem.variable("accumulators", [1, 2, 4]),
            "num_stages": problem.variable("num_stages", NUM_STAGES),
        }

    def rules(self, problem: Problem, cell: Cell, shape: Shape, v: Mapping[str, Expr]) -> None:
        """Constraints of the template."""
        s = sizes(cell, shape, v)
        problem.add((v["cluster"] - 1) * s.padded_units < shape.head_dim, "every block of a cluster has units")
        problem.add(v["tiles_per_warp"] <= v["cluster"], "every warp that owns units has a part of the product")
        problem.add(
            (v["cluster"] * s.unit_warps) % v["tiles_per_warp"] == 0, "every warp has as many tiles of the product"
        )
        problem.add(v["k_tiles_in_registers"] <= s.k_tiles, "no more groups of R in registers than a warp has")
        problem.add(v["accumulators"] <= 2 * s.k_tiles, "no more accumulator chains than matrix instructions in a row")
        problem.add(
            (v["batch_tile"] > 4) | (v["accumulators"] >= 2) | (s.k_tiles == 1),
            "of 4 sequences two groups of gradients are read at a time, each with accumulators of its own",
        )

    def gpu_rules(self, problem: Problem, shape: Shape, profile: Profile, v: Mapping[str, Expr]) -> None:
        """How large clusters may be."""
        problem.add(
            v["cluster"] <= profile.largest_cluster,
            f"blocks of a cluster: at most {profile.largest_cluster} on {profile.name}",
        )

    def blocks_per_head(self, v: Mapping[str, int]) -> int:
        """The size of the cluster. 1 where a tiling lacks it."""
        return v.get("cluster", 1)

    def needs(self, cell: Cell, shape: Shape, v: Mapping[str, Number]) -> Needs[Number]:
        """Warps, shared memory and what lives in a thread's registers."""
        s = sizes(cell, shape, v)
        code: Backward = derive(cell)
        biased = {*code.gates} - {*code.saved_gates}
        tiles = v["tiles_per_warp"]
        counts: dict[str, Int] = {
            "weights": tiles * v["k_tiles_in_registers"] * 8,
            "fragments": tiles * s.k_tiles,
            "loading": minimum(s.k_tiles - v["k_tiles_in_registers"], 1),
            "accumulators": tiles * s.column_tiles * 4,
            "more_accumulators": (v["accumulators"] - 1) * tiles * s.column_tiles * 4,
            "gradients": 4 * s.column_tiles * s.k_tiles,
            "received": 2 * s.columns * minimum(v["cluster"], 24 - 8 * s.columns),
            "bias": 2 * len(biased & {*cell.bias_gates}),
            "partial_sums": 2 * len(cell.inputless_biases),
            "states": s.elements * len(cell.states) * (2 if shape.resets else 1),
            "inputs": 2 * s.column_tiles * cdiv(s.arrays, 3 - s.columns),
            "ready": s.elements * (backward_cost(cell).ready + known_states(cell, shape)),
            "live": minimum(s.elements, 4) * backward_cost(cell).live,
            "destinations": tiles,
            "copies": s.copies,
            "writes": s.writes,
        }
        # What is multiplied must live at once.
        multiplied: Int = sum(counts[name] for name in ("weights", "accumulators", "more_accumulators", "gradients"))
        return Needs(s.warps, s.shared_memory, counts, crowded=multiplied + SPARE)

    def work(self, cell: Cell, shape: Shape, profile: Profile, v: Mapping[str, int]) -> StepWork:
        """What a block does in one step, for the cost model."""
        s = sizes(cell, shape, v)
        cost = backward_cost(cell)
        tiles, rows, accumulators = v["tiles_per_warp"], v["batch_tile"], v["accumulators"]
        reading = read_bytes(rows, s.k_tiles, accumulators) + (s.k_tiles - v["k_tiles_in_registers"]) * tiles * 1024
        values = shape.batch * shape.heads * shape.head_dim * (s.arrays + s.stored)
        return StepWork(
            warps=s.warps,
            epilogue_warps=s.unit_warps,
            matrix=tiles * s.column_tiles * 2 * s.k_tiles,
            matrix_chain=max(1.0, 2 * s.k_tiles / accumulators),
            shared_bytes=s.warps * reading,
            special=s.elements * cost.special,
            arithmetic=s.elements * (cost.arithmetic + 2 * s.arrays) + accumulator_additions(rows, tiles, accumulators),
            chain_special=cost.chain_special,
            chain_arithmetic=cost.chain_arithmetic + 1 + accumulators // 2,
            staged=s.elements * s.stored,
            transfers=s.copies + 2 * s.writes,
            device_bytes=2 * values,
            lead=v["num_stages"] - 1,
            # What the profile has is measured with 4 sequences.
            meeting=profile.latency("exchange_sums", v["cluster"], s.sent * 4 // rows)
            + (rows // 4 - 1) * v["cluster"] * ADDED,
            received=s.sent,
        )

    def template(self, cell: Cell, shape: Shape, profile: Profile, tiling: Tiling) -> Template:
        """What instantiates cuda/cluster_backward.cuh."""
        known = known_states(cell, shape)
        return Template(
            header="cluster_backward",
            name="ClusterBackward",
            arguments="BackwardArguments",
            entry="tilesmith_backward",
            title=f"backward, gradients of {known} of {len(cell.states)} states, gates saved, schedule {self.name}",
            parameters=backward_parameters(shape, GRADIENTS),
            tiling_struct="ClusterBackwardTiling",
            tiling=tiling.values,
            asserted=asserted(tiling),
            options=(str(known), "Gates::saved", *sequences(shape)),
        )


SCHEDULE = ClusterBackward()
