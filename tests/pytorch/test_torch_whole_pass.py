"""A module's whole pass as one chain of kernels, in the emulator: the numbers, and what is no such pass."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from emulated_engine import Chained, Emulated  # noqa: E402
from module_passes import close, results, use  # noqa: E402
from torch import Tensor  # noqa: E402

from kernelgen.torch import GRU, LSTM, RNN, passes  # noqa: E402
from kernelgen.torch.whole_pass import WholePass  # noqa: E402

CASES = [
    pytest.param(LSTM, "float16", {}, True, id="kernels"),
    pytest.param(LSTM, "float16", {"num_layers": 2}, True, id="library"),
    pytest.param(GRU, "bfloat16", {"bias": False, "batch_first": True}, False, id="library of rows in order"),
    (LSTM, "float32", {"batch_first": True}, False),
    (LSTM, "bfloat16", {"num_layers": 2, "heads": 2, "batch_first": True}, False),
    pytest.param(GRU, "float16", {"num_layers": 2}, False, id="takes_x"),
    (GRU, "float16", {"num_layers": 2, "bias": False, "batch_first": True}, True),
    (RNN, "float16", {"cell": "slstm"}, True),
]

BOTH = [
    (LSTM, "float16", {"num_layers": 3}, 7, True),
    (LSTM, "bfloat16", {"num_layers": 2, "heads": 2, "batch_first": True}, 8, False),
    (GRU, "float16", {"num_layers": 2, "batch_first": True}, 5, True),
    (GRU, "float16", {"bias": False}, 8, False),
    (RNN, "float16", {"cell": "slstm", "num_layers": 2}, 8, True),
]
"""Of both directions, with the number of features, and whether there are initial states."""

LIMITS = {"float16": 2e-3, "bfloat16": 1e-2, "float32": 1e-5}
"""Relative errors: products are rounded in other places than PyTorch's."""


@pytest.fixture
def chained(monkeypatch: pytest.MonkeyPatch) -> Chained:
    engine = Chained()
    use(monkeypatch, engine)
    return engine


def _drawn(module: Any, *, begun: bool) -> tuple[Tensor, Any]:
    """An input of 3 sequences of 4 steps, and initial states or None."""
    dtype = module.weight_ih_l0.dtype
    x = torch.randn(*((3, 4) if module.batch_first else (4, 3)), module.input_size).to(dtype).requires_grad_()
    if not begun:
        return x, None
    sizes = (module.num_layers * (1 + module.bidirectional), 3, module.hidden_size)
    hx = tuple(torch.randn(sizes).to(dtype).requires_grad_() for _ in module._parts.states)
    return x, hx if len(hx) > 1 else hx[0]


@pytest.mark.emulated
@pytest.mark.parametrize(("kind", "dtype", "options", "begun"), CASES)
def test_one_chain_gives_what_calls_give(
    kind: Any, dtype: str, options: Any, begun: bool, monkeypatch: pytest.MonkeyPatch, request: Any
) -> None:
    torch.manual_seed(0)
    case = request.node.callspec.id
    chained = Chained(kernels=case == "kernels", takes_x=case == "takes_x", library="library" in case)
    use(monkeypatch, chained)
    module = kind(8, 16, dtype=getattr(torch, dtype), **options)
    x, hx = _drawn(module, begun=begun)
    found = results(module, x, hx, last=begun)
    with torch.no_grad():
        output, _ = module(x, hx)
    assert torch.equal(output, found[0])
    assert chained.chains == 3
    use(monkeypatch, Emulated())
    close(found, results(module, x, hx, last=begun), LIMITS[dtype])


@pytest.mark.emulated
@pytest.mark.parametrize(("kind", "dtype", "options", "features", "begun"), BOTH)
def test_both_directions_are_one_chain(
    kind: Any, dtype: str, options: Any, features: int, begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against float64, without kernels; features that are no multiple of vectors, and others, by the library."""
    torch.manual_seed(0)
    chained = Chained(library=features != 8)
    use(monkeypatch, chained)
    module = kind(features, 16, dtype=getattr(torch, dtype), bidirectional=True, **options)
    x, hx = _drawn(module, begun=begun)
    found = results(module, x, hx, last=begun)
    with torch.no_grad():
        output, _ = module(x, hx)
    assert torch.equal(output, found[0])
    # A layer: two products, copies of Wx, R, b and h, the recurrence; then copies of initial and last states.
    forward = 7 * module.num_layers + begun + 1
    # Copies of the gradients of h, Wx, R and b and of W, two products, the recurrence; copies of states.
    backward = 8 * module.num_layers + 2 * begun
    assert chained.links == [forward, backward, forward]
    monkeypatch.delitem(passes.ENGINES, "cpu")
    starts = hx.double() if torch.is_tensor(hx) else hx and tuple(one.double() for one in hx)
    wanted = results(copy.deepcopy(module).double(), x.double(), starts, last=begun)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert (one.double() - other).norm() <= LIMITS[dtype] * other.norm()


@pytest.mark.emulated
@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("bidirectional", [False, True])
def test_dropout_is_part_of_the_chain(bidirectional: bool, chained: Chained, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = LSTM(8, 16, 3, dropout=0.3, bidirectional=bidirectional, dtype=torch.float16)
    x, _ = _drawn(module, begun=False)
    drawn: list[Tensor] = []
    masks = WholePass._masks
    monkeypatch.setattr(WholePass, "_masks", lambda *given: drawn.extend(masks(*given)) or drawn[-1:])
    found = results(module, x, None, last=True)
    assert chained.chains == 2
    (kept,) = drawn
    assert kept.shape == (2, 3, 4, 16 * (1 + bidirectional))
    assert 0.5 < float(kept.float().mean()) < 0.9
    # Layer by layer in float64, each element times its part of the mask.
    monkeypatch.delitem(passes.ENGINES, "cpu")
    names = iter(kept.double() / 0.7)
    monkeypatch.setattr(
        torch, "native_dropout", lambda rows, *_: (rows * (mask := next(names)).view_as(rows), mask.view_as(rows))
    )
    monkeypatch.setattr(torch.ops.aten, "native_dropout_backward", lambda d, mask, _: d * mask.view_as(d))
    wanted = results(copy.deepcopy(module).double(), x.double(), None, last=True)
    for one, other in zip(found, wanted, strict=True):
        assert (one.double() - other).norm() <= LIMITS["float16"] * other.norm()


@pytest.mark.emulated
def test_what_is_asked_for_alone(chained: Chained) -> None:
    torch.manual_seed(0)
    module = LSTM(8, 16, 2, dtype=torch.float16)
    x, _ = _drawn(module, begun=False)
    every = results(module, x, None, last=False)
    first = x.detach()
    _, (_, c) = module(first)
    c.float().sum().backward()  # neither the output's gradient nor that of x
    assert chained.chains == 3
    assert all(one.grad is not None and bool(one.grad.abs().sum() > 0) for one in module.parameters())
    gradient = module.bias_ih_l0.grad.clone()
    module.bias_hh_l0.grad.zero_()  # each parameter has its own
    assert torch.equal(module.bias_ih_l0.grad, gradient)
    output, _ = module(first.transpose(0, 1).contiguous().transpose(0, 1))  # other strides
    assert torch.equal(output, every[0])


@pytest.mark.emulated
def test_what_kernels_cannot_read_is_left_to_calls(chained: Chained) -> None:
    module = LSTM(8, 16, dtype=torch.float16)
    x = torch.randn(4, 3, 8).half()
    with torch.no_grad():
        wanted = module(x)[0]
        assert chained.chains == 1
        memory = torch.zeros(module.weight_ih_l0.numel() + 1).half()
        memory[1:] = module.weight_ih_l0.flatten()
        module.weight_ih_l0.data = memory[1:].view_as(module.weight_ih_l0)  # no address for vectors
        torch.testing.assert_close(module(x)[0], wanted, rtol=2e-3, atol=2e-3)
        module.weight_ih_l0.data = torch.zeros(64, 9).half()
        with pytest.raises(RuntimeError):
            module(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # R stays in float32
        LSTM(8, 16)(x.float())
    assert chained.chains == 1


@pytest.mark.emulated
def test_more_elements_than_dropout_counts_are_left_to_calls(chained: Chained, monkeypatch: pytest.MonkeyPatch) -> None:
    elements = 3 * 4 * 16
    for most, chains in ((elements - 1, 0), (elements, 1)):
        monkeypatch.setattr("kernelgen.torch.whole_pass.MOST", most)
        LSTM(8, 16, 2, dropout=0.3, dtype=torch.float16)(torch.randn(4, 3, 8).half())
        assert chained.chains == chains


@pytest.mark.emulated
def test_the_output_may_not_be_changed_before_the_backward_pass(chained: Chained) -> None:
    module = LSTM(8, 16, dtype=torch.float16, batch_first=True)
    output, _ = module(torch.randn(3, 4, 8).half())
    doubled = output * 2
    with torch.no_grad():
        output.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        doubled.float().sum().backward()
