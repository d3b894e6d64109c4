"""Random inputs and gradients for validating and measuring a kernel."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from kernelgen.cells.language import Cell
from kernelgen.program.arguments import arguments_of
from kernelgen.program.dtypes import numpy_dtype, sums_dtype
from kernelgen.program.shape import Shape

SPREAD = 1.7
"""Wx, x and b are uniform in (-1.7, 1.7), close to unit variance; R is that over sqrt(D), so R h is of h's size, and W
that over sqrt(I), so W x is of x's."""

AT_ONCE = 1 << 16
"""Numbers that are drawn before they are scaled and rounded: a processor's cache holds them."""


def random_inputs(
    cell: Cell, shape: Shape, seed: int = 0, *, initial: Literal["zeros", "random"] = "random"
) -> dict[str, npt.NDArray[Any]]:
    """Draw the arguments of a forward kernel, in the shape's dtype and C-contiguous; the same for the same seed.

    Returns wx [B, T, G_in, H, D], or, where the shape has inputs, x [B, T, I], w [G_in, H, D, I] and input_bias
    [G_in, H, D]; r [G_rec, H, D, D], b [G_bias, H, D], initial [S, B, H, D], as program/arguments.py says. Random
    initial states and biases are uniform in the cell's ranges where it gives any, and R is scaled by its gain.
    """
    random = np.random.default_rng(seed)
    dtype, drawn = numpy_dtype(shape.dtype), sums_dtype(shape.dtype)
    batch, seq, heads, dim = shape.batch, shape.seq, shape.heads, shape.head_dim

    def uniform(low: float, high: float, *size: int) -> npt.NDArray[Any]:
        found = np.empty(size, dtype)
        flat = found.reshape(-1)
        for first in range(0, flat.size, AT_ONCE):
            part = flat[first : first + AT_ONCE]
            values = random.random(part.size, dtype=drawn)
            values *= high - low
            values += low
            part[...] = values
        return found

    reach = cell.gain * SPREAD / float(np.sqrt(dim))
    given = {}
    if not shape.inputs:
        given["wx"] = uniform(-SPREAD, SPREAD, batch, seq, len(cell.input_gates), heads, dim)
    r = uniform(-reach, reach, len(cell.recurrent_gates), heads, dim, dim)
    b = np.empty((len(cell.bias_gates), heads, dim), dtype)
    for index, gate in enumerate(cell.bias_gates):
        b[index] = uniform(*cell.ranges.get(cell.gates[gate].name, (-SPREAD, SPREAD)), heads, dim)
    if initial == "zeros":
        states = np.zeros((len(cell.states), batch, heads, dim), dtype)
    else:
        states = np.stack([uniform(*cell.range(name), batch, heads, dim) for name in cell.states])
    if shape.inputs:
        across = SPREAD / float(np.sqrt(shape.inputs))
        given["x"] = uniform(-SPREAD, SPREAD, batch, seq, shape.inputs)
        given["w"] = uniform(-across, across, len(cell.input_gates), heads, dim, shape.inputs)
        given["input_bias"] = uniform(-SPREAD / 2, SPREAD / 2, len(cell.input_gates), heads, dim)
    return {**given, "r": r, "b": b, "initial": states}


def random_own(shape: Shape, seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    """Draw what sequences have of their own, as far as the shape asks for it; the same for the same seed.

    Returns resets [B, T] (uint8), about one in 16 steps or, of a few steps, one in 4; lengths [B] (int32), from 0 to T;
    order [B] (int32), the longest first or, for odd seeds, any.
    """
    random = np.random.default_rng((seed, 2))
    found: dict[str, npt.NDArray[Any]] = {}
    if shape.resets:
        chance = 1 / 16 if shape.seq > FEW_STEPS else 1 / 4
        found["resets"] = (random.random((shape.batch, shape.seq)) < chance).astype(np.uint8)
    if shape.lengths:
        lengths = found["lengths"] = random.integers(0, shape.seq, shape.batch, np.int32, endpoint=True)
        order = random.permutation(shape.batch) if seed % 2 else np.argsort(-lengths, kind="stable")
        found["order"] = order.astype(np.int32)
    return found


def spoil_behind_the_ends(arrays: dict[str, npt.NDArray[Any] | None], lengths: npt.NDArray[Any]) -> None:
    """Replace what stands behind the ends of sequences in wx and x [B, T, ...] and d_states [K, B, T, ...] by
    copies with NaN there, which must not matter."""
    for name, lead in (("wx", 0), ("x", 0), ("d_states", 1)):
        array = arrays.get(name)
        if array is not None:
            behind = np.arange(array.shape[lead + 1]) >= lengths[:, None]
            spoilt = arrays[name] = array.copy()
            spoilt[(slice(None),) * lead + (behind,)] = np.nan


FEW_STEPS = 32


def random_gradients(cell: Cell, shape: Shape, seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    """Draw what a backward kernel gets from outside, in the shape's dtype and C-contiguous; the same for the same seed.

    Returns d_states [K, B, T, H, D], K = 1 (h) where the shape saves "hidden", else S, and d_last [S, B, H, D], uniform
    in (-1, 1).
    """
    random = np.random.default_rng((seed, 1))  # not the stream that the inputs come from
    dtype, drawn = numpy_dtype(shape.dtype), sums_dtype(shape.dtype)
    sizes = {argument.name: argument.shape for argument in arguments_of(cell, shape, "backward").inputs}
    return {name: (2 * random.random(sizes[name], dtype=drawn) - 1).astype(dtype) for name in ("d_states", "d_last")}
