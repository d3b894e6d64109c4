"""The float64 reference of any cell: what every kernel is measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kernelgen.cells.language import Cell
from kernelgen.emit.numpy import numpy_step
from kernelgen.errors import ShapeError

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ForwardResult:
    """states [S, B, T, H, D]: every state after every step. last [S, B, H, D]: those after the last step. gates
    [G, B, T, H, D]: every gate's sum before the step, or None where they were not kept. All float64."""

    states: Array
    last: Array
    gates: Array | None


def forward(
    cell: Cell,
    wx: npt.NDArray[Any],
    r: npt.NDArray[Any],
    b: npt.NDArray[Any],
    initial: npt.NDArray[Any] | None = None,
    *,
    round_h: npt.DTypeLike | None = None,
    keep_gates: bool = True,
) -> ForwardResult:
    """Run the recurrence in float64.

    wx [B, T, G_in, H, D], r [G_rec, H, D, D] with r[g, h, d, p] from previous unit p to unit d, b [G_bias, H, D],
    initial [S, B, H, D] or None for zeros; of any dtype that converts to float64. B sequences of T steps, H heads of
    D units; G_in, G_rec and G_bias of the cell's gates have an input, a recurrent product, a bias; S states.

    round_h: a NumPy dtype. The first state is rounded to it (nearest, ties to even) at the start and after every step,
    because that is what a kernel feeds back: R multiplies the rounded value, and the step reads it too. Other states
    are never rounded.

    Raises ShapeError for an array of another shape.
    """
    if wx.ndim != 5:
        raise ShapeError(f"wx must have the five axes [B, T, G_in, H, D], not shape {wx.shape}")
    batch, seq, _, heads, dim = wx.shape
    recurrent, inputs, biases = cell.recurrent_gates, cell.input_gates, cell.bias_gates
    gates, states = len(cell.gates), len(cell.states)
    _check("wx", wx, (batch, seq, len(inputs), heads, dim))
    _check("r", r, (len(recurrent), heads, dim, dim))
    _check("b", b, (len(biases), heads, dim))
    if initial is not None:
        _check("initial", initial, (states, batch, heads, dim))

    step = numpy_step(cell)
    # Inside the loop every array is [.., H, B, D], so that one batched product serves all gates of all heads.
    weights = np.asarray(r, np.float64).transpose(1, 3, 0, 2).reshape(heads, dim, len(recurrent) * dim)
    bias = np.zeros((gates, heads, 1, dim))
    bias[list(biases)] = np.asarray(b, np.float64)[:, :, None, :]
    shape = (heads, batch, dim)
    state = [np.zeros(shape)] * states if initial is None else list(_inner(initial))
    state[0] = _rounded(state[0], round_h)

    all_states = np.empty((states, batch, seq, heads, dim))
    all_gates = np.empty((gates, batch, seq, heads, dim)) if keep_gates else None
    for t in range(seq):
        sums = np.broadcast_to(bias, (gates, *shape)).copy()
        if inputs:
            sums[list(inputs)] += _inner(wx[:, t].transpose(1, 0, 2, 3))
        products = np.matmul(state[0], weights).reshape(heads, batch, len(recurrent), dim)
        sums[list(recurrent)] += products.transpose(2, 0, 1, 3)
        state = step(list(sums), state)
        state[0] = _rounded(state[0], round_h)
        for index, value in enumerate(state):
            all_states[index, :, t] = value.transpose(1, 0, 2)
        if all_gates is not None:
            all_gates[:, :, t] = sums.transpose(0, 2, 1, 3)
    last = np.stack([value.transpose(1, 0, 2) for value in state])
    return ForwardResult(all_states, last, all_gates)


def _inner(array: npt.NDArray[Any]) -> Array:
    """[N, B, H, D] of any dtype as [N, H, B, D] in float64."""
    return np.asarray(array).astype(np.float64).transpose(0, 2, 1, 3)


def _rounded(value: Array, dtype: npt.DTypeLike | None) -> Array:
    if dtype is None:
        return value
    with np.errstate(over="ignore"):
        return value.astype(dtype).astype(np.float64)


def _check(name: str, array: npt.NDArray[Any], expected: tuple[int, ...]) -> None:
    if array.shape != expected:
        raise ShapeError(f"{name} must have shape {expected}, not {array.shape}")
