"""torch.jit.trace of modules: without a warning, for any batch and number of steps, saved and loaded."""

from __future__ import annotations

import io
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from kernelgen.torch import LSTM, RNN, GRUCell, rnn

pytestmark = pytest.mark.unit


def traced(module: Any, *inputs: Tensor) -> Any:
    """A module's trace, saved and loaded; any warning but that PyTorch wants other exports is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        made = torch.jit.trace(module, inputs)
        kept = io.BytesIO()
        torch.jit.save(made, kept)
        kept.seek(0)
        return torch.jit.load(kept)


def same(found: Any, wanted: Any) -> None:
    for one, other in zip(tree_leaves(found), tree_leaves(wanted), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    "module",
    [
        LSTM(3, 4, 2, batch_first=True, bidirectional=True),
        LSTM(3, 4, proj_size=2, bidirectional=True),
        RNN(3, 4, cell="slstm", heads=2),
        LSTM(3, 4, 2, checkpoint=2),
        LSTM(3, 4, 2, wavefront=2),
    ],
)
def test_a_trace_takes_other_sizes_and_learns(module: Any) -> None:
    made = traced(module, torch.randn(2, 5, 3))
    x = torch.randn(4, 7, 3)
    found, wanted = made(x), module(x)
    same(found, wanted)
    gradients = torch.autograd.grad(found[0].square().sum(), list(made.parameters()))
    same(gradients, torch.autograd.grad(wanted[0].square().sum(), list(module.parameters())))
    with torch.no_grad():
        same(made(x), wanted)


def test_a_model_with_initial_states_lengths_and_resets() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.cell, self.head = LSTM(3, 4, bidirectional=True), GRUCell(8, 5), nn.Linear(5, 1)

        def forward(self, x: Tensor, h: Tensor, c: Tensor, lengths: Tensor, resets: Tensor) -> Tensor:
            output, _ = self.layers(x, (h, c), lengths=lengths, resets=resets)
            last: Tensor = self.head(self.cell(output[0]))
            return last

    def inputs(seq: int, batch: int) -> list[Tensor]:
        lengths = torch.randint(0, seq + 1, (batch,))
        return [torch.randn(seq, batch, 3), *torch.randn(2, 2, batch, 4), lengths, torch.rand(batch, seq) < 0.4]

    model = Model()
    made, others = traced(model, *inputs(5, 2)), inputs(7, 3)
    same(made(*others), model(*others))


def test_a_function_with_rnn() -> None:
    weights = torch.randn(4, 2, 3, 3), torch.randn(4, 2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        made = torch.jit.trace(lambda wx: rnn(wx, *weights), (torch.randn(2, 5, 4, 2, 3),))
    wx = torch.randn(3, 6, 4, 2, 3)
    same(made(wx), rnn(wx, *weights))
