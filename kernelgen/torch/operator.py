"""rnn: the recurrence of any cell as a PyTorch operator, with autograd, autocast and torch.compile.

Two operators are registered when this module is imported, tilesmith::rnn_forward and tilesmith::rnn_backward. Both
run what passes.py finds for their tensors: kernels, or the reference where there are none.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType
from typing import Any, Literal

import torch
from torch import Tensor

from kernelgen.cells.language import Cell
from kernelgen.cells.registry import cell_of, differentiated, register
from kernelgen.errors import ConfigError, TilesmithError, near_names
from kernelgen.symbolic.derive import derive
from kernelgen.torch import passes, reference, scanned, transforms
from kernelgen.torch.arguments import any_autocast, autocast_dtype, autocast_parameter, require_tensors
from kernelgen.torch.checkpoint import require_no_resets
from kernelgen.torch.checkpoint import run as chunked
from kernelgen.torch.double_backward import double_backward
from kernelgen.torch.double_backward import gradients as differentiable_gradients
from kernelgen.torch.errors import (
    DifferentiationError,
    DoubleBackwardError,
    TensorShapeError,
    refuse_second_derivative,
)
from kernelgen.torch.exporting import to_onnx, tracing
from kernelgen.torch.memory import check_chunks, chunk_steps
from kernelgen.torch.sequences import NOTHING, Own, begun_anew, own_of
from kernelgen.torch.transforms import learns, undisturbed

__all__ = ["DoubleBackwardError", "rnn", "step"]


RETURNS = ("states", "hidden")


def rnn(
    wx: Tensor,
    r: Tensor,
    b: Tensor,
    states: Tensor | None = None,
    cell: str | Cell = "lstm",
    *,
    returns: Literal["states", "hidden"] = "states",
    recompute: bool = False,
    recurrent_cut: bool = False,
    recurrent_clip: float | None = None,
    resets: Tensor | None = None,
    lengths: Tensor | Sequence[int] | None = None,
    checkpoint: int | None = None,
    memory_limit: str | int | None = None,
) -> tuple[Tensor, Tensor]:
    """Run a recurrence over all steps.

    wx [B, T, G_in, H, D]: the input times its weights. r [G_rec, H, D, D]: r[g, h, d, p] takes previous unit p to unit
    d. b [G_bias, H, D]. states [S, B, H, D]: those before the first step, None for zeros. Along each gate axis stand
    the cell's gates that have that part, in its order (docs/cells_library.md). One dtype, bfloat16, float16, float32 or
    float64, and one device for all; r, b and states may be float32 where wx is of 16 bits: they are rounded to its
    dtype, and the gradients of r and b, which are summed in float32, are not. Inside torch.autocast wx is cast to its
    dtype first, and so is what is not float32.

    cell: a library name, ``"path/to/file.py:NAME"``, or a Cell (inside torch.compile: what ``register`` returned for
    it). returns: "states" for every state after every step, "hidden" for h alone, which takes less memory and time.
    recompute: keep no gates for the backward pass, which computes them again from h: less memory, and about the same
    time. checkpoint: keep the states before every so many steps alone, and run those steps again in the backward pass.
    memory_limit: choose that number so that what is kept, and made again, is within so many bytes ("8GB"); keep all
    where that is. recurrent_cut, recurrent_clip: see Cell.with_gradient.

    resets [B, T], bool: where it is True, the states before the step are those before the first step again. lengths
    [B], ints from 0 to T, a tensor on the CPU or on wx's device or a list: how many steps each sequence has. Behind its
    end the states are zeros and so are the gradients of wx, whatever wx holds there, and the last states are the
    sequence's own. Lengths on a GPU are not looked at: those out of range count as 0, or as T.

    Returns the states after every step [K, B, T, H, D] (K is S, or 1 for h alone; the first is h), and every state
    after the last step [S, B, H, D].

    Raises ArgumentTypeError for what is no tensor and for resets or lengths of another dtype, ArgumentError for a limit
    that cannot be kept and lengths out of range, ShapeError for tensors that do not belong together, CellError for an
    unknown cell or a bound that is not positive, ConfigError for an unknown ``returns``, for recompute beside
    checkpoint or memory_limit and for these beside resets, DoubleBackwardError in a backward pass through the backward
    pass, unless double_backward(True) was said before. Under forward-mode differentiation and torch.func's gradients
    the reference runs; DifferentiationError where it cannot: inside torch.compile, and for a gradient that is cut or
    clipped.
    """
    if returns not in RETURNS:
        raise ConfigError(f"rnn cannot return {returns!r}; {near_names(returns, RETURNS)}")
    whole = checkpoint is None and memory_limit is None and resets is None and lengths is None
    if whole and undisturbed() and not any_autocast() and own_tensors(wx, r, b) and type(states) in _PLAIN:
        key = cell if isinstance(cell, str) else register(cell)
        tail = (None, None, None, key, returns == "hidden")
        if not learns(wx, r, b, states):
            return passes.forward(wx, r, b, states, *tail, "nothing", recurrent_cut, recurrent_clip)[:2]
        keep = "states" if recompute else "gates"
        return _Eager.apply(wx, r, b, states, *tail, keep, recurrent_cut, recurrent_clip)  # type: ignore[no-any-return]
    require_tensors("states", wx=wx, r=r, b=b, states=states)
    check_chunks(checkpoint, memory_limit)
    key = cell if isinstance(cell, str) else register(cell)
    dtype = autocast_dtype(wx.device.type)
    if dtype is not None:
        wx, r, b = wx.to(dtype), autocast_parameter(r, dtype), autocast_parameter(b, dtype)
        states = None if states is None else autocast_parameter(states, dtype)
    own = NOTHING
    if resets is not None or lengths is not None:
        own = own_of(resets, lengths, wx)
    if to_onnx():
        found = cell_of(key)
        return scanned.forward(found, wx, r, b, states, own, known=1 if returns == "hidden" else len(found.states))
    if transforms.differentiating():
        return transforms.forward(wx, r, b, states, own, key, recurrent_cut, recurrent_clip, hidden=returns == "hidden")
    # A tensor that torch.func.vmap wraps does not tell whether it requires a gradient; a trace runs with and without.
    learning = transforms.active() or any(part is not None and part.requires_grad for part in (wx, r, b, states))
    hidden, learning = returns == "hidden", tracing() or (learning and torch.is_grad_enabled())
    if recompute and (checkpoint, memory_limit) != (None, None):
        raise ConfigError("recompute=True keeps no gates, nor does checkpoint or memory_limit; leave one of them out")
    chunk = chunk_steps(checkpoint, memory_limit, key, wx, hidden=hidden) if learning else None
    if chunk is not None:
        require_no_resets(resets)
        options: dict[str, Any] = {"hidden": hidden, "chunk": chunk, "cut": recurrent_cut, "clip": recurrent_clip}
        return chunked(wx, None, None, r, b, states, own, key, **options)
    keep = "nothing" if not learning else "states" if recompute else "gates"
    run: Any = _forward
    if plain(wx, r, b, states, *own):
        run = passes.forward if keep == "nothing" else _Eager.apply
    every, last, *_ = run(wx, r, b, states, *own, key, hidden, keep, recurrent_cut, recurrent_clip)
    return every, last


def step(
    wx: Tensor,
    r: Tensor,
    b: Tensor,
    states: Tensor | None = None,
    cell: str | Cell = "lstm",
    *,
    out: Tensor | None = None,
    resets: Tensor | None = None,
    initial: Tensor | None = None,
) -> Tensor:
    """Run one step, as for one new token: wx [B, G_in, H, D], r, b and states as for ``rnn``. One kernel on a GPU.

    out: [S, B, H, D], where the new states go, without gradients; ``states`` itself for an update in place, which is
    one copy more, since blocks of a kernel may still read what others have written already. resets [B], bool: where it
    is True, the step begins with the ``initial`` states [S, B, H, D], zeros where they are None, in the place of
    ``states``.

    Returns the new states [S, B, H, D], to be given to the next step. Raises what ``rnn`` raises, and
    DifferentiationError for out where something requires a gradient.
    """
    if resets is None and initial is None and undisturbed() and not any_autocast() and own_tensors(wx, r, b):
        key = cell if isinstance(cell, str) else register(cell)
        if type(states) in _PLAIN and type(out) in _PLAIN and not learns(wx, r, b, states, out):
            last = passes.step(wx, r, b, states, key, out)
            if last is not None:
                return last
    require_tensors("states", wx=wx, states=states)
    if wx.dim() != 4:
        raise TensorShapeError(f"Wx of a step must have the four axes [B, G_in, H, D], not shape {list(wx.shape)}")
    if resets is not None:
        begun = begun_anew(states, resets, initial, wx)
    elif initial is not None:
        raise TensorShapeError("a step takes initial states where there are resets; else they are the states")
    else:
        begun = states
    if out is None:
        return rnn(wx.unsqueeze(1), r, b, begun, cell, returns="hidden")[1]
    require_tensors(r=r, b=b, out=out)
    if torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in (wx, r, b, begun, out)):
        raise DifferentiationError(
            "step() with out= has no gradient, but one of its tensors requires one; call it inside torch.no_grad(), or "
            "leave out= away"
        )
    key = cell if isinstance(cell, str) else register(cell)
    if plain(wx, r, b, begun, out) and autocast_dtype(wx.device.type) is None and not transforms.differentiating():
        apart = begun is None or begun.untyped_storage().data_ptr() != out.untyped_storage().data_ptr()
        into = out if apart and out.dtype is wx.dtype and out.device == wx.device else None
        inputs = (wx.unsqueeze(1), r, b, begun, *NOTHING)
        last = passes.forward(*inputs, key, True, "nothing", False, None, last=into)[1]
    else:
        last = rnn(wx.unsqueeze(1), r, b, begun, key, returns="hidden")[1]
    if out.shape != last.shape:
        raise TensorShapeError(f"out must be [S, B, H, D] = {list(last.shape)}, not {list(out.shape)}")
    return out if last is out else out.copy_(last)


def _run_forward(
    wx: Tensor, r: Tensor, b: Tensor, initial: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The forward operator: as passes.forward, but what is not kept has no elements."""
    transforms.refuse_forward_mode()
    states, last, *kept = passes.forward(wx, r, b, initial, *options)
    others, gates = (wx.new_empty((0,)) if tensor is None else tensor for tensor in kept)
    return states, last, others, gates


def _fake_forward(
    wx: Tensor,
    r: Tensor,
    b: Tensor,
    initial: Tensor | None,
    resets: Tensor | None,
    lengths: Tensor | None,
    order: Tensor | None,
    cell: str,
    hidden: bool,
    keep: str,
    *gradient: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The forward operator's shapes alone."""
    definition = differentiated(cell, *gradient)
    reference.check_tensors(definition, wx, r, b, initial)
    batch, seq, _, heads, dim = wx.shape
    states, gates = len(definition.states), len(derive(definition).saved_gates)
    known = 1 if hidden else states
    return (
        wx.new_empty((known, batch, seq, heads, dim)),
        wx.new_empty((states, batch, heads, dim)),
        wx.new_empty((states - known, batch, seq, heads, dim) if known < states and keep != "nothing" else (0,)),
        wx.new_empty((gates, batch, seq, heads, dim) if keep == "gates" else (0,)),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
    """What a forward pass leaves for the backward one: R, b, the states, the gates or what they come from, and what
    sequences have of their own."""
    wx, r, b, initial, resets, lengths, order, cell, _, keep, *gradient = inputs
    states, _, others, gates = output
    ctx.options = (cell, *gradient)
    ctx.twice = double_backward.on
    ctx.set_materialize_grads(False)
    again = (None, wx) if keep == "states" else (gates, wx if ctx.twice else None)
    ctx.save_for_backward(r, b, initial, states, others, *again, resets, lengths, order)


def _set_up(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    """What the forward operator leaves for the backward one."""
    ctx.keep = inputs[9]
    ctx.mark_non_differentiable(*output[2:])
    _keep(ctx, inputs, output)


def _gradients(ctx: Any, d_states: Tensor | None, d_last: Tensor | None) -> tuple[Any, ...]:
    """Those of a forward pass's inputs: wx, r, b and the initial states."""
    saved = ctx.saved_tensors
    if any(d is not None and torch._C._functorch.is_legacy_batchedtensor(d) for d in (d_states, d_last)):
        raise DifferentiationError(
            "rnn() takes one gradient at a time: it has no rule for is_grads_batched=True and for torch.autograd's "
            "jacobian and hessian with vectorize=True; leave that out, or use torch.func.jacrev"
        )
    r, b, initial, states, others, gates, wx, *own = saved
    if torch.is_grad_enabled() and ctx.twice:
        found = differentiable_gradients(wx, r, b, initial, Own(*own), d_states, d_last, *ctx.options)
    else:
        # With gradients enabled somebody wants a second derivative, which the operator refuses.
        run: Any = passes.backward if plain(*saved) and not torch.is_grad_enabled() else _backward
        kept = (gates, wx if gates is None else None)
        found = run(r, b, initial, states, others, *kept, *own, d_states, d_last, *ctx.options)
    d_wx, d_r, d_b, d_initial = found
    return d_wx, d_r, d_b, None if initial is None else d_initial, *[None] * 8


def _differentiate(
    ctx: Any, d_states: Tensor | None, d_last: Tensor | None, _: Tensor | None, __: Tensor | None
) -> tuple[Any, ...]:
    """The forward operator's gradients."""
    if ctx.keep == "nothing":
        raise TilesmithError("tilesmith::rnn_forward kept nothing, so it has no gradient; call it through rnn()")
    return _gradients(ctx, d_states, d_last)


def _fake_backward(
    r: Tensor, b: Tensor, initial: Tensor | None, states: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The backward operator's shapes alone; arguments as passes.backward's."""
    definition = cell_of(rest[-3])
    _, batch, seq, heads, dim = states.shape
    return (
        states.new_empty((batch, seq, len(definition.input_gates), heads, dim)),
        torch.empty_like(r, memory_format=torch.contiguous_format),
        torch.empty_like(b, memory_format=torch.contiguous_format),
        (states if initial is None else initial).new_empty((len(definition.states), batch, heads, dim)),
    )


class _Eager(torch.autograd.Function):  # type: ignore[misc]
    """The forward operator without the dispatcher's part, which costs the host as much as all the rest."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        """The first two outputs of passes.forward."""
        output = passes.forward(*inputs)
        _keep(ctx, inputs, output)
        return output[:2]

    backward = staticmethod(_gradients)


_PLAIN = frozenset({Tensor, torch.nn.Parameter, NoneType})


_TENSORS = frozenset({Tensor, torch.nn.Parameter})


def own_tensors(*tensors: Any) -> bool:
    """Whether all are PyTorch's own, the first one with values."""
    for tensor in tensors:
        if type(tensor) not in _TENSORS:
            return False
    return not tensors[0].is_meta


def plain(*tensors: Tensor | None) -> bool:
    """Whether all are PyTorch's own tensors, with values, and nothing is traced or transformed (torch.func), so that
    the dispatcher has nothing to do."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None or transforms.active():
        return False
    return _PLAIN.issuperset(map(type, tensors)) and not any(one is not None and one.is_meta for one in tensors)


_OWN = "Tensor? resets, Tensor? lengths, Tensor? order"
_OPTIONS = "str cell, {}bool recurrent_cut, float? recurrent_clip"

_forward = torch.library.custom_op(
    "tilesmith::rnn_forward",
    _run_forward,
    mutates_args=(),
    schema=f"(Tensor wx, Tensor r, Tensor b, Tensor? initial, {_OWN}, {_OPTIONS.format('bool hidden, str keep, ')})"
    " -> (Tensor, Tensor, Tensor, Tensor)",
)
_backward = torch.library.custom_op(
    "tilesmith::rnn_backward",
    passes.backward,
    mutates_args=(),
    schema="(Tensor r, Tensor b, Tensor? initial, Tensor states, Tensor? others, Tensor? gates, Tensor? wx, "
    f"{_OWN}, Tensor? d_states, Tensor? d_last, {_OPTIONS.format('')}) -> (Tensor, Tensor, Tensor, Tensor)",
)
_forward.register_fake(_fake_forward)
_forward.register_autograd(_differentiate, setup_context=_set_up)
_backward.register_fake(_fake_backward)
_backward.register_autograd(refuse_second_derivative)
