"""The passes over chunks of steps of one length, in memory that all chunks share: what a chunk costs the host is its
kernels' launches and a few copies, and the GPU holds one chunk's gates and Wx at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kernelgen.cells.registry import cell_of
from kernelgen.symbolic.derive import derive
from kernelgen.torch import passes
from kernelgen.torch.kernels import ALIGNMENT, ready
from kernelgen.torch.parts import input_product
from kernelgen.torch.reference import form_of
from kernelgen.torch.sequences import NOTHING, Own


@dataclass(frozen=True)
class Source:
    """What all chunks come from: x, w, first, r and b as of checkpoint.run, in the dtypes that passes take."""

    x: Tensor
    w: Tensor | None
    first: Tensor | None
    r: Tensor
    b: Tensor
    cell: str
    hidden: bool
    gradient: tuple[Any, ...]

    @property
    def known(self) -> int:
        """How many states are given out after every step."""
        return 1 if self.hidden else len(cell_of(self.cell).states)


class Memory:
    """Buffers that chunks share, by what they hold: each is as large as the longest chunk needs."""

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._buffers: dict[str, Tensor] = {}

    def of(self, name: str, sizes: tuple[int, ...], dtype: torch.dtype | None = None) -> Tensor:
        """The buffer as a tensor of these sizes, no larger than those of the first time."""
        count = math.prod(sizes)
        if name not in self._buffers:
            self._buffers[name] = self._like.new_empty((count,), dtype=dtype or self._like.dtype)
        return self._buffers[name][:count].view(sizes)


class Chunk:
    """The passes over ``steps`` steps. keep: as of passes.forward. memory: that of all chunks; the longest comes first.

    wx [B, C, G_in, H, D], states [K, B, C, H, D], others and gates: where chunks' passes read and write. Backward,
    d_states and d_wx too; d_wx takes the place of wx, which the gates have been made from then.
    """

    def __init__(self, source: Source, memory: Memory, steps: int, keep: str, lengths: bool) -> None:
        self._source = source
        cell = cell_of(source.cell)
        batch, (_, heads, dim) = source.x.shape[0], source.r.shape[:3]
        known, count, each = source.known, len(cell.states), (batch, steps, heads, dim)
        self.wx = memory.of("wx", (batch, steps, len(cell.input_gates), heads, dim))
        self.states = memory.of("states", (known, *each))
        self.others = memory.of("others", (count - known, *each)) if keep == "gates" and count > known else None
        self.gates = memory.of("gates", (len(derive(cell).saved_gates), *each)) if keep == "gates" else None
        self._rows = self.wx.flatten(2)
        single = source.w is not None and source.w.shape[0] == 1
        self._weight = source.w[0].t().expand(batch, -1, -1) if single and source.w is not None else None
        features = ("lengths",) if lengths else ()
        # Sums over chunks are of float32, which kernels that are told so hand over unrounded.
        self.parameters = torch.float32 if self.wx.dtype.itemsize == 2 else self.wx.dtype
        r, b = ((one.shape, self.parameters, one.device) for one in (source.r, source.b))
        start = (torch.Size((count, batch, heads, dim)), self.wx.dtype, self.wx.device)
        engine, options = passes.engine_for(self.wx), (source.cell, source.hidden, keep, *source.gradient)
        self._forward = passes.forward_pass(engine, (form_of(self.wx), r, b, start), features, options)
        if keep != "gates":
            return
        self.d_wx = self.wx
        self.d_states = memory.of("d_states", (known, *each))
        r_size, b_size = (len(cell.recurrent_gates), heads, dim, dim), (len(cell.bias_gates), heads, dim)
        r_count = math.prod(r_size)
        padded = -(-r_count // ALIGNMENT) * ALIGNMENT
        self.sums = memory.of("sums", (padded + math.prod(b_size),), self.parameters)
        self._parts = (slice(r_count), r_size, slice(padded, None), b_size)
        self.d_r, self.d_b = self.parted(self.sums)
        self._backward = passes.backward_pass(
            engine,
            form_of(self.states),
            self.parameters,
            self.parameters,
            again=False,
            features=features,
            options=(source.cell, *source.gradient),
        )

    def parted(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of R and b in ``sums`` or what has its form."""
        of_r, r_size, of_b, b_size = self._parts
        return sums[of_r].view(r_size), sums[of_b].view(b_size)

    def product(self, part: Tensor, first: bool) -> None:
        """Make Wx of a chunk from its part of x; whether it is the first one."""
        source = self._source
        if source.w is None:
            self.wx.copy_(part)
        elif self._weight is not None:
            torch.bmm(part.squeeze(2), self._weight, out=self._rows)
        else:
            _, _, _, heads, dim = self.wx.shape
            self.wx.copy_(input_product(part.unbind(2), source.w.unbind(), heads // source.w.shape[0], dim))
        if source.first is not None and first:
            self.wx[:, 0].add_(source.first)

    def of_product(self, part: Tensor, d_part: Tensor, d_w: Tensor) -> None:
        """Write the gradient of the chunk's part of x [B, C, K, I] and add that of w, from d_wx."""
        w = self._source.w
        if w is None:
            d_part.copy_(self.d_wx)
            return
        count, batch = w.shape[0], part.shape[0]
        sents = (self._rows,) if count == 1 else self.d_wx.unflatten(3, (count, -1)).unbind(3)
        for k, sent in enumerate(sents):
            rows = sent.flatten(2)
            torch.bmm(rows, w[k].expand(batch, -1, -1), out=d_part[:, :, k])
            d_w[k].add_(rows.flatten(0, 1).t().mm(part[:, :, k].flatten(0, 1)))

    def forward(self, initial: Tensor, last: Tensor, own: Own) -> None:
        """From the states before it to those after its last step, in ``last``."""
        kernel, source = self._forward.kernel, self._source
        if kernel is None:
            made, end, others, gates = self._forward(self.wx, source.r, source.b, initial, own, None)
            last.copy_(end)
            for place, value in ((self.states, made), (self.others, others), (self.gates, gates)):
                if place is not None and value is not None:
                    place.copy_(value)
            return
        target = last if last.data_ptr() % ALIGNMENT == 0 else torch.empty_like(last)
        initial = ready(initial, self.wx.dtype)
        arrays = (self.wx, source.r, source.b, initial, self.states, self.others, target, self.gates)
        kernel.start((*arrays, *own_arrays(own)))
        self._forward.count()
        if target is not last:
            last.copy_(target)

    def backward(self, initial: Tensor, d_last: Tensor | None, d_initial: Tensor, own: Own) -> None:
        """Fill d_wx, d_r, d_b and ``d_initial`` from d_states and d_last, None for zeros."""
        kernel, source = self._backward.kernel, self._source
        if kernel is None:
            given = (self.states, self.others, self.gates, None, self.d_states, d_last, own)
            wide = (source.r.to(self.parameters), source.b.to(self.parameters))
            found = self._backward(*wide, initial, *given)
            for place, value in zip((self.d_wx, self.d_r, self.d_b, d_initial), found, strict=True):
                place.copy_(value)
            return
        initial = ready(initial, self.wx.dtype)
        arrays = (None, source.r, source.b, initial, self.states, self.others, self.gates, self.d_states, d_last)
        kernel.start((*arrays, self.d_wx, self.d_r, self.d_b, d_initial, *own_arrays(own)))
        self._backward.count()


def own_arrays(own: Own) -> tuple[Tensor, ...]:
    """What sequences have of their own, in the order in which kernels take it."""
    return () if own is NOTHING else tuple(tensor for tensor in own if tensor is not None)
