"""Gates' sums, recomputed from h by one large product: what runs where no kernel computes them in its steps."""

from __future__ import annotations

from torch import Tensor

from kernelgen.cells.language import Cell
from kernelgen.symbolic.derive import derive
from kernelgen.torch.sequences import NOTHING, Masks, Own


def recompute_gates(
    cell: Cell,
    wx: Tensor,
    r: Tensor,
    b: Tensor,
    initial: Tensor | None,
    hidden: Tensor,
    own: Own = NOTHING,
) -> Tensor:
    """The sums [G_saved, B, T, H, D] of the gates that a backward pass reads (derive.Backward.saved_gates).

    wx [B, T, G_in, H, D], r [G_rec, H, D, D], b [G_bias, H, D], initial [S, B, H, D] or None for zeros, hidden
    [B, T, H, D]: h after every step; own: where it begins anew. The products add to Wx + b, which is rounded to the
    tensors' dtype once more than in a kernel.
    """
    batch, seq, heads, dim = hidden.shape
    r, b, initial = r.to(wx.dtype), b.to(wx.dtype), None if initial is None else initial.to(wx.dtype)
    before = Masks(own, seq).before(hidden, initial)
    rows = before.permute(2, 0, 1, 3).reshape(heads, batch * seq, dim)
    saved = derive(cell).saved_gates
    sums = wx.new_zeros((len(saved), batch, seq, heads, dim))
    of_gate = dict(zip(saved, sums, strict=True))
    for gates, parts in ((cell.input_gates, wx.movedim(2, 0)), (cell.bias_gates, b[:, None, None])):
        for index, part in zip(gates, parts, strict=True):
            if index in of_gate:
                of_gate[index] += part
    for index, weights in zip(cell.recurrent_gates, r, strict=True):
        if index in of_gate:
            of_gate[index].view(batch * seq, heads, dim).transpose(0, 1).baddbmm_(rows, weights.transpose(1, 2))
    return sums
