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
from kernelgen.torch.flash_config import options
from kernelgen.torch.operator import rnn

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

    Wx [B, T, G_in, H, D], R [G_rec, H, D, D], b [G_bias, H, D], states [S, B, 1, H, D] or None for zeros; they are
    cast to ``dtype``, "bfloat16" (the default), "float16" or "float32". function, "lstm" if nothing is said, and its
    gates: lstm and slstm i, f, z, o; gru Wx r, z, n, R g, r, z and b g, r, z, n, with h' = z h + (1 - z) tanh(n + r g);
    elman one. backend: "vanilla" is the PyTorch reference; each of FlashRNN's other names runs rnn(), and so our
    kernels on a GPU.

    config: None, or an object with FlashRNN's attributes, any of them. function, backend and dtype count where the
    argument is left out; gradient_recurrent_cut, gradient_recurrent_clipval and forward_clipval are done; each of the
    others is refused if it asks for anything else than what is done (see flash_config.py).

    Returns states [S, B, T, H, D] and the last of them [S, B, 1, H, D], of ``dtype``.

    Raises ConfigError for an unknown function, backend or dtype, an attribute of the config that is refused, or a
    gradient option with backend "vanilla"; ArgumentTypeError for what is no tensor; ShapeError for tensors that do not
    belong together.
    """
    require_tensors("states", Wx=Wx, R=R, b=b, states=states)
    chosen = options(config, function, backend, dtype, Wx, states)
    if states is not None and (states.dim() != 5 or states.shape[2] != 1):
        raise TensorShapeError(f"states must be [S, B, 1, H, D], not {list(states.shape)}")
    kind = getattr(torch, chosen.dtype)
    initial = None if states is None else states[:, :, 0].to(kind)
    wx, r, bias = (
        Wx.to(kind),
        _ordered(R.to(kind), _R_ORDER.get(chosen.function)),
        _ordered(b.to(kind), _B_ORDER.get(chosen.function)),
    )
    cell = chosen.function if chosen.bound is None else _clipped(chosen.function, float(chosen.bound))
    with torch.autocast(wx.device.type, enabled=False):  # the dtype is the caller's word
        if chosen.backend == "vanilla":
            if chosen.cut or chosen.clip is not None:
                raise ConfigError(
                    "backend 'vanilla' neither cuts nor clips recurrent gradients; choose another, such as 'cuda_fused'"
                )
            every, last, _ = reference.forward(cell_of(cell), wx, r, bias, initial)
        else:
            every, last = rnn(wx, r, bias, initial, cell, recurrent_cut=chosen.cut, recurrent_clip=chosen.clip)
    return every, last.unsqueeze(2)


def _clipped_key(function: str, bound: float) -> str:
    """The key of a cell whose h is clamped to [-bound, bound]."""
    return register(load_cell(function).clipped(bound))


_clipped = torch.compiler.assume_constant_result(_clipped_key)


def _ordered(tensor: Tensor, order: tuple[int, ...] | None) -> Tensor:
    """The tensor with its gates in another order; too few or too many are left for the shape check to tell."""
    return tensor if order is None or tensor.shape[:1] != (len(order),) else torch.stack([tensor[i] for i in order])
