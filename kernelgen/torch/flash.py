"""flashrnn: FlashRNN's function (Pöppel, Beck, Hochreiter, arXiv:2412.07752), with its shapes and gate orders."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernelgen.cells import load_cell
from kernelgen.cells.registry import cell_of, register
from kernelgen.errors import ConfigError
from kernelgen.torch import reference
from kernelgen.torch.arguments import require_tensors
from kernelgen.torch.errors import TensorShapeError
from kernelgen.torch.flash_config import LAYOUTS, Options, options, orders
from kernelgen.torch.operator import rnn
from kernelgen.torch.precision import as_parameter
from kernelgen.torch.traced import constant_result

_R_ORDER = {"gru": (1, 2, 0)}
_B_ORDER = {"gru": (1, 2, 3, 0)}
"""Where the gates of our cells' R and b stand in FlashRNN's: its gru has g first. Its others agree with ours."""


def flashrnn(
    Wx: Tensor,
    R: Tensor,
    b: Tensor,
    states: Tensor | None = None,
    function: str | None = None,
    config: Any = None,
    backend: str | None = None,
    dtype: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Run a recurrence, called as FlashRNN's function of the same name.

    Wx [B, T, G_in, H, D], R [G_rec, H, D, D], b [G_bias, H, D], states [S, B, T', H, D], of which the first step
    counts, or None; cast to ``dtype``, "bfloat16" (the default), "float16", "float32" or "float64". An object
    around a tensor with its method contiguous(), such as xlstm's ParameterProxy, is taken for what that returns.
    function, "lstm" if nothing is said, and its gates: lstm and slstm i, f, z, o; gru Wx r, z, n, R g, r, z and b g, r,
    z, n, with h' = z h + (1 - z) tanh(n + r g); elman one. backend: "vanilla" is the PyTorch reference; each of
    FlashRNN's other names runs rnn(), and so our kernels on a GPU. "vanilla" and "vanilla_fwbw" compute in Wx's dtype,
    unless the argument dtype says another.

    config: None, a FlashRNNConfig, or an object with some of its attributes. Its function, backend and dtype come
    before the arguments. input_shape, output_shape, recurrent_shape and bias_shape are the orders of the axes of Wx, of
    states in and out, of R and of b. dtype_w, dtype_r, dtype_b and dtype_s are what Wx, R, b and states are rounded to,
    dtype_s also that of the results; the recurrence runs in the narrowest dtype that holds dtype, dtype_w, dtype_r,
    dtype_s and dtype_g (b is rounded to that too, its gradient is not), and sums and gates' functions in float32 at
    least, whatever dtype_a and dtype_acc say. With enable_automatic_mixed_precision=False nothing is cast: tensors
    must have those dtypes. initial_val is the value of the states where none are given, one for all or one each.
    gradient_recurrent_cut, gradient_recurrent_clipval and forward_clipval are done; batch_size is a hint; each of the
    others (sizes, constants, trainable_r, ...) is refused by name if it asks for anything else than what is done.

    Returns states [S, B, T, H, D] and the last of them [S, B, 1, H, D].

    Raises ConfigError for an unknown function, backend or dtype, an attribute of the config that is refused, tensors
    that would have to be cast and may not be, or a gradient option with backend "vanilla"; ArgumentTypeError for what
    is no tensor; ShapeError for tensors that do not belong together.
    """
    Wx, R, b = (_tensor(one) for one in (Wx, R, b))
    require_tensors("states", Wx=Wx, R=R, b=b, states=states)
    layout = orders(config)
    wx = _permuted("Wx", Wx, "input_shape", layout)
    r, bias = _permuted("R", R, "recurrent_shape", layout), _permuted("b", b, "bias_shape", layout)
    chosen = options(config, function, backend, dtype, wx)
    given = None if states is None else _first(_permuted("states", states, "output_shape", layout))
    if chosen.strict:
        _require_dtypes(chosen, Wx=(wx, chosen.w), R=(r, chosen.r), b=(bias, chosen.b), states=(given, chosen.s))
    wx = wx.to(chosen.w).to(chosen.work)
    r = as_parameter(_ordered(r, _R_ORDER.get(chosen.function)), chosen.r, chosen.work)
    bias = as_parameter(_ordered(bias, _B_ORDER.get(chosen.function)), chosen.b, chosen.work)
    initial = _started(chosen, wx) if given is None else as_parameter(given, chosen.s, chosen.work)
    cell = chosen.function if chosen.bound is None else _clipped(chosen.function, float(chosen.bound))
    with torch.autocast(wx.device.type, enabled=False):  # the dtype is the caller's word
        if chosen.backend == "vanilla":
            if chosen.cut or chosen.clip is not None:
                raise ConfigError(
                    "backend 'vanilla' neither cuts nor clips recurrent gradients (gradient_recurrent_cut, "
                    "gradient_recurrent_clipval); choose another, such as 'cuda_fused'"
                )
            every, last, _ = reference.forward(cell_of(cell), wx, r, bias, initial)
        else:
            every, last = rnn(wx, r, bias, initial, cell, recurrent_cut=chosen.cut, recurrent_clip=chosen.clip)
    back = layout["output_shape"]
    inverse = tuple(back.index(axis) for axis in range(len(back)))
    return every.to(chosen.s).permute(inverse), last.to(chosen.s).unsqueeze(2).permute(inverse)


def _clipped_key(function: str, bound: float) -> str:
    """The key of a cell whose h is clamped to [-bound, bound]."""
    return register(load_cell(function).clipped(bound))


_clipped = constant_result(_clipped_key)


def _tensor(value: Any) -> Any:
    """A tensor as it is, and what stands for one as the tensor that FlashRNN makes of it."""
    if isinstance(value, Tensor) or not callable(getattr(value, "contiguous", None)):
        return value
    return value.contiguous()


def _permuted(what: str, tensor: Tensor, name: str, layout: dict[str, tuple[int, ...]]) -> Tensor:
    """A tensor with its axes in our order. Raises TensorShapeError for another number of axes."""
    order = layout[name]
    if tensor.dim() != len(order):
        inside = LAYOUTS[name]
        asked = ", ".join(inside[order.index(place)] for place in range(len(order)))
        raise TensorShapeError(f"{what} must have the axes [{asked}], not shape {list(tensor.shape)}")
    return tensor if order == tuple(range(len(order))) else tensor.permute(order)


def _first(states: Tensor) -> Tensor:
    """The first step of states [S, B, T', H, D]. Raises TensorShapeError where there is none."""
    if not states.shape[2]:
        raise TensorShapeError(f"states [S, B, T, H, D] = {list(states.shape)} have no step to begin from")
    return states[:, :, 0]


def _started(chosen: Options, wx: Tensor) -> Tensor | None:
    """The states that a config begins with, [S, B, H, D], None for zeros."""
    if not any(chosen.initial):
        return None
    batch, _, _, heads, dim = wx.shape
    values = wx.new_tensor(chosen.initial).to(chosen.s).to(wx.dtype)
    return values.view(-1, 1, 1, 1).expand(-1, batch, heads, dim).contiguous()


def _require_dtypes(chosen: Options, **tensors: tuple[Tensor | None, torch.dtype]) -> None:
    """Raise ConfigError for a tensor that is not of its dtype."""
    for name, (tensor, dtype) in tensors.items():
        if tensor is not None and tensor.dtype != dtype:
            raise ConfigError(
                f"config.enable_automatic_mixed_precision is False, so that nothing is cast, but {name} is "
                f"{tensor.dtype} and the config asks for {dtype}; convert it, or leave that out"
            )


def _ordered(tensor: Tensor, order: tuple[int, ...] | None) -> Tensor:
    """The tensor with its gates in another order; too few or too many are left for the shape check to tell."""
    return tensor if order is None or tensor.shape[:1] != (len(order),) else torch.stack([tensor[i] for i in order])
