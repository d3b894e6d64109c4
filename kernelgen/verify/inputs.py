"""Random inputs and gradients for validating and measuring a kernel."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from kernelgen.cells.language import Cell
from kernelgen.program.arguments import arguments_of
from kernelgen.program.dtypes import numpy_dtype
from kernelgen.program.shape import Shape

SPREAD = 1.7
"""Wx and b are uniform in (-1.7, 1.7), close to unit variance; R is that over sqrt(D), so R h is of h's size."""


def random_inputs(
    cell: Cell, shape: Shape, seed: int = 0, *, initial: Literal["zeros", "random"] = "random"
) -> dict[str, npt.NDArray[Any]]:
    """Draw the arguments of a forward kernel, in the shape's dtype and C-contiguous; the same for the same seed.

    Returns wx [B, T, G_in, H, D], r [G_rec, H, D, D], b [G_bias, H, D], initial [S, B, H, D], as
    program.arguments.FORWARD_ARGUMENTS says. Random initial states and biases are uniform in the cell's ranges where it
    gives any, and R is scaled by its gain.
    """
    random = np.random.default_rng(seed)
    dtype = numpy_dtype(shape.dtype)
    batch, seq, heads, dim = shape.batch, shape.seq, shape.heads, shape.head_dim

    def uniform(low: float, high: float, *size: int) -> npt.NDArray[Any]:
        values = random.random(size, dtype=np.float32)
        return (low + (high - low) * values).astype(dtype)

    reach = cell.gain * SPREAD / float(np.sqrt(dim))
    wx = uniform(-SPREAD, SPREAD, batch, seq, len(cell.input_gates), heads, dim)
    r = uniform(-reach, reach, len(cell.recurrent_gates), heads, dim, dim)
    b = np.empty((len(cell.bias_gates), heads, dim), dtype)
    for index, gate in enumerate(cell.bias_gates):
        b[index] = uniform(*cell.ranges.get(cell.gates[gate].name, (-SPREAD, SPREAD)), heads, dim)
    if initial == "zeros":
        states = np.zeros((len(cell.states), batch, heads, dim), dtype)
    else:
        states = np.stack([uniform(*cell.range(name), batch, heads, dim) for name in cell.states])
    return {"wx": wx, "r": r, "b": b, "initial": states}


def random_gradients(cell: Cell, shape: Shape, seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    """Draw what a backward kernel gets from outside, in the shape's dtype and C-contiguous; the same for the same seed.

    Returns d_states [K, B, T, H, D], K = 1 (h) where the shape saves "hidden", else S, and d_last [S, B, H, D], uniform
    in (-1, 1).
    """
    random = np.random.default_rng((seed, 1))  # not the stream that the inputs come from
    dtype = numpy_dtype(shape.dtype)
    sizes = {argument.name: argument.shape for argument in arguments_of(cell, shape, "backward").inputs}
    return {
        name: (2 * random.random(sizes[name], dtype=np.float32) - 1).astype(dtype) for name in ("d_states", "d_last")
    }
