"""One layer of a module, in one direction or two, from its parameters to one call of rnn()."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from kernelgen.torch import padding
from kernelgen.torch.checkpoint import run as chunked
from kernelgen.torch.operator import rnn
from kernelgen.torch.parts import Parts, input_product, recurrent_weights


class LayerResult(NamedTuple):
    """Of a layer with K directions: the output [B, T, K P], the last states, each [K, B, D], and every state after
    every step, each [K, B, T, D], where they were asked for. The first state has P units; without a projection P is D.
    """

    output: Tensor
    last: tuple[Tensor, ...]
    every: tuple[Tensor, ...] | None


def run_layer(
    parts: Parts,
    heads: int,
    directions: Sequence[Mapping[str, Tensor]],
    x: Tensor,
    initial: Sequence[Tensor] | None,
    lengths: Tensor | None,
    every: bool,
    chunk: int | None = None,
) -> LayerResult:
    """Run a layer over x [B, T, I].

    directions: the parameters of each, by the names of parts.parameter_sizes; they are heads of one recurrence, so that
    they run at the same time, and what the reverse one reads and writes is turned round. initial: the states, each
    [K, B, D], or None for zeros. lengths: [B] on x's device, or None. every: whether to give every state. chunk: steps
    of a chunk of a checkpointed pass.
    """
    units = directions[0]["weight_hh"].shape[0] // parts.products
    dim = units // heads
    projections = [one.get("weight_hr") for one in directions]
    within = None if lengths is None else padding.inside(lengths, x.shape[1])
    x = padding.masked(x, within)
    xs = [x, padding.reverse(x, lengths)] if len(directions) == 2 else [x]
    weights = [one["weight_ih"] for one in directions]
    r, b = recurrent_weights(parts, heads, dim, directions)
    start = first = None
    if initial is not None:
        given = list(initial)
        if projections[0] is not None:
            # The recurrence is that of m with h = W_hr m, and not every h comes from some m: so the first step gets
            # W_hh h beside Wx, and starts from m = 0.
            first = _sent(directions, given[0], heads, dim)
            given[0] = torch.zeros_like(given[1])
        start = torch.stack([state.transpose(0, 1).reshape(x.shape[0], r.shape[1], dim) for state in given])
    whole = every or lengths is not None
    if chunk is None:
        wx = input_product(xs, weights, heads, dim)
        if first is not None:
            wx = torch.cat([wx[:, :1] + first.unsqueeze(1), wx[:, 1:]], dim=1)
        states, last = rnn(wx, r, b, start, parts.key, returns="states" if whole else "hidden")
    else:
        apart = torch.stack(xs, dim=2) if len(xs) > 1 else x.unsqueeze(2)
        states, last = chunked(
            apart, torch.stack(weights), first, r, b, start, parts.key, hidden=not whole, chunk=chunk
        )
    if lengths is not None:
        last = padding.at_own_end(states, lengths, start)
    return LayerResult(*_results(states, last, projections, initial, lengths, every))


def _sent(directions: Sequence[Mapping[str, Tensor]], h: Tensor, heads: int, dim: int) -> Tensor:
    """W_hh h [B, G, K H, D] of each direction, h [K, B, P]."""
    weights = [one["weight_hh"] for one in directions]
    return input_product([of_one.unsqueeze(1) for of_one in h], weights, heads, dim).squeeze(1)


def _results(
    states: Tensor,
    last: Tensor,
    projections: Sequence[Tensor | None],
    initial: Sequence[Tensor] | None,
    lengths: Tensor | None,
    every: bool,
) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...] | None]:
    """What rnn() returned, states [S, B, T, K H, D] and last [S, B, K H, D], as LayerResult has it."""
    count = len(projections)
    within = None if lengths is None else padding.inside(lengths, states.shape[2])
    tracks = []
    for index, state in enumerate(states.unbind() if every else [states[0]]):
        track = []
        for direction, one in enumerate(_apart(state, count)):
            one = _projected(one, None if index else projections[direction])
            track.append(padding.masked(padding.reverse(one, lengths) if direction else one, within))
        tracks.append(track)
    ends = []
    for index, state in enumerate(last.unbind()):
        end = [_projected(one, None if index else projections[k]) for k, one in enumerate(_apart(state, count))]
        if projections[0] is not None and not index and lengths is not None and initial is not None:
            empty = (lengths == 0).unsqueeze(1)
            end = [torch.where(empty, h.to(one.dtype), one) for h, one in zip(initial[0], end, strict=True)]
        ends.append(torch.stack(end))
    output = tracks[0][0] if count == 1 else torch.cat(tracks[0], dim=-1)
    return output, tuple(ends), tuple(torch.stack(track) for track in tracks) if every else None


def _apart(state: Tensor, count: int) -> Sequence[Tensor]:
    """[..., K H, D] as K tensors [..., H D]."""
    apart: Sequence[Tensor] = state.unflatten(-2, (count, -1)).flatten(-2).unbind(-2)
    return apart


def _projected(h: Tensor, weight: Tensor | None) -> Tensor:
    return h if weight is None else functional.linear(h, weight)
