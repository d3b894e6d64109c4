"""The gates' sums, computed again from h for a piece of the steps, so that a forward pass need not keep them."""

from __future__ import annotations

import torch
from torch import Tensor

from kernelgen.cells.language import Cell

SHARE = 0.12
"""Of the memory that the states take: what a piece and its products may take."""


def span(cell: Cell, seq: int) -> int:
    """How many steps a piece has: its gates, as many products and h must fit in SHARE of the states' memory."""
    return max(1, int(SHARE * len(cell.states) * seq / (2 * len(cell.gates) + 1)))


def gate_sums(
    cell: Cell, wx: Tensor, r: Tensor, b: Tensor, initial: Tensor | None, hidden: Tensor, first: int, steps: int
) -> Tensor:
    """Every gate's sum, [G, B, steps, H, D], of the steps first .. first + steps - 1.

    wx [B, T, G_in, H, D], r [G_rec, H, D, D], b [G_bias, H, D], initial [S, B, H, D] or None for zeros, hidden
    [B, T, H, D]: h after every step. One product for all gates and steps; in the tensors' dtype, which rounds the
    product once more than a kernel does.
    """
    batch, _, heads, dim = hidden.shape
    before = hidden[:, max(first - 1, 0) : first + steps - 1]
    if first == 0:
        start = torch.zeros_like(hidden[:, :1]) if initial is None else initial[0].unsqueeze(1)
        before = torch.cat([start, before], dim=1)
    rows = before.permute(2, 0, 1, 3).reshape(heads, batch * steps, dim)
    products = torch.bmm(rows, r.permute(1, 3, 0, 2).reshape(heads, dim, -1))
    products = products.view(heads, batch, steps, -1, dim).permute(3, 1, 2, 0, 4)
    inputs = wx[:, first : first + steps].movedim(2, 0)
    if cell.recurrent_gates == cell.input_gates == cell.bias_gates == tuple(range(len(cell.gates))):
        sums = torch.add(products, inputs, out=wx.new_empty((len(cell.gates), batch, steps, heads, dim)))
        return sums.add_(b[:, None, None])
    sums = wx.new_zeros((len(cell.gates), batch, steps, heads, dim))
    for gates, parts in (
        (cell.recurrent_gates, products),
        (cell.input_gates, inputs),
        (cell.bias_gates, b[:, None, None]),
    ):
        for index, part in zip(gates, parts, strict=True):
            sums[index] += part
    return sums
