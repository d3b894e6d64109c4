"""What kernels that know resets keep in shared memory."""

from __future__ import annotations

from constrint import cdiv
from kernelgen.program.shape import Shape
from kernelgen.schedules.shared.limits import CHUNK
from kernelgen.schedules.shared.numbers import Number


def reset_flags(shape: Shape, rows: Number) -> Number:
    """Bytes of ResetFlags (cuda/sequences.cuh) for a tile of ``rows`` sequences."""
    return cdiv(rows * 260, CHUNK) * (CHUNK if shape.resets else 0)
