"""rnn: the recurrence of any cell as a PyTorch operator, with autograd, autocast and torch.compile.

Two operators are registered when this module is imported, tilesmith::rnn_forward and tilesmith::rnn_backward. Both
run kernels where there are any for the tensors' device and dtype (kernels.py), else the reference (reference.py).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernelgen.cells.language import Cell
from kernelgen.errors import TilesmithError
from kernelgen.torch import kernels, reference
from kernelgen.torch.parameters import parameter_gradients
from kernelgen.torch.registry import cell_of, differentiated, register

__all__ = ["DoubleBackwardError", "rnn", "step"]


class DoubleBackwardError(TilesmithError):
    """The gradient of a gradient was asked for."""


def rnn(
    wx: Tensor,
    r: Tensor,
    b: Tensor,
    states: Tensor | None = None,
    cell: str | Cell = "lstm",
    *,
    recurrent_cut: bool = False,
    recurrent_clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Run a recurrence over all steps.

    wx [B, T, G_in, H, D]: the input times its weights. r [G_rec, H, D, D]: r[g, h, d, p] takes previous unit p to unit
    d. b [G_bias, H, D]. states [S, B, H, D]: those before the first step, None for zeros. Along each gate axis stand
    the cell's gates that have that part, in its order (docs/cells.md). One dtype, bfloat16, float16, float32 or
    float64, and one device for all; inside torch.autocast all are cast to its dtype first.

    cell: a library name, ``"path/to/file.py:NAME"``, or a Cell (inside torch.compile: what ``register`` returned for
    it). recurrent_cut, recurrent_clip: see Cell.with_gradient.

    Returns every state after every step [S, B, T, H, D] (the first is h), and the states after the last step
    [S, B, H, D].

    Raises ShapeError for tensors that do not belong together, CellError for an unknown cell or a bound that is not
    positive, DoubleBackwardError in a backward pass through the backward pass.
    """
    kind = wx.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        wx, r, b = wx.to(dtype), r.to(dtype), b.to(dtype)
        states = None if states is None else states.to(dtype)
    learning = wx.requires_grad or r.requires_grad or b.requires_grad or (states is not None and states.requires_grad)
    keep_gates = torch.is_grad_enabled() and learning
    key = cell if isinstance(cell, str) else register(cell)
    every, last, _ = _forward(wx, r, b, states, key, keep_gates, recurrent_cut, recurrent_clip)
    return every, last


def step(wx: Tensor, r: Tensor, b: Tensor, states: Tensor | None = None, cell: str | Cell = "lstm") -> Tensor:
    """Run one step, as for one new token: wx [B, G_in, H, D], r, b and states as for ``rnn``.

    Returns the new states [S, B, H, D], to be given to the next step. Raises what ``rnn`` raises.
    """
    return rnn(wx.unsqueeze(1), r, b, states, cell)[1]


def _run_forward(
    wx: Tensor,
    r: Tensor,
    b: Tensor,
    initial: Tensor | None,
    cell: str,
    keep_gates: bool,
    recurrent_cut: bool,
    recurrent_clip: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The forward operator: states, last and gates [G, B, T, H, D], the last with no elements if not kept."""
    definition = _checked(wx, r, b, initial, cell, recurrent_cut, recurrent_clip)
    with torch.autocast(wx.device.type, enabled=False):
        result = kernels.forward(definition, wx, r, b, initial, keep_gates=keep_gates)
        if result is None:
            result = reference.forward(definition, wx, r, b, initial, keep_gates=keep_gates)
    states, last, gates = result
    return states, last, wx.new_empty((0,)) if gates is None else gates


def _fake_forward(
    wx: Tensor,
    r: Tensor,
    b: Tensor,
    initial: Tensor | None,
    cell: str,
    keep_gates: bool,
    recurrent_cut: bool,
    recurrent_clip: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The forward operator's shapes alone."""
    definition = _checked(wx, r, b, initial, cell, recurrent_cut, recurrent_clip)
    batch, seq, _, heads, dim = wx.shape
    states, gates = len(definition.states), len(definition.gates)
    return (
        wx.new_empty((states, batch, seq, heads, dim)),
        wx.new_empty((states, batch, heads, dim)),
        wx.new_empty((gates, batch, seq, heads, dim) if keep_gates else (0,)),
    )


def _checked(
    wx: Tensor,
    r: Tensor,
    b: Tensor,
    initial: Tensor | None,
    cell: str,
    recurrent_cut: bool,
    recurrent_clip: float | None,
) -> Cell:
    """The cell, after checking everything that belongs to it."""
    definition = differentiated(cell, recurrent_cut, recurrent_clip)
    reference.check(definition, wx, r, b, initial)
    return definition


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    """What the forward operator leaves for the backward one: R, the initial states, the states and the gates."""
    _, r, _, initial, *options = inputs
    cell, keep_gates, *gradient = options
    states, _, gates = output
    ctx.options = (cell, *gradient)
    ctx.kept = keep_gates
    ctx.mark_non_differentiable(gates)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(r, initial, states, gates)


def _differentiate(ctx: Any, d_states: Tensor | None, d_last: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
    """The forward operator's gradients: of wx, r, b and the initial states."""
    if not ctx.kept:
        raise TilesmithError("tilesmith::rnn_forward kept no gates, so it has no gradient; call it through rnn()")
    r, initial, states, gates = ctx.saved_tensors
    d_wx, d_r, d_b, d_initial = _backward(r, initial, states, gates, d_states, d_last, *ctx.options)
    return d_wx, d_r, d_b, None if initial is None else d_initial, None, None, None, None


def _run_backward(
    r: Tensor,
    initial: Tensor | None,
    states: Tensor,
    gates: Tensor,
    d_states: Tensor | None,
    d_last: Tensor | None,
    cell: str,
    recurrent_cut: bool,
    recurrent_clip: float | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The backward operator: the gradients of wx, r, b and the initial states."""
    definition = differentiated(cell, recurrent_cut, recurrent_clip)
    with torch.autocast(states.device.type, enabled=False):
        result = kernels.backward(definition, r, initial, states, gates, d_states, d_last)
        if result is None:
            d_gates, d_initial = reference.backward(definition, r, initial, states, gates, d_states, d_last)
            d_wx = d_gates[list(definition.input_gates)].permute(1, 2, 0, 3, 4).contiguous()
            result = d_wx, d_gates.unbind(), d_initial
        d_wx, each, d_initial = result
        d_r, d_b = parameter_gradients(definition, d_wx, each, initial, states)
    return d_wx, d_r, d_b, d_initial


def _fake_backward(
    r: Tensor,
    initial: Tensor | None,
    states: Tensor,
    gates: Tensor,
    d_states: Tensor | None,
    d_last: Tensor | None,
    cell: str,
    recurrent_cut: bool,
    recurrent_clip: float | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The backward operator's shapes alone."""
    definition = cell_of(cell)
    count, batch, seq, heads, dim = states.shape
    return (
        states.new_empty((batch, seq, len(definition.input_gates), heads, dim)),
        torch.empty_like(r, memory_format=torch.contiguous_format),
        states.new_empty((len(definition.bias_gates), heads, dim)),
        states.new_empty((count, batch, heads, dim)),
    )


def _refuse(ctx: Any, *_: Any) -> tuple[Any, ...]:
    """A second derivative."""
    raise DoubleBackwardError(
        "rnn() cannot be differentiated twice: its backward pass is a kernel without a gradient of its own. "
        "For second derivatives use kernelgen.torch.reference.forward, which autograd differentiates any number of "
        "times."
    )


_OPTIONS = "str cell, {}bool recurrent_cut, float? recurrent_clip"

_forward = torch.library.custom_op(
    "tilesmith::rnn_forward",
    _run_forward,
    mutates_args=(),
    schema=f"(Tensor wx, Tensor r, Tensor b, Tensor? initial, {_OPTIONS.format('bool keep_gates, ')})"
    " -> (Tensor, Tensor, Tensor)",
)
_backward = torch.library.custom_op(
    "tilesmith::rnn_backward",
    _run_backward,
    mutates_args=(),
    schema="(Tensor r, Tensor? initial, Tensor states, Tensor gates, Tensor? d_states, Tensor? d_last, "
    f"{_OPTIONS.format('')}) -> (Tensor, Tensor, Tensor, Tensor)",
)
_forward.register_fake(_fake_forward)
_forward.register_autograd(_differentiate, setup_context=_keep)
_backward.register_fake(_fake_backward)
_backward.register_autograd(_refuse)
