"""The gradients of R and b, from those of every gate's sum: what runs where no kernel does."""

from __future__ import annotations

import torch
from torch import Tensor

from kernelgen.cells.language import Cell


def parameter_gradients(
    cell: Cell, d_wx: Tensor, d_rest: Tensor | None, initial: Tensor | None, hidden: Tensor
) -> tuple[Tensor, Tensor]:
    """d_r [G_rec, H, D, D] and d_b [G_bias, H, D].

    d_wx [B, T, G_in, H, D] and d_rest [G - G_in, B, T, H, D] (None where every gate has an input): the gradients of
    the gates' sums; initial [S, B, H, D] or None for zeros; hidden [B, T, H, D]: h after every step. dR_g = sum over
    b and t of dg(t) h(t-1)^T, db_g = sum of dg(t).
    """
    each = dict(zip(cell.input_gates, d_wx.unbind(2), strict=True))
    if d_rest is not None:
        each |= dict(zip(cell.rest_gates, d_rest.unbind(), strict=True))
    first = torch.zeros_like(hidden[:, :1]) if initial is None else initial[0].unsqueeze(1)
    before = torch.cat([first, hidden[:, :-1]], dim=1)
    made = torch.stack([each[index] for index in cell.recurrent_gates], dim=2)
    d_r = torch.einsum("btghd,bthp->ghdp", made, before).contiguous()
    if not cell.bias_gates:
        return d_r, hidden.new_empty((0, *hidden.shape[2:]))
    work = torch.float32 if hidden.dtype.itemsize == 2 else hidden.dtype
    d_b = torch.stack([each[index].sum((0, 1), dtype=work) for index in cell.bias_gates])
    return d_r, d_b.to(hidden.dtype)
