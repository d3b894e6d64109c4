"""LSTM and GRU modules against torch.nn's, on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kernelgen.errors import ShapeError
from kernelgen.torch import GRU, LSTM

pytestmark = pytest.mark.unit

PAIRS = [pytest.param(LSTM, torch.nn.LSTM, id="lstm"), pytest.param(GRU, torch.nn.GRU, id="gru")]


def flat(result: Any) -> list[torch.Tensor]:
    """All tensors of a nested result."""
    return [result] if isinstance(result, torch.Tensor) else [tensor for part in result for tensor in flat(part)]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 2, "batch_first": True},
        {"num_layers": 2, "bias": False},
        {"batch_first": False},
    ],
)
@pytest.mark.parametrize("initial", [True, False])
@pytest.mark.parametrize("batched", [True, False])
def test_results_and_gradients_are_those_of_torch_nn(
    ours: Any, theirs: Any, options: dict[str, Any], initial: bool, batched: bool
) -> None:
    torch.manual_seed(0)
    theirs = theirs(3, 5, dtype=torch.float64, **options)
    ours = ours(3, 5, dtype=torch.float64, **options)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn((4, 2, 3) if batched else (4, 3), dtype=torch.float64)
    hx = None
    if initial:
        batch = (x.shape[0] if options.get("batch_first") else x.shape[1],) if batched else ()
        hx = torch.randn(theirs.num_layers, *batch, 5, dtype=torch.float64)
        hx = (hx, hx.sin()) if isinstance(ours, LSTM) else hx
    made, wanted = ours(x, hx), theirs(x, hx)
    for result, expected in zip(flat(made), flat(wanted), strict=True):
        torch.testing.assert_close(result, expected)
    for result in (made, wanted):
        sum(tensor.cos().sum() for tensor in flat(result)).backward()
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_the_same_seed_gives_the_same_parameters(ours: Any, theirs: Any) -> None:
    torch.manual_seed(3)
    made = ours(3, 5, num_layers=2).state_dict()
    torch.manual_seed(3)
    wanted = theirs(3, 5, num_layers=2).state_dict()
    assert list(made) == list(wanted)
    assert all(torch.equal(made[name], wanted[name]) for name in wanted)


def test_dropout_lies_between_layers_and_only_while_training() -> None:
    module = LSTM(3, 5, num_layers=2, dropout=0.5)
    x = torch.randn(4, 2, 3)
    assert not torch.equal(module(x)[0], module(x)[0])
    assert torch.equal(module(x)[1][0][0], module(x)[1][0][0])
    module.eval()
    assert torch.equal(module(x)[0], module(x)[0])


def test_compile_in_one_graph() -> None:
    module = LSTM(3, 5, num_layers=2)
    x = torch.randn(4, 2, 3)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for result, expected in zip(flat(compiled(x)), flat(module(x)), strict=True):
        torch.testing.assert_close(result, expected)


def test_other_inputs_are_refused() -> None:
    module = GRU(3, 5)
    packed = torch.nn.utils.rnn.pack_padded_sequence(torch.zeros(4, 2, 3), [4, 2])
    with pytest.raises(ShapeError, match="PackedSequence"):
        module(packed)
    with pytest.raises(ShapeError, match="4 axes"):
        module(torch.zeros(4, 2, 3, 1))
