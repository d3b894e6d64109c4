"""Layers in waves as one chain of kernels, in the emulator and in any order that its lanes allow: the numbers, and what
is left to calls of PyTorch's."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from emulated_engine import Chained, Emulated  # noqa: E402
from module_passes import close, results, use  # noqa: E402

from kernelgen.torch import GRU, LSTM, passes  # noqa: E402
from kernelgen.torch.wave_chunks import OneWay, chosen_chunk  # noqa: E402

LIMITS = {"float16": 3e-3, "bfloat16": 2e-2}
"""Relative errors against float64."""


def pair(kind: Any, *sizes: int, chunk: int, **options: Any) -> tuple[Any, Any]:
    """A module in waves and one of the same parameters, layer after layer."""
    torch.manual_seed(0)
    waves = kind(*sizes, wavefront=chunk, **options)
    plain = kind(*sizes, **options)
    plain.load_state_dict(waves.state_dict())
    return waves, plain


@pytest.mark.emulated
@pytest.mark.parametrize(
    ("kind", "dtype", "layers", "seq", "options", "begun"),
    [
        (LSTM, "bfloat16", 3, 4, {}, True),
        (GRU, "float16", 2, 5, {"heads": 2, "bias": False, "batch_first": True}, False),
    ],
)
def test_waves_give_what_layer_after_layer_gives(
    kind: Any, dtype: str, layers: int, seq: int, options: Any, begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    chained = use(monkeypatch, Chained(library=begun))
    waves, plain = pair(kind, 8, 16, layers, chunk=2, dtype=getattr(torch, dtype), **options)
    x = torch.randn(*((3, seq) if waves.batch_first else (seq, 3)), 8).to(waves.weight_ih_l0.dtype).requires_grad_()
    hx = None
    if begun:
        hx = tuple(torch.randn(layers, 3, 16).to(x.dtype).requires_grad_() for _ in waves._parts.states)
    found = results(waves, x, hx, last=begun)
    with torch.no_grad():
        output, states = waves(x, hx)
    assert chained.chains == 3
    chunks = -(-seq // 2)
    every = layers * chunks  # a product and a recurrence each; backward products for the weights behind all chunks
    assert chained.links == [2 * every, 2 * every + layers, 2 * every]
    assert [name for name, _ in chained.ran] == [
        *["forward"] * layers * chunks, *["backward"] * layers * chunks, *["forward"] * layers * chunks
    ]  # fmt: skip
    assert output.is_contiguous()
    assert torch.equal(output, found[0])
    first = states if torch.is_tensor(states) else states[0]
    assert first.is_contiguous()
    assert torch.equal(first, found[1])
    monkeypatch.setitem(passes.ENGINES, "cpu", None)
    wide = None if hx is None else tuple(one.detach().double().requires_grad_() for one in hx)
    wanted = results(plain.double(), x.detach().double().requires_grad_(), wide, last=begun)
    close(found, [one.to(x.dtype) for one in wanted], LIMITS[dtype])


@pytest.mark.emulated
def test_what_is_asked_for_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last states' gradients without the output's, under autocast, and neither x nor states need one."""
    chained = use(monkeypatch, Chained())
    waves, plain = pair(LSTM, 8, 16, 2, chunk=2)
    x, found = torch.randn(4, 3, 8), []
    for module in (waves, plain):
        if module is plain:
            monkeypatch.setitem(passes.ENGINES, "cpu", None)
        with torch.autocast("cpu", torch.bfloat16):
            output, (_, c) = module(x)
        assert c.dtype is torch.bfloat16
        if module is waves:
            output.data.zero_()  # the caller's, which no kernel reads again
        found.append(list(torch.autograd.grad(c.float().sum(), list(module.parameters()))))
        if module is waves:
            assert chained.chains == 2
            assert [gradient.dtype for gradient in found[0]] == [torch.float32] * 8
    close(*found, LIMITS["bfloat16"])


@pytest.mark.emulated
def test_what_cannot_run_in_lanes_is_left_to_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    chained = use(monkeypatch, Chained())
    x = torch.randn(4, 3, 8).to(torch.bfloat16)
    dropping = LSTM(8, 16, 2, wavefront=2, dropout=0.5, dtype=x.dtype)
    with torch.no_grad():
        dropping(x)
    assert chained.chains == 0
    assert len(chained.ran) == 3  # both layers in the second kernel
    module = LSTM(8, 16, 2, wavefront=2, dtype=x.dtype)
    form = {"time_major": True, "begun": False, "learning": False}

    def possible(features: int = 8) -> bool:
        stack = module._stacks.of(module, 0.0)
        return stack.waves(x.new_empty(4, 3, features), x.dtype, 64, **form) is not None

    assert possible()
    assert not possible(features=9)  # chunks would begin where no vector does
    use(monkeypatch, Chained()).forward_schedule = "grid"  # its kernel wants all multiprocessors for itself
    assert not possible()


@pytest.mark.emulated
def test_waves_where_the_engine_advises_them(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(4, 3, 8).to(torch.bfloat16)
    for advised, ran, chains in ((None, 2, 1), (2, 4, 1)):
        chained = use(monkeypatch, Chained())
        chained.advised = advised
        module = LSTM(8, 16, 2, wavefront=True, dtype=x.dtype)
        with torch.no_grad():
            module(x)
        assert len(chained.ran) == ran
        assert chained.chains == chains
    use(monkeypatch, Emulated())  # which has no chains
    with torch.no_grad():
        module(x)
        module(x, lengths=torch.tensor([2, 3, 4]))


@pytest.mark.unit
def test_the_chunk_that_the_model_chooses() -> None:
    def between(steps: int) -> float:
        return 2 + steps / 64

    def way(seq: int, step: float = 0.4, kernels: int = 2) -> OneWay:
        return OneWay(step, seq * step + between(seq), kernels, between)

    one = way(1024)
    assert chosen_chunk(1024, 4, [one]) == 128
    assert chosen_chunk(1024, 4, [one, way(1024, 0.6, 3)]) == 128
    assert chosen_chunk(1024, 4, [way(1024, 1.6)]) == 64  # the longer a step, the less a chunk's kernels count
    assert chosen_chunk(1024, 16, [one]) == 64  # products of all layers have one GPU
    assert chosen_chunk(1024, 4, [OneWay(0.4, 1024 * 0.4, 2, between, 0.3)]) is None  # and their arrays one memory
    assert chosen_chunk(1024, 4, [way(1024, 0.4, 200)]) is None  # a chunk costs more than its steps
    assert chosen_chunk(1024, 4, [OneWay(1.6, 1024 * 0.4, 2, between)]) is None  # layers slow each other down
    assert chosen_chunk(1 << 20, 2, [way(1 << 20)]) == 512
    assert chosen_chunk(16, 4, [way(16)]) is None
