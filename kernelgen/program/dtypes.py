"""The 16-bit types of Wx, R, b and h: their names everywhere, their precision, and what a kernel may err by.

Importing this costs nothing; NumPy is imported when an array type is asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kernelgen.program.shape import unknown_dtype

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kernelgen.program.task import Direction


@dataclass(frozen=True)
class Dtype:
    """name: as in a Shape. tag: the C++ type in namespace tilesmith. itemsize: bytes.

    unit_roundoff: the largest relative error of rounding to nearest, 2^-p for p bits of significand. largest: the
    largest finite value. smallest_exponent: of the smallest normal number, 2^(it - 1).
    """

    name: str
    tag: str
    unit_roundoff: float
    largest: float
    smallest_exponent: int
    itemsize: int = 2


_DTYPES = {
    "bfloat16": Dtype("bfloat16", "bf16", 2.0**-8, (2 - 2.0**-7) * 2.0**127, -125),
    "float16": Dtype("float16", "fp16", 2.0**-11, 65504.0, -13),
}


def dtype_info(name: str) -> Dtype:
    """What is known of a dtype. Raises ShapeError for an unknown name."""
    if name not in _DTYPES:
        raise unknown_dtype(name)
    return _DTYPES[name]


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of one of these, of "float32", which sums come in, or of "int32", which messages do; bfloat16 is
    that of ml_dtypes. Raises ShapeError for an unknown name."""
    import numpy as np

    if name in ("float32", "int32"):
        return np.dtype(name)
    if dtype_info(name).name == "bfloat16":
        import ml_dtypes

        extended: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return extended
    return np.dtype(np.float16)


SPECIAL_ERROR = 2.0**-11
"""Relative error of tanh.approx.f32, the least exact instruction that kernels use (PTX ISA, "tanh")."""


def tolerance(dtype: str, seq: int, direction: Direction = "forward") -> float:
    """What an output of a pass of ``seq`` steps may differ by: the L2 norm of its difference from the float64
    reference (which rounds where the kernel does) over the L2 norm of the reference.

    Two parts forward, added as squares. The output is stored in the dtype: a root mean square relative error below
    u / 2, u the unit roundoff. And h is rounded before it is fed back: a value that is off by a small relative e rounds
    to the other neighbour, off by about u, with a probability of e / u, so its root mean square error is not e but
    sqrt(e u), with e = 2^-11 of tanh.approx. Of that, half is taken to be carried from step to step. (Random inputs
    contract more: with errors drawn uniformly up to e, sequences of 4,096 steps end at 1.1 times one step's error.)

    Backward the gates' gradients are what is rounded and fed back, and there is a third part: they are products with
    derivatives such as 1 - y^2, off by up to 2 e, and a state that is never forgotten adds up those of a whole
    sequence. Twice that is allowed, 4 e. (With errors drawn uniformly up to e, more than tanh.approx's are, float16
    gradients after 1,024 steps are off by less than 2 e for every cell of the library but the LSTM without a forget
    gate, whose 4.5 e are just within the three parts together.)

    Raises ShapeError for an unknown dtype.
    """
    unit = dtype_info(dtype).unit_roundoff
    carried = 2 - 0.5**seq
    derivative = 4 * SPECIAL_ERROR if direction == "backward" else 0.0
    return math.hypot(carried * math.sqrt(SPECIAL_ERROR * unit), unit / 2, derivative)


def element_tolerance(dtype: str) -> float:
    """What any single element of an output may differ by, as a fraction of the largest magnitude in that output.

    Eight roundings to the wrong side, and eight errors of tanh.approx, which matter where the dtype is as exact as
    that. Far below what a lost or misplaced element is off by, which the norm of a large array would hide.
    """
    return 8 * (dtype_info(dtype).unit_roundoff + SPECIAL_ERROR)


def far_elements(size: int, direction: Direction) -> int:
    """How many of an output's ``size`` elements may be farther off than element_tolerance: none forward.

    A gradient jumps where a step has a kink, such as the larger of two numbers that are equal, and the float32 of a
    kernel may come to lie on the other side of it: one in 2^20 may. (sLSTM's m is such a maximum: about one in 10^7 of
    random pairs are as close as float32 errs, and a few gradients follow each.)
    """
    return size >> 20 if direction == "backward" else 0


EXACT = 2.0**-17
"""What an output that follows a kernel's own roundings may differ by in the norm, where functions are as exact as the C
library's. Float32 arithmetic makes errors of at most 1e-8 of 16-bit outputs for every cell of the library, and of 3e-7
of sums over all steps; a gate or a state that loses bits to a 16-bit number makes at least five times what is
allowed."""

EXACT_ELEMENT = 2.0**-13
"""And a single element, as a fraction of the largest: every cell of the library stays below 2^-22."""


def half_spacing(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Half the distance to the next 16-bit number, of numbers that are such: what rounding to nearest errs by at most.

    values: float32, as the result. Infinity and NaN have none that means anything.
    """
    import numpy as np

    info = dtype_info(dtype)
    exponent = np.where(values == 0, info.smallest_exponent, np.frexp(values)[1])
    half: NDArray[Any] = np.ldexp(np.float32(info.unit_roundoff), np.maximum(exponent, info.smallest_exponent) - 1)
    return half
