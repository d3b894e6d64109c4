"""Layers of a module as one node of autograd's: the numbers are those of layer by layer, and what it refuses."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from kernelgen.torch import GRU, LSTM, RNN, DoubleBackwardError, recurrent  # noqa: E402

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("loops")]

CASES = [
    (LSTM, {}),
    (LSTM, {"bidirectional": True, "num_layers": 2, "heads": 2, "batch_first": True}),
    (GRU, {"num_layers": 3, "bias": False}),
    (GRU, {"bidirectional": True}),
    (RNN, {"nonlinearity": "relu", "num_layers": 2}),
    (RNN, {"cell": "slstm", "bidirectional": True}),
]


def _run(module: Any, x: Any, hx: Any, weights: Any) -> tuple[list[Any], list[Any]]:
    """Outputs, and the gradients of everything for given ones of the outputs."""
    output, last = module(x, hx)
    found = [output, *((last,) if torch.is_tensor(last) else last)]
    leaves = [x, *((hx,) if torch.is_tensor(hx) else hx), *module.parameters()]
    return found, list(torch.autograd.grad(found, leaves, weights))


def _layer_by_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules do what they do where PyTorch must see every call."""
    monkeypatch.setattr(recurrent, "undisturbed", lambda: False)
    monkeypatch.setattr(recurrent, "plain", lambda *_: False)


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_one_node_is_the_same_as_layer_by_layer(kind: Any, options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = kind(3, 6, dtype=torch.float64, **options)
    units, states = (2 if module.bidirectional else 1) * module.num_layers, len(module._parts.states)
    x = torch.randn(4, 5, 3, dtype=torch.float64, requires_grad=True)
    batch = 4 if module.batch_first else 5
    given = tuple(torch.randn(units, batch, 6, dtype=torch.float64, requires_grad=True) for _ in range(states))
    hx = given if states > 1 else given[0]
    shapes = [t.shape for t in (module(x, hx)[0], *given)]
    weights = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    outputs, gradients = _run(module, x, hx, weights)
    assert type(outputs[0].grad_fn).__name__ == "_LayersBackward"
    _layer_by_layer(monkeypatch)
    others, others_gradients = _run(module, x, hx, weights)
    assert type(others[0].grad_fn).__name__ != "_LayersBackward"
    for found, other in zip(outputs + gradients, others + others_gradients, strict=True):
        torch.testing.assert_close(found, other, rtol=1e-10, atol=1e-12)


def test_a_pass_is_one_node() -> None:
    module = LSTM(3, 6, 2, batch_first=True)
    output, (h, c) = module(torch.randn(2, 5, 3))
    assert {type(t.grad_fn).__name__ for t in (output, h, c)} == {"_LayersBackward"}


def test_gradients_of_a_subset_and_of_one_result() -> None:
    module = LSTM(3, 6, 2)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name == "weight_hh_l0")
    _, (_, c) = module(torch.randn(4, 2, 3))
    c.sum().backward()
    assert [name for name, p in module.named_parameters() if p.grad is not None] == ["weight_hh_l0"]
    assert module.weight_hh_l0.grad.abs().sum() > 0


def test_dropout_is_that_of_training_and_its_gradient_is_right() -> None:
    module = LSTM(3, 6, 2, dropout=0.5).double()
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)

    def run(x: Any) -> Any:
        torch.manual_seed(7)
        return module(x)[0]

    assert torch.autograd.gradcheck(run, (x,))
    assert not torch.equal(module(x)[0], module(x)[0])
    module.eval()
    assert torch.equal(module(x)[0], module(x)[0])
    everything = LSTM(3, 6, 2, dropout=1.0)
    everything(x.float())[0].sum().backward()
    assert everything.weight_ih_l1.grad.abs().sum() == 0


def test_a_second_derivative_is_refused() -> None:
    module = LSTM(3, 6)
    x = torch.randn(4, 2, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(module(x)[0].sum(), x, create_graph=True)
    with pytest.raises(DoubleBackwardError):
        gradient.sum().backward()


def test_inside_autocast_gradients_of_recurrent_weights_are_sums_that_nothing_rounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module, x = LSTM(3, 6, bidirectional=True), torch.randn(4, 2, 3)
    found = []
    for plain in (True, False):
        module.zero_grad()
        if not plain:
            _layer_by_layer(monkeypatch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output, (_, c) = module(x)
        assert output.dtype == c.dtype == torch.bfloat16
        output.float().square().sum().backward()
        assert {p.grad.dtype for p in module.parameters()} == {torch.float32}
        found.append([p.grad for p in module.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    recurrent_gradient = found[0][1]
    assert not torch.equal(recurrent_gradient, recurrent_gradient.bfloat16().float())


def test_parameters_of_another_shape_are_refused() -> None:
    module = LSTM(3, 6)
    module.weight_hh_l0 = torch.nn.Parameter(torch.zeros(24, 5))
    for grad in (False, True):
        with torch.set_grad_enabled(grad), pytest.raises(RuntimeError):
            module(torch.randn(4, 2, 3))


def test_a_copy_and_a_pickle_of_a_module_that_has_run_run_too() -> None:
    module, x = LSTM(3, 6, 2), torch.randn(4, 2, 3)
    with torch.no_grad():
        expected = module(x)[0]
        for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert torch.equal(other(x)[0], expected)
