"""Stacked layers of one head, in both directions where asked for, as one function of autograd's.

An eager module of a dozen PyTorch calls a layer is bound by the host at short sequences: each call costs some
microseconds, and its node in autograd's graph as many again. Here a whole pass is one node, which does what the calls
did. Where PyTorch must see every call (torch.compile, torch.func, tensors of other types) modules compose them instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from kernelgen.torch import passes
from kernelgen.torch.errors import DoubleBackwardError

Weights: TypeAlias = Sequence[Tensor]
"""Of a layer in a direction: weight_ih [G D, I], weight_hh [G D, D] and, with biases, bias_ih and bias_hh [G D]."""

_UNIT = 6
"""How many tensors each layer leaves in each direction: its input, b, the initial states, h, other states, gates."""


@dataclass(frozen=True)
class Stack:
    """What a module's layers are. cell: a key; gates: G; shared: how many of them, the first ones, have one bias in the
    cell where torch.nn has two, which are added; the others have both, those of the input first.

    dropout: the share of an input's elements that become zero, from the second layer on; 0 where none do.
    """

    cell: str
    layers: int
    directions: int
    gates: int
    shared: int
    hidden: int
    bias: bool
    batch_first: bool
    dropout: float

    @property
    def weights(self) -> int:
        """How many tensors are the weights of a layer in a direction."""
        return 4 if self.bias else 2


def run_stack(
    stack: Stack, x: Tensor, initial: Sequence[Tensor] | None, weights: Sequence[Tensor]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run all layers: x [T, B, I], or [B, T, I] if batch_first; initial: each state before the first step
    [L N, B, D] for N directions, or None for zeros; weights: those of every layer, of its directions in turn.

    Returns the last layer's h [T, B, N D], or [B, T, N D], and each state after the last step [L N, B, D], all
    contiguous. Inside torch.autocast its dtype is that of all. Raises what rnn() raises.
    """
    learning = torch.is_grad_enabled() and any(
        tensor.requires_grad for tensor in (x, *(() if initial is None else initial), *weights)
    )
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    states = 0 if initial is None else len(initial)
    tensors = (x, *(() if initial is None else initial), *weights)
    if learning:
        output, *lasts = _Layers.apply(stack, states, dtype, *tensors)
        return output, tuple(lasts)
    if dtype is not None:
        tensors = tuple(tensor.to(dtype) for tensor in tensors)
    return _forward(stack, states, "nothing", tensors)[:2]


def _forward(
    stack: Stack, states: int, keep: str, tensors: Sequence[Tensor]
) -> tuple[Tensor, tuple[Tensor, ...], list[Tensor | None], list[Tensor]]:
    """Output, last states, what each layer leaves for the backward pass in each direction, and the masks of dropout."""
    x, initial, weights = tensors[0], tensors[1 : 1 + states], tensors[1 + states :]
    x = (x if stack.batch_first else x.transpose(0, 1)).contiguous()
    (batch, seq, _), dim = x.shape, stack.hidden
    lasts, kept, masks = [], [], []
    for layer in range(stack.layers):
        if layer and stack.dropout:
            x, mask = torch.native_dropout(x, stack.dropout, True)
            masks.append(mask)
        outputs = []
        for direction in range(stack.directions):
            index = layer * stack.directions + direction
            w_ih, w_hh, *biases = weights[index * stack.weights : (index + 1) * stack.weights]
            source = x.flip(1) if direction else x
            wx = source.view(batch * seq, -1).mm(w_ih.t()).view(batch, seq, stack.gates, 1, dim)
            b = _merged(stack, biases) if biases else x.new_zeros((2 * stack.gates - stack.shared, 1, dim))
            start = torch.stack([state[index] for state in initial]).unsqueeze(2) if states else None
            hidden, last, others, gates = passes.forward(
                wx, w_hh.view(stack.gates, 1, dim, dim), b, start, stack.cell, True, keep, False, None
            )
            y = hidden.view(batch, seq, dim)
            outputs.append(y.flip(1) if direction else y)
            lasts.append(last)
            if keep != "nothing":
                kept += [source, b, start, hidden, others, gates]
        x = outputs[0] if stack.directions == 1 else torch.cat(outputs, 2)
    final = lasts[0].unsqueeze(1) if len(lasts) == 1 else torch.stack(lasts, 1)  # [S, L N, B, 1, D]
    output = x if stack.batch_first else x.transpose(0, 1).contiguous()
    return output, tuple(_apart(final.squeeze(3))), kept, masks


def _apart(states: Tensor) -> list[Tensor]:
    """The states [S, L N, B, D] one by one. No views, which autograd would not let anybody change in place."""
    storage, start = states.untyped_storage(), states.storage_offset()
    return [
        states.new_empty(0).set_(storage, start + index * states.stride(0), states.shape[1:], states.stride()[1:])
        for index in range(states.shape[0])
    ]


def _merged(stack: Stack, biases: Sequence[Tensor]) -> Tensor:
    """b as the cell has it, of torch.nn's two."""
    of_input, of_hidden = (bias.view(stack.gates, 1, stack.hidden) for bias in biases)
    if stack.shared == stack.gates:
        return of_input + of_hidden
    first = stack.shared
    return torch.cat([of_input[:first] + of_hidden[:first], of_input[first:], of_hidden[first:]])


def _parted(stack: Stack, d_b: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of torch.nn's two biases."""
    d_b = d_b.view(-1, stack.hidden)
    of_input = d_b[: stack.gates].reshape(-1)
    if stack.shared == stack.gates:
        return of_input, of_input
    return of_input, torch.cat([d_b[: stack.shared], d_b[stack.gates :]]).view(-1)


class _Layers(torch.autograd.Function):  # type: ignore[misc]
    """run_stack with gradients."""

    @staticmethod
    def forward(ctx: Any, stack: Stack, states: int, dtype: torch.dtype | None, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Run, and keep what the backward pass needs."""
        ctx.stack, ctx.states, ctx.dtypes = stack, states, [tensor.dtype for tensor in tensors]
        used = tensors if dtype is None else tuple(tensor.to(dtype) for tensor in tensors)
        output, lasts, kept, masks = _forward(stack, states, "gates", used)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *used[1 + states :], *masks, *kept)
        return (output, *lasts)

    @staticmethod
    def backward(ctx: Any, d_output: Tensor | None, *d_lasts: Tensor | None) -> tuple[Any, ...]:
        """The gradients of the tensors, in their own dtypes; those that nobody needs are None."""
        twice = torch.is_grad_enabled()
        with torch.no_grad():
            found = _backward(ctx, d_output, d_lasts)
        gradients = [
            None if gradient is None else gradient.to(dtype) for gradient, dtype in zip(found, ctx.dtypes, strict=True)
        ]
        if twice:
            gradients = _Once.refusing(gradients, *ctx.saved_tensors[: len(gradients)], d_output, *d_lasts)
        return (None, None, None, *gradients)


def _backward(ctx: Any, d_output: Tensor | None, d_lasts: Sequence[Tensor | None]) -> list[Tensor | None]:
    stack, states, needed = ctx.stack, ctx.states, ctx.needs_input_grad[3:]
    units = stack.layers * stack.directions
    count = units * stack.weights
    saved = ctx.saved_tensors[len(needed) :]
    weights, masks, kept = saved[:count], list(saved[count : -units * _UNIT]), saved[-units * _UNIT :]
    batch, seq, dim = kept[3].shape[1], kept[3].shape[2], stack.hidden
    gradients: list[Tensor | None] = [None] * len(needed)
    d_initial: list[Tensor | None] = [None] * units
    d_x = d_output if stack.batch_first or d_output is None else d_output.transpose(0, 1)
    for layer in reversed(range(stack.layers)):
        d_inputs = []
        inputs_needed = layer > 0 or needed[0]
        for direction in range(stack.directions):
            index = layer * stack.directions + direction
            w_ih, w_hh, *_ = weights[index * stack.weights : (index + 1) * stack.weights]
            source, b, start, hidden, others, gates = kept[index * _UNIT : (index + 1) * _UNIT]
            d_hidden = None
            if d_x is not None:
                d_hidden = d_x[..., direction * dim : (direction + 1) * dim] if stack.directions > 1 else d_x
                d_hidden = (d_hidden.flip(1) if direction else d_hidden).reshape(1, batch, seq, 1, dim)
            d_last = _of_unit(d_lasts, index, hidden)
            d_wx, d_r, d_b, d_start = passes.backward(
                w_hh.view(stack.gates, 1, dim, dim),
                b,
                start,
                hidden,
                others,
                gates,
                None,
                d_hidden,
                d_last,
                stack.cell,
                False,
                None,
            )
            d_initial[index] = d_start
            at = 1 + states + index * stack.weights
            d_rows = d_wx.view(batch * seq, -1)
            if needed[at]:
                gradients[at] = d_rows.t().mm(source.view(batch * seq, -1))
            gradients[at + 1] = d_r.view(-1, dim)
            if stack.bias:
                gradients[at + 2], gradients[at + 3] = _parted(stack, d_b)
            if inputs_needed:
                d_source = d_rows.mm(w_ih).view(batch, seq, -1)
                d_inputs.append(d_source.flip(1) if direction else d_source)
        if inputs_needed:
            d_x = d_inputs[0] if stack.directions == 1 else d_inputs[0].add_(d_inputs[1])
            if layer and stack.dropout:
                scale = 0.0 if stack.dropout == 1 else 1 / (1 - stack.dropout)
                d_x = torch.ops.aten.native_dropout_backward(d_x, masks.pop(), scale)
    if needed[0] and d_x is not None:
        gradients[0] = d_x if stack.batch_first else d_x.transpose(0, 1)
    if states and any(needed[1 : 1 + states]):
        gradients[1 : 1 + states] = torch.stack(d_initial, 1).squeeze(3).unbind()
    return [gradient if wanted else None for gradient, wanted in zip(gradients, needed, strict=True)]


def _of_unit(d_lasts: Sequence[Tensor | None], index: int, like: Tensor) -> Tensor | None:
    """The gradients of a layer's last states in a direction, [S, B, 1, D]; None where all are zeros."""
    if all(d is None for d in d_lasts):
        return None
    _, batch, _, _, dim = like.shape
    zeros = like.new_zeros((batch, dim))
    return torch.stack([zeros if d is None else d[index] for d in d_lasts]).unsqueeze(2)


class _Once(torch.autograd.Function):  # type: ignore[misc]
    """Gradients that cannot be differentiated again: trying to raises DoubleBackwardError, where without a node there
    would be zeros."""

    @staticmethod
    def refusing(gradients: Sequence[Tensor | None], *of: Any) -> list[Tensor | None]:
        """The same gradients, with the node, as functions of the tensors that they are computed from."""
        there = [gradient for gradient in gradients if gradient is not None]
        marked = iter(_Once.apply(len(there), *there, *of))
        return [None if gradient is None else next(marked) for gradient in gradients]

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Any) -> tuple[Tensor, ...]:
        """The gradients, which stand first, as they are."""
        return tuple(gradient.view_as(gradient) for gradient in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *_: Any) -> tuple[Any, ...]:
        """A second derivative."""
        raise DoubleBackwardError(
            "a module of tilesmith cannot be differentiated twice: its backward pass is made of kernels without a "
            "gradient of their own. For second derivatives use torch.nn's, which load the same state_dict."
        )
