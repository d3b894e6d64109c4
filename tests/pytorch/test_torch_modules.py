"""LSTM and GRU modules against torch.nn's, on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from kernelgen.errors import ShapeError, TilesmithError
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
    with pytest.raises(TypeError, match=r"input must be a torch\.Tensor, not ndarray; torch\.as_tensor"):
        module(np.zeros((4, 2, 3)))
    with pytest.raises(ShapeError, match="4 axes"):
        module(torch.zeros(4, 2, 3, 1))


X, H = torch.zeros(3, 2, 3), torch.zeros(2, 2, 4)

MISTAKES = [
    # module, its arguments, input, hx, words of the message
    ("GRU", (3, 4), X, H, r"hx must be \[L, B, D\] = \[1, 2, 4\], not \[2, 2, 4\]"),
    ("GRU", (3, 4, 2), X, H[:1], r"hx must be \[L, B, D\] = \[2, 2, 4\], not \[1, 2, 4\]"),
    ("GRU", (3, 4, 2), X, H[:, :1], r"= \[2, 2, 4\], not \[2, 1, 4\]"),
    ("GRU", (3, 4, 2), X, H[..., :3], r"= \[2, 2, 4\], not \[2, 2, 3\]"),
    ("GRU", (3, 4, 2), X, H[0], r"= \[2, 2, 4\], not \[2, 4\]"),
    ("GRU", (3, 4, 2), X[:, 0], H, r"hx must be \[L, D\] = \[2, 4\], not \[2, 2, 4\]"),
    ("GRU", (3, 4), X, H[:1].double(), "hx is torch.float64, but the input is torch.float32"),
    ("LSTM", (3, 4), X, (H[:1], torch.zeros(5, 2, 4)), r"c of hx must be \[L, B, D\] = \[1, 2, 4\], not \[5, 2, 4\]"),
    ("LSTM", (3, 4), X, (H, H[:1]), r"h of hx must be \[L, B, D\]"),
    ("LSTM", (3, 4, 2), X, (H[:1], H[:1]), r"h of hx must be .* = \[2, 2, 4\], not \[1, 2, 4\]"),
    ("LSTM", (3, 4, 2), X, H, r"must be the pair \(h, c\), each \[L, B, D\] = \[2, 2, 4\], not one tensor"),
    ("GRU", (3, 4), X[..., :2], None, "last axis must be input_size = 3"),
    ("LSTM", (3, 4), X[..., None], None, "not of 4 axes"),
    ("LSTM", (3, 4), X.double(), None, r"the weights are torch.float32; convert it, input.to"),
    ("LSTM", (3, 0), None, None, "hidden_size must be at least 1, not 0"),
    ("LSTM", (0, 3), None, None, "input_size must be at least 1, not 0"),
    ("GRU", (3, 4, 0), None, None, "num_layers must be at least 1, not 0"),
    ("GRU", (3, 4.0), None, None, "hidden_size must be an int, not float"),
    ("GRU", ("3", 4), None, None, "input_size must be an int, not str"),
    ("GRU", (3, 4, 1, 1), None, None, "bias must be True or False"),
    ("GRU", (3, 4, 1, True, 0), None, None, "batch_first must be True or False"),
    ("GRU", (3, 4, 2, True, False, 1.5), None, None, "dropout must be a number from 0 to 1"),
    ("GRU", (3, 4, 2, True, False, True), None, None, "dropout must be a number from 0 to 1"),
]


@pytest.mark.parametrize(("name", "arguments", "x", "hx", "message"), MISTAKES)
def test_mistakes_raise_what_torch_nn_raises(name: str, arguments: Any, x: Any, hx: Any, message: str) -> None:
    ours, theirs = {"LSTM": (LSTM, torch.nn.LSTM), "GRU": (GRU, torch.nn.GRU)}[name]
    with pytest.raises(Exception) as expected:  # noqa: PT011  the type is what is asked
        theirs(*arguments)(x, hx)
    with pytest.raises(TilesmithError, match=message) as caught:
        ours(*arguments)(x, hx)
    assert isinstance(caught.value, expected.type)


def test_a_pair_is_a_pair() -> None:
    for hx, kind in (((H, H, H), RuntimeError), ((H,), RuntimeError), ("hc", RuntimeError), ((H, None), TypeError)):
        with pytest.raises(TilesmithError) as caught:
            LSTM(3, 4, 2)(X, hx)
        assert isinstance(caught.value, (kind, TypeError))
    with pytest.raises(TypeError, match=r"hx must be a torch\.Tensor, not tuple"):
        GRU(3, 4, 2)(X, (H, H))
    assert LSTM(3, 4, 2)(X, [H, H])[0].shape == (3, 2, 4)
    with pytest.warns(UserWarning, match="only one"):
        LSTM(3, 4, dropout=0.5)
