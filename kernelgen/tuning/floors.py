"""Floors: what no kernel of these designs gets below on a GPU, from its profile's latencies and rates.

A pass takes at least the longest of three times:

    chain   T x the clocks of a step / the clock rate
    bytes   what must be read and written once / the bandwidth of device memory
    matrix  T x H x ceil(B / 8) x G x D^2 / 256 x mma_interval / (4 x multiprocessors) / the clock rate

since a matrix instruction takes 16 x 16 weights times 8 sequences, and a multiprocessor has four units for them. A
step's clocks are the least over C blocks that share a head, of those whose registers and shared memory hold the head's
R, of

    meeting(C) + mma + G x D^2 / 256 / C / 4 x mma_interval + pointwise

- meeting: a barrier of 128 threads and a load from shared memory for one block; for a cluster the exchange of h of 4
  sequences (`exchange_messages`), backward of their partial sums (`exchange_sums`); `exchange_grid` for more blocks.
- mma: the latency of one matrix instruction. The others of a step follow at their rate, nothing else waits.
- pointwise: the cell's longest chain of instructions, special ones at `special_function`, others at 4 clocks.

Where no number of blocks holds R, it is read from memory in every step and counts among the bytes. Bytes, in 16 bits:
forward Wx and h; forward with gradients Wx, all states, the gates that are saved; backward these, the gradient of h
and that of Wx. Training is the sum of forward, backward and the product for dR (its operations at the matrix rate, or
reading h and the gradient of Wx, whichever is longer).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from kernelgen.cells.language import Cell
from kernelgen.errors import ProfileError
from kernelgen.hardware.profile import Profile
from kernelgen.program.shape import SIXTEEN_BITS
from kernelgen.schedules.shared.cost import ARITHMETIC_LATENCY, SUB_PARTITIONS
from kernelgen.symbolic.derive import derive
from kernelgen.symbolic.instructions import CellCost, backward_cost, cell_cost

if TYPE_CHECKING:
    from kernelgen.program.shape import Shape
    from kernelgen.program.task import Direction

ROWS_AT_ONCE = 4
"""Sequences of the smallest batch tile: what an exchange carries at least."""
TILE = 16 * 16
COLUMNS = 8


class Sizes(Protocol):
    """Of a recurrence: see Shape."""

    @property
    def batch(self) -> int: ...
    @property
    def seq(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...


def recurrence_floor_ms(cell: Cell, shape: Shape, profile: Profile, direction: Direction) -> float | None:
    """Milliseconds of the recurrence of a pass at a shape, without the product for dR; None for a type that is not of
    16 bits, and where the profile lacks a latency."""
    if shape.dtype not in SIXTEEN_BITS:
        return None
    states, inputs = len(cell.states), len(cell.input_gates)
    saved = 0 if shape.recompute else len(derive(cell).saved_gates)
    try:
        if direction == "backward":
            given = 1 if shape.save == "hidden" else states
            planes = states + saved + given + inputs + (inputs if shape.recompute else 0)
            return _pass(cell, shape, profile, backward_cost(cell), planes, backward=True)
        kept = {"hidden": 1, "states": states, "gates": states + saved}[shape.save]
        read = shape.inputs / (shape.heads * shape.head_dim) if shape.inputs else inputs
        own = inputs * shape.head_dim * shape.inputs
        return _pass(cell, shape, profile, cell_cost(cell), read + kept, backward=False, input_weights=own)
    except ProfileError:
        return None


def floor_ms(cell: Cell, row: Sizes, profile: Profile, what: str) -> float | None:
    """Milliseconds of a pass, "forward" (no gradients) or "training"; None where the profile lacks a latency."""
    saved, states = len(derive(cell).saved_gates), len(cell.states)
    inputs = len(cell.input_gates)
    try:
        if what == "forward":
            return _pass(cell, row, profile, cell_cost(cell), inputs + 1, backward=False)
        kept = states + saved
        forward = _pass(cell, row, profile, cell_cost(cell), inputs + kept, backward=False)
        backward = _pass(cell, row, profile, backward_cost(cell), kept + 1 + inputs, backward=True)
    except ProfileError:
        return None
    return forward + backward + _parameters(cell, row, profile)


def step_clocks(cell: Cell, row: Sizes, profile: Profile, cost: CellCost, *, backward: bool) -> float | None:
    """Clocks of one step's chain; None where no number of blocks holds R. Raises ProfileError."""
    weights = len(cell.recurrent_gates) * row.head_dim**2
    pointwise = cost.chain_special * profile.latency("special_function") + cost.chain_arithmetic * ARITHMETIC_LATENCY
    room = 4 * profile.registers_per_sm + profile.shared_memory_per_sm
    least = None
    blocks = 1
    while blocks <= profile.multiprocessors:
        if 2 * weights <= blocks * room:
            issue = weights / TILE / blocks / SUB_PARTITIONS * profile.latency("mma_interval")
            meeting = _meeting(blocks, row.head_dim, profile, backward=backward)
            clocks = meeting + profile.latency("mma") + issue + pointwise
            least = clocks if least is None else min(least, clocks)
        blocks *= 2
    return least


def _meeting(blocks: int, dim: int, profile: Profile, *, backward: bool) -> float:
    if blocks == 1:
        return profile.latency("barrier", 128) + profile.latency("shared_load")
    if blocks <= profile.largest_cluster:
        if backward:
            return profile.latency("exchange_sums", blocks, 4 * ROWS_AT_ONCE * dim)
        return profile.latency("exchange_messages", blocks, 2 * ROWS_AT_ONCE * dim)
    return profile.latency("exchange_grid", blocks)


def _pass(
    cell: Cell,
    row: Sizes,
    profile: Profile,
    cost: CellCost,
    planes: float,
    *,
    backward: bool,
    input_weights: int = 0,
) -> float:
    """Milliseconds. planes: how many arrays of one value for each unit and step are read or written. input_weights: of
    a head's W, where the pass multiplies its input itself; nothing waits for that product."""
    weights = len(cell.recurrent_gates) * row.head_dim**2
    clocks = step_clocks(cell, row, profile, cost, backward=backward)
    moved = planes * _plane(row)
    if clocks is None:
        clocks = 0.0
        moved += 2 * weights * row.heads * row.seq
    chain = row.seq * clocks / (1000 * profile.clock_mhz)
    products = row.heads * (weights + input_weights) / TILE
    matrix = row.seq * _matrix_ms(products * -(-row.batch // COLUMNS), profile)
    return max(chain, 1000 * moved / profile.memory_bandwidth, matrix)


def _parameters(cell: Cell, row: Sizes, profile: Profile) -> float:
    """Milliseconds of the product for dR, over all steps and sequences."""
    weights = len(cell.recurrent_gates) * row.head_dim**2
    matrix = _matrix_ms(row.heads * weights / TILE * row.batch * row.seq / COLUMNS, profile)
    moved = (len(cell.input_gates) + 1) * _plane(row)
    return max(matrix, 1000 * moved / profile.memory_bandwidth)


def _matrix_ms(instructions: float, profile: Profile) -> float:
    """Milliseconds of all multiprocessors for so many matrix instructions."""
    clocks = instructions * profile.latency("mma_interval") / (SUB_PARTITIONS * profile.multiprocessors)
    return clocks / (1000 * profile.clock_mhz)


def _plane(row: Sizes) -> float:
    return 2.0 * row.batch * row.seq * row.heads * row.head_dim
