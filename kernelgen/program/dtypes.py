"""The types of Wx, R, b and h: their names everywhere, their precision, and what a kernel may err by.

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
    """name: as in a Shape. stored: the dtype of its arrays. tag: the C++ type in namespace tilesmith. itemsize: bytes.
    element: the C++ type that an element in memory has; number: that a kernel computes in. sums: the dtype of what it
    sums and keeps from step to step. math: the namespace, in tilesmith, of the functions that a
    cell's step calls. products: matrix instructions for one product.

    unit_roundoff: the largest relative error of rounding to nearest, 2^-p for p bits of significand. largest: the
    largest finite value. smallest_exponent: of the smallest normal number, 2^(it - 1). function_error: the largest
    relative error of those functions. sum_error: of an addition, 0 where that of the functions hides it. exact,
    exact_element: what EXACT and EXACT_ELEMENT are for it.
    """

    name: str
    tag: str
    unit_roundoff: float
    largest: float
    smallest_exponent: int
    itemsize: int
    element: str
    math: str
    function_error: float
    sum_error: float
    exact: float
    exact_element: float
    products: int = 1
    stored_as: str = ""
    sums: str = "float32"

    @property
    def stored(self) -> str:
        """The dtype of its arrays."""
        return self.stored_as or self.name

    @property
    def number(self) -> str:
        """The C++ type that a kernel computes in."""
        return "double" if self.sums == "float64" else "float"

    @property
    def registers(self) -> int:
        """Of a thread, for such a number."""
        return 2 if self.sums == "float64" else 1


SPECIAL_ERROR = 2.0**-11
"""Relative error of tanh.approx.f32, the least exact instruction that 16-bit kernels use (PTX ISA, "tanh")."""

LIBRARY_ERROR = 2.0**-21
"""Relative error of sigmoid in float32, 1 / (1 + exp(-x)): 2 units in the last place of expf, 1 of the reciprocal and
half a one of the sum (CUDA C++ Programming Guide, "Mathematical Functions"). tanhf and logf err by less."""

EXACT = 2.0**-17
"""What a 16-bit output that follows a kernel's own roundings may differ by in the norm, where functions are as exact as
the C library's. Float32 arithmetic makes errors of at most 1e-8 of 16-bit outputs for every cell of the library, and of
3e-7 of sums over all steps; a gate or a state that loses bits to a 16-bit number makes at least five times what is
allowed."""

EXACT_ELEMENT = 2.0**-13
"""And a single element, as a fraction of the largest: every cell of the library stays below 2^-22."""

EXACT_FLOAT32, EXACT_ELEMENT_FLOAT32 = 2.0**-19, 2.0**-17
"""The same of a float32 output. Here no rounding hides float32 arithmetic: it makes up to 3e-7 in the norm for every
cell of the library. A product that takes 11 bits of its factors, or twice 8, makes more than what is allowed."""

TF32_ERROR = 2.0**-11
"""Relative error of a factor that is rounded to TF32, 11 bits of significand."""

EXACT_TF32, EXACT_ELEMENT_TF32 = 2.0**-11, 2.0**-9
"""The same where products round their factors to TF32, which the reference does not: random factors make errors of
2^-12 in the norm of a product, and a lost element of more than what is allowed."""

EXACT_FLOAT64, EXACT_ELEMENT_FLOAT64 = 2.0**-46, 2.0**-44
"""And of a float64 output, beside a reference that errs as much itself."""

LIBRARY_ERROR_FLOAT64 = 2.0**-50
"""Relative error of a function in float64: 2 units in the last place of exp or tanh, as much of the reference's, and
what follows each."""

_SIXTEEN_BITS: dict[str, Any] = {
    "itemsize": 2,
    "element": "unsigned short",
    "math": "math",
    "function_error": SPECIAL_ERROR,
    "sum_error": 0.0,
    "exact": EXACT,
    "exact_element": EXACT_ELEMENT,
}
_FLOATS: dict[str, Any] = {
    "unit_roundoff": 2.0**-24,
    "largest": (2 - 2.0**-23) * 2.0**127,
    "smallest_exponent": -125,
    "itemsize": 4,
    "element": "float",
    "math": "accurate",
    "sum_error": 2.0**-24,
}
_DTYPES = {
    "bfloat16": Dtype("bfloat16", "bf16", 2.0**-8, (2 - 2.0**-7) * 2.0**127, -125, **_SIXTEEN_BITS),
    "float16": Dtype("float16", "fp16", 2.0**-11, 65504.0, -13, **_SIXTEEN_BITS),
    "float32": Dtype(
        "float32",
        "fp32",
        **_FLOATS,
        function_error=LIBRARY_ERROR,
        exact=EXACT_FLOAT32,
        exact_element=EXACT_ELEMENT_FLOAT32,
        products=3,
    ),
    "tf32": Dtype(
        "tf32",
        "tf32",
        **_FLOATS,
        function_error=TF32_ERROR,
        exact=EXACT_TF32,
        exact_element=EXACT_ELEMENT_TF32,
        stored_as="float32",
    ),
    "float64": Dtype(
        "float64",
        "fp64",
        unit_roundoff=2.0**-53,
        largest=(2 - 2.0**-52) * 2.0**1023,
        smallest_exponent=-1021,
        itemsize=8,
        element="double",
        math="accurate",
        function_error=LIBRARY_ERROR_FLOAT64,
        sum_error=2.0**-53,
        exact=EXACT_FLOAT64,
        exact_element=EXACT_ELEMENT_FLOAT64,
        products=2,
        sums="float64",
    ),
}


def dtype_info(name: str) -> Dtype:
    """What is known of a dtype. Raises ShapeError for an unknown name."""
    if name not in _DTYPES:
        raise unknown_dtype(name)
    return _DTYPES[name]


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of one of these, or of "int32" and "uint8", which kernels take too; bfloat16 is that of
    ml_dtypes. Raises ShapeError for an unknown name."""
    import numpy as np

    if name in ("int32", "uint8"):
        return np.dtype(name)
    if dtype_info(name).name == "bfloat16":
        import ml_dtypes

        extended: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return extended
    return np.dtype(dtype_info(name).stored)


def sums_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of what it is summed in. Raises ShapeError for an unknown name."""
    import numpy as np

    return np.dtype(dtype_info(name).sums)


def tolerance(dtype: str, seq: int, direction: Direction = "forward", terms: int = 1) -> float:
    """What an output of a pass of ``seq`` steps may differ by: the L2 norm of its difference from the float64
    reference (which rounds where the kernel does) over the L2 norm of the reference. terms: of the longest sum.

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

    In float32 and float64 two things are different. Functions err by more than u, such as e = 2^-21 in float32, where u
    = 2^-24, so that a value is off by e and not by sqrt(e u). And sums count, which are not exact beside the functions
    any more: of n terms in any order, off by sqrt(n) u at most as a root mean square (a random walk: additions of n
    terms of random sign, one after the other, make sqrt(n / 6) u). e is the hypotenuse of both. In TF32 e is what
    factors are rounded by, 2^-11.

    Raises ShapeError for an unknown dtype.
    """
    unit, error = dtype_info(dtype).unit_roundoff, _value_error(dtype, terms)
    carried = 2 - 0.5**seq
    derivative = 4 * error if direction == "backward" else 0.0
    return math.hypot(carried * max(error, math.sqrt(error * unit)), unit / 2, derivative)


def element_tolerance(dtype: str, terms: int = 1) -> float:
    """What any single element of an output may differ by, as a fraction of the largest magnitude in that output.

    Eight roundings to the wrong side, and eight errors of a value before them, which matter where the dtype is as exact
    as that. Far below what a lost or misplaced element is off by, which the norm of a large array would hide.
    """
    return 8 * (dtype_info(dtype).unit_roundoff + _value_error(dtype, terms))


def _value_error(dtype: str, terms: int) -> float:
    """e of tolerance: the relative error of a value before it is rounded."""
    info = dtype_info(dtype)
    return math.hypot(info.function_error, info.sum_error * math.sqrt(terms))


def far_elements(size: int, direction: Direction) -> int:
    """How many of an output's ``size`` elements may be farther off than element_tolerance: none forward.

    A gradient jumps where a step has a kink, such as the larger of two numbers that are equal, and the float32 of a
    kernel may come to lie on the other side of it: one in 2^20 may. (sLSTM's m is such a maximum: about one in 10^7 of
    random pairs are as close as float32 errs, and a few gradients follow each.)
    """
    return size >> 20 if direction == "backward" else 0


def half_spacing(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Half the distance to the next number of the dtype, of numbers that are such: what rounding to nearest errs by at
    most.

    values: float32, or float64 where the dtype is; the result is float64. Infinity and NaN have none that
    means anything.
    """
    import numpy as np

    info = dtype_info(dtype)
    exponent = np.where(values == 0, info.smallest_exponent, np.frexp(values)[1])
    half: NDArray[Any] = np.ldexp(info.unit_roundoff, np.maximum(exponent, info.smallest_exponent) - 1)
    return half
