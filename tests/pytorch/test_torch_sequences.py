"""Resets and lengths of rnn() on the CPU: against sequences that are cut by hand, or run alone."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from test_torch import tensors
from torch import Tensor

from kernelgen.cells import load_cell
from kernelgen.errors import ShapeError
from kernelgen.program.shape import Shape
from kernelgen.torch import operator as operators
from kernelgen.torch import reference, rnn, sequences, step
from kernelgen.torch.errors import ArgumentTypeError
from kernelgen.verify import reference as numpy_reference

pytestmark = pytest.mark.unit

B, T = 4, 7
SHAPE = Shape(B, T, 2, 3)
RESETS = torch.zeros(B, T, dtype=torch.bool)
RESETS[0, 3] = RESETS[1, 0] = RESETS[1, 1] = RESETS[2, 2] = RESETS[2, 5] = RESETS[2, 6] = True
LENGTHS = [7, 0, 5, 1]
CELLS = ("lstm", "gru", "slstm", "elman")


def loss(states: Tensor, last: Tensor) -> Tensor:
    """Something that every element of the results counts in, each by another weight."""
    weights = torch.cos(torch.arange(states.numel(), dtype=states.dtype)).view(states.shape)
    ends = torch.sin(1 + torch.arange(last.numel(), dtype=states.dtype)).view(last.shape)
    return (weights * states).sum() + (ends * last).sum()


def pieces(b: int, resets: bool, lengths: bool) -> list[tuple[int, int]]:
    """The steps of sequence b between its resets, up to its end."""
    end = LENGTHS[b] if lengths else T
    starts = sorted({0} | {t for t in range(end) if resets and RESETS[b, t]})
    return [(start, stop) for start, stop in zip(starts, [*starts[1:], end], strict=True) if start < stop]


def by_hand(wx: Tensor, r: Tensor, b: Tensor, initial: Tensor, cell: str, resets: bool, lengths: bool) -> Any:
    """Every piece of every sequence as a run of its own."""
    rows, lasts = [], []
    for index in range(B):
        start, parts = initial[:, index : index + 1], []
        last = start
        for begin, stop in pieces(index, resets, lengths):
            states, last = rnn(wx[index : index + 1, begin:stop], r, b, start, cell)
            parts.append(states)
        length = sum(part.shape[2] for part in parts)
        parts.append(wx.new_zeros((len(initial), 1, T - length, *wx.shape[3:])))
        rows.append(torch.cat(parts, dim=2))
        lasts.append(last)
    return torch.cat(rows, dim=1), torch.cat(lasts, dim=1)


@pytest.mark.parametrize(("resets", "lengths"), [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("cell", CELLS)
def test_it_is_as_if_sequences_were_cut_by_hand(cell: str, resets: bool, lengths: bool) -> None:
    leaves = tensors(cell, shape=SHAPE)
    wanted = by_hand(*leaves, cell, resets, lengths)
    own: dict[str, Any] = {"resets": RESETS if resets else None, "lengths": LENGTHS if lengths else None}
    found = rnn(*leaves, cell, **own)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
    made = torch.autograd.grad(loss(*found), leaves)
    expected = torch.autograd.grad(loss(*wanted), leaves)
    for one, other in zip(made, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    found = rnn(*leaves, cell, returns="hidden", recompute=True, **own)
    states, last = by_hand(*leaves, cell, resets, lengths)
    torch.testing.assert_close(found[0], states[:1], rtol=1e-12, atol=1e-14)
    made = torch.autograd.grad(loss(*found), leaves)
    expected = torch.autograd.grad(loss(states[:1], last), leaves)
    for one, other in zip(made, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_what_stands_behind_the_end_counts_for_nothing(cell: str) -> None:
    leaves = tensors(cell, shape=SHAPE)
    wanted = torch.autograd.grad(loss(*rnn(*leaves, cell, lengths=LENGTHS)), leaves)
    spoilt = leaves[0].detach().clone()
    for b, length in enumerate(LENGTHS):
        spoilt[b, length:] = float("nan")
    for recompute in (False, True):
        given = [spoilt.requires_grad_(), *leaves[1:]]
        states, last = rnn(*given, cell, lengths=torch.tensor(LENGTHS), recompute=recompute)
        assert all(not states[:, b, length:].any() for b, length in enumerate(LENGTHS))
        assert torch.equal(last[:, 1], leaves[3][:, 1])
        for one, other in zip(torch.autograd.grad(loss(states, last), given), wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    d_wx = torch.autograd.grad(loss(*rnn(*given, cell, lengths=LENGTHS)), spoilt)[0]
    assert all(not d_wx[b, length:].any() for b, length in enumerate(LENGTHS))


def test_a_reset_without_initial_states_begins_with_zeros() -> None:
    wx, r, b, _ = tensors("lstm", shape=SHAPE)
    zeros = torch.zeros(2, B, 2, 3, dtype=torch.float64)
    for one, other in zip(rnn(wx, r, b, None, resets=RESETS), rnn(wx, r, b, zeros, resets=RESETS), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("clip", [None, 0.05])
def test_both_references_agree(cell: str, clip: float | None) -> None:
    leaves = tensors(cell, shape=SHAPE)
    definition = load_cell(cell).with_gradient(recurrent_clip=clip)
    own: dict[str, Any] = {"resets": RESETS, "lengths": LENGTHS}
    states, last = rnn(*leaves, cell, recurrent_clip=clip, **own)
    d_states, d_last = torch.autograd.grad(loss(states, last), (states, last), retain_graph=True)
    made = torch.autograd.grad(loss(states, last), leaves)
    given = [leaf.detach().numpy() for leaf in leaves]
    arrays = {"resets": RESETS.numpy(), "lengths": np.array(LENGTHS)}
    passed = numpy_reference.forward(definition, *given, **arrays)
    np.testing.assert_allclose(passed.states, states.detach(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(passed.last, last.detach(), rtol=1e-12, atol=1e-14)
    wanted = numpy_reference.backward(definition, *given, d_states.numpy(), d_last.numpy(), **arrays)
    for one, other in zip(made, (wanted.d_wx, wanted.d_r, wanted.d_b, wanted.d_initial), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


def test_gradcheck_and_second_derivatives_of_the_reference() -> None:
    leaves = tensors("gru", shape=Shape(2, 3, 1, 2))
    own = operators.own_of(torch.tensor([[False, True, False], [False, False, True]]), [2, 3], leaves[0])

    def run(*given: Tensor) -> Tensor:
        return loss(*reference.forward(load_cell("gru"), *given, own=own)[:2])

    assert torch.autograd.gradcheck(run, leaves)
    assert torch.autograd.gradgradcheck(run, leaves)
    gradient = torch.func.grad(
        lambda r: loss(*rnn(leaves[0], r, *leaves[2:], "gru", resets=own.resets, lengths=[2, 3]))
    )
    wanted = torch.autograd.grad(run(*leaves), leaves[1])[0]
    torch.testing.assert_close(gradient(leaves[1]), wanted, rtol=1e-10, atol=1e-12)


def test_the_order_is_sorted_where_that_saves_time() -> None:
    lengths, wx = torch.tensor([1, 3, 2]), torch.zeros(3, 4, 1, 1, 2)
    for sort, wanted in ((True, [1, 2, 0]), (False, [0, 1, 2])):
        own = sequences.own_of_batch(None, lengths, wx, sort=sort)
        assert own.order is not None
        assert own.order.dtype == torch.int32
        assert own.order.tolist() == wanted
    assert not sequences.side_by_side(1, torch.device("cpu"))


def test_opcheck_and_one_graph() -> None:
    leaves = tensors("lstm", shape=Shape(3, 4, 1, 2))
    resets = torch.tensor([[False, True, False, True]] * 3)
    lengths = torch.tensor([4, 0, 3], dtype=torch.int32)
    own = operators.own_of(resets, lengths, leaves[0])
    for given in (own, (resets, None, None), (None, *own[1:])):
        torch.library.opcheck(operators._forward, (*leaves, *given, "lstm", False, "gates", False, None))

    def model(*given: Tensor) -> Tensor:
        return loss(*rnn(*given, "lstm", resets=resets, lengths=lengths))

    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for one, other in zip(
        torch.autograd.grad(compiled(*leaves), leaves), torch.autograd.grad(model(*leaves), leaves), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_a_step_begins_anew_where_it_is_told() -> None:
    wx, r, b, initial = tensors("lstm", shape=SHAPE)
    states, wanted = initial, rnn(wx, r, b, initial, resets=RESETS)[0]
    for t in range(T):
        states = step(wx[:, t], r, b, states, resets=RESETS[:, t], initial=initial)
        torch.testing.assert_close(states, wanted[:, :, t], rtol=1e-12, atol=1e-14)
    zeros = step(wx[:, 0], r, b, states, resets=RESETS[:, 3])
    torch.testing.assert_close(zeros[:, :1], step(wx[:1, 0], r, b), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("own", "error", "words"),
    [
        ({"resets": RESETS.float()}, ArgumentTypeError, "resets must be a bool tensor.*not torch.float32"),
        ({"resets": RESETS.numpy()}, ArgumentTypeError, "resets must be a bool tensor.*not ndarray"),
        ({"resets": RESETS[:, :-1]}, ShapeError, r"resets must be \[B, T\] = \[4, 7\], as Wx says, not \[4, 6\]"),
        ({"lengths": torch.ones(B)}, ArgumentTypeError, "lengths must be an int32 or int64 tensor.*not torch.float32"),
        ({"lengths": 3}, ArgumentTypeError, "lengths must be an int32 or int64 tensor.*not int"),
        ({"lengths": [1.5] * B}, ArgumentTypeError, "lengths must be .*not list"),
        ({"lengths": [7] * 3}, ShapeError, r"lengths must be \[B\] = \[4\], as Wx says, not \[3\]"),
        ({"lengths": [7, 0, 8, 1]}, ValueError, "lengths must be from 0 to T = 7; they are from 0 to 8"),
        ({"lengths": torch.tensor([7, -1, 8, 1])}, ShapeError, "they are from -1 to 8"),
    ],
)
def test_mistakes_are_told(own: dict[str, Any], error: type[Exception], words: str) -> None:
    leaves = tensors("lstm", shape=SHAPE)
    with pytest.raises(error, match=words):
        rnn(*leaves, "lstm", **own)


def test_16_bit_loops_take_them_too() -> None:
    leaves = tensors("lstm", torch.bfloat16, SHAPE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        states, last = rnn(*leaves, "lstm", resets=RESETS, lengths=LENGTHS)
        (states.float().sum() + last.float().sum()).backward()
    wanted = by_hand(*leaves, "lstm", True, True)
    assert torch.equal(states, wanted[0])
    assert torch.equal(last, wanted[1])
