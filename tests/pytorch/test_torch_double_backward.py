"""Gradients of gradients: right where double_backward(True) was said, an error that names it elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kernelgen.cells import load_cell
from kernelgen.program.shape import Shape
from kernelgen.torch import (
    GRU,
    LSTM,
    RNN,
    DoubleBackwardError,
    GRUCell,
    double_backward,
    flashrnn,
    rnn,
)
from kernelgen.verify.inputs import random_inputs

pytestmark = pytest.mark.unit

SHAPE = Shape(2, 3, 1, 2)
OWN = {
    "resets": torch.tensor([[False, True, False], [False, False, True]]),
    "lengths": torch.tensor([3, 2]),
}


@pytest.fixture(autouse=True)
def switched_on() -> Iterator[None]:
    with double_backward(True):
        yield


def tensors(cell: str, shape: Shape = SHAPE, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """wx, r, b and the initial states, which require gradients."""
    inputs = random_inputs(load_cell(cell), shape)
    kept = (torch.from_numpy(inputs[name].astype(np.float64)).to(dtype) for name in ("wx", "r", "b", "initial"))
    return [value.requires_grad_() for value in kept]


def twice(run: Any, leaves: Any) -> None:
    assert torch.autograd.gradgradcheck(run, leaves, fast_mode=True)


@pytest.mark.parametrize(
    ("cell", "options"),
    [
        ("lstm", {}),
        ("gru", {"returns": "hidden", **OWN}),
        ("elman", {"recompute": True, "resets": OWN["resets"]}),
        ("slstm", {"lengths": OWN["lengths"]}),
        ("lstm", {"checkpoint": 2, "lengths": OWN["lengths"]}),
    ],
)
def test_gradients_of_gradients_are_right(cell: str, options: Any) -> None:
    twice(lambda *given: rnn(*given, cell=cell, **options), tensors(cell))


def test_without_initial_states_and_of_one_result() -> None:
    *leaves, _ = tensors("lstm")
    twice(lambda *given: rnn(*given)[1], leaves)


@pytest.mark.parametrize(
    ("kind", "options", "lengths"),
    [
        (LSTM, {"num_layers": 2, "bidirectional": True}, None),
        (LSTM, {"proj_size": 1, "bidirectional": True, "checkpoint": 2}, [3, 1]),
        (GRU, {"num_layers": 2, "wavefront": 2, "bias": False}, None),
        (RNN, {"cell": "slstm", "heads": 2}, [2, 3]),
    ],
)
def test_modules(kind: Any, options: Any, lengths: Any) -> None:
    torch.manual_seed(0)
    module = kind(1, 2, dtype=torch.float64, **options)
    names, weights = zip(*module.named_parameters(), strict=True)
    x = torch.randn(3, 2, 1, dtype=torch.float64, requires_grad=True)
    how = {} if lengths is None else {"lengths": torch.tensor(lengths)}

    def run(x: Tensor, *given: Tensor) -> Any:
        output, last = torch.func.functional_call(module, dict(zip(names, given, strict=True)), (x,), how)
        return output, *((last,) if isinstance(last, Tensor) else last)

    twice(run, (x, *weights))


def test_a_cell_module_and_flashrnn() -> None:
    cell = GRUCell(2, 2, dtype=torch.float64)
    x, h = torch.randn(2, 2, dtype=torch.float64, requires_grad=True), torch.randn(2, 2, dtype=torch.float64)
    twice(cell, (x, h.requires_grad_()))
    wx, r, b, _ = (value.detach().float().requires_grad_() for value in tensors("lstm"))
    states = flashrnn(wx, r, b, function="lstm", dtype="float32")[0]
    (slope,) = torch.autograd.grad(states.square().sum(), wx, create_graph=True)
    assert torch.autograd.grad(slope.square().sum(), r)[0].abs().sum() > 0


def test_a_third_derivative() -> None:
    wx, r, b, initial = tensors("elman")

    def slope(weights: Tensor) -> Tensor:
        found: Tensor = torch.autograd.grad(rnn(wx, weights, b, initial, "elman")[0].sum(), weights, create_graph=True)[
            0
        ]
        return found

    twice(slope, r)


@pytest.mark.parametrize(
    "options", [{"recurrent_cut": True}, {"recurrent_clip": 0.05}, {"recurrent_clip": 0.05, "checkpoint": 2}]
)
def test_a_gradient_that_is_cut_or_clipped_is_the_one_that_is_differentiated(options: Any) -> None:
    leaves = tensors("lstm")
    weights = torch.rand(2, 2, 3, 1, 2, dtype=torch.float64)

    def slopes(*given: Tensor, again: bool = True) -> tuple[Tensor, ...]:
        return torch.autograd.grad((rnn(*given, **options)[0] * weights).sum(), given, create_graph=again)

    for found, once in zip(slopes(*leaves), slopes(*leaves, again=False), strict=True):
        torch.testing.assert_close(found, once)
    assert torch.autograd.gradcheck(slopes, leaves, fast_mode=True)


def test_in_16_bits_and_inside_autocast() -> None:
    torch.manual_seed(0)
    module, x = LSTM(3, 4), torch.randn(5, 2, 3, requires_grad=True)
    found = []
    for narrow in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=narrow):
            (slope,) = torch.autograd.grad(module(x)[0].float().square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), list(module.parameters())))
    for exact, near in zip(*found, strict=True):
        assert near.dtype is torch.float32
        assert (exact - near).norm() < 0.05 * exact.norm()


def test_the_switch() -> None:
    assert double_backward.on
    with double_backward(False):
        assert not double_backward.on
        with double_backward(True):
            assert double_backward.on
        assert not double_backward.on
        wx, *rest = tensors("lstm")
        states = rnn(wx, *rest)[0]
    (slope,) = torch.autograd.grad(states.sum(), wx, create_graph=True)  # what ran while it was off has none
    with pytest.raises(DoubleBackwardError, match=r"kernelgen\.torch\.double_backward\(True\)"):
        slope.sum().backward()
    double_backward(False)
    assert not double_backward.on
    with pytest.raises(TypeError, match="True or False, not 'yes'"):
        double_backward("yes")  # type: ignore[arg-type]


def test_inside_torch_compile_pytorch_says_that_it_cannot() -> None:
    leaves = tensors("lstm")

    def loss(*given: Tensor) -> Tensor:
        return rnn(*given)[0].square().sum()

    def penalty(run: Any) -> Any:
        slopes = torch.autograd.grad(run(*leaves), leaves, create_graph=True)
        return torch.autograd.grad(sum(slope.square().sum() for slope in slopes), leaves)

    wanted = penalty(loss)
    with pytest.raises(RuntimeError, match="double backward"):
        penalty(torch.compile(loss, backend="aot_eager", fullgraph=True))
    torch.compiler.reset()
    for found, other in zip(penalty(torch.compile(loss, backend="eager", fullgraph=True)), wanted, strict=True):
        torch.testing.assert_close(found, other)
    torch.compiler.reset()
