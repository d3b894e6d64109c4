"""Checkpointed passes on the CPU: the same values and gradients from less that is kept, and limits of memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

from kernelgen.cells import load_cell
from kernelgen.errors import ConfigError, TilesmithError
from kernelgen.program.shape import Shape
from kernelgen.torch import GRU, LSTM, RNN, DoubleBackwardError, checkpoint, layers, rnn
from kernelgen.verify.inputs import random_inputs

pytestmark = pytest.mark.unit

SHAPE = Shape(3, 11, 2, 4)


def tensors(cell: str, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """wx, r, b and the initial states, as leaves."""
    inputs = random_inputs(load_cell(cell), SHAPE)
    made = [torch.from_numpy(inputs[name].astype("float64")) for name in ("wx", "r", "b", "initial")]
    return [one.to(dtype).requires_grad_() for one in made]


def seeds(results: Any) -> list[Tensor]:
    """A gradient from outside for each result."""
    return [torch.arange(one.numel()).cos().to(one).view(one.shape) for one in results]


def kept_bytes(run: Callable[[], Any], *arguments: Tensor) -> int:
    """Bytes of what autograd keeps beside these tensors and the results that ``run`` gives."""
    kept: dict[int, int] = {}

    def keep(one: Tensor) -> Tensor:
        storage = one.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return one

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        results = run()
    for one in (*arguments, *flat(results)):
        kept.pop(one.untyped_storage().data_ptr(), None)
    return sum(kept.values())


def flat(result: Any) -> list[Tensor]:
    """All tensors of a nested result; of a PackedSequence those that are there."""
    if result is None or isinstance(result, Tensor):
        return [] if result is None else [result]
    return [tensor for part in result for tensor in flat(part)]


@pytest.mark.parametrize("chunk", [1, 4, 11, 20])
@pytest.mark.parametrize("options", [{}, {"returns": "hidden"}, {"recurrent_clip": 0.05}, {"recurrent_cut": True}])
@pytest.mark.parametrize("name", ["lstm", "gru", "slstm"])
def test_values_and_gradients_are_the_same(name: str, options: dict[str, Any], chunk: int) -> None:
    leaves = tensors(name)
    expected = rnn(*leaves, cell=name, **options)
    made = rnn(*leaves, cell=name, checkpoint=chunk, **options)
    for result, other in zip(made, expected, strict=True):
        torch.testing.assert_close(result, other, rtol=1e-12, atol=1e-14)
    given = seeds(expected)
    wanted = torch.autograd.grad(expected, leaves, given)
    for gradient, other in zip(torch.autograd.grad(made, leaves, given), wanted, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 4, 20])
@pytest.mark.parametrize("options", [{}, {"returns": "hidden", "recurrent_clip": 0.05}])
@pytest.mark.parametrize("name", ["lstm", "slstm"])
def test_lengths(name: str, options: dict[str, Any], chunk: int) -> None:
    leaves, lengths = tensors(name), [11, 0, 5]
    expected = rnn(*leaves, cell=name, lengths=lengths, **options)
    made = rnn(*leaves, cell=name, lengths=lengths, checkpoint=chunk, **options)
    for result, other in zip(made, expected, strict=True):
        torch.testing.assert_close(result, other, rtol=1e-12, atol=1e-14)
    given = seeds(expected)
    wanted = torch.autograd.grad(expected, leaves, given)
    for gradient, other in zip(torch.autograd.grad(made, leaves, given), wanted, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-10, atol=1e-12)


def test_float32_parameters_of_16_bits_keep_their_sums() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 64, 3)
    module = LSTM(3, 4, batch_first=True, checkpoint=16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        module(x)[0].float().cos().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad.dtype is torch.float32
        assert not torch.equal(parameter.grad, parameter.grad.bfloat16().float()), name


@pytest.mark.parametrize("wanted", range(4))
@pytest.mark.parametrize("initial", [True, False])
def test_any_subset_of_gradients(wanted: int, initial: bool) -> None:
    leaves = [leaf.detach() for leaf in tensors("lstm")][: 4 if initial else 3]
    if wanted >= len(leaves):
        return
    leaves[wanted].requires_grad_()
    for index in range(2):  # of every state, or the last ones alone
        (expected,) = torch.autograd.grad(rnn(*leaves)[index].cos().sum(), leaves[wanted])
        (made,) = torch.autograd.grad(rnn(*leaves, checkpoint=4)[index].cos().sum(), leaves[wanted])
        torch.testing.assert_close(made, expected, rtol=1e-10, atol=1e-12)


def test_no_sequences() -> None:
    """B = 0: nothing to compute, and gradients of that form."""
    wx, r, b, initial = tensors("slstm")
    leaves = [one.detach().requires_grad_() for one in (wx[:0], r, b, initial[:, :0])]
    states, last = rnn(*leaves, cell="slstm", checkpoint=4)
    assert (states.shape[1:3], last.shape[1]) == ((0, SHAPE.seq), 0)
    gradients = torch.autograd.grad((states.sum(), last.sum()), leaves)
    assert [one.shape for one in gradients] == [one.shape for one in leaves]
    assert not gradients[1].any()


def test_16_bits_round_what_goes_from_chunk_to_chunk() -> None:
    leaves = tensors("lstm", torch.bfloat16)
    expected, made = rnn(*leaves), rnn(*leaves, checkpoint=4)
    given = seeds(expected)
    for result, other in zip(made, expected, strict=True):
        assert (result - other).norm() <= 0.01 * other.norm()
    wanted = torch.autograd.grad(expected, leaves, given)
    for gradient, other in zip(torch.autograd.grad(made, leaves, given), wanted, strict=True):
        assert gradient.dtype is torch.bfloat16
        assert (gradient - other).norm() <= 0.02 * other.norm()


def test_without_gradients_nothing_is_kept_or_done() -> None:
    leaves = [leaf.detach() for leaf in tensors("lstm")]
    assert torch.equal(rnn(*leaves, checkpoint=2)[0], rnn(*leaves)[0])
    assert kept_bytes(lambda: rnn(*leaves, checkpoint=2)) == 0


def test_memory_falls_with_the_chunk() -> None:
    torch.manual_seed(0)
    x, seq = torch.randn(64, 2, 4), 64
    state = 2 * 8 * 4  # bytes of h after one step
    whole, few = (LSTM(4, 8, checkpoint=chunk) for chunk in (None, 8))
    assert kept_bytes(lambda: whole(x), x, *whole.parameters()) >= seq * 5 * state  # four gates and c
    inputs = x.numel() * 4
    assert kept_bytes(lambda: few(x), x, *few.parameters()) <= seq // 8 * 2 * state + inputs + seq * state + 2048


MODULES = [
    pytest.param(LSTM, {"num_layers": 2, "proj_size": 3, "bidirectional": True}, 6000, id="lstm"),
    pytest.param(LSTM, {"batch_first": True, "heads": 2}, 1800, id="heads"),
    pytest.param(GRU, {"num_layers": 2, "bidirectional": True, "bias": False}, 5000, id="gru"),
    pytest.param(RNN, {"cell": "slstm", "num_layers": 2}, 5000, id="slstm"),
]


@pytest.mark.parametrize("initial", [False, True])
@pytest.mark.parametrize("form", ["batch", "packed", "one"])
@pytest.mark.parametrize(("kind", "options", "limit"), MODULES)
def test_modules(
    kind: Any, options: dict[str, Any], limit: int, form: str, initial: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    whole = kind(3, 4, dtype=torch.float64, **options)
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    x = x.transpose(0, 1) if options.get("batch_first") else x
    _, last = whole(x)
    hx = None
    if initial:
        hx = tuple(torch.rand_like(state) + 1 for state in flat(last))
        hx = tuple(state[:, 0] for state in hx) if form == "one" else hx
        hx = hx[0] if len(hx) == 1 else hx
    if form == "one":
        x = x.select(0 if options.get("batch_first") else 1, 0)
    given = x
    if form == "packed":
        given = pack_padded_sequence(x, [6, 2], batch_first=options.get("batch_first", False))
    expected = [one for one in flat(whole(given, hx)) if one.is_floating_point()]
    wanted = torch.autograd.grad(expected, list(whole.parameters()), seeds(expected))
    steps = []
    monkeypatch.setattr(
        layers, "chunked", lambda *given, **options: steps.append(options["chunk"]) or checkpoint.run(*given, **options)
    )
    for limits in ({"checkpoint": 4}, {"memory_limit": limit // 2 if form == "one" else limit}):
        module = kind(3, 4, dtype=torch.float64, **options, **limits)
        module.load_state_dict(whole.state_dict())
        made = [one for one in flat(module(given, hx)) if one.is_floating_point()]
        found = torch.autograd.grad(made, list(module.parameters()), seeds(made))
        for result, other in zip([*made, *found], [*expected, *wanted], strict=True):
            torch.testing.assert_close(result, other, rtol=1e-9, atol=1e-11)
    assert steps[: whole.num_layers] == [4] * whole.num_layers
    assert (steps[whole.num_layers] < 6) if len(steps) > whole.num_layers else form == "packed"


@pytest.mark.parametrize("limit", ["100kB", 20000, "12 KiB", "9.5K"])
def test_a_limit_of_memory_chooses_the_chunk(limit: Any) -> None:
    most = {"100kB": 100_000, 20000: 20_000, "12 KiB": 12 * 1024, "9.5K": 9_500}[limit]
    wx, r, b = (torch.randn(sizes, requires_grad=True) for sizes in ((2, 200, 4, 1, 4), (4, 1, 4, 4), (4, 1, 4)))
    assert kept_bytes(lambda: rnn(wx, r, b, returns="hidden"), wx, r, b) == 200 * 5 * 32
    kept = kept_bytes(lambda: rnn(wx, r, b, returns="hidden", memory_limit=limit), wx, r, b)
    assert 0 < kept <= most
    assert (kept == 200 * 5 * 32) == (most > 200 * 5 * 32)


def test_limits_that_make_no_sense() -> None:
    leaves = tensors("lstm")
    for options, message in [
        ({"checkpoint": 0}, "at least 1 step, not 0"),
        ({"checkpoint": 2.0}, "a number of steps, not 2.0"),
        ({"checkpoint": 2, "memory_limit": 10}, "leave one out"),
        ({"memory_limit": "8 apples"}, "'8GB' or '500MiB', not '8 apples'"),
        ({"memory_limit": 0}, "not 0"),
        ({"memory_limit": "0GB"}, "not '0GB'"),
        ({"memory_limit": 1000}, r"memory_limit=1000 is 1,000 bytes, but 11 steps in chunks need [0-9,]{5,} at least"),
    ]:
        with pytest.raises(TilesmithError, match=message):
            rnn(*leaves, **options)
    with pytest.raises(ConfigError, match="leave one of them out"):
        rnn(*leaves, checkpoint=2, recompute=True)
    with pytest.raises(ConfigError, match="take no resets"):
        rnn(*leaves, checkpoint=2, resets=torch.zeros(3, 11, dtype=torch.bool))
    with pytest.raises(TilesmithError, match="at least 1 step"):
        LSTM(3, 4, checkpoint=0)
    assert "memory_limit=8GB" in repr(LSTM(3, 4, memory_limit="8GB"))


def test_opcheck() -> None:
    wx, r, b, initial = tensors("lstm")
    options = ("lstm", True, 4, False, None)
    own = (torch.tensor([11, 3, 0], dtype=torch.int32), torch.arange(3, dtype=torch.int32))
    torch.library.opcheck(checkpoint._forward, (wx, None, None, r, b, initial, *own, *options))
    x, w = (torch.randn(sizes, dtype=torch.float64).requires_grad_() for sizes in ((3, 11, 2, 5), (2, 16, 5)))
    first = torch.randn(3, 4, 2, 4, dtype=torch.float64).requires_grad_()
    torch.library.opcheck(checkpoint._forward, (x, w, first, r, b, None, None, None, *options))
    with torch.no_grad():
        states, last, before = checkpoint._forward(x, w, first, r, b, initial, None, None, *options)
    plain = [one.detach() for one in (x, w, first, r, b)]
    for given, outside in (((None, None), (torch.ones_like(states), None)), (own, (None, torch.ones_like(last)))):
        torch.library.opcheck(checkpoint._backward, (*plain, *given, before, *outside, *options))


def test_compile_autocast_and_second_derivatives() -> None:
    module = LSTM(3, 4, checkpoint=4)
    x = torch.randn(6, 2, 3)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x)[0], module(x)[0])
    for parameter, other in zip(
        torch.autograd.grad(compiled(x)[0].cos().sum(), list(module.parameters())),
        torch.autograd.grad(module(x)[0].cos().sum(), list(module.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(parameter, other)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = module(x)[0]
        module.checkpoint = None
        expected = module(x)[0]
    assert made.dtype is expected.dtype is torch.bfloat16
    assert (made - expected).norm() <= 0.02 * expected.norm()
    leaves = tensors("lstm")
    (first,) = torch.autograd.grad(rnn(*leaves, checkpoint=4)[0].square().sum(), leaves[0], create_graph=True)
    with pytest.raises(DoubleBackwardError, match="cannot be differentiated twice"):
        first.sum().backward()
    made = torch.func.grad(lambda wx: rnn(wx, *leaves[1:], checkpoint=4)[0].sum())(leaves[0].detach())
    torch.testing.assert_close(made, torch.autograd.grad(rnn(*leaves)[0].sum(), leaves[0])[0])
