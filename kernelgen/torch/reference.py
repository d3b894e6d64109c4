"""The recurrence of any cell in PyTorch, forward and backward: what runs where no kernel does.

Written from the cell's definition, as kernelgen/verify/reference.py is, with one difference: everything is computed in
float32 where the tensors are of 16 bits, else in their own dtype, and h is rounded to the tensors' dtype after every
step, as kernels do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeAlias

import torch
from torch import Tensor

from kernelgen.cells.language import Cell
from kernelgen.symbolic.derive import derive
from kernelgen.torch.errors import TensorShapeError
from kernelgen.torch.sequences import NOTHING, Masks, Own, select
from kernelgen.torch.step import Step, torch_backward, torch_step

DTYPES = ("bfloat16", "float16", "float32", "float64")
"""What the reference takes."""

STEPS = 32
"""For how many steps at a time is made what does not depend on h."""

Form: TypeAlias = tuple[torch.Size, torch.dtype, torch.device]
"""What a tensor is, apart from its values."""

form_of: Callable[[Tensor], Form] = attrgetter("shape", "dtype", "device")
"""The form of a tensor."""


def check(cell: Cell, wx: Form, r: Form, b: Form, initial: Form | None) -> None:
    """Raise ShapeError for tensors that do not belong together: shape, dtype or device. See ``forward``."""
    sizes, dtype, device = wx
    if len(sizes) != 5:
        raise TensorShapeError(f"Wx must have the five axes [B, T, G_in, H, D], not shape {list(sizes)}")
    batch, seq, _, heads, dim = sizes
    if seq == 0 or heads == 0 or dim == 0:
        raise TensorShapeError(f"Wx is empty: its shape is {list(sizes)}; T, H and D must be at least 1")
    if str(dtype).removeprefix("torch.") not in DTYPES:
        raise TensorShapeError(f"Wx is {str(dtype).removeprefix('torch.')}; {cell.name} takes {', '.join(DTYPES)}")
    expected = {
        "Wx": (wx, (batch, seq, len(cell.input_gates), heads, dim), "[B, T, G_in, H, D]"),
        "R": (r, (len(cell.recurrent_gates), heads, dim, dim), "[G_rec, H, D, D]"),
        "b": (b, (len(cell.bias_gates), heads, dim), "[G_bias, H, D]"),
        "states": (initial, (len(cell.states), batch, heads, dim), "[S, B, H, D]"),
    }
    for name, (form, wanted, axes) in expected.items():
        if form is None:
            continue
        found, kind, place = form
        if len(found) != len(wanted) or any(size != other for size, other in zip(found, wanted, strict=True)):
            raise TensorShapeError(f"{name} of {cell.name} must be {axes} = {list(wanted)}, not {list(found)}")
        wider = name != "Wx" and kind is torch.float32 and dtype.itemsize == 2
        if place != device or not (kind == dtype or wider):
            raise TensorShapeError(f"{name} is {kind} on {place}, but Wx is {dtype} on {device}; convert one of them")


def check_tensors(cell: Cell, wx: Tensor, r: Tensor, b: Tensor, initial: Tensor | None) -> None:
    """As ``check``, for the tensors themselves."""
    check(cell, form_of(wx), form_of(r), form_of(b), None if initial is None else form_of(initial))


@dataclass(frozen=True)
class Recurrence:
    """One step of all sequences, on tensors [H, B, D], so that one batched product serves all gates of all heads.

    weights [H, D, G_rec D]: R, from previous unit to unit. bias: that of each gate that has one, [H, 1, D]. dtype: what
    h is rounded to; work: what is computed in. gates: how many there are; inputs, products: which have an input, a
    recurrent product. function: the pointwise step. Plain values, which PyTorch's scan traces.
    """

    weights: Tensor
    bias: Mapping[int, Tensor]
    dtype: torch.dtype
    work: torch.dtype
    gates: int
    inputs: tuple[int, ...]
    products: tuple[int, ...]
    function: Step

    @classmethod
    def of(cls, cell: Cell, r: Tensor, b: Tensor, dtype: torch.dtype) -> Recurrence:
        """That of R [G_rec, H, D, D] and b [G_bias, H, D], which are rounded to ``dtype``."""
        _, heads, dim, _ = r.shape
        work = _working(dtype)
        weights = r.to(dtype).to(work).permute(1, 3, 0, 2).reshape(heads, dim, -1)
        bias = dict(zip(cell.bias_gates, b.to(dtype).to(work).unsqueeze(2).unbind(), strict=True))
        which = (len(cell.gates), tuple(cell.input_gates), tuple(cell.recurrent_gates))
        return cls(weights, bias, dtype, work, *which, torch_step(cell))

    def step(
        self, inputs: Sequence[Tensor], state: Sequence[Tensor], products: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Every gate's sum and the new states, from Wx of each gate with an input, the previous states, and R times h
        of each gate that has it."""
        parts = [[self.bias[index]] if index in self.bias else [] for index in range(self.gates)]
        for gates, values in ((self.inputs, inputs), (self.products, products)):
            for index, value in zip(gates, values, strict=True):
                parts[index].append(value)
        sums = [sum(terms[1:], start=terms[0]).expand_as(state[0]) for terms in parts]
        return sums, self.after(sums, state)

    def after(self, sums: Sequence[Tensor], state: Sequence[Tensor]) -> list[Tensor]:
        """The new states, from every gate's sum and the previous ones."""
        after = self.function(sums, state)
        after[0] = after[0].to(self.dtype).to(self.work)
        return after

    def outside(self, wx: Tensor) -> Iterator[tuple[Tensor, list[Tensor | None]]]:
        """For each step of Wx [B, T, G_in, H, D] what the sums are without R times h: of the gates that have it, side
        by side [H, B, G_rec D], and of each other gate [H, B, D]. Made for many steps at a time, for a call of
        PyTorch's takes longer than what it computes here.
        """
        batch, _, _, heads, dim = wx.shape
        for some in wx.split(STEPS, dim=1):
            inputs = dict(zip(self.inputs, some.to(self.work).permute(2, 1, 3, 0, 4).unbind(), strict=True))
            sizes = (some.shape[1], heads, batch, dim)
            zeros = some.new_zeros((), dtype=self.work).expand(sizes)
            found = [
                self.bias[gate] + inputs.get(gate, zeros) if gate in self.bias else inputs.get(gate, zeros)
                for gate in range(self.gates)
            ]
            others = [None if gate in self.products else found[gate].unbind() for gate in range(self.gates)]
            together = torch.cat([found[gate] for gate in self.products], -1) if self.products else zeros
            for t, of_products in enumerate(together.unbind()):
                yield of_products, [None if one is None else one[t] for one in others]

    def sums(self, together: Tensor, others: Sequence[Tensor | None], hidden: Tensor) -> list[Tensor]:
        """Every gate's sum [H, B, D], from what ``outside`` gave for the step, and h before it [H, B, D]."""
        found: list[Any] = list(others)
        if self.products:
            products = together + torch.matmul(hidden, self.weights)
            for index, value in zip(self.products, products.unflatten(2, (-1, hidden.shape[2])).unbind(2), strict=True):
                found[index] = value
        return found


def forward(
    cell: Cell,
    wx: Tensor,
    r: Tensor,
    b: Tensor,
    initial: Tensor | None = None,
    *,
    keep_gates: bool = False,
    own: Own = NOTHING,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Run the recurrence; autograd can differentiate it, any number of times.

    wx [B, T, G_in, H, D], r [G_rec, H, D, D] with r[g, h, d, p] from previous unit p to unit d, b [G_bias, H, D],
    initial [S, B, H, D] or None for zeros; of one dtype of ``DTYPES``, on one device, or float32 where wx is of 16 bits
    (they are rounded to its dtype, as kernels need it). Returns states [S, B, T, H, D],
    last [S, B, H, D] and, where they are to be kept, the gates' sums [G_saved, B, T, H, D] that a backward pass needs
    (derive.Backward.saved_gates), else None, all of wx's dtype. own: where states begin anew, and where sequences end;
    what is returned of the steps behind the end is zeros, and the last states are each sequence's own.

    Raises ShapeError for tensors that do not belong together.
    """
    check_tensors(cell, wx, r, b, initial)
    seq, masks = wx.shape[1], Masks(own, wx.shape[1])
    run, wx = Recurrence.of(cell, r, b, wx.dtype), masks.clear(wx)  # a NaN behind the end would spread to the gradients
    dtype, start = wx.dtype, start_of(cell, initial, wx)
    state = start
    states: list[Tensor] = []  # of every step in turn
    gates: list[Tensor] = []
    saved = derive(cell).saved_gates
    with torch.autocast(wx.device.type, enabled=False):
        for t, outside in enumerate(run.outside(wx)):
            running = masks.running(t)
            before = select(masks.restarts(t), start, state)
            sums = run.sums(*outside, before[0])
            state = run.after(sums, before)
            if running is not None:
                state = select(running, state, before)
            states += [value.to(dtype) for value in state]
            if keep_gates:
                gates += [sums[index].to(dtype) for index in saved]
    last = torch.stack(states[-len(state) :]).transpose(1, 2).contiguous()
    made = [_outer(states, seq)]
    if keep_gates:
        made.append(_outer(gates, seq) if saved else made[0].new_empty((0, *made[0].shape[1:])))
    if own.lengths is not None:
        made = [torch.stack([masks.clear(part) for part in array]) if len(array) else array for array in made]
    return made[0], last, made[1] if keep_gates else None


def backward(
    cell: Cell,
    r: Tensor,
    b: Tensor,
    initial: Tensor | None,
    states: Tensor,
    gates: Tensor,
    d_states: Tensor | None,
    d_last: Tensor | None,
    own: Own = NOTHING,
) -> tuple[Tensor, Tensor]:
    """The gradients of every gate's sum, [G, B, T, H, D], and of the initial states, [S, B, H, D], by the derived
    backward step.

    r, b, initial and own as for ``forward``; states [S, B, T, H, D] and gates [G_saved, B, T, H, D] as it returned
    them. d_states [S, B, T, H, D] and d_last [S, B, H, D]: the gradients of states and last, None for zeros.
    """
    _, batch, seq, heads, dim = states.shape
    dtype, work, masks = states.dtype, _working(states.dtype), Masks(own, seq)
    r, b, initial = r.to(dtype), b.to(dtype), None if initial is None else initial.to(dtype)
    step, clip, saved = torch_backward(cell), cell.gradient.recurrent_clip, derive(cell).saved_gates
    recurrent = list(cell.recurrent_gates)
    # [H, G_rec D, D]: one batched product sends all gates' gradients of all heads back to h.
    weights = r.to(work).transpose(0, 1).reshape(heads, -1, dim)
    start = _start(cell, initial, batch, heads, dim, states, work)
    # What of the sums is not kept is a bias, or is not read.
    zero = states.new_zeros((heads, 1, dim), dtype=work)
    biases = dict(zip(cell.bias_gates, b.to(work).unsqueeze(2).unbind(), strict=True))
    sums = [biases.get(index, zero).expand(heads, batch, dim) for index in range(len(cell.gates))]
    zeros = [torch.zeros_like(start[0])] * len(cell.states)
    carried = zeros if d_last is None else list(_inner(d_last, work))
    to_start = zeros  # what resets send to the initial states
    made: list[list[Tensor]] = []
    with torch.autocast(states.device.type, enabled=False):
        for t in reversed(range(seq)):
            running, restarts, later = masks.running(t), masks.restarts(t), carried
            if t < seq - 1 and clip is not None:
                clipped = carried[0].clamp(-clip, clip)
                carried = [*select(masks.last(t), carried[:1], [clipped]), *carried[1:]]
            if d_states is not None:
                carried = [a + b for a, b in zip(carried, _inner(d_states[:, :, t], work), strict=True)]
            previous = select(restarts, start, list(_inner(states[:, :, t - 1], work)) if t else start)
            for index, value in zip(saved, _inner(gates[:, :, t], work), strict=True):
                sums[index] = value
            d_gates, carried = step(sums, previous, carried)
            if running is not None:  # select, for what comes of a step behind the end may be NaN
                d_gates = select(running, d_gates, [torch.zeros_like(value) for value in d_gates])
                carried = select(running, carried, later)
            d_gates = [value.to(dtype) for value in d_gates]
            if not cell.gradient.recurrent_cut:
                sent = torch.cat([d_gates[index] for index in recurrent], dim=2).to(work)
                carried = [carried[0] + torch.matmul(sent, weights), *carried[1:]]
            if restarts is not None:
                to_start = [a + b for a, b in zip(to_start, select(restarts, carried, zeros), strict=True)]
                carried = select(restarts, zeros, carried)
            made.append(d_gates)
    d_initial = torch.stack(carried) + torch.stack(to_start) if own.resets is not None else torch.stack(carried)
    d_initial = d_initial.transpose(1, 2).to(dtype).contiguous()
    return _outer([d for step in reversed(made) for d in step], seq), d_initial


def _working(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype.itemsize == 2 else dtype


def start_of(cell: Cell, initial: Tensor | None, wx: Tensor) -> list[Tensor]:
    """The states before the first step of Wx [B, T, G_in, H, D], rounded to its dtype, each [H, B, D]."""
    batch, _, _, heads, dim = wx.shape
    initial = None if initial is None else initial.to(wx.dtype)
    return _start(cell, initial, batch, heads, dim, wx, _working(wx.dtype))


def _start(
    cell: Cell, initial: Tensor | None, batch: int, heads: int, dim: int, like: Tensor, work: torch.dtype
) -> list[Tensor]:
    """The states before the first step, each [H, B, D]."""
    if initial is None:
        return [like.new_zeros((heads, batch, dim), dtype=work)] * len(cell.states)
    return list(_inner(initial, work))


def _inner(tensor: Tensor, work: torch.dtype) -> Sequence[Tensor]:
    """[N, B, H, D] as N tensors [H, B, D] to compute with."""
    inner: Sequence[Tensor] = tensor.to(work).transpose(1, 2).unbind()
    return inner


def _outer(steps: Sequence[Tensor], seq: int) -> Tensor:
    """N tensors [H, B, D] of each of ``seq`` steps in turn as one [N, B, T, H, D]."""
    return torch.stack(list(steps)).unflatten(0, (seq, -1)).permute(1, 3, 0, 2, 4).contiguous()
