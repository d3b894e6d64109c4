"""torch.export of the modules: one node of a graph, any batch and number of steps, saved and loaded."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.utils._pytree import tree_leaves

from kernelgen.torch import LSTM, RNN, GRUCell
from kernelgen.torch.xlstm import Settings, SLSTMCell

pytestmark = pytest.mark.unit

MODULES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "both directions": (LSTM(6, 8, 2, batch_first=True, bidirectional=True), (3, 5, 6)),
    "a projection": (LSTM(6, 8, proj_size=3), (5, 3, 6)),
    "heads of sLSTM": (RNN(6, 8, cell="slstm", heads=2), (5, 3, 6)),
    "a step": (GRUCell(6, 8), (3, 6)),
    "xLSTM's cell": (SLSTMCell(Settings(8, 2)), (3, 5, 32)),
}


def nodes(exported: Any) -> list[str]:
    """The recurrences in a graph."""
    return [str(node.target) for node in exported.graph.nodes if "tilesmith" in str(node.target)]


@pytest.mark.parametrize("name", MODULES)
def test_exported_modules_compute_the_same(name: str) -> None:
    module, sizes = MODULES[name]
    x = torch.randn(sizes)
    exported = torch.export.export(module, (x,))
    assert set(nodes(exported)) == {"tilesmith.rnn_forward.default"}
    assert len(nodes(exported)) == getattr(module, "num_layers", 1)
    for made, wanted in zip(tree_leaves(exported.module()(x)), tree_leaves(module(x)), strict=True):
        torch.testing.assert_close(made, wanted)


def test_a_saved_one_takes_other_sizes_and_learns() -> None:
    module = LSTM(6, 8, batch_first=True)
    exported = torch.export.export(module, (torch.randn(3, 5, 6),), dynamic_shapes=({0: Dim("B"), 1: Dim("T")},))
    kept = io.BytesIO()
    torch.export.save(exported, kept)
    kept.seek(0)
    loaded = torch.export.load(kept).module()
    x = torch.randn(4, 9, 6)
    found, wanted = loaded(x)[0], module(x)[0]
    torch.testing.assert_close(found, wanted)
    weights = dict(loaded.named_parameters())
    made = torch.autograd.grad(found.square().sum(), [weights[name] for name, _ in module.named_parameters()])
    for gradient, other in zip(
        made, torch.autograd.grad(wanted.square().sum(), list(module.parameters())), strict=True
    ):
        torch.testing.assert_close(gradient, other)


def test_lengths_and_resets_are_inputs() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = LSTM(6, 8, batch_first=True)

        def forward(self, x: Tensor, lengths: Tensor, resets: Tensor) -> Tensor:
            output: Tensor = self.layers(x, lengths=lengths, resets=resets)[0]
            return output

    module = Cut()
    x, resets = torch.randn(3, 5, 6), torch.zeros(3, 5, dtype=torch.bool)
    exported = torch.export.export(module, (x, torch.tensor([5, 2, 3]), resets)).module()
    others = torch.tensor([1, 5, 4]), torch.rand(3, 5) < 0.4
    torch.testing.assert_close(exported(x, *others), module(x, *others))
