"""The float64 reference of any cell, forward and backward: what every kernel is measured against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kernelgen.cells.language import Cell
from kernelgen.emit.numpy import numpy_backward, numpy_step
from kernelgen.errors import ShapeError
from kernelgen.verify.batch_parts import in_parts
from kernelgen.verify.products import HeadProduct, sum_of_products
from kernelgen.verify.sequences import Sequences

Array = npt.NDArray[np.float64]

AHEAD = 64
"""Steps whose products are made at once where what they are of is known: one large product for many small ones."""


@dataclass(frozen=True)
class ForwardResult:
    """states [S, B, T, H, D]: every state after every step. last [S, B, H, D]: those after the last step. gates
    [G, B, T, H, D]: every gate's sum before the step, or None where they were not kept. All float64."""

    states: Array
    last: Array
    gates: Array | None

    def part(self, rows: slice) -> ForwardResult:
        """That of some sequences, in the same memory."""
        gates = None if self.gates is None else self.gates[:, rows]
        return ForwardResult(self.states[:, rows], self.last[:, rows], gates)


@dataclass(frozen=True)
class BackwardResult:
    """The gradients of a loss. d_wx [B, T, G_in, H, D], d_r [G_rec, H, D, D], d_b [G_bias, H, D], d_initial
    [S, B, H, D], and d_gates [G, B, T, H, D], those of every gate's sum. All float64."""

    d_wx: Array
    d_r: Array
    d_b: Array
    d_initial: Array
    d_gates: Array


def input_product(x: npt.NDArray[Any], w: npt.NDArray[Any], bias: npt.NDArray[Any] | None = None) -> Array:
    """Wx [B, T, G_in, H, D] in float64, from x [B, T, I], w [G_in, H, D, I] and a bias [G_in, H, D] or None for zeros.

    Raises ShapeError for an array of another shape.
    """
    if x.ndim != 3 or w.ndim != 4:
        raise ShapeError(f"x must have the axes [B, T, I] and w [G_in, H, D, I], not shapes {x.shape} and {w.shape}")
    _check("w", w, (*w.shape[:3], x.shape[2]))
    product: Array = np.tensordot(x.astype(np.float64), w.astype(np.float64), axes=(2, 3))
    if bias is None:
        return product
    _check("input_bias", bias, w.shape[:3])
    return product + bias.astype(np.float64)


def forward(
    cell: Cell,
    wx: npt.NDArray[Any],
    r: npt.NDArray[Any],
    b: npt.NDArray[Any],
    initial: npt.NDArray[Any] | None = None,
    *,
    round_h: npt.DTypeLike | None = None,
    keep_gates: bool = True,
    follow: npt.NDArray[Any] | None = None,
    resets: npt.NDArray[Any] | None = None,
    lengths: npt.NDArray[Any] | None = None,
) -> ForwardResult:
    """Run the recurrence in float64.

    wx [B, T, G_in, H, D], r [G_rec, H, D, D] with r[g, h, d, p] from previous unit p to unit d, b [G_bias, H, D],
    initial [S, B, H, D] or None for zeros; of any dtype that converts to float64. B sequences of T steps, H heads of
    D units; G_in, G_rec and G_bias of the cell's gates have an input, a recurrent product, a bias; S states.

    round_h: a NumPy dtype. The first state is rounded to it (nearest, ties to even) at the start and after every step,
    because that is what a kernel feeds back: R multiplies the rounded value, and the step reads it too. Other states
    are never rounded.

    follow [B, T, H, D]: h after every step as somebody else has it. What is returned of a step is the reference's own,
    but the next step begins with this h, so that a difference shows in the step that made it and in no other.

    resets [B, T]: where they are not 0, the states before the step are the initial ones. lengths [B]: the steps of each
    sequence, 0 to T. What is returned of a step behind the end is zeros, and the last states are the sequence's own.

    Raises ShapeError for an array of another shape, and for a length that is not from 0 to T.
    """
    _check_inputs(cell, wx, r, b, initial)
    batch, seq, _, heads, dim = wx.shape
    if follow is not None:
        _check("follow", follow, (batch, seq, heads, dim))
    own = Sequences.of(resets, lengths, batch, seq)
    gates, states = len(cell.gates), len(cell.states)
    result = ForwardResult(
        np.zeros((states, batch, seq, heads, dim)),
        np.empty((states, batch, heads, dim)),
        np.zeros((gates, batch, seq, heads, dim)) if keep_gates else None,
    )

    def run(rows: slice) -> None:
        start, followed = (None if a is None else a[at] for a, at in ((initial, (slice(None), rows)), (follow, rows)))
        _run_forward(cell, wx[rows], r, b, start, round_h, followed, own.part(rows), result.part(rows))

    in_parts(run, batch, gates * heads * dim)
    return result


def _run_forward(
    cell: Cell,
    wx: npt.NDArray[Any],
    r: npt.NDArray[Any],
    b: npt.NDArray[Any],
    initial: npt.NDArray[Any] | None,
    round_h: npt.DTypeLike | None,
    follow: npt.NDArray[Any] | None,
    own: Sequences,
    result: ForwardResult,
) -> None:
    """``forward`` of sequences that run together, into ``result``."""
    batch, seq, _, heads, dim = wx.shape
    recurrent, inputs, biases = cell.recurrent_gates, cell.input_gates, cell.bias_gates
    gates, states = len(cell.gates), len(cell.states)
    step = numpy_step(cell)
    # Inside the loop every array is [.., H, B, D], so that one batched product serves all gates of all heads.
    weights = np.asarray(r, np.float64).transpose(1, 3, 0, 2).reshape(heads, dim, len(recurrent) * dim)
    product = HeadProduct(weights, batch)
    bias = np.zeros((gates, heads, 1, dim))
    bias[list(biases)] = np.asarray(b, np.float64)[:, :, None, :]
    shape = (heads, batch, dim)
    state = [np.zeros(shape)] * states if initial is None else list(_inner(initial))
    state[0] = _rounded(state[0], round_h)
    start, last = list(state), list(state)
    before = None  # [B, T, H, D]: h before every step, where somebody else has it
    if follow is not None:
        before = own.before(follow.astype(np.float64), start[0].transpose(1, 0, 2))

    ahead = np.empty(0)
    with_input, with_product = _of_gates(inputs, gates), _of_gates(recurrent, gates)
    plain = own.plain
    for t in range(seq):
        if not plain:
            restarts = own.restarts(t)
            state = [np.where(restarts, first, value) for first, value in zip(start, state, strict=True)]
        if before is None:
            products = product(state[0])
        else:
            if t % AHEAD == 0:
                ahead = _products_ahead(before[:, t : t + AHEAD].transpose(2, 1, 0, 3), weights)
            products = ahead[:, t % AHEAD]
        sums = np.broadcast_to(bias, (gates, *shape)).copy()
        if inputs:
            sums[with_input] += own.inside(_inner(wx[:, t].transpose(1, 0, 2, 3)), t)
        sums[with_product] += products.reshape(heads, batch, len(recurrent), dim).transpose(2, 0, 1, 3)
        state = step(list(sums), state)
        state[0] = _rounded(state[0], round_h)
        last = [own.inside(value, t, old) for value, old in zip(state, last, strict=True)]
        for index, value in enumerate(state):
            result.states[index, :, t] = own.inside(value, t).transpose(1, 0, 2)
        if result.gates is not None:
            result.gates[:, :, t] = own.inside(sums, t).transpose(0, 2, 1, 3)
        if follow is not None:
            state[0] = follow[:, t].astype(np.float64).transpose(1, 0, 2)
    result.last[...] = np.stack(last).transpose(0, 2, 1, 3)


def backward(
    cell: Cell,
    wx: npt.NDArray[Any],
    r: npt.NDArray[Any],
    b: npt.NDArray[Any],
    initial: npt.NDArray[Any] | None = None,
    d_states: npt.NDArray[Any] | None = None,
    d_last: npt.NDArray[Any] | None = None,
    *,
    round_h: npt.DTypeLike | None = None,
    round_saved: npt.DTypeLike | None = None,
    round_d_gates: npt.DTypeLike | None = None,
    gates_saved: bool = True,
    result: ForwardResult | None = None,
    follow: npt.NDArray[Any] | None = None,
    resets: npt.NDArray[Any] | None = None,
    lengths: npt.NDArray[Any] | None = None,
) -> BackwardResult:
    """Run the backward pass in float64, with the derived backward step.

    wx, r, b, initial, round_h as for ``forward``. d_states [K, B, T, H, D]: the gradients of the first K states after
    every step, 1 <= K <= S, or None for zeros. d_last [S, B, H, D]: those of the states after the last step, which are
    added, or None. A rounding passes its gradient on unchanged.

    round_saved: a NumPy dtype; the gates' sums and the states are rounded to it before the backward step reads them, as
    where a kernel has saved them so; the states alone where not gates_saved. round_d_gates: the gates' gradients are
    rounded to it before anything is made of them. result: what ``forward`` returned for the same arguments, with its
    gates; computed here where it is not given.

    follow [B, T, G_in, H, D]: d_wx as somebody else has it, already rounded. What is returned of a step's gates is the
    reference's own, and so is the sum of it, d_b; but d_r and the step before are made from these gradients.

    resets, lengths: as for ``forward``. The gradients of a step behind the end are zeros, whatever d_states says of it.

    Raises ShapeError for an array of another shape, and where ``result`` has no gates.
    """
    _check_inputs(cell, wx, r, b, initial)
    batch, seq, _, heads, dim = wx.shape
    recurrent, inputs, biases = list(cell.recurrent_gates), list(cell.input_gates), list(cell.bias_gates)
    gates, states = len(cell.gates), len(cell.states)
    if d_states is not None:
        known = d_states.shape[0] if d_states.ndim and 1 <= d_states.shape[0] <= states else states
        _check("d_states", d_states, (known, batch, seq, heads, dim))
    if d_last is not None:
        _check("d_last", d_last, (states, batch, heads, dim))
    if follow is not None:
        _check("follow", follow, (batch, seq, len(inputs), heads, dim))
    own = Sequences.of(resets, lengths, batch, seq)
    result = result or forward(cell, wx, r, b, initial, round_h=round_h, resets=resets, lengths=lengths)
    if result.gates is None:
        raise ShapeError("the backward reference needs the gates of the forward result; run it with keep_gates=True")

    start = np.zeros((states, batch, heads, dim)) if initial is None else np.asarray(initial).astype(np.float64)
    start[0] = _rounded(start[0], round_h)
    d_gates = np.empty((gates, batch, seq, heads, dim))
    sent = d_gates if follow is None else np.empty_like(d_gates)  # what d_r and the step before are made from
    d_initial = np.empty_like(start)
    rounds = _Rounding(round_saved if gates_saved else None, round_saved, round_d_gates)

    def run(rows: slice) -> None:
        of = (slice(None), rows)
        given, last = (None if a is None else a[of] for a in (d_states, d_last))
        followed = None if follow is None else follow[rows]
        made = _Made(d_gates[of], sent[of], d_initial[of])
        _run_backward(cell, r, start[of], given, last, rounds, followed, own.part(rows), result.part(rows), made)

    in_parts(run, batch, gates * heads * dim)

    before = own.before(result.states[0], start[0])  # h(t-1): [B, T, H, D]
    d_r = np.empty((len(recurrent), heads, dim, dim))
    for head in range(heads):
        of_head = np.ascontiguousarray(before[:, :, head]).reshape(batch * seq, dim)
        for index, gate in enumerate(recurrent):
            d_r[index, head] = sum_of_products(sent[gate, :, :, head].reshape(batch * seq, dim), of_head)
    d_b = d_gates.sum(axis=(1, 2))[biases]
    d_wx = np.moveaxis(d_gates[inputs], 0, 2)
    return BackwardResult(d_wx, d_r, d_b, d_initial, d_gates)


@dataclass(frozen=True)
class _Rounding:
    """What a kernel rounds: the gates' sums and states that the step reads, and the gates' gradients that it gives."""

    gates: npt.DTypeLike | None
    states: npt.DTypeLike | None
    d_gates: npt.DTypeLike | None


@dataclass(frozen=True)
class _Made:
    """What some sequences' backward pass writes. d_gates, sent [G, B, T, H, D], which may be the same; d_initial
    [S, B, H, D]."""

    d_gates: Array
    sent: Array
    d_initial: Array


def _run_backward(
    cell: Cell,
    r: npt.NDArray[Any],
    start: Array,
    d_states: npt.NDArray[Any] | None,
    d_last: npt.NDArray[Any] | None,
    rounds: _Rounding,
    follow: npt.NDArray[Any] | None,
    own: Sequences,
    result: ForwardResult,
    made: _Made,
) -> None:
    """``backward`` of sequences that run together, up to the gradients that all of them share."""
    assert result.gates is not None
    _, batch, seq, heads, dim = result.gates.shape
    states = len(cell.states)
    recurrent, inputs = list(cell.recurrent_gates), list(cell.input_gates)
    step = numpy_backward(cell)
    # [H, G_rec D, D]: one batched product sends all gates' gradients of all heads back to h.
    weights = np.asarray(r, np.float64).transpose(1, 0, 2, 3).reshape(heads, len(recurrent) * dim, dim)
    send = HeadProduct(weights, batch)
    # What step t + 1 sends back, to the states before it; and what resets send to the initial ones.
    carried = np.zeros((states, heads, batch, dim)) if d_last is None else _inner(d_last)
    d_start = np.zeros((states, heads, batch, dim))
    foreseen = None  # [B, T, G_rec, H, D]: what R takes back, where all of it is known
    if follow is not None and {*recurrent} <= {*inputs}:
        foreseen = follow[:, :, [inputs.index(gate) for gate in recurrent]]
    ahead = np.empty(0)
    plain = own.plain
    for t in reversed(range(seq)):
        restarts = own.restarts(t)
        d_next = carried.copy()
        if cell.gradient.recurrent_clip is not None:
            d_next[0] = np.where(own.last(t), d_next[0], _clipped(d_next[0], cell.gradient.recurrent_clip))
        if d_states is not None:
            d_next[: len(d_states)] += own.inside(_inner(d_states[:, :, t]), t)
        sums = _rounded(_inner(result.gates[:, :, t]), rounds.gates)
        previous = _inner(result.states[:, :, t - 1] if t else start)
        if not plain:
            previous = np.where(restarts, _inner(start), previous)
        of_step, back = step(list(sums), list(_rounded(previous, rounds.states)), list(d_next))
        of_step = [own.inside(value, t) for value in of_step]
        back = [own.inside(value, t, old) for value, old in zip(back, carried, strict=True)]
        d_sums = _rounded(np.stack(of_step), rounds.d_gates)
        if follow is not None:
            made.d_gates[:, :, t] = np.stack(of_step).transpose(0, 2, 1, 3)
            d_sums[inputs] = _inner(np.moveaxis(follow[:, t], 1, 0))
        carried = np.stack(back)
        if not cell.gradient.recurrent_cut:
            if foreseen is None:
                product = send(_per_head(d_sums[recurrent]))
            else:
                if t % AHEAD == AHEAD - 1 or t == seq - 1:
                    known = foreseen[:, t - t % AHEAD : t + 1].astype(np.float64).transpose(3, 1, 0, 2, 4)
                    ahead = _products_ahead(known.reshape(heads, -1, batch, len(recurrent) * dim), weights)
                product = ahead[:, t % AHEAD]
            carried[0] += own.inside(product, t)
        if not plain:
            d_start += np.where(restarts, carried, 0)
            carried = np.where(restarts, 0, carried)
        made.sent[:, :, t] = d_sums.transpose(0, 2, 1, 3)
    made.d_initial[...] = (d_start + carried).transpose(0, 2, 1, 3)


def _products_ahead(rows: Array, weights: Array) -> Array:
    """[H, N, B, K] by [H, K, M], for N steps at once: [H, N, B, M]."""
    heads, steps, batch, inner = rows.shape
    products: Array = np.matmul(rows.reshape(heads, steps * batch, inner), weights)
    return products.reshape(heads, steps, batch, weights.shape[-1])


def _of_gates(some: Sequence[int], gates: int) -> slice | list[int]:
    """The index of some gates among all: where they are all of them, what NumPy adds to in place."""
    return slice(None) if list(some) == list(range(gates)) else list(some)


def _per_head(array: Array) -> Array:
    """[G, H, B, D] as [H, B, G D]."""
    gates, heads, batch, dim = array.shape
    return array.transpose(1, 2, 0, 3).reshape(heads, batch, gates * dim)


def _clipped(value: Array, bound: float | None) -> Array:
    return value if bound is None else np.clip(value, -bound, bound)


def _check_inputs(
    cell: Cell, wx: npt.NDArray[Any], r: npt.NDArray[Any], b: npt.NDArray[Any], initial: npt.NDArray[Any] | None
) -> None:
    if wx.ndim != 5:
        raise ShapeError(f"wx must have the five axes [B, T, G_in, H, D], not shape {wx.shape}")
    batch, seq, _, heads, dim = wx.shape
    _check("wx", wx, (batch, seq, len(cell.input_gates), heads, dim))
    _check("r", r, (len(cell.recurrent_gates), heads, dim, dim))
    _check("b", b, (len(cell.bias_gates), heads, dim))
    if initial is not None:
        _check("initial", initial, (len(cell.states), batch, heads, dim))


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
