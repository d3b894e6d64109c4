"""Modules with layer norm of the input's product, against equations written by hand and torch.nn's loops."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from kernelgen.cells import cell_names
from kernelgen.torch import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell, convert
from kernelgen.torch.errors import ArgumentTypeError
from kernelgen.torch.parts import parts_of

pytestmark = pytest.mark.unit

DOUBLE = {"dtype": torch.float64, "layer_norm": True}


def moved(module: Any) -> Any:
    """With norms that are not ones and zeros."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.startswith("norm"):
                parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def norm(a: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    mean = a.mean(-1, keepdim=True)
    return gain * (a - mean) / ((a - mean).square().mean(-1, keepdim=True) + 1e-5).sqrt() + bias


def lstm_by_hand(module: Any, x: Tensor, suffix: str) -> tuple[Tensor, Tensor, Tensor]:
    """One direction of one layer over x [T, B, I], as Ba et al. write it, without the norm of the recurrent product."""
    w, r, gain, shift, b, b_h = (
        getattr(module, f"{name}_{suffix}")
        for name in ("weight_ih", "weight_hh", "norm_weight_ih", "norm_bias_ih", "bias_ih", "bias_hh")
    )
    h = c = x.new_zeros(x.shape[1], r.shape[1])
    outputs = []
    for one in x:
        i, f, g, o = (norm(one @ w.T, gain, shift) + h @ r.T + b + b_h).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs), h, c


def same_gradients(made: Tensor, wanted: Tensor, leaves: list[Tensor]) -> None:
    weights = torch.randn_like(wanted)
    found = [torch.autograd.grad((weights * one).sum(), leaves, retain_graph=True) for one in (made, wanted)]
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-10)


def test_lstm_in_both_directions_by_hand() -> None:
    torch.manual_seed(0)
    module = moved(LSTM(3, 5, 2, bidirectional=True, **DOUBLE))
    x = torch.randn(6, 2, 3, dtype=torch.float64, requires_grad=True)
    below, ends = x, []
    for layer in range(2):
        forward, h, c = lstm_by_hand(module, below, f"l{layer}")
        backward, h_back, c_back = lstm_by_hand(module, below.flip(0), f"l{layer}_reverse")
        below = torch.cat([forward, backward.flip(0)], -1)
        ends += [(h, c), (h_back, c_back)]
    output, (h, c) = module(x)
    torch.testing.assert_close(output, below)
    torch.testing.assert_close((h, c), tuple(map(torch.stack, zip(*ends, strict=True))))
    same_gradients(output, below, [x, *module.parameters()])


def test_gru_by_hand() -> None:
    """The candidate is normalised apart from both gates."""
    torch.manual_seed(0)
    module = moved(GRU(3, 5, **DOUBLE))
    x = torch.randn(6, 2, 3, dtype=torch.float64, requires_grad=True)
    gain, shift = module.norm_weight_ih_l0, module.norm_bias_ih_l0
    h, outputs = x.new_zeros(2, 5), []
    for one in x:
        a = one @ module.weight_ih_l0.T
        a = torch.cat([norm(a[:, :10], gain[:10], shift[:10]), norm(a[:, 10:], gain[10:], shift[10:])], -1)
        (r, z, n), (r_h, z_h, n_h) = (
            (a + module.bias_ih_l0).chunk(3, -1),
            (h @ module.weight_hh_l0.T + module.bias_hh_l0).chunk(3, -1),
        )
        z, n = (z + z_h).sigmoid(), (n + (r + r_h).sigmoid() * n_h).tanh()
        h = (1 - z) * n + z * h
        outputs.append(h)
    output, last = module(x)
    torch.testing.assert_close(output, torch.stack(outputs))
    torch.testing.assert_close(last[0], h)
    same_gradients(output, torch.stack(outputs), [x, *module.parameters()])


@pytest.mark.parametrize("name", cell_names())
def test_every_cell_is_that_without_a_norm_on_a_normalised_product(name: str) -> None:
    """weight_ih of a module without a norm is the identity, and its input the normalised product: heads apart."""
    torch.manual_seed(0)
    heads, dim, parts = 2, 3, parts_of(name)
    module = moved(RNN(4, heads * dim, cell=name, heads=heads, **DOUBLE))
    width = parts.inputs * heads * dim
    plain = RNN(width, heads * dim, cell=name, heads=heads, dtype=torch.float64)
    x = torch.randn(5, 2, 4, dtype=torch.float64)
    a = (x @ module.weight_ih_l0.T).unflatten(-1, (parts.inputs, heads, dim)).transpose(-3, -2)
    gain, shift = (
        one.view(parts.inputs, heads, dim).transpose(0, 1) for one in (module.norm_weight_ih_l0, module.norm_bias_ih_l0)
    )
    pieces, begin = [], 0
    for count in parts.norms:
        here = slice(begin, begin + count)
        flat = [one[..., here, :].flatten(-2) for one in (a, gain, shift)]
        pieces.append(norm(*flat).unflatten(-1, (count, dim)))
        begin += count
    assert begin == parts.inputs
    with torch.no_grad():
        for what in ("weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            getattr(plain, what).copy_(getattr(module, what))
        plain.weight_ih_l0.copy_(torch.eye(width))
    torch.testing.assert_close(module(x), plain(torch.cat(pieces, -2).transpose(-3, -2).flatten(-3)))


OPTIONS: dict[str, dict[str, Any]] = {
    "batch first": {"batch_first": True, "num_layers": 2},
    "projected": {"proj_size": 2, "num_layers": 2, "bidirectional": True},
    "no bias": {"bias": False},
    "heads": {"heads": 2},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_gradients_are_exact(name: str) -> None:
    torch.manual_seed(0)
    module = moved(LSTM(3, 4, **OPTIONS[name], **DOUBLE))
    names = [one for one, _ in module.named_parameters()]
    assert ("norm_bias_ih_l0" in names) == module.bias
    x = torch.randn(3, 3, 3, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, *parameters: Tensor) -> Any:
        return torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), x)[0]

    assert torch.autograd.gradcheck(run, (x, *module.parameters()), fast_mode=True)


@pytest.mark.parametrize("options", [{"checkpoint": 2}, {"wavefront": 2}, {"wavefront": True}])
@pytest.mark.parametrize("proj_size", [0, 2])
def test_chunks_give_what_the_whole_gives(options: dict[str, Any], proj_size: int) -> None:
    torch.manual_seed(0)
    plain = moved(LSTM(3, 4, 2, proj_size=proj_size, **DOUBLE))
    module = LSTM(3, 4, 2, proj_size=proj_size, **options, **DOUBLE)
    module.load_state_dict(plain.state_dict())
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    hx = tuple(torch.randn(2, 2, size, dtype=torch.float64) for size in (proj_size or 4, 4))
    found = []
    for one in (module, plain):
        output, last = one(x, hx)
        gradients = torch.autograd.grad(output.square().sum() + last[1].sum(), list(one.parameters()))
        found.append((output, last, gradients))
    torch.testing.assert_close(*found)


def test_lengths_resets_and_packed_sequences() -> None:
    torch.manual_seed(0)
    module = moved(LSTM(3, 4, 2, bidirectional=True, **DOUBLE))
    lengths = [6, 2, 4]
    x = torch.randn(6, 3, 3, dtype=torch.float64)
    alone = [module(x[:length, k : k + 1]) for k, length in enumerate(lengths)]
    x[2:, 1] = torch.nan
    output, (h, c) = module(x, lengths=torch.tensor(lengths))
    for k, (one, (h_one, c_one)) in enumerate(alone):
        torch.testing.assert_close(output[: lengths[k], k : k + 1], one)
        torch.testing.assert_close((h[:, k : k + 1], c[:, k : k + 1]), (h_one, c_one))
    packed, last = module(pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False))
    torch.testing.assert_close(pad_packed_sequence(packed)[0], output)
    torch.testing.assert_close(last, (h, c))
    resets = torch.zeros(1, 6, dtype=torch.bool)
    resets[0, 4] = True
    whole = module(x[:, :1], resets=resets)[0]
    torch.testing.assert_close(whole, torch.cat([module(x[:4, :1])[0], module(x[4:, :1])[0]]))


def test_autocast_dropout_and_compiling() -> None:
    torch.manual_seed(0)
    module = moved(LSTM(3, 4, 2, dropout=0.5, layer_norm=True)).eval()
    x = torch.randn(5, 2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        output = module(x)[0]
    assert output.dtype is torch.bfloat16
    torch.testing.assert_close(output.float(), module(x)[0], rtol=0.05, atol=0.02)
    output.float().sum().backward()
    assert all(one.grad is not None and one.grad.dtype is torch.float32 for one in module.parameters())
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), module(x))
    module.train()
    assert not torch.equal(module(x)[0], module(x)[0])


@pytest.mark.parametrize(("layers", "kind"), [(LSTM, LSTMCell), (GRU, GRUCell), (RNN, RNNCell)])
@pytest.mark.parametrize("bias", [True, False])
def test_cells(layers: Any, kind: Any, bias: bool) -> None:
    torch.manual_seed(0)
    module = moved(layers(3, 4, bias=bias, heads=2, **DOUBLE))
    cell = kind(3, 4, bias, heads=2, **DOUBLE)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in module.state_dict().items()})
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    state, outputs = None, []
    for one in x:
        state = cell(one, state)
        outputs.append(state[0] if isinstance(state, tuple) else state)
    torch.testing.assert_close(torch.stack(outputs), module(x)[0])


def test_parameters_and_what_is_said_of_them() -> None:
    torch.manual_seed(1)
    plain = LSTM(3, 4, 2)
    torch.manual_seed(1)
    module = LSTM(3, 4, 2, layer_norm=True)
    state = module.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in plain.state_dict().items())
    assert torch.equal(module.norm_weight_ih_l1, torch.ones(16))
    assert torch.equal(module.norm_bias_ih_l1, torch.zeros(16))
    assert "layer_norm=True" in repr(module)
    assert "layer_norm" not in repr(plain)
    x = torch.randn(4, 2, 3)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(x)[0], module(x)[0])
    assert not torch.equal(plain(x)[0], module(x)[0])
    with pytest.raises(ArgumentTypeError, match="layer_norm should be of type bool"):
        LSTM(3, 4, layer_norm=1)  # type: ignore[arg-type]
    with pytest.raises(ArgumentTypeError, match="layer_norm should be of type bool"):
        LSTMCell(3, 4, layer_norm="yes")  # type: ignore[arg-type]


def test_convert_leaves_norms_of_others_alone() -> None:
    class Normalised(torch.nn.LSTM):
        """With a norm of somebody's own."""

    model = torch.nn.Sequential(Normalised(3, 4), LSTM(3, 4, layer_norm=True))
    ours = model[1]
    assert "subclass" in convert(model).left["0"]
    assert model[1] is ours
