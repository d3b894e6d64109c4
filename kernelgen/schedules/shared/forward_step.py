"""What the schedules share whose kernels are built on cuda/forward_step.cuh."""

from __future__ import annotations

from kernelgen.cells.language import Cell
from kernelgen.program.arguments import known_states
from kernelgen.program.shape import Shape
from kernelgen.symbolic.derive import derive


def arrays_written(cell: Cell, shape: Shape) -> int:
    """How many arrays of [sequence, unit] are written out for every step."""
    return len(cell.states) + len(derive(cell).saved_gates) if shape.save == "gates" else known_states(cell, shape)
