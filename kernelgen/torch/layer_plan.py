"""Layers whose passes are kernels: found out once for a form of the input, and then no more than the
calls that compute. At short sequences the host is what is waited for, and every PyTorch call costs it microseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import torch
from torch import Tensor

from kernelgen.torch.engine import Engine
from kernelgen.torch.errors import TensorShapeError
from kernelgen.torch.kernels import Backward, Forward, ready
from kernelgen.torch.layer_form import LayerForm
from kernelgen.torch.parts import bias_gradients
from kernelgen.torch.whole_pass import Products, WholePass

KEPT = 7
"""Tensors that a layer leaves for the backward pass: rows of its input, R, b, the initial states, h, the other states,
the gates."""

STRIDED_WORK = 1 << 31
"""Multiplications up to which a product for each sequence takes the place of a copy of a time-major input and one
product for all: one call less for the host, and more for the GPU, which is not what is waited for then."""

STRIDED_ROWS = 64
"""Rows of a product that a GPU's matrix units compute at a time, about, whether they are there or not."""


@dataclass(frozen=True)
class Plan(LayerForm):
    """How a module's layers run over inputs of one form. whole: as kernels that one call queues, where there
    are such; else a layer of one direction is a product of PyTorch's and a kernel, which ``forward`` and ``backward``
    run."""

    whole: WholePass | None = field(init=False, default=None)

    def take_whole(
        self, engine: Engine, x: Tensor, products: Sequence[Products], *, time_major: bool, begun: bool, dtype: str
    ) -> None:
        """Find ``whole`` for inputs of x's form: see WholePass."""
        whole = WholePass(self, engine, x, products, time_major=time_major, begun=begun, dtype=dtype)
        if whole.possible:
            object.__setattr__(self, "whole", whole)

    def of(self, x: Tensor, parameters: Sequence[Tensor]) -> Plan | WholePass | None:
        """What runs for these tensors; None for two directions that no kernels can take whole."""
        whole = self.whole
        if whole is not None and whole.takes(x, parameters):
            return whole
        return self if self.directions == 1 else None

    @property
    def kept(self) -> int:
        """How many tensors ``forward`` leaves for ``backward``."""
        return KEPT * self.layers

    def forward(
        self, x: Tensor, time_major: bool, initial: Sequence[Tensor], parameters: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor], list[Tensor | None], list[Tensor]]:
        """x [B, T, I], or [T, B, I] where it is time-major; initial: each state [L, B, H D], or none for zeros;
        parameters: those of the layers in turn.

        Returns h of the last layer in the form of x, each last state [L, B, H D], KEPT tensors of each layer for
        ``backward`` and the masks of dropout. Raises TensorShapeError for parameters that do not fit.
        """
        kernel: Forward = self.run.kernel
        learning, batch, seq, wide = self.keep != "nothing", self.batch, self.seq, self.heads * self.dim
        count, states, dtype, empty = len(self.names), len(self.parts.states), x.dtype, x.new_empty
        kept: list[Tensor | None] = []
        ends, masks = [], []
        rows: Tensor | None = None
        starts = torch.stack(tuple(initial), 1) if initial else None  # [L, S, B, H D]
        for layer in range(self.layers):
            weight_ih, weight_hh, *biases = parameters[layer * count : (layer + 1) * count]
            if rows is not None:
                if self.dropout:
                    rows, mask = torch.native_dropout(rows, self.dropout, True)
                    masks.append(mask)
            elif not time_major:
                rows = x.reshape(batch * seq, -1)
            elif learning or not self._strided(weight_ih):
                rows = x.transpose(0, 1).reshape(batch * seq, -1)
            # One bias is added by the product, the other by the kernel, where that is all there is to their sum.
            apart = self.all_summed and biases and biases[0].dtype is dtype
            r = ready(weight_hh, dtype)
            b = ready(biases[1] if apart else self.bias(biases, weight_hh), dtype)
            device = x.get_device()
            fits = weight_ih.shape[0] == self.width and r.shape == self.r_sizes and b.shape == self.b_sizes
            if apart:
                fits = fits and biases[0].shape == self.b_sizes
            if not fits or r.get_device() != device or b.get_device() != device:
                self._refuse(layer, weight_ih, r, b)
            w = weight_ih.t()
            if rows is None:
                each, w = x.transpose(0, 1), w.expand(batch, -1, -1)
                wx = torch.baddbmm(biases[0], each, w) if apart else torch.bmm(each, w)
            else:
                wx = torch.addmm(biases[0], rows, w) if apart else rows.mm(w)
            start = None if starts is None else ready(starts[layer], dtype)
            hidden = empty((batch, seq, wide) if layer == self.layers - 1 else (batch * seq, wide))
            last = empty((states, 1, batch, wide))
            others = None if kernel.others is None else empty(kernel.others)
            gates = None if kernel.gates is None else empty(kernel.gates)
            kernel.start((wx, r, b, start, hidden, others, last, gates))
            self.run.count()
            ends.append(last)
            if learning:
                kept += (rows, r, b, start, hidden, others, gates)
            rows = hidden
        assert rows is not None
        every = ends[0] if len(ends) == 1 else torch.cat(ends, 1)
        # No views, which autograd would not let anybody change in place.
        last_states = [state.data for state in every.unbind()]
        return torch.transpose_copy(rows, 0, 1) if time_major else rows, last_states, kept, masks

    def _strided(self, weight: Tensor) -> bool:
        """Whether the product of a time-major input is one for each sequence."""
        return bool(self.batch * max(self.seq, STRIDED_ROWS) * weight.numel() <= STRIDED_WORK)

    def _refuse(self, layer: int, w: Tensor, r: Tensor, b: Tensor) -> NoReturn:
        """Raise TensorShapeError: the parameters are not those that the kernel reads."""
        raise TensorShapeError(
            f"the gates of layer {layer} have {w.shape[0]} rows in weight_ih, {list(r.shape)} in weight_hh and "
            f"{list(b.shape)} in the biases, on {w.device}, {r.device} and {b.device}; they must have {self.width}, "
            f"{list(self.r_sizes)} and {list(self.b_sizes)}, on one device"
        )

    def backward(
        self,
        kept: Sequence[Tensor | None],
        masks: Sequence[Tensor],
        parameters: Sequence[Tensor],
        time_major: bool,
        d_output: Tensor | None,
        d_last: Sequence[Tensor | None],
        input_needed: bool,
    ) -> tuple[Tensor | None, list[Tensor], list[Tensor]]:
        """The gradients of x, where it is needed, of each initial state [L, B, H D], and of the parameters, from those
        of ``forward``'s results, None for zeros; kept and masks as it gave them."""
        batch, seq, wide, count = self.batch, self.seq, self.heads * self.dim, len(self.names)
        d_starts: list[Tensor] = []
        d_parameters: list[Tensor] = []
        d_hidden = d_output
        if d_output is not None and time_major:
            d_hidden = d_output.transpose(0, 1)
        ended = any(d is not None for d in d_last)
        left = list(masks)
        for layer in reversed(range(self.layers)):
            rows, r, b, start, hidden, others, gates = kept[layer * KEPT : (layer + 1) * KEPT]
            weight_ih, weight_hh = parameters[layer * count], parameters[layer * count + 1]
            assert rows is not None
            assert b is not None
            assert hidden is not None
            dtype, empty = hidden.dtype, hidden.new_empty
            run = self.backward_run(hidden, weight_hh, parameters[layer * count + count - 1])
            kernel: Backward = run.kernel
            d_end = None
            if ended:
                zeros = hidden.new_zeros((batch, wide))
                d_end = ready(torch.stack([zeros if d is None else d[layer] for d in d_last]), dtype)
            d_hidden = torch.zeros_like(hidden) if d_hidden is None else ready(d_hidden, dtype)
            d_wx = empty((batch * seq, weight_ih.shape[0]))
            d_r, d_b = empty(weight_hh.shape, dtype=kernel.parameters), empty(b.shape, dtype=kernel.parameters)
            d_start = empty((len(self.parts.states), batch, wide))
            given = (None, r, b, start, hidden, others, gates, d_hidden, d_end)
            kernel.start((*given, d_wx, d_r, d_b, d_start))
            run.count()
            d_starts.insert(0, d_start)
            d_bias_ih, d_bias_hh = bias_gradients(self.parts, wide, d_b)
            every = (d_wx.t().mm(rows), d_r, d_bias_ih, d_bias_hh)
            d_parameters[:0] = every[:count]
            if layer or input_needed:
                d_hidden = d_wx.mm(weight_ih)
            if layer and self.dropout:
                scale = 0.0 if self.dropout == 1 else 1 / (1 - self.dropout)
                d_hidden = torch.ops.aten.native_dropout_backward(d_hidden, left.pop(), scale)
        d_x = None
        if input_needed and d_hidden is not None:
            d_x = d_hidden.view(batch, seq, -1)
            d_x = torch.transpose_copy(d_x, 0, 1) if time_major else d_x
        return d_x, d_starts, d_parameters
