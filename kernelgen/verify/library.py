"""The products that a library makes, on the CPU: for the emulator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelgen.errors import EmulationError
from kernelgen.program.dtypes import sums_dtype

if TYPE_CHECKING:
    from kernelgen.program.product import Factor, ProductCall
    from kernelgen.program.shape import Shape

Array = np.ndarray[Any, Any]


def multiply(call: ProductCall, shape: Shape, arguments: Mapping[str, Any]) -> None:
    """Make a product of a program at a shape: summed in float64, then rounded to what the result is.

    arguments: the arrays by name. Raises EmulationError for one that is not there, or of another shape.
    """
    first, second, result = (_part(call, factor, shape, arguments) for factor in call.factors)
    with np.errstate(all="ignore"):
        made = np.einsum(call.equation, first.astype(np.float64), second.astype(np.float64), optimize=True)
        result[...] = made.astype(sums_dtype(call.math)).astype(result.dtype)


def _part(call: ProductCall, factor: Factor, shape: Shape, arguments: Mapping[str, Any]) -> Array:
    """What a product takes of an array, as a view."""
    array: Array = arguments[factor.name]
    extents = call.extents(shape)
    sizes = tuple(factor.sliced[axis][1] if axis in factor.sliced else extents[axis] for axis in factor.axes)
    if not isinstance(array, np.ndarray) or array.shape != sizes:
        raise EmulationError(f"{call} needs an array {factor.name} {list(sizes)}, not {getattr(array, 'shape', array)}")
    begins = (factor.sliced.get(axis, (0, 0))[0] for axis in factor.axes)
    return array[tuple(slice(begin, begin + extents[axis]) for begin, axis in zip(begins, factor.axes, strict=True))]
