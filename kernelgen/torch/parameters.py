"""The gradients of R and b, from those of every gate's sum: what runs where no kernel does."""

from __future__ import annotations

import torch
from torch import Tensor

from kernelgen.cells.language import Cell
from kernelgen.torch.sequences import NOTHING, Masks, Own


def parameter_gradients(
    cell: Cell,
    d_gates: Tensor,
    initial: Tensor | None,
    hidden: Tensor,
    r: torch.dtype,
    b: torch.dtype,
    own: Own = NOTHING,
) -> tuple[Tensor, Tensor]:
    """d_r [G_rec, H, D, D] and d_b [G_bias, H, D].

    d_gates [G, B, T, H, D]: the gradients of the gates' sums; initial [S, B, H, D] or None for zeros; hidden
    [B, T, H, D]: h after every step; own: where it begins anew. r, b: the dtypes of the results, which sums are not
    rounded to before. dR_g = sum over b and t of dg(t) h(t-1)^T, db_g = sum of dg(t).
    """
    first = None if initial is None else initial.to(hidden.dtype)
    before = Masks(own, hidden.shape[1]).before(hidden, first)
    wide = r if r.itemsize > hidden.dtype.itemsize else hidden.dtype
    d_r = torch.einsum("gbthd,bthp->ghdp", d_gates[list(cell.recurrent_gates)].to(wide), before.to(wide))
    d_r = d_r.contiguous().to(r)
    if not cell.bias_gates:
        return d_r, hidden.new_empty((0, *hidden.shape[2:]), dtype=b)
    work = torch.float32 if hidden.dtype.itemsize == 2 else hidden.dtype
    return d_r, d_gates[list(cell.bias_gates)].sum((1, 2), dtype=work).to(b)
