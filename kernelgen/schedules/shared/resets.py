"""What kernels that know resets keep in shared memory."""

from __future__ import annotations

from kernelgen.program.shape import Shape
from kernelgen.schedules.shared.numbers import Number

SLOTS = 4


def reset_flags(shape: Shape, rows: Number) -> Number:
    """Bytes of ResetFlags (cuda/sequences.cuh) for a tile of ``rows`` sequences: a byte for each and a step."""
    return rows * (SLOTS * 32 if shape.resets else 0)
