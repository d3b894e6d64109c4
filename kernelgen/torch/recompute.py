"""The gates' sums, computed again from h for a piece of the steps, so that a forward pass need not keep them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kernelgen.cells.language import Cell

SHARE = 0.13
"""Of the memory that the states take: what a piece may take."""


def in_pieces(
    run: Callable[[dict[str, Any]], None],
    arguments: dict[str, Any],
    cell: Cell,
    wx: Tensor,
    r: Tensor,
    b: Tensor,
    initial: Tensor | None,
    hidden: Tensor,
) -> Tensor:
    """Run a backward kernel piece by piece, from the last steps to the first, and return d_initial [S, B, H, D].

    arguments: the kernel's, of which gates, first, steps, d_last and d_initial are replaced. The rest as for
    ``gate_sums``.
    """
    seq = hidden.shape[1]
    carried, steps = arguments["d_last"], span(cell, seq)
    for end in range(seq, 0, -steps):
        first = max(0, end - steps)
        before = torch.empty_like(arguments["d_initial"])
        with torch.autocast(wx.device.type, enabled=False):
            gates = gate_sums(cell, wx, r, b, initial, hidden, first, end - first)
        bounds = {"first": np.int32(first), "steps": np.int32(end - first)}
        run(arguments | bounds | {"gates": gates, "d_last": carried, "d_initial": before})
        del gates  # before the next one takes memory
        carried = before
    return carried


def span(cell: Cell, seq: int) -> int:
    """How many steps a piece has: its gates, and h twice, must fit in SHARE of the states' memory."""
    return max(1, int(SHARE * len(cell.states) * seq / (len(cell.gates) + 2)))


def gate_sums(
    cell: Cell, wx: Tensor, r: Tensor, b: Tensor, initial: Tensor | None, hidden: Tensor, first: int, steps: int
) -> Tensor:
    """Every gate's sum, [G, B, steps, H, D], of the steps first .. first + steps - 1.

    wx [B, T, G_in, H, D], r [G_rec, H, D, D], b [G_bias, H, D], initial [S, B, H, D] or None for zeros, hidden
    [B, T, H, D]: h after every step. The products add to Wx + b, which is rounded to the tensors' dtype once more than
    in a kernel.
    """
    batch, _, heads, dim = hidden.shape
    before = hidden[:, max(first - 1, 0) : first + steps - 1]
    if first == 0:
        start = torch.zeros_like(hidden[:, :1]) if initial is None else initial[0].unsqueeze(1)
        before = torch.cat([start, before], dim=1)
    rows = before.permute(2, 0, 1, 3).reshape(heads, batch * steps, dim)
    inputs = wx[:, first : first + steps].movedim(2, 0)
    biases = b[:, None, None]
    sums = wx.new_empty((len(cell.gates), batch, steps, heads, dim))
    if cell.input_gates == cell.bias_gates == tuple(range(len(cell.gates))):
        torch.add(inputs, biases, out=sums)
    else:
        sums.zero_()
        for gates, parts in ((cell.input_gates, inputs), (cell.bias_gates, biases)):
            for index, part in zip(gates, parts, strict=True):
                sums[index] += part
    for index, weights in zip(cell.recurrent_gates, r, strict=True):
        sums[index].view(batch * steps, heads, dim).transpose(0, 1).baddbmm_(rows, weights.transpose(1, 2))
    return sums
