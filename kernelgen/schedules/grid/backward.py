"""The grid schedule, backward: blocks all over the GPU run a tile of the batch from the last step to the first.

A cluster of them has R of its part of the previous units, and each of its blocks a part of the gates that it multiplies
with, whose gradients come as messages through global memory. The kernel is the template of cuda/grid_backward.cuh; the
formulas here are its sizes, for integers and for a Problem's variables alike, and the generated source asserts that
they agree. A shape that saves "hidden" means that gradients come from outside for h alone, else for every state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic

from constrint import Expr, Problem, cdiv, minimum, table
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
from kernelgen.schedules.grid.pacing import AT_ONCE, BACKWARD, saved_backward, values_of
from kernelgen.schedules.grid.traffic import beyond_an_exchange
from kernelgen.schedules.shared.backward_step import arrays_read, refuses_recomputing
from kernelgen.schedules.shared.batch_tiled import BatchTiled, Needs, accumulator_additions
from kernelgen.schedules.shared.cost import StepWork
from kernelgen.schedules.shared.entries import GRADIENTS, MAIL, asserted, backward_parameters, sequences, stores
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

CLUSTERS = [1, 2, 4, 8]
"""Blocks of a cluster."""

TILES = [4, 8, 16, 32]
"""Sequences of a tile of the batch."""

TILES_PER_WARP = [1, 2, 3, 4, 5, 6, 8]
"""Tiles of 16 previous units whose part of the product a warp has."""

MOST_TILES = 16
"""Of 16 previous units, of a cluster."""

MOST_TILE_WARPS = 4
"""Warps of a block that have different tiles: each loads all gradients that the block multiplies with."""

K_SPLITS = [2, 4, 6, 8, 12, 16]
"""Warps that have the same tiles."""

NUM_STAGES = [4]
"""Stages of a warp's ring of saved values: a step takes long enough for few to do."""

WAY = ("pause", "owner_pause")
"""The variables that say when warps poll."""

MOST_GROUPS_THROUGH_L2 = 2
"""Heads and tiles of the batch whose blocks send sums through L2: of four, blocks load at different times, and fewer
loads are worth less than an exchange in clusters of 2 (1 x 768, B = 64: 3.18 us a step for 2.95, H200, 2026-11-28)."""

SLOTS, SUMS_SLOTS, SUMS_SLOTS_OF_L2 = 8, 2, 4
"""Steps whose gates' gradients, and whose sums, have a place (cuda/grid_mail.cuh and gradient_mail.cuh say why)."""


@dataclass(frozen=True)
class Sizes(Generic[Number]):
    """The sizes of cuda/grid_backward.cuh, from a cell, a shape and the tile variables (ints or expressions).

    k_tiles: of a warp, all_k_tiles: of a head. sums: bytes of what a block's warps add up, sent: of the sums that a
    block gets in a step.
    """

    warps: Number
    tile_warps: Number
    cluster_units: Number
    unit_groups: Number
    owners: Number
    all_k_tiles: Number
    k_tiles: Number
    padded_k: Number
    column_tiles: Number
    elements: Number
    arrays: int
    stored: int
    copies: Number
    writes: Number
    groups_to_send: Number
    sums: Number
    sent: Number
    shared_memory: Number


@once
def sizes(cell: Cell, shape: Shape, v: Mapping[str, Number]) -> Sizes[Number]:
    """Compute the sizes for tile variables ``v``."""
    d, depth, itemsize = shape.head_dim, k_tile(shape.dtype), dtype_info(shape.dtype).itemsize
    recurrent, inputs = {*cell.recurrent_gates}, {*cell.input_gates}
    cluster, rows, epilogue_rows = v["cluster"], v["batch_tile"], v["epilogue_rows"]
    tiles, k_split = v["tiles_per_warp"], v["k_split"]
    tile_warps = cdiv(cdiv(cdiv(d, 16), v["clusters"]), tiles)
    warps = tile_warps * k_split
    cluster_units = 16 * tiles * tile_warps
    unit_groups = 2 * tiles * tile_warps // cluster
    owners = unit_groups * (rows // epilogue_rows)
    all_k_tiles = cdiv(len(recurrent) * v["clusters"] * cluster_units, depth)
    k_tiles = cdiv(all_k_tiles, cluster * k_split)
    arrays = arrays_read(cell, shape, written=True)
    stored = len(inputs | {*cell.inputless_products})
    # An owner's two buffers and its ring.
    step = (2 * stored + v["num_stages"] * arrays) * epilogue_rows * row_bytes(8, epilogue_rows, shape.dtype)
    weights = warps * (k_tiles - v["k_tiles_in_registers"]) * tiles * 2 * 32 * CHUNK
    sums = warps * 2 * tiles * (rows // 4) * 32 * 4
    sent = cluster * owners * epilogue_rows * 8 * 4
    mail = minimum(cluster - 1, 1) * (1 - v.get("through_l2", 0)) * SUMS_SLOTS * sent
    vectors = epilogue_rows * (8 // vector_width(d, itemsize))
    flags = owners * reset_flags(shape, epilogue_rows)
    return Sizes(
        warps=warps,
        tile_warps=tile_warps,
        cluster_units=cluster_units,
        unit_groups=unit_groups,
        owners=owners,
        all_k_tiles=all_k_tiles,
        k_tiles=k_tiles,
        padded_k=depth * k_tiles * cluster * k_split,
        column_tiles=cdiv(rows, 8),
        elements=epilogue_rows // 4,
        arrays=arrays,
        stored=stored,
        copies=cdiv(arrays * vectors, 32),
        writes=cdiv(stored * vectors, 32),
        groups_to_send=cdiv(cluster * owners, warps),
        sums=sums,
        sent=sent,
        shared_memory=owners * step + weights + v.get("sums_buffers", 2) * sums + mail + flags,
    )


class GridBackward(BatchTiled):
    """See the module."""

    name = "grid_backward"
    direction: Direction = "backward"
    dtypes = MULTIPLIED
    honours = FEATURES
    package = __package__
    cooperative = True

    def refuses(self, cell: Cell, shape: Shape, profile: Profile) -> str:
        """Why it does not run this."""
        return (
            nothing_to_share(self.name, shape)
            or super().refuses(cell, shape, profile)
            or refuses_recomputing(self.name, shape)
        )

    def variables(self, problem: Problem, cell: Cell, shape: Shape, profile: Profile) -> Mapping[str, Expr]:
        """Declare the tile variables, in the order of the template's fields."""
        tiles = -(-shape.head_dim // 16)
        clusters = sorted({-(-tiles // share) for share in range(1, MOST_TILES + 1)})
        v = {
            "clusters": problem.variable("clusters", clusters),
            "cluster": problem.variable("cluster", CLUSTERS),
            "batch_tile": problem.variable("batch_tile", TILES),
            "epilogue_rows": problem.variable("epilogue_rows", TILES),
            "tiles_per_warp": problem.variable("tiles_per_warp", TILES_PER_WARP),
            "k_split": problem.variable("k_split", K_SPLITS),
            "k_tiles_in_registers": problem.variable("k_tiles_in_registers", range(0, 17)),
            "accumulators": problem.variable("accumulators", [1, 2]),
            "num_stages": problem.variable("num_stages", NUM_STAGES),
            **{name: problem.variable(name, values_of(BACKWARD, i)) for i, name in enumerate(WAY)},
            "through_l2": problem.variable("through_l2", [0, 1]),
            "sums_buffers": problem.variable("sums_buffers", [1, 2]),
        }
        if shape.dtype == "float32":
            v["keeps_rests"] = problem.variable("keeps_rests", [0, 1])
        s = sizes(cell, shape, v)
        problem.add(
            (v["sums_buffers"] == 2) | (s.shared_memory + s.sums > profile.shared_memory_per_block),
            "one buffer of sums where two do not fit",
        )
        return v

    def rules(self, problem: Problem, cell: Cell, shape: Shape, v: Mapping[str, Expr]) -> None:
        """Constraints of the template."""
        s = sizes(cell, shape, v)
        rows, epilogue_rows, cluster = v["batch_tile"], v["epilogue_rows"], v["cluster"]
        problem.add((v["clusters"] - 1) * s.cluster_units < shape.head_dim, "every cluster of a head has units")
        problem.add(
            (2 * v["tiles_per_warp"] * s.tile_warps) % cluster == 0, "the blocks of a cluster own as many units"
        )
        problem.add(s.tile_warps <= MOST_TILE_WARPS, f"groups of tiles of a block: at most {MOST_TILE_WARPS}")
        problem.add(epilogue_rows <= rows, "a warp steps no more sequences than a tile has")
        problem.add(s.owners <= s.warps, "no more warps that step than warps")
        problem.add((epilogue_rows == 4) | (2 * s.owners > s.warps), "a warp steps no more sequences than it must")
        problem.add(
            s.k_tiles * v["k_split"] * (cluster - 1) < s.all_k_tiles, "every block of a cluster has a part of K"
        )
        problem.add(
            (s.k_tiles - 1) * v["k_split"] * cluster < s.all_k_tiles, "parts of K are no larger than they must be"
        )
        problem.add(table([v[name] for name in WAY], BACKWARD), "ways to pace polls that are tried")
        problem.add((v["owner_pause"] == 0) | (rows <= 8), "warps wait with their polls where a step is short")
        problem.add(
            (v["pause"] == AT_ONCE) | (s.owners < s.warps),
            "polls are paced where there are warps that wait for those that step",
        )
        problem.add(
            (v["sums_buffers"] == 2) | (v["tiles_per_warp"] * rows > 4), "R is turned where warps leave their sums"
        )
        problem.add(
            ((v["sums_buffers"] == 2) & (v["through_l2"] == 0)) | (rows <= 16),
            "one buffer of sums, and sums through L2, are tried in tiles of up to 16 sequences",
        )
        problem.add(v["k_tiles_in_registers"] <= s.k_tiles, "no more groups of R in registers than a warp has")
        problem.add(v["accumulators"] <= 2 * s.k_tiles, "no more accumulator chains than matrix instructions in a row")
        problem.add(
            (rows > 4) | (v["accumulators"] >= 2) | (s.k_tiles == 1),
            "of 4 sequences two groups of gradients are read at a time, each with accumulators of its own",
        )
        add_float32_rules(problem, shape.dtype, v)

    def gpu_rules(self, problem: Problem, shape: Shape, profile: Profile, v: Mapping[str, Expr]) -> None:
        """All blocks run at the same time, those of a cluster side by side."""
        clusters = shape.heads * cdiv(shape.batch, v["batch_tile"]) * v["clusters"]
        through_l2 = v["through_l2"] == 1
        if profile.largest_cluster > 1:
            problem.add(
                (shape.heads * cdiv(shape.batch, v["batch_tile"]) <= MOST_GROUPS_THROUGH_L2) | (v["through_l2"] == 0),
                f"sums go through L2 of up to {MOST_GROUPS_THROUGH_L2} heads and tiles of the batch",
            )
        problem.add(
            (v["cluster"] <= profile.largest_cluster) | through_l2,
            f"blocks of a cluster: at most {profile.largest_cluster} on {profile.name}",
        )
        run_together(problem, profile, clusters * v["cluster"])
        for size in CLUSTERS:
            fit = profile.clusters_that_fit.get(size, profile.multiprocessors // size)
            if size in profile.clusters_that_fit:
                problem.add(
                    (v["cluster"] != size) | (clusters <= fit) | through_l2,
                    f"clusters of {size} of all heads and tiles of the batch: at most {fit} on {profile.name}",
                )
            if size == 1 or size <= profile.largest_cluster:
                problem.add(
                    (v["cluster"] != size) | (clusters > fit) | (v["through_l2"] == 0),
                    f"sums of clusters of {size} go through L2 where more of them than fit share a head",
                )

    def blocks_per_head(self, v: Mapping[str, int]) -> int:
        """How many share a head. 1 where a tiling lacks it."""
        return v.get("clusters", 1) * v.get("cluster", 1)

    def cluster_of(self, v: Mapping[str, int]) -> int:
        """How many blocks are a cluster."""
        return 1 if v.get("through_l2", 0) else v.get("cluster", 1)

    def num_partials(self, shape: Shape, v: Mapping[str, int]) -> str:
        """One of each warp that owns units."""
        return f"cdiv(batch, {v['batch_tile']}) * {v['batch_tile'] // v['epilogue_rows']}"

    def axes(self, cell: Cell, shape: Shape, v: Mapping[str, int]) -> Mapping[str, str]:
        """The words of the mail."""
        return {"W": f"heads * cdiv(batch, {v['batch_tile']}) * {self._words(cell, shape, v)}"}

    def _words(self, cell: Cell, shape: Shape, v: Mapping[str, int]) -> int:
        """Words of the mail of a head and tile."""
        s = sizes(cell, shape, v)
        gradients = SLOTS * s.padded_k * v["batch_tile"] * dtype_info(shape.dtype).itemsize
        return (gradients + v.get("through_l2", 0) * v["clusters"] * v["cluster"] * SUMS_SLOTS_OF_L2 * s.sent) // 4

    def needs(self, cell: Cell, shape: Shape, v: Mapping[str, Number]) -> Needs[Number]:
        """Warps, shared memory and what lives in a thread's registers."""
        s = sizes(cell, shape, v)
        code: Backward = derive(cell)
        biased = {*code.gates} - {*code.saved_gates}
        tiles = v["tiles_per_warp"]
        # Where sums go through L2, a warp multiplies for two tiles at a time.
        in_groups = v.get("through_l2", 0) * (2 - v["accumulators"]) * (shape.dtype != "float32")
        accumulated = (1 - in_groups) * tiles + in_groups * (2 - tiles % 2)
        paired = cdiv(8 - minimum(v["batch_tile"], 8), 4)  # 1 where there are 4 sequences
        counts: dict[str, Int] = {
            "weights": tiles * v["k_tiles_in_registers"] * (1 + v.get("keeps_rests", 0)) * 8,
            "fragments": tiles * s.k_tiles,
            "loading": minimum(s.k_tiles - v["k_tiles_in_registers"], 1),
            "accumulators": accumulated * s.column_tiles * 4,
            "more_accumulators": (v["accumulators"] - 1) * tiles * s.column_tiles * 4,
            "polled": 4 * s.column_tiles * cdiv(s.k_tiles, 1 + paired),
            "parts": v["k_split"],
            "bias": len(biased & {*cell.bias_gates}),
            "partial_sums": len(cell.inputless_biases),
            "states": s.elements * len(cell.states) * (2 if shape.resets else 1),
            "ready": s.elements * (backward_cost(cell).ready + known_states(cell, shape)),
            "live": minimum(s.elements, 4) * backward_cost(cell).live,
            "destinations": minimum(v["cluster"] - 1, 1) * s.groups_to_send,
            "copies": s.copies,
            "writes": s.writes,
        }
        # What is multiplied must live at once; R from shared memory and the rest make do with what there is.
        multiplied: Int = sum(counts[name] for name in ("weights", "accumulators", "more_accumulators", "polled"))
        polled = counts["polled"]
        least, floor = spare.registers_backward(shape.dtype, v, multiplied, polled, s.k_tiles, s.column_tiles)
        crowded = least if shape.dtype in SIXTEEN_BITS else None
        return Needs(s.warps, s.shared_memory, counts, least, floor, crowded)

    def work(self, cell: Cell, shape: Shape, profile: Profile, v: Mapping[str, int]) -> StepWork:
        """What a block does in one step, for the cost model."""
        s = sizes(cell, shape, v)
        dtype, itemsize = shape.dtype, dtype_info(shape.dtype).itemsize
        cost = in_dtype(backward_cost(cell), dtype)
        tiles, rows, accumulators, cluster = v["tiles_per_warp"], v["batch_tile"], v["accumulators"], v["cluster"]
        weights = (s.k_tiles - v["k_tiles_in_registers"]) * tiles * 1024 * s.warps
        blocks = shape.heads * -(-shape.batch // rows) * v["clusters"] * cluster
        loaded = blocks * s.tile_warps * s.padded_k // cluster * rows * itemsize
        kept = v.get("keeps_rests", 0) * v["k_tiles_in_registers"]
        product = Product.of(dtype, tiles, s.k_tiles, s.column_tiles, kept, are_factors=True)
        meeting = profile.latency("exchange_grid", blocks) + beyond_an_exchange(loaded)
        meeting -= saved_backward(loaded, *(v[name] for name in WAY))
        meeting += profile.latency("barrier", 32 * s.warps)
        if v.get("through_l2", 0):
            meeting += profile.latency("exchange_grid", cluster)
        elif cluster > 1:
            meeting += profile.latency("exchange_sums", cluster, s.sent)
        return StepWork(
            warps=s.warps,
            epilogue_warps=s.owners,
            matrix=product.matrix,
            matrix_chain=multiply_chain(dtype, s.k_tiles, accumulators),
            shared_bytes=weights + 2 * s.sums,
            special=s.elements * cost.special,
            arithmetic=s.elements * (cost.arithmetic + 2 * s.arrays) + accumulator_additions(rows, tiles, accumulators),
            chain_special=cost.chain_special,
            chain_arithmetic=cost.chain_arithmetic + 1 + accumulators // 2 + v["k_split"].bit_length(),
            staged=s.elements * s.stored,
            transfers=s.copies + 2 * s.writes,
            device_bytes=itemsize * shape.batch * shape.heads * shape.head_dim * (s.arrays + s.stored),
            lead=v["num_stages"] - 1,
            exchanges=1 if s.owners < s.warps else 2,  # of the sums; warps that step fence for themselves then
            meeting=meeting,
            parting=product.arithmetic,
        )

    def template(self, cell: Cell, shape: Shape, profile: Profile, tiling: Tiling) -> Template:
        """What instantiates cuda/grid_backward.cuh."""
        known = known_states(cell, shape)
        return Template(
            header="grid_backward",
            name="GridBackward",
            arguments="BackwardArguments",
            entry="tilesmith_backward",
            title=f"backward, gradients of {known} of {len(cell.states)} states, gates saved, schedule {self.name}",
            parameters=backward_parameters(shape, GRADIENTS, *MAIL),
            tiling_struct="GridBackwardTiling",
            tiling=tiling.values,
            asserted={**asserted(tiling), "mail_words": self._words(cell, shape, tiling.values)},
            options=(str(known), "Gates::saved", stores(profile), *sequences(shape)),
        )


SCHEDULE = GridBackward()
