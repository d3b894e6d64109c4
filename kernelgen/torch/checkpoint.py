"""Checkpointed passes: of a long sequence only the states before every chunk of steps are kept, and the backward pass
runs a chunk's forward pass again, gates kept, before its own.

Two operators, tilesmith::rnn_chunks_forward and tilesmith::rnn_chunks_backward. They take the input before its product
with the weights too, so that Wx exists for one chunk at a time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernelgen.cells.registry import cell_of
from kernelgen.errors import ConfigError
from kernelgen.torch import transforms
from kernelgen.torch.arguments import autocast_dtype, autocast_parameter
from kernelgen.torch.chunk_passes import Chunk, Memory, Source
from kernelgen.torch.double_backward import double_backward, gradients
from kernelgen.torch.errors import TensorShapeError, refuse_second_derivative
from kernelgen.torch.kernels import ready
from kernelgen.torch.sequences import NOTHING, Own


def run(
    x: Tensor,
    w: Tensor | None,
    first: Tensor | None,
    r: Tensor,
    b: Tensor,
    initial: Tensor | None,
    own: Own,
    key: str,
    *,
    hidden: bool,
    chunk: int,
    cut: bool = False,
    clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """As rnn(), in chunks of so many steps, of tensors of which one requires a gradient.

    x: Wx [B, T, G_in, H, D], with w None; or the inputs [B, T, K, I] of K directions, which are heads: w
    [K, G_in H D / K, I] gives theirs of Wx. first: [B, G_in, H, D], added to Wx of the first step, or None. r, b,
    initial: as of reference.forward. own: the lengths of sequences; there are no resets. key: the cell's. hidden, cut,
    clip: see passes.forward.

    Raises ShapeError for tensors that do not belong together.
    """
    dtype = autocast_dtype(x.device.type)
    if dtype is not None:
        x, first = x.to(dtype), None if first is None else first.to(dtype)
        w, r, b, initial = (None if one is None else autocast_parameter(one, dtype) for one in (w, r, b, initial))
    states, last, _ = _forward(x, w, first, r, b, initial, own.lengths, own.order, key, hidden, chunk, cut, clip)
    return states, last


def require_no_resets(resets: Tensor | None) -> None:
    """Raise ConfigError: a reset begins anew with the initial states, and a kernel of a chunk has those before it."""
    if resets is not None:
        raise ConfigError(
            "passes in chunks (checkpoint, memory_limit, wavefront) take no resets; leave one of them out"
        )


def _source(
    x: Tensor,
    w: Tensor | None,
    first: Tensor | None,
    r: Tensor,
    b: Tensor,
    cell: str,
    hidden: bool,
    gradient: tuple[Any, ...],
) -> Source:
    """What chunks come from, w of x's dtype, R and b as kernels read them."""
    w = None if w is None else w.to(x.dtype)
    return Source(x, w, first, ready(r, x.dtype), ready(b, x.dtype), cell, hidden, gradient)


def _owns(lengths: Tensor | None, order: Tensor | None, seq: int, chunk: int) -> list[Own]:
    """What sequences have of their own in each chunk."""
    begins = range(0, seq, chunk)
    if lengths is None:
        return [NOTHING] * len(begins)
    starts = torch.arange(0, seq, chunk, dtype=lengths.dtype, device=lengths.device)
    left = (lengths.unsqueeze(0) - starts.unsqueeze(1)).clamp_(0, chunk)
    left[-1].clamp_(max=seq - begins[-1])
    return [Own(None, each, order) for each in left.unbind()]


def _run_forward(
    x: Tensor,
    w: Tensor | None,
    first: Tensor | None,
    r: Tensor,
    b: Tensor,
    initial: Tensor | None,
    lengths: Tensor | None,
    order: Tensor | None,
    cell: str,
    hidden: bool,
    chunk: int,
    *gradient: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """The forward operator: states [K, B, T, H, D], last [S, B, H, D], and the states before each chunk
    [N, S, B, H, D], the first of them the initial ones."""
    transforms.refuse_forward_mode()
    seq = x.shape[1]
    shapes = _sizes(x, r, cell, hidden, chunk)
    states, last, before = (x.new_empty(sizes) for sizes in shapes)
    if initial is None:
        before[0].zero_()
    else:
        before[0].copy_(initial)
    with torch.autocast(x.device.type, enabled=False):
        source, memory, owns = (
            _source(x, w, first, r, b, cell, hidden, gradient),
            Memory(x),
            _owns(lengths, order, seq, chunk),
        )
        runs: dict[int, Chunk] = {}
        ends = [*before.unbind(), last]
        # All chunks of an array by one call of PyTorch.
        for index, (part, made) in enumerate(zip(x.split(chunk, 1), states.split(chunk, 2), strict=True)):
            steps = part.shape[1]
            run = runs.get(steps) or runs.setdefault(steps, Chunk(source, memory, steps, "again", lengths is not None))
            run.product(part, not index)
            run.forward(ends[index], ends[index + 1], owns[index])
            made.copy_(run.states)
    return states, last, before


def _run_backward(
    x: Tensor,
    w: Tensor | None,
    first: Tensor | None,
    r: Tensor,
    b: Tensor,
    lengths: Tensor | None,
    order: Tensor | None,
    before: Tensor,
    d_states: Tensor | None,
    d_last: Tensor | None,
    cell: str,
    hidden: bool,
    chunk: int,
    cut: bool,
    clip: float | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The backward operator: the gradients of x, w, first, r, b and the initial states; without elements where there is
    no w or first. Sums over chunks are in float32 where the tensors are of 16 bits."""
    work = torch.float32 if x.dtype.itemsize == 2 else x.dtype
    seq, begun = x.shape[1], before.unbind()
    d_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    d_w = x.new_zeros((0,) if w is None else w.shape, dtype=work)
    d_first = x.new_empty((0,))
    with torch.autocast(x.device.type, enabled=False):
        source, memory = _source(x, w, first, r, b, cell, hidden, (cut, clip)), Memory(x)
        owns = _owns(lengths, order, seq, chunk)
        # The longest first, whose memory all others share.
        runs = {steps: Chunk(source, memory, steps, "gates", lengths is not None) for steps in _lengths(seq, chunk)}
        sums = torch.zeros_like(runs[min(chunk, seq)].sums)
        turns = [torch.empty_like(begun[0], memory_format=torch.contiguous_format) for _ in range(3)]
        d_end = None if d_last is None else ready(d_last, x.dtype)
        if d_states is None:
            runs[min(chunk, seq)].d_states.zero_()
        parts, d_parts = x.split(chunk, 1), d_x.split(chunk, 1)
        given = None if d_states is None else d_states.split(chunk, 2)
        for index in reversed(range(len(parts))):
            part, own, d_begin = parts[index], owns[index], turns[index % 2]
            run = runs[part.shape[1]]
            run.product(part, not index)
            run.forward(begun[index], turns[2], own)
            if given is not None:
                run.d_states.copy_(given[index])
            run.backward(begun[index], d_end, d_begin, own)
            d_end = d_begin
            sums += run.sums
            if clip is not None and index:  # what one step hands to the one before, where there was one
                clipped = d_end[0].clamp(-clip, clip)
                d_end[0] = (
                    clipped if lengths is None else torch.where(_later(lengths, index * chunk), clipped, d_end[0])
                )
            if first is not None and not index:
                d_first = run.d_wx[:, 0].clone()
            run.of_product(part, d_parts[index], d_w)
    assert d_end is not None
    d_r, d_b = (one.to(like.dtype, copy=True) for one, like in zip(run.parted(sums), (r, b), strict=True))
    return d_x, d_w if w is None else d_w.to(w.dtype), d_first, d_r, d_b, d_end


def _lengths(seq: int, chunk: int) -> list[int]:
    """How many steps chunks have, the longest first."""
    return list(dict.fromkeys(min(chunk, seq - begin) for begin in range(0, seq, chunk)))


def _later(lengths: Tensor, begin: int) -> Tensor:
    """Which sequences have steps from there on, [B, 1, 1]."""
    return (lengths > begin).view(-1, 1, 1)


def _sizes(x: Tensor, r: Tensor, cell: str, hidden: bool, chunk: int) -> tuple[tuple[int, ...], ...]:
    """The sizes of the forward operator's three results. Raises TensorShapeError for an empty sequence."""
    count = len(cell_of(cell).states)
    batch, seq = x.shape[:2]
    if not seq:
        raise TensorShapeError(f"the input is empty: its shape is {list(x.shape)}; there must be a step")
    units = r.shape[1:3]
    chunks = (seq + chunk - 1) // chunk
    return (1 if hidden else count, batch, seq, *units), (count, batch, *units), (chunks, count, batch, *units)


def _fake_forward(
    x: Tensor,
    w: Tensor | None,
    first: Tensor | None,
    r: Tensor,
    b: Tensor,
    initial: Tensor | None,
    lengths: Tensor | None,
    order: Tensor | None,
    cell: str,
    hidden: bool,
    chunk: int,
    *_: Any,
) -> tuple[Tensor, ...]:
    """The forward operator's shapes alone."""
    return tuple(x.new_empty(sizes) for sizes in _sizes(x, r, cell, hidden, chunk))


def _fake_backward(
    x: Tensor,
    w: Tensor | None,
    first: Tensor | None,
    r: Tensor,
    b: Tensor,
    lengths: Tensor | None,
    order: Tensor | None,
    before: Tensor,
    *_: Any,
) -> tuple[Tensor, ...]:
    """The backward operator's shapes alone."""
    work = torch.float32 if x.dtype.itemsize == 2 else x.dtype
    like = [torch.empty_like(one, memory_format=torch.contiguous_format) for one in (x, r, b)]
    optional = [x.new_empty((0,), dtype=work) if w is None else torch.empty_like(w)]
    optional.append(x.new_empty((0,) if first is None else first.shape))
    return (like[0], *optional, *like[1:], before.new_empty(before.shape[1:]))


def _set_up(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    """What the forward operator leaves for the backward one: its inputs and the states before each chunk."""
    *tensors, initial, lengths, order, cell, hidden, chunk, cut, clip = inputs
    ctx.started = initial is not None
    ctx.twice = double_backward.on
    ctx.options = (cell, hidden, chunk, cut, clip)
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, lengths, order, output[2], initial if ctx.twice else None)


def _differentiate(ctx: Any, d_states: Tensor | None, d_last: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
    """The forward operator's gradients."""
    *saved, initial = ctx.saved_tensors
    _, w, first, *_ = saved
    if torch.is_grad_enabled() and ctx.twice:
        found = _differentiable(*saved[:7], initial, d_states, d_last, *ctx.options)
    else:
        found = _backward(*saved, d_states, d_last, *ctx.options)
    d_x, d_w, d_first, d_r, d_b, d_initial = found
    optional = (None if w is None else d_w, None if first is None else d_first)
    return d_x, *optional, d_r, d_b, d_initial if ctx.started else None, *[None] * 7


def _differentiable(
    x: Tensor,
    w: Tensor | None,
    first: Tensor | None,
    r: Tensor,
    b: Tensor,
    lengths: Tensor | None,
    order: Tensor | None,
    initial: Tensor | None,
    d_states: Tensor | None,
    d_last: Tensor | None,
    cell: str,
    hidden: bool,
    chunk: int,
    *gradient: Any,
) -> tuple[Tensor | None, ...]:
    """As _run_backward, of all steps at once, in operations that autograd differentiates."""
    wx, (heads, dim) = x, r.shape[1:3]
    if w is not None:
        product = torch.einsum("btki,kni->btkn", x, w.to(x.dtype))
        wx = product.unflatten(3, (-1, heads // len(w), dim)).transpose(2, 3).flatten(3, 4)
    if first is not None:
        wx = torch.cat([wx[:, :1] + first.unsqueeze(1), wx[:, 1:]], 1)
    own = NOTHING if lengths is None else Own(None, lengths, order)
    d_wx, d_r, d_b, d_initial = gradients(wx, r, b, initial, own, d_states, d_last, cell, *gradient)
    d_first = None if first is None else d_wx[:, 0]
    if w is None:
        return d_wx, None, d_first, d_r, d_b, d_initial
    d = d_wx.unflatten(3, (len(w), -1)).transpose(2, 3).flatten(3)
    d_x = torch.einsum("btkn,kni->btki", d, w.to(x.dtype))
    return d_x, torch.einsum("btkn,btki->kni", d, x).to(w.dtype), d_first, d_r, d_b, d_initial


_ARGUMENTS = "Tensor x, Tensor? w, Tensor? first, Tensor r, Tensor b"
_OWN = "Tensor? lengths, Tensor? order"
_OPTIONS = "str cell, bool hidden, int chunk, bool recurrent_cut, float? recurrent_clip"

_forward = torch.library.custom_op(
    "tilesmith::rnn_chunks_forward",
    _run_forward,
    mutates_args=(),
    schema=f"({_ARGUMENTS}, Tensor? initial, {_OWN}, {_OPTIONS}) -> (Tensor, Tensor, Tensor)",
)
_backward = torch.library.custom_op(
    "tilesmith::rnn_chunks_backward",
    _run_backward,
    mutates_args=(),
    schema=f"({_ARGUMENTS}, {_OWN}, Tensor before, Tensor? d_states, Tensor? d_last, {_OPTIONS})"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
_forward.register_fake(_fake_forward)
_forward.register_autograd(_differentiate, setup_context=_set_up)
_backward.register_fake(_fake_backward)
_backward.register_autograd(refuse_second_derivative)
