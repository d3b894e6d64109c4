"""What the schedules share whose kernels are built on cuda/backward_step.cuh."""

from __future__ import annotations

from kernelgen.cells.language import Cell
from kernelgen.program.arguments import known_states
from kernelgen.program.shape import Shape
from kernelgen.symbolic.derive import Backward, derive

UNITS = 16
"""Units of a warp that owns some."""


def recomputed_gates(cell: Cell, shape: Shape) -> int:
    """How many gates have a recurrent product that is recomputed."""
    return len({*derive(cell).gates} & {*cell.recurrent_gates}) if shape.recompute else 0


def arrays_read(cell: Cell, shape: Shape, *, written: bool = False) -> int:
    """Arrays of [sequence, unit] that a step reads: gates' sums or inputs, states before it, gradients from outside.

    written: whether the gradients of gates without an input are written out, so that h is not read for them.
    """
    code: Backward = derive(cell)
    gates = {*code.gates} & {*cell.input_gates} if shape.recompute else code.saved_gates
    hidden = recomputed_gates(cell, shape) or (cell.inputless_products and not written)
    states = {*code.states, 0} if hidden else code.states
    return len(gates) + len(states) + known_states(cell, shape)


def refuses_recomputing(schedule: str, shape: Shape) -> str:
    """Why a schedule whose blocks share a head does not run this, as a sentence: gates are recomputed. Else empty."""
    if not shape.recompute:
        return ""
    return (
        f"the {schedule} schedule does not recompute gates: a block reads the states of its own units alone, "
        "and a gate's sum needs those of all. Save the gates in the forward pass."
    )
