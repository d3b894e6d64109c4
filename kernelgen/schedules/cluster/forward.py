"""The cluster schedule, forward: the blocks of a cluster run a tile of the batch from the first step to the last.

Each block has R of its part of the head's units, and all of h, which comes as messages that its warps poll for. The
kernel is the template of cuda/cluster_forward.cuh; the formulas here are its sizes, for integers and for a Problem's
variables alike, and the generated source asserts that they agree.
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
from kernelgen.program.shape import FEATURES, Shape
from kernelgen.program.task import Direction
from kernelgen.program.tiling import Tiling
from kernelgen.schedules.shared.batch_tiled import BatchTiled, Needs, accumulator_additions, read_bytes
from kernelgen.schedules.shared.cost import MESSAGE_BYTES_PER_CLOCK, SUB_PARTITIONS, StepWork
from kernelgen.schedules.shared.entries import asserted, forward_parameters, sequences
from kernelgen.schedules.shared.forward_step import arrays_written
from kernelgen.schedules.shared.limits import CHUNK, lacks_clusters, vector_width
from kernelgen.schedules.shared.numbers import Int, Number, once
from kernelgen.symbolic.instructions import cell_cost

CLUSTERS = [1, 2, 4, 8, 16]
"""Blocks that share a head: what hardware schedules well; 16 need a special attribute."""

NAMED_BARRIERS = 15
"""Of a block, beside that of all its threads (PTX ISA, "barrier")."""

TILES = [4, 8, 16, 32]
"""Sequences per cluster."""

NUM_STAGES = [4, 8]
"""Stages of a ring of inputs: a step takes long enough for few to do."""

TRANSFER_WARPS = [0, 1]
"""Warps that copy inputs, write results out and poison for those that step; 0: each of those does so itself."""

TRANSFER_POINTERS = 96
"""Registers of a transfer warp in which it has where it copies from and writes to: 3 for each."""

LEAST_UNITS = 16
"""Of a block that shares a head: fewer make more messages than they save work."""

MOST_K_TILES_IN_REGISTERS = 8
"""Of more groups of R than these, every second number is tried."""


@dataclass(frozen=True)
class Sizes(Generic[Number]):
    """Those of cuda/cluster_forward_sizes.cuh, from a cell, a shape and the tile variables (ints or expressions)."""

    warps: Number
    stepping_warps: Number
    unit_warps: Number
    unit_groups: Number
    sent_units: Number
    tiles: Number
    k_tiles: Number
    columns: Number
    column_tiles: Number
    shared_polls: Number
    elements: Number
    copies: Number
    writes: Number
    matrices: Number
    shared_memory: Number


@once
def sizes(cell: Cell, shape: Shape, v: Mapping[str, Number]) -> Sizes[Number]:
    """Compute the sizes for tile variables ``v``."""
    d = shape.head_dim
    recurrent, inputs, arrays = len(cell.recurrent_gates), len(cell.input_gates), arrays_written(cell, shape)
    units, rows, k_split = v["units_per_warp"], v["batch_tile"], v["k_split"]
    unit_groups = units // 8
    unit_warps = cdiv(cdiv(d, units), v["cluster"])
    stepping_warps = unit_warps * k_split
    apart = v["transfer_warps"]
    sent_units = v["cluster"] * unit_warps * units
    k_tiles = cdiv(cdiv(sent_units, 32), k_split)
    tiles = cdiv(recurrent * units, 16)
    columns = minimum(rows // 4, 2)
    column_tiles = cdiv(rows, 8)
    # Inputs and results of each warp that owns units, or of all of them at once.
    places = apart + (1 - apart) * unit_warps
    place_groups = unit_groups * (apart * unit_warps + 1 - apart)
    row = (place_groups // 2 * 2 + 1) * CHUNK
    hidden = 4 * 4 * k_tiles * k_split * rows * CHUNK
    place = (arrays + v["num_stages"] * inputs) * rows * row
    weights = stepping_warps * (k_tiles - v["k_tiles_in_registers"]) * tiles * 2 * 32 * CHUNK
    partial = 2 * (k_split - 1) * unit_warps * tiles * 32 * CHUNK
    vectors = rows * 8 * place_groups // vector_width(d)
    return Sizes(
        warps=stepping_warps + apart,
        stepping_warps=stepping_warps,
        unit_warps=unit_warps,
        unit_groups=unit_groups,
        sent_units=sent_units,
        tiles=tiles,
        k_tiles=k_tiles,
        columns=columns,
        column_tiles=column_tiles,
        shared_polls=columns - minimum(column_tiles, 2),  # with 8 sequences
        elements=unit_groups * column_tiles * columns,
        copies=cdiv(inputs * vectors, 32),
        writes=cdiv(arrays * vectors, 32),
        matrices=cdiv(inputs, 3 - columns),
        shared_memory=hidden + places * place + weights + partial,
    )


class ClusterForward(BatchTiled):
    """See the module."""

    name = "cluster"
    direction: Direction = "forward"
    honours = FEATURES
    package = __package__

    def refuses(self, cell: Cell, shape: Shape, profile: Profile) -> str:
        """Why it does not run this."""
        return super().refuses(cell, shape, profile) or lacks_clusters(self.name, profile)

    def variables(self, problem: Problem, cell: Cell, shape: Shape, profile: Profile) -> Mapping[str, Expr]:
        """Declare the tile variables, in the order of the template's fields."""
        k_tiles = -(-shape.head_dim // 32)
        step = 1 if k_tiles <= MOST_K_TILES_IN_REGISTERS else 2
        return {
            "cluster": problem.variable("cluster", CLUSTERS),
            "units_per_warp": problem.variable("units_per_warp", [8, 16]),
            "batch_tile": problem.variable("batch_tile", TILES),
            "k_split": problem.variable("k_split", [1, 2, 4, 8]),
            "k_tiles_in_registers": problem.variable("k_tiles_in_registers", range(0, k_tiles + 1, step)),
            "accumulators": problem.variable("accumulators", [1, 2, 4]),
            "num_stages": problem.variable("num_stages", NUM_STAGES),
            "transfer_warps": problem.variable("transfer_warps", TRANSFER_WARPS),
        }

    def rules(self, problem: Problem, cell: Cell, shape: Shape, v: Mapping[str, Expr]) -> None:
        """Constraints of the template."""
        s = sizes(cell, shape, v)
        problem.add(
            (v["cluster"] - 1) * s.unit_warps * v["units_per_warp"] < shape.head_dim,
            "every block of a cluster has units",
        )
        problem.add(
            (v["cluster"] == 1) | (s.unit_warps * v["units_per_warp"] >= LEAST_UNITS),
            f"a block that shares a head has at least {LEAST_UNITS} of its units",
        )
        problem.add(v["k_tiles_in_registers"] <= s.k_tiles, "no more groups of R in registers than a warp has")
        problem.add((s.k_tiles - 1) * v["k_split"] < cdiv(s.sent_units, 32), "every warp of a K split has a part of K")
        barriers = 2 * v["transfer_warps"] + s.shared_polls
        problem.add(
            s.unit_warps * minimum(v["k_split"] - 1, 1) + barriers <= NAMED_BARRIERS,
            f"named barriers of a block: at most {NAMED_BARRIERS}, one for the warps of each group of units where K is "
            "split, two with a transfer warp, one with 8 sequences",
        )
        problem.add(
            (v["transfer_warps"] == 0) | (3 * (s.copies + s.writes) <= TRANSFER_POINTERS),
            f"where a transfer warp copies from and writes to: at most {TRANSFER_POINTERS} registers",
        )
        problem.add(v["accumulators"] <= 2 * s.k_tiles, "no more accumulator chains than matrix instructions in a row")
        problem.add(
            (v["batch_tile"] > 4) | (v["accumulators"] >= 2) | (s.k_tiles == 1),
            "of 4 sequences two groups of h are read at a time, each with accumulators of its own",
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
        # All words of a warp's h of 8 columns, where with 4 sequences each load has two k-tiles'; a k-tile's where the
        # warps share the polls.
        shared = s.shared_polls
        polled = 4 * (shared + (1 - shared) * cdiv(s.k_tiles, 3 - s.columns))
        alone = 1 - v["transfer_warps"]
        counts: dict[str, Int] = {
            "weights": s.tiles * v["k_tiles_in_registers"] * 8,
            "fragments": s.tiles * s.k_tiles,
            "loading": minimum(s.k_tiles - v["k_tiles_in_registers"], 1),
            "accumulators": s.tiles * 4,
            "more_accumulators": (v["accumulators"] - 1) * s.tiles * 4,
            "polled": polled,
            "bias": s.tiles * 2 + s.unit_groups * (len(cell.gates) - len(cell.recurrent_gates)),
            "states": s.elements * (len(cell.states) - 1),
            "inputs": s.unit_groups * s.column_tiles * s.matrices,
            "elements": s.elements,
            "saved_gates": s.elements * (arrays_written(cell, shape) - known_states(cell, shape)),
            "live": minimum(s.elements, 4) * cell_cost(cell).live,
            "split": minimum(v["k_split"] - 1, 1),
            "destinations": cdiv(v["cluster"], cdiv(2, s.elements)),
            "copies": s.copies * alone,
            "writes": s.writes * alone,
        }
        return Needs(s.warps, s.shared_memory, counts)

    def work(self, cell: Cell, shape: Shape, profile: Profile, v: Mapping[str, int]) -> StepWork:
        """What a block does in one step, for the cost model."""
        s = sizes(cell, shape, v)
        cost = cell_cost(cell)
        rows, accumulators, apart = v["batch_tile"], v["accumulators"], v["transfer_warps"]
        hidden = read_bytes(rows, s.k_tiles, accumulators)
        weights = (s.k_tiles - v["k_tiles_in_registers"]) * s.tiles * 2 * 512 * s.column_tiles
        partial = 2 * (v["k_split"] - 1) * s.tiles * s.column_tiles * 512 * s.unit_warps
        arrays = arrays_written(cell, shape)
        values = shape.batch * shape.heads * shape.head_dim * (len(cell.input_gates) + arrays)
        matrix = s.tiles * s.column_tiles * 2 * s.k_tiles
        product = -(-s.stepping_warps // SUB_PARTITIONS) * matrix * profile.latency("mma_interval")
        # Tiles of 8 sequences come one after the other: a warp waits for each, steps it and adds up its parts.
        turns = s.column_tiles
        return StepWork(
            warps=s.stepping_warps,
            epilogue_warps=s.unit_warps,
            matrix=matrix,
            matrix_chain=s.column_tiles * max(1.0, 2 * s.k_tiles / accumulators),
            shared_bytes=s.stepping_warps * (hidden + weights) + partial + s.shared_polls * 2 * rows * s.sent_units,
            special=s.elements * cost.special,
            arithmetic=s.elements * (cost.arithmetic + 2 * len(cell.input_gates))
            + accumulator_additions(rows, s.tiles, accumulators),
            chain_special=turns * cost.chain_special,
            chain_arithmetic=turns * (cost.chain_arithmetic + 1 + accumulators // 2),
            staged=0 if apart else s.elements * arrays,
            transfers=0 if apart else s.copies + 2 * s.writes,
            device_bytes=2 * values,
            lead=v["num_stages"] - 1,
            exchanges=turns * min(v["k_split"] - 1, 1),
            # Of a tile of 8 sequences: one travels while the next is multiplied, if messages travel as fast.
            meeting=profile.latency("exchange_messages", v["cluster"], 2 * min(rows, 8) * s.sent_units)
            + max(0.0, 2 * (rows - 8) * s.sent_units / MESSAGE_BYTES_PER_CLOCK - product)
            + (turns - 1) * profile.latency("shared_load")
            + 2 * apart * profile.latency("barrier", 32 * s.warps),
            received=2 * rows * s.sent_units,
        )

    def template(self, cell: Cell, shape: Shape, profile: Profile, tiling: Tiling) -> Template:
        """What instantiates cuda/cluster_forward.cuh."""
        return Template(
            header="cluster_forward",
            name="ClusterForward",
            arguments="ForwardArguments",
            entry="tilesmith_forward",
            title=f"forward, saves {shape.save}, schedule {self.name}",
            parameters=forward_parameters(shape),
            tiling_struct="ClusterTiling",
            tiling=tiling.values,
            asserted=asserted(tiling),
            options=(f"Save::{shape.save}", *sequences(shape)),
        )


SCHEDULE = ClusterForward()
