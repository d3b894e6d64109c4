"""torch.nn's own operators in our modules on a CPU: where they run, that they give what the loops give, and no less."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.nn.utils.rnn import pack_sequence  # noqa: E402

import kernelgen.torch  # noqa: E402
from kernelgen.torch import DoubleBackwardError, double_backward, native  # noqa: E402

pytestmark = pytest.mark.unit

LAYERS: list[tuple[str, dict[str, Any]]] = [
    ("LSTM", {"bidirectional": True, "num_layers": 2, "batch_first": True}),
    ("LSTM", {"proj_size": 2, "bias": False}),
    ("GRU", {"num_layers": 2, "bias": False}),
    ("GRU", {"bidirectional": True}),
    ("RNN", {"nonlinearity": "relu", "batch_first": True}),
    ("RNN", {}),
]
CELLS: list[tuple[str, dict[str, Any]]] = [
    ("LSTMCell", {}),
    ("GRUCell", {"bias": False}),
    ("RNNCell", {"nonlinearity": "relu"}),
    ("RNNCell", {}),
]


def _flat(result: Any) -> list[Any]:
    """All tensors of a nested result."""
    if torch.is_tensor(result):
        return [result]
    parts = [result.data] if isinstance(result, torch.nn.utils.rnn.PackedSequence) else result
    return [tensor for part in parts for tensor in _flat(part)]


def _pass(module: Any, *inputs: Any, **own: Any) -> tuple[list[Any], list[Any]]:
    """Results, and gradients of parameters and of input tensors, for fixed gradients of the results."""
    torch.manual_seed(1)
    found = _flat(module(*inputs, **own))
    tensors = [x for x in _flat([i for i in inputs if i is not None]) if x.requires_grad]
    weights = [torch.randn(one.shape, dtype=one.dtype) for one in found]
    return found, list(torch.autograd.grad(found, [*module.parameters(), *tensors], weights))


def _same(one: Any, other: Any) -> None:
    for left, right in zip(one, other, strict=True):
        torch.testing.assert_close(list(left), list(right))


def _begun(module: Any, *sizes: int) -> Any:
    """Initial states, with gradients."""
    units = [getattr(module, "proj_size", 0) or module.hidden_size, module.hidden_size]
    states = tuple(torch.randn(*sizes, unit, dtype=torch.double, requires_grad=True) for unit in units)
    return states if "LSTM" in type(module).__name__ else states[1]


@pytest.mark.parametrize("form", ["batch", "packed", "lengths", "one"])
@pytest.mark.parametrize(("kind", "options"), LAYERS)
def test_layers_give_what_the_loops_and_torch_nn_give(kind: str, options: dict[str, Any], form: str) -> None:
    torch.manual_seed(0)
    module = getattr(kernelgen.torch, kind)(3, 4, dtype=torch.double, **options)
    theirs = getattr(torch.nn, kind)(3, 4, dtype=torch.double, **options)
    theirs.load_state_dict(module.state_dict())
    count = module.num_layers * (2 if module.bidirectional else 1)
    x: Any = torch.randn(*((6, 3) if form == "one" else (3, 6, 3)), dtype=torch.double, requires_grad=True)
    own: dict[str, Any] = {}
    if form == "packed":
        x = pack_sequence([x[0, :4], x[1], x[2, :1]], enforce_sorted=False)
    elif form == "lengths":
        own["lengths"] = [4, 6, 1]
    for hx in (None, _begun(module, *((count,) if form == "one" else (count, 3)))):
        given = x if form in ("one", "packed") or options.get("batch_first") else x.transpose(0, 1)
        leaves = (given,) if hx is None else (given, hx)
        if form == "packed":  # gradients of what was packed, through it
            leaves = (x, *leaves[1:])
        ran = _pass(module, *leaves, **own)
        if form != "lengths":
            _same(ran, _pass(theirs, *leaves))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "alone", lambda *_: False)
            _same(ran, _pass(module, *leaves, **own))


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize(("kind", "options"), CELLS)
def test_a_step_gives_what_step_and_torch_nn_give(kind: str, options: dict[str, Any], batched: bool) -> None:
    torch.manual_seed(0)
    module = getattr(kernelgen.torch, kind)(3, 4, dtype=torch.double, **options)
    theirs = getattr(torch.nn, kind)(3, 4, dtype=torch.double, **options)
    theirs.load_state_dict(module.state_dict())
    x = torch.randn(*((5,) if batched else ()), 3, dtype=torch.double, requires_grad=True)
    for hx in (None, _begun(module, *((5,) if batched else ()))):
        inputs = (x,) if hx is None else (x, hx)
        ran = _pass(module, *inputs)
        _same(ran, _pass(theirs, *inputs))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "alone", lambda *_: False)
            _same(ran, _pass(module, *inputs))
        for state in ran[0]:
            state.detach_()  # is no view


def test_dropout_is_drawn_as_torch_nn_draws_it() -> None:
    ours = kernelgen.torch.LSTM(3, 8, 3, dropout=0.5)
    theirs = torch.nn.LSTM(3, 8, 3, dropout=0.5)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(7, 2, 3)
    _same(_pass(ours, x), _pass(theirs, x))
    _same(_pass(ours.eval(), x), _pass(theirs.eval(), x))


def test_what_is_not_torch_nns_is_left_to_the_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native.Native, "run", lambda *_: pytest.fail("torch.nn's operator ran"))
    x = torch.randn(7, 2, 4)
    for options in ({"heads": 2}, {"layer_norm": True}, {"checkpoint": 3}, {"wavefront": 3, "num_layers": 2}):
        kernelgen.torch.LSTM(4, 4, **options)(x)
    kernelgen.torch.RNN(4, 4, cell="slstm")(x)
    kernelgen.torch.LSTM(4, 4, dtype=torch.bfloat16)(x.bfloat16())
    module = kernelgen.torch.GRU(4, 4)
    module(x, returns="states")
    module(x, lengths=[7, 0])
    module(x[:, :0])
    module(x, resets=torch.zeros(2, 7, dtype=torch.bool))
    torch.func.functional_call(module, {name: one.bfloat16() for name, one in module.named_parameters()}, x.bfloat16())
    torch.func.vmap(module)(x.unsqueeze(0))
    with torch.autocast("cpu"):
        module(x)
    with double_backward(True):
        module(x)
    module.weight_ih_l0 = torch.nn.Parameter(torch.randn(12, 5))
    with pytest.raises(RuntimeError, match="shape"):
        module(x)


def test_a_second_derivative_is_refused_as_elsewhere() -> None:
    for module, sizes in ((kernelgen.torch.GRU(3, 4), (5, 2, 3)), (kernelgen.torch.GRUCell(3, 4), (2, 3))):
        x = torch.randn(sizes, requires_grad=True)
        (slope,) = torch.autograd.grad(_flat(module(x))[0].sum(), x, create_graph=True)
        with pytest.raises(DoubleBackwardError, match="double_backward"):
            slope.sum().backward()


def test_passes_are_counted_for_a_recording() -> None:
    module, cell = kernelgen.torch.LSTM(3, 4, 2, bidirectional=True), kernelgen.torch.LSTMCell(3, 4)
    with kernelgen.torch.recording() as recorded:
        module(torch.randn(5, 2, 3))[0].sum().backward()
        cell(torch.randn(2, 3))[0].sum().backward()
        with torch.no_grad():
            module(torch.randn(5, 2, 3))
    runs = {(work.direction, work.shape.heads, work.shape.seq, work.shape.save): work.runs for work in recorded.work}
    with pytest.MonkeyPatch.context() as patch, kernelgen.torch.recording() as again:
        patch.setattr(native, "alone", lambda *_: False)
        module(torch.randn(5, 2, 3))[0].sum().backward()
        cell(torch.randn(2, 3))[0].sum().backward()
        with torch.no_grad():
            module(torch.randn(5, 2, 3))
    loops = {(work.direction, work.shape.heads, work.shape.seq, work.shape.save): work.runs for work in again.work}
    assert runs == loops
    assert sum(runs.values()) == 8


def test_a_copy_and_a_pickle_run_too() -> None:
    module, x = kernelgen.torch.LSTM(3, 4, 2), torch.randn(5, 2, 3)
    expected, _ = module(x)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(x)[0], expected)


@pytest.mark.parametrize("batch_first", [False, True])
def test_results_are_contiguous_and_may_be_changed_in_place(batch_first: bool) -> None:
    for sizes in ((5, 2, 3), (5, 1, 3), (1, 2, 3)):
        module = kernelgen.torch.LSTM(3, 4, batch_first=batch_first)
        output, (h, c) = module(torch.randn(sizes))
        assert not any(one._is_view() for one in (output, h, c))
        output.mul_(2)
        h.mul_(2)
        (output.sum() + h.sum()).backward()
    for sizes in ((5, 2, 3), (5, 3)):
        output, (h, c) = kernelgen.torch.LSTM(3, 4, batch_first=batch_first)(torch.randn(sizes))
        assert output.is_contiguous()
        assert h.is_contiguous()
        assert c.is_contiguous()
        h.detach_()
        c.detach_()
