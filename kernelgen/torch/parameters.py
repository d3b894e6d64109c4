"""The gradients of R and b, from those of every gate's sum: one product and one sum over all steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kernelgen.cells.language import Cell


def parameter_gradients(
    cell: Cell, d_wx: Tensor, d_gates: Sequence[Tensor], initial: Tensor | None, states: Tensor
) -> tuple[Tensor, Tensor]:
    """d_r [G_rec, H, D, D] and d_b [G_bias, H, D].

    d_wx [B, T, G_in, H, D]; d_gates: G tensors [B, T, H, D], the gradients of every gate's sum; initial [S, B, H, D]
    or None for zeros; states [S, B, T, H, D]. dR_g = sum over b and t of dg(t) h(t-1)^T, db_g = sum of dg(t).
    """
    first = torch.zeros_like(states[0, :, :1]) if initial is None else initial[0].unsqueeze(1)
    before = torch.cat([first, states[0, :, :-1]], dim=1)
    same = cell.recurrent_gates == cell.input_gates
    made = d_wx if same else torch.stack([d_gates[index] for index in cell.recurrent_gates], dim=2)
    d_r = torch.einsum("btghd,bthp->ghdp", made, before).contiguous()
    work = torch.float32 if states.dtype.itemsize == 2 else states.dtype
    if not cell.bias_gates:
        return d_r, states.new_empty((0, *states.shape[3:]))
    d_b = torch.stack([d_gates[index].sum((0, 1), dtype=work) for index in cell.bias_gates])
    return d_r, d_b.to(states.dtype)
