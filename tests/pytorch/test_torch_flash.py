"""FlashRNN's function and its configuration: its users change one import."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cell_formulas import run as by_hand
from torch import Tensor, nn, sigmoid, tanh

from kernelgen.cells import load_cell
from kernelgen.errors import ConfigError, ShapeError
from kernelgen.torch import FlashRNNConfig, flashrnn, rnn

pytestmark = pytest.mark.unit

FUNCTIONS = ("lstm", "slstm", "gru", "elman")
SIZES = {"batch": 3, "seq": 5, "heads": 2, "dim": 4}


def tensors(
    function: str, dtype: torch.dtype = torch.float32, *, batch: int = 3, seq: int = 5, heads: int = 2, dim: int = 4
) -> list[Tensor]:
    """Wx, R, b and states in FlashRNN's default layout, as leaves; values that 16 bits hold."""
    config = FlashRNNConfig(function=function)
    drawn = torch.Generator().manual_seed(7)
    shapes = [
        (batch, seq, config.num_gates_w, heads, dim), (config.num_gates_r, heads, dim, dim),
        (config.num_gates_t, heads, dim), (config.num_states, batch, 1, heads, dim),
    ]  # fmt: skip
    made = [torch.randn(shape, generator=drawn).bfloat16().to(dtype) for shape in shapes]
    made[1] *= 0.25
    made[3][2:] = made[3][2:].abs() + 1  # sLSTM's n
    return [one.requires_grad_() for one in made]


def weighted(states: Tensor, last: Tensor) -> Tensor:
    """A loss in which every element counts differently."""
    made = [torch.arange(value.numel(), dtype=torch.float64).cos().view(value.shape) for value in (states, last)]
    return (states.double() * made[0]).sum() + (last.double() * made[1]).sum()


def formulas(function: str, wx: Tensor, r: Tensor, b: Tensor, initial: Tensor) -> Tensor:
    """FlashRNN's equations in its gate orders: all states [S, B, T, H, D]."""
    if function != "gru":  # its order is ours
        return by_hand(load_cell(function), wx, r, b, initial[:, :, 0])
    h, history = initial[0, :, 0], []
    for t in range(wx.shape[1]):
        g, reset, update = torch.einsum("ghdp,bhp->gbhd", r, h) + b[:3].unsqueeze(1)
        x_reset, x_update, n = wx[:, t].unbind(1)
        z = sigmoid(x_update + update)
        h = z * h + (1 - z) * tanh(n + b[3] + sigmoid(x_reset + reset) * g)
        history.append(h)
    return torch.stack(history, dim=1).unsqueeze(0)


def turned(tensor: Tensor, axes: str, order: str) -> Tensor:
    """A tensor with these axes in another order."""
    return tensor.permute([axes.index(axis) for axis in order])


def relative(value: Tensor, wanted: Tensor) -> float:
    """The error of a value, relative to what is wanted, in float64."""
    return float((value.double() - wanted.double()).norm().detach() / wanted.double().norm().detach())


@pytest.mark.parametrize("backend", ["cuda_fused", "vanilla"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_shapes_and_gate_orders(function: str, backend: str) -> None:
    wx, r, b, initial = tensors(function)
    states, last = flashrnn(wx, r, b, initial, function=function, backend=backend, dtype="float32")
    expected = formulas(function, wx, r, b, initial)
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(last, states[:, :, -1:])
    made = torch.autograd.grad(weighted(states, last), (wx, r, b, initial))
    wanted = torch.autograd.grad(weighted(expected, expected[:, :, -1:]), (wx, r, b, initial))
    for gradient, other in zip(made, wanted, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_layout(function: str) -> None:
    wx, r, b, initial = tensors(function)
    expected = flashrnn(wx, r, b, initial, function=function, dtype="float32")
    wanted = torch.autograd.grad(weighted(*expected), (wx, r, b, initial))
    layouts = zip(
        ("BTGHD", "TBGHD"), ("SBHTD", "STBHD"), ("HPGD", "HPDG"), ("HGD", "HDG"), ("cuda", "vanilla"), strict=True
    )
    for inputs, outputs, recurrent, bias, backend in [*layouts, ("TBGHD", "SBTHD", "HGDP", "GHD", "vanilla_fwbw")]:
        config = FlashRNNConfig(
            function=function, dtype="float32", backend=backend, num_heads=2, head_dim=4, input_shape=inputs,
            output_shape=outputs, recurrent_shape=recurrent, bias_shape=bias,
        )  # fmt: skip
        leaves = [
            turned(one, ours, theirs).detach().requires_grad_()
            for one, ours, theirs in zip(
                (wx, r, b, initial), ("BTGHD", "GHDP", "GHD", "SBTHD"), (inputs, recurrent, bias, outputs), strict=True
            )
        ]
        found = [turned(one, outputs, "SBTHD") for one in flashrnn(*leaves, config=config)]
        for value, other in zip(found, expected, strict=True):
            torch.testing.assert_close(value, other)
        made = torch.autograd.grad(weighted(*found), leaves)
        for gradient, other, ours, theirs in zip(
            made, wanted, ("BTGHD", "GHDP", "GHD", "SBTHD"), (inputs, recurrent, bias, outputs), strict=True
        ):
            torch.testing.assert_close(gradient, turned(other, ours, theirs), rtol=1e-4, atol=1e-5)


GRID = list(product(FUNCTIONS, (2, 8), (1, 3), (1, 4), (16, 32), ("bfloat16", "float16", "float32", "float64")))


@pytest.mark.parametrize(
    ("function", "batch", "seq", "heads", "dim", "dtype"), GRID[:: len(GRID) // 24], ids=lambda part: str(part)
)
def test_fused_and_vanilla_agree_over_a_grid(
    function: str, batch: int, seq: int, heads: int, dim: int, dtype: str
) -> None:
    leaves = tensors(function, getattr(torch, dtype), batch=batch, seq=seq, heads=heads, dim=dim)
    bound = {"bfloat16": 3e-2, "float16": 4e-3, "float32": 1e-5, "float64": 1e-12}[dtype]
    wanted = formulas(function, *(leaf.double() for leaf in leaves))
    # Of h alone: sLSTM's m has a gradient that jumps with a rounding.
    gradients = torch.autograd.grad(weighted(wanted[:1], wanted[:1, :, -1:]), leaves)
    for backend in ("cuda_fused", "vanilla"):
        states, last = flashrnn(*leaves, function=function, backend=backend, dtype=dtype)
        assert states.dtype is last.dtype is getattr(torch, dtype)
        assert relative(states, wanted) < bound
        for made, other in zip(torch.autograd.grad(weighted(states[:1], last[:1]), leaves), gradients, strict=True):
            assert relative(made, other) < bound


def test_the_call_of_its_read_me() -> None:
    like: dict[str, Any] = {"dtype": torch.bfloat16, "requires_grad": True}
    wx, r = torch.randn([2, 6, 4, 3, 16], **like), torch.randn([4, 3, 16, 16], **like)
    b, begun = torch.randn([4, 3, 16], **like), torch.randn([2, 2, 1, 3, 16], **like)
    states, last = flashrnn(wx, r, b, states=begun, function="lstm", backend="cuda_fused")
    assert states[0].shape == (2, 6, 3, 16)
    assert last.shape == begun.shape
    states[0].float().sum().backward()
    for leaf in (wx, r, b, begun):
        assert leaf.grad is not None
        assert leaf.grad.dtype is torch.bfloat16


class Proxy:
    """What stands for a parameter: not a tensor, but with a tensor's attributes."""

    def __init__(self, parameter: Tensor) -> None:
        self.parameter = parameter

    def __getattr__(self, name: str) -> Any:
        return getattr(self.parameter, name)


@dataclass
class LayerConfig(FlashRNNConfig):
    """A model's own fields beside FlashRNN's."""

    embedding_dim: int = -1
    conv1d_kernel_size: int = 0

    def __post_init__(self) -> None:
        self.hidden_dim = self.embedding_dim
        super().__post_init__()


@pytest.mark.parametrize("backend", ["vanilla", "cuda"])
def test_a_layer_with_parameters_of_its_own_order_and_a_config_of_its_own_class(backend: str) -> None:
    """sLSTM layers of forecasting models: R [H, P, G, D] and b [H, G, D], behind proxies, float32 parameters."""
    config = LayerConfig(
        backend=backend, function="slstm", num_heads=2, embedding_dim=8, recurrent_shape="HPGD", bias_shape="HGD"
    )
    assert (config.head_dim, config.hidden_dim, config.dtype_r, config.num_states) == (4, 8, "bfloat16", 4)
    wx, r, b, _ = tensors("slstm")
    recurrent, bias = (nn.Parameter(turned(r, "GHDP", "HPGD").detach()), nn.Parameter(b.transpose(0, 1).detach()))
    states, last = flashrnn(Wx=wx, R=Proxy(recurrent), b=Proxy(bias), states=None, config=config)  # type: ignore[arg-type]
    # FlashRNN's vanilla backend computes in the tensors' dtype, whatever the config's.
    assert states.dtype is last.dtype is (torch.float32 if backend == "vanilla" else torch.bfloat16)
    expected = formulas("slstm", wx, r, b, torch.zeros(4, 3, 1, 2, 4))
    assert relative(states, expected) < (1e-5 if backend == "vanilla" else 2e-2)
    made = torch.autograd.grad(weighted(states, last), (recurrent, bias))
    wanted = torch.autograd.grad(weighted(expected, expected[:, :, -1:]), (r, b))
    assert relative(made[0], turned(wanted[0], "GHDP", "HPGD")) < (1e-4 if backend == "vanilla" else 5e-2)
    assert relative(made[1], wanted[1].transpose(0, 1)) < (1e-4 if backend == "vanilla" else 5e-2)
    begun = torch.zeros(4, 3, 1, 2, 4)
    again, _ = flashrnn(wx, recurrent, bias, begun, config=config)
    torch.testing.assert_close(again, states)


def test_a_config_fills_in_what_it_was_not_told() -> None:
    config = FlashRNNConfig(function="gru", hidden_dim=12, head_dim=4, dtype="float16", dtype_b="float32")
    assert (config.num_heads, config.num_gates_r, config.num_gates_t, config.num_states) == (3, 3, 4, 1)
    assert (config.dtype_a, config.dtype_g, config.dtype_s, config.constants) == ("float32", "float16", "float16", {})
    assert not config.simple_agg
    assert config.input_dim == 36
    assert config.torch_dtype is config.torch_dtype_r is config.torch_dtype_w is config.torch_dtype_s is torch.float16
    assert config.torch_dtype_b is torch.float32
    assert (FlashRNNConfig(hidden_dim=12, num_heads=3).head_dim, FlashRNNConfig(head_dim=8).hidden_dim) == (4, 8)
    for fields, message in [
        ({"function": "lstn"}, "unknown function 'lstn'; did you mean"),
        ({"backend": "cudnn"}, "unknown backend"),
        ({"dtype_r": "float8"}, "unknown dtype_r 'float8'"),
        ({"dtype_acc": "float16"}, r"config\.dtype_acc is 'float16' for dtype 'bfloat16'"),
        ({"bias_shape": "GH"}, r"config\.bias_shape is 'GH', which is no order of the axes G, H, D"),
        ({"input_shape": None}, r"config\.input_shape is None"),
    ]:
        with pytest.raises(ConfigError, match=message):
            FlashRNNConfig(**fields)  # type: ignore[arg-type]
    assert FlashRNNConfig(dtype="float16", dtype_acc="float16").dtype_acc == "float16"


def test_casts_to_its_dtype_and_reads_the_options_of_a_config() -> None:
    wx, r, b, _ = tensors("lstm")
    states, last = flashrnn(wx, r, b)
    assert states.dtype is last.dtype is torch.bfloat16
    assert last.shape == (2, SIZES["batch"], 1, SIZES["heads"], SIZES["dim"])
    config = SimpleNamespace(gradient_recurrent_cut=True, gradient_recurrent_clipval=0.1, forward_clipval=0.2)

    def clipped(*leaves: Tensor) -> Tensor:
        return weighted(*flashrnn(*leaves, config=config, dtype="float32"))

    cell = load_cell("lstm").clipped(0.2)
    expected = weighted(*rnn(wx, r, b, cell=cell, recurrent_cut=True, recurrent_clip=0.1))
    torch.testing.assert_close(clipped(wx, r, b), expected)
    torch.testing.assert_close(torch.compile(clipped, fullgraph=True, backend="aot_eager")(wx, r, b), expected)
    for made, wanted in zip(*(torch.autograd.grad(v, (wx, r, b)) for v in (clipped(wx, r, b), expected)), strict=True):
        torch.testing.assert_close(made, wanted)


def test_a_config_decides_function_backend_and_dtype() -> None:
    wx, r, b, initial = (leaf.detach() for leaf in tensors("lstm"))
    default = FlashRNNConfig(num_heads=2, head_dim=4)
    for config in (FlashRNNConfig(), default):  # one without sizes has one head of -1
        assert torch.equal(flashrnn(wx, r, b, config=config)[0], flashrnn(wx, r, b)[0])
    assert flashrnn(wx, r, b, function="gru", dtype="float32", config=default)[0].dtype is torch.bfloat16
    for function in ("lstm", "slstm"):  # of one shape
        expected = flashrnn(wx, r, b, function=function, dtype="float32")[0]
        for partial in (
            SimpleNamespace(function=function),
            SimpleNamespace(function=function, dtype="float32", num_heads=2, head_dim=4, hidden_dim=8, backend="cuda"),
            SimpleNamespace(function=function, trainable_r=[True] * 4, backend="vanilla"),
        ):
            torch.testing.assert_close(flashrnn(wx, r, b, config=partial, dtype="float32")[0], expected)
    assert flashrnn(wx, r, b, config=SimpleNamespace(dtype="float16"))[0].dtype is torch.float16
    given = flashrnn(wx, r, b, initial, config=SimpleNamespace(initial_val=3.0))[0]  # it is not asked for
    assert torch.equal(given, flashrnn(wx, r, b, initial)[0])


def test_states_are_begun_from() -> None:
    wx, r, b, initial = (leaf.detach() for leaf in tensors("lstm"))
    for value in (0.5, [0.5, 0.5], (0.0, 1.0), 2):
        config = FlashRNNConfig(dtype="float32", initial_val=value)
        each = torch.tensor(value if isinstance(value, (list, tuple)) else [value] * 2, dtype=torch.float32)
        begun = each.view(2, 1, 1, 1, 1).expand_as(initial)
        wanted = flashrnn(wx, r, b, begun, dtype="float32")
        for made, other in zip(flashrnn(wx, r, b, config=config), wanted, strict=True):
            assert torch.equal(made, other)
    # Of several steps of states the first is begun from.
    several = torch.cat([initial, initial + 9, initial - 9], dim=2)
    for backend in ("cuda_fused", "vanilla"):
        made = flashrnn(wx, r, b, several, backend=backend, dtype="float32")[0]
        assert torch.equal(made, flashrnn(wx, r, b, initial, backend=backend, dtype="float32")[0])


def test_dtypes_of_parts() -> None:
    wx, r, b, initial = tensors("lstm", torch.float64)
    exact = formulas("lstm", wx, r, b, initial)  # values that 16 bits hold
    plain, _ = flashrnn(wx, r, b, initial)
    for fields, results, bound in [
        ({"dtype_b": "float32"}, torch.bfloat16, 2e-2),
        ({"dtype_s": "float32"}, torch.float32, 1e-5),
        ({"dtype_g": "float32"}, torch.bfloat16, 2e-2),
        ({"dtype_r": "float16"}, torch.bfloat16, 2e-2),
        ({"dtype_w": "float32"}, torch.float32, 1e-5),
        ({"dtype_w": "float32", "dtype_s": "float16"}, torch.float16, 1e-3),
        ({"dtype": "float64", "dtype_s": "float32"}, torch.float32, 1e-6),
        ({"dtype": "float64"}, torch.float64, 1e-13),
        ({"dtype_a": "float32", "dtype_acc": "float32"}, torch.bfloat16, 2e-2),
    ]:
        states, last = flashrnn(wx, r, b, initial, config=FlashRNNConfig(**fields))  # type: ignore[arg-type]
        assert states.dtype is last.dtype is results
        assert relative(states, exact) < bound, fields
        if bound < relative(plain, exact):
            for made, other in zip(
                torch.autograd.grad(weighted(states, last), (wx, r, b, initial)),
                torch.autograd.grad(weighted(exact, exact[:, :, -1:]), (wx, r, b, initial), retain_graph=True),
                strict=True,
            ):
                assert relative(made, other) < max(10 * bound, 4e-3), fields  # R's and b's are of their dtypes
    strict = FlashRNNConfig(dtype="float32", enable_automatic_mixed_precision=False)
    fitting = [leaf.float() for leaf in (wx, r, b, initial)]
    torch.testing.assert_close(flashrnn(*fitting, config=strict)[0], exact.float(), rtol=1e-5, atol=1e-5)
    for place, name in enumerate(("Wx", "R", "b", "states")):
        leaves = [one.half() if index == place else one for index, one in enumerate(fitting)]
        with pytest.raises(ConfigError, match=rf"nothing is cast, but {name} is torch.float16 and .* torch.float32"):
            flashrnn(*leaves, config=strict)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input_shape", "TBGH"), ("output_shape", "BTHD"), ("recurrent_shape", "GHDD"), ("bias_shape", 3),
        ("dtype_a", "float64"), ("initial_val", [0.0]), ("initial_val", "zero"), ("num_heads", 2), ("head_dim", 8),
        ("hidden_dim", 4), ("num_states", 4), ("num_gates_r", 3), ("num_gates_w", 3), ("num_gates_i", 3),
        ("num_gates_t", 5), ("simple_agg", False), ("constants", {"a": 1.0}), ("trainable_r", False),
        ("trainable_b", [True, False]),
    ],
)  # fmt: skip
def test_what_is_not_done_is_refused_by_name(field: str, value: Any) -> None:
    # T = B and H = G: no shape gives a wrong layout away.
    wx, r, b = torch.zeros(2, 2, 4, 4, 4), torch.zeros(4, 4, 4, 4), torch.zeros(4, 4, 4)
    whole = FlashRNNConfig(num_heads=4, head_dim=4)
    setattr(whole, field, value)
    for config in (SimpleNamespace(**{field: value}), whole):
        with pytest.raises(ConfigError, match=rf"config\.{field} is "):
            flashrnn(wx, r, b, config=config)


def test_what_is_not_known_is_refused() -> None:
    wx, r, b, initial = tensors("lstm", torch.float64)
    for options, message in [
        ({"function": "lstn"}, "unknown function 'lstn'; did you mean"),
        ({"backend": "cudnn"}, "unknown backend 'cudnn'"),
        ({"dtype": "float8"}, "unknown dtype 'float8'"),
        ({"backend": "vanilla", "config": SimpleNamespace(gradient_recurrent_cut=True)}, "neither cuts nor clips"),
        ({"config": SimpleNamespace(function="lstn")}, "unknown function 'lstn'; did you mean"),
        ({"config": SimpleNamespace(dtype_w="float8")}, "unknown dtype_w 'float8'"),
        ({"config": SimpleNamespace(functions="gru")}, "config.functions is no attribute .* did you mean function"),
    ]:
        with pytest.raises(ConfigError, match=message):
            flashrnn(wx, r, b, **options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="config must be an object"):
        flashrnn(wx, r, b, config={"function": "gru"})
    with pytest.raises(TypeError, match=r"b must be a torch.Tensor, not NoneType; for no bias give zeros"):
        flashrnn(wx, r, None)  # type: ignore[arg-type]
    for states, message in [
        (initial[:, :, 0], r"states must have the axes \[S, B, T, H, D\], not shape \[2, 3, 2, 4\]"),
        (initial[:, :, :0], "have no step to begin from"),
        (initial[:, :2], r"states of lstm must be \[S, B, H, D\]"),
    ]:
        with pytest.raises(ShapeError, match=message):
            flashrnn(wx, r, b, states)
    with pytest.raises(ShapeError, match=r"R must have the axes \[H, P, G, D\], not shape \[4, 2, 16\]"):
        flashrnn(wx, r.flatten(2), b, config=FlashRNNConfig(recurrent_shape="HPGD"))
    with pytest.raises(ShapeError, match="R of gru"):
        flashrnn(wx[:, :, :3], r, b, function="gru")


@pytest.mark.parametrize("function", FUNCTIONS)
def test_against_flashrnn_itself(function: str) -> None:
    theirs = pytest.importorskip("flashrnn")
    sizes: dict[str, Any] = {
        "function": function, "backend": "vanilla", "num_heads": 2, "head_dim": 4, "recurrent_shape": "HPGD",
        "bias_shape": "HGD", "input_shape": "TBGHD", "output_shape": "SBHTD", "initial_val": 1.5,
    }  # fmt: skip
    wx, r, b, initial = (leaf.detach() for leaf in tensors(function))
    leaves = wx.transpose(0, 1), turned(r, "GHDP", "HPGD"), b.transpose(0, 1)
    for states in (None, torch.cat([initial, initial + 1], dim=2).transpose(2, 3)):
        wanted = theirs.flashrnn(*leaves, states, config=theirs.FlashRNNConfig(**sizes))
        for config in (FlashRNNConfig(**sizes), theirs.FlashRNNConfig(**sizes)):
            for made, other in zip(flashrnn(*leaves, states, config=config), wanted, strict=True):
                torch.testing.assert_close(made, other)
