"""Forward-mode differentiation and torch.func: the right value, or an error that says so, and never zeros."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, func
from torch.autograd import forward_ad

from kernelgen.cells import cell_names, load_cell
from kernelgen.program.shape import Shape
from kernelgen.torch import GRU, LSTM, DifferentiationError, DoubleBackwardError, flashrnn, kernels, passes, rnn, step
from kernelgen.torch import operator as operators
from kernelgen.torch.sequences import NOTHING
from kernelgen.verify.inputs import random_inputs

pytestmark = pytest.mark.unit

OWN = str(Path(__file__).parents[2] / "examples" / "own_cell.py") + ":FASTGRNN"
SHAPE = Shape(2, 3, 1, 2)


def tensors(cell: str) -> tuple[Tensor, ...]:
    """wx, r, b and the initial states in float64."""
    inputs = random_inputs(load_cell(cell), SHAPE)
    return tuple(torch.from_numpy(inputs[name].astype(np.float64)) for name in ("wx", "r", "b", "initial"))


def directions(*given: Tensor) -> tuple[Tensor, ...]:
    """A tangent for each tensor."""
    return tuple(torch.arange(1, 1 + value.numel(), dtype=value.dtype).sin().view(value.shape) for value in given)


def by_dual_numbers(function: Callable[..., Any], given: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> Any:
    """The tangents of a function's results, by torch.autograd.forward_ad."""
    with forward_ad.dual_level():
        made = function(*map(forward_ad.make_dual, given, tangents))
        return [forward_ad.unpack_dual(result).tangent for result in made]


def zero_lstm() -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    """LSTM's states of one step from zeros, as a function of Wx; Wx; and a tangent that is one at gate g."""
    wx, tangent = torch.zeros(1, 1, 4, 1, 1), torch.zeros(1, 1, 4, 1, 1)
    tangent[0, 0, 2] = 1
    return lambda w: rnn(w, torch.zeros(4, 1, 1, 1), torch.zeros(4, 1, 1))[0].flatten(), wx, tangent


def test_the_smallest_case() -> None:
    run, wx, tangent = zero_lstm()
    right = torch.tensor([0.25, 0.5])
    assert torch.equal(func.jvp(run, (wx,), (tangent,))[1], right)
    assert torch.equal(func.jacfwd(run)(wx)[:, 0, 0, 2].flatten(), right)
    assert torch.equal(by_dual_numbers(lambda w: [run(w)], (wx,), (tangent,))[0], right)
    assert torch.equal(func.linearize(run, wx)[1](tangent), right)
    mixed = func.jvp(lambda w: run(w) + w.sum(), (wx,), (tangent,))[1]
    assert torch.equal(mixed, right + 1)


@pytest.mark.parametrize("name", [*cell_names(), pytest.param(OWN, id="own")])
def test_forward_mode_agrees_with_backward(name: str) -> None:
    given = tensors(name)
    tangents = directions(*given)
    leaves = [value.clone().requires_grad_() for value in given]
    results = rnn(*leaves, cell=name)
    weights = directions(*results)
    gradients = torch.autograd.grad(results, leaves, weights)
    wanted = sum((a * b).sum() for a, b in zip(gradients, tangents, strict=True))
    made = func.jvp(lambda *inputs: rnn(*inputs, cell=name), given, tangents)[1]
    found = sum((a * b).sum() for a, b in zip(made, weights, strict=True))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)
    for one, other in zip(by_dual_numbers(lambda *i: rnn(*i, cell=name), given, tangents), made, strict=True):
        torch.testing.assert_close(one, other)


def test_every_way_to_run_has_a_forward_mode() -> None:
    wx, r, b, initial = tensors("gru")
    (tangent,) = directions(wx)
    wanted_states, wanted_last = func.jvp(lambda w: rnn(w, r, b, initial, "gru"), (wx,), (tangent,))[1]
    hidden = func.jvp(lambda w: rnn(w, r, b, initial, "gru", returns="hidden", recompute=True), (wx,), (tangent,))[1]
    assert torch.equal(hidden[0], wanted_states[:1])
    assert torch.equal(hidden[1], wanted_last)
    one = func.jvp(lambda w: step(w, r, b, initial, "gru"), (wx[:, 0],), (tangent[:, 0],))[1]
    torch.testing.assert_close(one, wanted_states[:, :, 0])
    ours = [r[[2, 0, 1]], b[[3, 0, 1, 2]], initial.unsqueeze(2)]  # FlashRNN's gru has g first
    for backend in ("cuda_fused", "vanilla"):
        flash = func.jvp(
            lambda w: flashrnn(w, *ours, function="gru", backend=backend, dtype="float32")[0],  # noqa: B023
            (wx.float(),),
            (tangent.float(),),
        )[1]
        torch.testing.assert_close(flash, wanted_states.float())
    last_alone = torch.autograd.grad(rnn(wx.requires_grad_(), r, b, initial, "gru")[1].sum(), wx)[0]
    torch.testing.assert_close(func.grad(lambda w: rnn(w, r, b, initial, "gru")[1].sum())(wx), last_alone)


def test_second_derivatives_of_torch_func() -> None:
    wx, r, b, _ = tensors("lstm")

    def loss(weights: Tensor) -> Tensor:
        return rnn(wx, weights, b)[0].square().sum()

    def slope(weights: Tensor) -> Tensor:
        leaf = weights.detach().requires_grad_()
        return torch.autograd.grad(loss(leaf), leaf)[0].flatten()

    made = func.hessian(loss)(r).reshape(r.numel(), r.numel())
    torch.testing.assert_close(func.jacrev(func.jacrev(loss))(r).reshape(made.shape), made)
    width = 1e-6
    for index in (0, r.numel() - 1):
        move = torch.zeros(r.numel(), dtype=r.dtype)
        move[index] = width
        moved = move.view(r.shape)
        torch.testing.assert_close(
            made[index], (slope(r + moved) - slope(r - moved)) / (2 * width), rtol=1e-6, atol=1e-7
        )


@pytest.mark.parametrize("module", [LSTM, GRU])
def test_modules_work_with_functional_call(module: Any) -> None:
    torch.manual_seed(0)
    layers, x = module(2, 3, dtype=torch.float64), torch.randn(3, 2, 2, dtype=torch.float64)
    parameters = dict(layers.named_parameters())
    made = func.grad(lambda values: func.functional_call(layers, values, (x,))[0].square().sum())(parameters)
    layers(x)[0].square().sum().backward()
    for name, parameter in parameters.items():
        torch.testing.assert_close(made[name], parameter.grad)


def test_vmap_keeps_the_gradients_around_it() -> None:
    wx, r, b, _ = tensors("lstm")
    several = torch.stack([wx, 0.5 * wx]).requires_grad_()

    def run(one: Tensor) -> Tensor:
        return rnn(one, r, b)[0]

    (wanted,) = torch.autograd.grad(torch.stack([run(one) for one in several]).square().sum(), several)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of PyTorch: there is no batching rule
        (made,) = torch.autograd.grad(func.vmap(run)(several).square().sum(), several)
    torch.testing.assert_close(made, wanted)
    by_func = func.vmap(func.grad(lambda one: run(one).square().sum()))(several.detach())
    torch.testing.assert_close(by_func, wanted)


def test_inside_torch_compile_there_is_an_error_or_the_right_value() -> None:
    run, wx, tangent = zero_lstm()

    def slope(w: Tensor) -> Tensor:
        made: Tensor = func.jvp(run, (w,), (tangent,))[1]
        return made

    with pytest.raises(Exception, match="no rule for forward-mode differentiation"):
        torch.compile(slope, backend="aot_eager", fullgraph=True)(wx)
    assert torch.equal(torch.compile(slope, backend="aot_eager")(wx), torch.tensor([0.25, 0.5]))
    torch.compiler.reset()
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    compiled(wx)
    with pytest.raises(DifferentiationError, match=r"inside torch\.compile"):
        by_dual_numbers(lambda w: [compiled(w)], (wx,), (tangent,))
    torch.compiler.reset()


def test_what_has_no_derivative_says_so() -> None:
    wx, r, b, _ = tensors("lstm")
    (tangent,) = directions(wx)
    for option in ({"recurrent_cut": True}, {"recurrent_clip": 1.0}):
        with pytest.raises(DifferentiationError, match="change the backward pass alone"):
            func.jvp(lambda w: rnn(w, r, b, **option)[0], (wx,), (tangent,))  # noqa: B023
    options = ("lstm", False, "nothing", False, None)
    with pytest.raises(DifferentiationError, match="no rule for forward-mode"):
        func.jvp(lambda w: operators._forward(w, r, b, None, *NOTHING, *options)[0], (wx,), (tangent,))
    leaf = wx.clone().requires_grad_()
    states, _ = rnn(leaf, r, b)
    with pytest.raises(DifferentiationError, match="one gradient at a time"):
        torch.autograd.grad(states, leaf, torch.stack([states, states]).detach(), is_grads_batched=True)
    with pytest.raises(DoubleBackwardError):
        torch.autograd.functional.jvp(lambda w: rnn(w, r, b)[0], wx, tangent)


def test_where_kernels_would_run_a_warning_says_that_they_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    class Never:
        def kernel(self, *_: Any) -> Any:
            raise AssertionError("no kernel is asked for")

    monkeypatch.setattr(kernels, "_warned", set())
    monkeypatch.setitem(passes.ENGINES, "cpu", Never())
    run, wx, tangent = zero_lstm()
    with pytest.warns(RuntimeWarning, match="kernels know nothing of forward mode") as told:
        func.jacfwd(run)(wx)
    assert sum(warning.category is RuntimeWarning for warning in told) == 1  # PyTorch has others of its own
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        func.jvp(run, (wx,), (tangent,))  # once is enough
