"""The recurrence of any cell as one loop in a graph, ONNX's Scan, while torch.onnx.export traces a model."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kernelgen.cells.language import Cell
from kernelgen.torch.arguments import any_autocast
from kernelgen.torch.errors import ExportError
from kernelgen.torch.reference import Recurrence, check_tensors, start_of
from kernelgen.torch.sequences import Masks, Own, select


def forward(
    cell: Cell, wx: Tensor, r: Tensor, b: Tensor, initial: Tensor | None, own: Own, *, known: int
) -> tuple[Tensor, Tensor]:
    """The first ``known`` states after every step [K, B, T, H, D], and all after the last one [S, B, H, D], without
    gradients; arguments as of reference.forward, whose numbers these are.

    Raises ShapeError, and ExportError where this PyTorch has no scan.
    """
    try:
        from torch._higher_order_ops.scan import scan  # a prototype in PyTorch
    except ImportError as error:
        raise ExportError(
            f"PyTorch {torch.__version__} has no scan, by which a recurrence becomes a loop of ONNX's; take a newer one"
        ) from error
    check_tensors(cell, wx, r, b, initial)
    seq = wx.shape[1]
    off = torch.autocast(wx.device.type, enabled=False) if any_autocast() else nullcontext()
    with torch.no_grad(), off:
        wx, r, b = wx.detach(), r.detach(), b.detach()
        masks, dtype = Masks(own, seq), wx.dtype
        run, start = Recurrence.of(cell, r, b, dtype), start_of(cell, initial, wx)
        start = [state.clone(memory_format=torch.contiguous_format) for state in start]
        # scan takes every size of what it reads for a variable: nothing may be split by one, nor be spread.
        weights = r.to(dtype).to(run.work).transpose(2, 3)  # [G_rec, H, D, D]
        run = replace(run, bias={gate: value.expand_as(start[0]).contiguous() for gate, value in run.bias.items()})
        xs = {"wx": masks.clear(wx).to(run.work).permute(1, 2, 3, 0, 4)}  # [T, G_in, H, B, D]
        for name, mask in (("running", masks.whole), ("restarts", masks.resets)):
            if mask is not None:
                xs[name] = mask.t()[:, None, :, None]  # [T, 1, B, 1]

        again = [state.clone() for state in start]  # scan wants what it carries for itself

        def one(state: tuple[Tensor, ...], x: dict[str, Tensor]) -> Any:
            before = select(x.get("restarts"), again, state)
            products = torch.matmul(before[0].unsqueeze(0), weights).unbind()
            _, after = run.step(x["wx"].unbind(), before, products)
            if "running" in x:
                after = select(x["running"], after, before)
            return tuple(value.clone() for value in after), tuple(value.to(dtype, copy=True) for value in after[:known])

        if isinstance(seq, int) and seq == 1:
            last, every = one(tuple(start), {name: value[0] for name, value in xs.items()})
            every = tuple(value.unsqueeze(0) for value in every)
        else:
            last, every = scan(one, tuple(start), xs)
        states = torch.stack(list(every)).permute(0, 3, 1, 2, 4)
        if own.lengths is not None:
            states = torch.stack([masks.clear(state) for state in states.unbind()])
        return states, torch.stack(list(last)).transpose(1, 2).to(dtype)
