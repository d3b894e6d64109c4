"""The 16-bit types of Wx, R, b and h: their names everywhere, their precision, and what a kernel may err by.

Importing this costs nothing; NumPy is imported when an array type is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kernelgen.errors import ShapeError, near_names

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Dtype:
    """name: as in a Shape. tag: the C++ type in namespace tilesmith. itemsize: bytes.

    unit_roundoff: the largest relative error of rounding to nearest, 2^-p for p bits of significand. largest: the
    largest finite value.
    """

    name: str
    tag: str
    unit_roundoff: float
    largest: float
    itemsize: int = 2


_DTYPES = {
    "bfloat16": Dtype("bfloat16", "bf16", 2.0**-8, (2 - 2.0**-7) * 2.0**127),
    "float16": Dtype("float16", "fp16", 2.0**-11, 65504.0),
}


def dtype_info(name: str) -> Dtype:
    """What is known of a dtype. Raises ShapeError for an unknown name."""
    if name not in _DTYPES:
        raise ShapeError(f"unknown dtype {name!r}; {near_names(name, _DTYPES)}")
    return _DTYPES[name]


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype; bfloat16 is that of ml_dtypes. Raises ShapeError for an unknown name."""
    import numpy as np

    if dtype_info(name).name == "bfloat16":
        import ml_dtypes

        extended: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return extended
    return np.dtype(np.float16)
