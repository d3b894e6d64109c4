"""The resident schedule, backward: one block holds the recurrent matrix of one head and runs a tile of the batch from
the last step to the first.

The kernel is the template of cuda/resident_backward.cuh; the formulas here are its sizes, for integers and for a
Problem's variables alike, and the generated source asserts that they agree. A shape that saves "hidden" means that
gradients come from outside for h alone, else for every state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from constrint import Problem, cdiv, maximum, minimum
from kernelgen.arguments import known_states
from kernelgen.cells.language import Cell
from kernelgen.cost import StepWork
from kernelgen.derive import derive
from kernelgen.emit.cost import backward_cost
from kernelgen.emit.early import halves
from kernelgen.schedules._batch_tiled import BATCH_TILES, PREFETCH, BatchTiled, Int
from kernelgen.schedules._limits import CHUNK, vector_width
from kernelgen.schedules._registers import BACKWARD_COEFFICIENTS, BackwardCounts
from kernelgen.schedules.base import Direction
from kernelgen.shape import Shape

UNITS = 16
"""Units a warp owns."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of cuda/resident_backward.cuh. Plain integers down to planes; the others follow the tile variables.

    unit_warps: those that own units. groups: of R transposed. gates_again: how many gates have a product that is
    computed again, groups_again: of R for it. planes: of a stage of the ring. ready: chunks that a lane hands over.
    """

    unit_warps: int
    groups: int
    gates_again: int
    groups_again: int
    planes: int
    warps: Int
    ready: Int
    columns: Int
    column_tiles: Int
    elements: Int
    copies: Int
    writes: Int
    shared_memory: Int


def sizes(cell: Cell, shape: Shape, v: Mapping[str, Int]) -> Sizes:
    """Compute the sizes for tile variables ``v``."""
    code = derive(cell)
    gates, recurrent = len(cell.gates), len(cell.recurrent_gates)
    rows, warps = v["batch_tile"], -(-shape.head_dim // UNITS)
    padded = warps * UNITS
    groups, again = _groups(cell, shape), _gates_again(cell, shape)
    gates_read = {*code.gates} & {*cell.input_gates} if shape.recompute else code.gates
    states_read = {*code.states, 0} if again else code.states
    planes = len(gates_read) + len(states_read) + known_states(cell, shape)
    groups_again = _groups_again(cell, shape)
    row = (max(padded, 32 * groups_again) // CHUNK * 2 + 1) * CHUNK
    buffers = 2 * (4 * groups * rows * CHUNK + (gates - recurrent) * rows * row)
    ring = maximum(v["prefetch"] * planes * rows * row, warps * 32 * CHUNK)
    weights = warps * (groups - v["register_groups"]) * 2 * 32 * CHUNK
    if again:
        weights = weights + warps * (groups_again - v["gate_groups"]) * again * 2 * 32 * CHUNK
    vectors = rows * (shape.head_dim // vector_width(shape.head_dim))
    columns = minimum(rows // 4, 2)
    column_tiles = cdiv(rows, 8)
    elements = 2 * column_tiles * columns
    ready = cdiv(elements * (len(halves(cell).ready) + known_states(cell, shape)), 4)
    return Sizes(
        unit_warps=warps,
        groups=groups,
        gates_again=again,
        groups_again=groups_again,
        planes=planes,
        warps=warps * (1 + v["early_warps"]),
        ready=ready,
        columns=columns,
        column_tiles=column_tiles,
        elements=elements,
        copies=cdiv(planes * vectors, warps * 32),
        writes=cdiv(gates * vectors, warps * 32),
        shared_memory=buffers + ring + weights + v["early_warps"] * 2 * warps * ready * 32 * CHUNK,
    )


def _groups(cell: Cell, shape: Shape) -> int:
    """Groups of 32 rows of R, all gates of the padded units."""
    return -(-len(cell.recurrent_gates) * -(-shape.head_dim // UNITS) * UNITS // 32)


def _gates_again(cell: Cell, shape: Shape) -> int:
    """How many gates have a recurrent product that is computed again."""
    return len({*derive(cell).gates} & {*cell.recurrent_gates}) if shape.recompute else 0


def _groups_again(cell: Cell, shape: Shape) -> int:
    """Groups of 32 columns of R, for the gates that are computed again."""
    return -(-shape.head_dim // 32) if _gates_again(cell, shape) else 0


class ResidentBackward(BatchTiled):
    """See the module."""

    name = "resident_backward"
    direction: Direction = "backward"
    coefficients = BACKWARD_COEFFICIENTS

    def variables(self, problem: Problem, cell: Cell, shape: Shape) -> Mapping[str, Int]:
        """Declare the tile variables, in the order of the template's fields."""
        groups, again = _groups(cell, shape), _groups_again(cell, shape)
        variables = {
            "batch_tile": problem.variable("batch_tile", BATCH_TILES),
            "register_groups": problem.variable("register_groups", range(0, groups + 1)),
            "chains": problem.variable("chains", [chains for chains in (1, 2, 4, 8) if chains <= 2 * groups]),
            "prefetch": problem.variable("prefetch", PREFETCH),
            "early_warps": problem.variable("early_warps", [0, 1]),
        }
        if again:
            variables["gate_groups"] = problem.variable("gate_groups", range(0, again + 1))
        return variables

    def sizes(self, cell: Cell, shape: Shape, v: Mapping[str, Int]) -> Sizes:
        """The sizes of cuda/resident_backward.cuh."""
        return sizes(cell, shape, v)

    def rules(self, problem: Problem, v: Mapping[str, Int], s: Sizes, shape: Shape) -> None:
        """The domains say it all."""

    def counts(self, cell: Cell, shape: Shape, v: Mapping[str, Int], s: Sizes) -> Sequence[BackwardCounts]:
        """What lives in a thread's registers, for the register model: of the late warps, or of all where there are no
        early ones, and of the early warps."""
        cost, kept = backward_cost(cell), v.get("gate_groups", 0)
        biases = 2 * len({*derive(cell).gates} & {*cell.bias_gates}) if shape.recompute else 0

        def role(late: Int, early: Int) -> BackwardCounts:
            return BackwardCounts(
                weights=(late * v["register_groups"] + early * kept * s.gates_again) * 8,
                fragments=late * s.groups + early * s.groups_again * s.gates_again,
                loading=late * minimum(s.groups - v["register_groups"], 1) + early * minimum(s.groups_again - kept, 1),
                more_chains=late * (v["chains"] - 1) * s.column_tiles * 4,
                hidden=4 * s.column_tiles * (late * s.groups + early * s.groups_again),
                sums=early * 4 * s.column_tiles * s.gates_again,
                bias=early * biases,
                states=late * s.elements * len(cell.states),
                inputs=early * 2 * s.column_tiles * cdiv(s.planes, 3 - s.columns),
                ready=s.elements * (cost.ready + known_states(cell, shape)),
                elements=s.elements,
                live=early * minimum(s.elements, 4) * cost.live,
                padded=min(s.unit_warps * UNITS - shape.head_dim, 1),
                copies=early * s.copies,
                writes=early * s.writes,
            )

        return role(1, 1 - v["early_warps"]), role(0, v["early_warps"])

    def work(self, cell: Cell, shape: Shape, v: Mapping[str, int], s: Sizes) -> Sequence[StepWork]:
        """What a block does in one step, for the cost model: the late warps, or all, and the early ones."""
        cost, split = backward_cost(cell), v["early_warps"]
        moving = s.column_tiles * 512 // (3 - s.columns)
        loaded_again = (s.groups_again - v.get("gate_groups", 0)) * s.gates_again
        reading = s.groups * moving + (s.groups - v["register_groups"]) * 1024
        reading_again = s.groups_again * moving + loaded_again * 1024
        matrix = s.column_tiles * 2 * s.groups
        matrix_again = s.column_tiles * 2 * s.groups_again * s.gates_again
        chains = (v["chains"] - 1) * s.column_tiles * 4
        handed = split * s.ready * 512
        values = shape.batch * shape.heads * shape.head_dim * (s.planes + len(cell.gates))
        late = StepWork(
            warps=s.unit_warps,
            further_warps=split * s.unit_warps,
            owners=s.unit_warps,
            matrix=matrix,
            matrix_chain=max(1.0, 2 * s.groups / v["chains"]),
            shared_bytes=s.unit_warps * (reading + handed),
            special=s.elements * cost.late_special,
            arithmetic=s.elements * cost.late_arithmetic + chains,
            chain_special=cost.chain_special,
            chain_arithmetic=cost.chain_arithmetic + 1 + v["chains"] // 2,
            staged=s.elements * len(cell.gates),
            transfers=0,
            device_bytes=2 * values,
        )
        early = StepWork(
            warps=s.unit_warps,
            further_warps=split * s.unit_warps,
            owners=s.unit_warps,
            matrix=matrix_again,
            matrix_chain=2 * s.groups_again,
            shared_bytes=s.unit_warps * (reading_again + handed),
            special=s.elements * (cost.special - cost.late_special),
            arithmetic=s.elements * (cost.arithmetic - cost.late_arithmetic + 2 * s.planes),
            chain_special=0,
            chain_arithmetic=0,
            staged=0,
            transfers=s.copies + 2 * s.writes,
            device_bytes=2 * values,
        )
        return (late, early) if split else (late.together(early),)


SCHEDULE = ResidentBackward()
