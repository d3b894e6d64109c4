"""One layer of a module, in one direction or two, from its parameters to one call of rnn()."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Together:
    """K sets of a layer's parameters, which run at the same time as heads of one recurrence.

    sets: the parameters of each, by the names of parts.parameter_sizes; each of so many heads of dim units.
    r [G_rec, K H, D, D] and b [G_bias, K H, D]: as rnn() takes them.
    """

    parts: Parts
    heads: int
    dim: int
    sets: Sequence[Mapping[str, Tensor]]
    r: Tensor
    b: Tensor

    @classmethod
    def of(cls, parts: Parts, heads: int, sets: Sequence[Mapping[str, Tensor]]) -> Together:
        """Put sets together."""
        dim = sets[0]["weight_hh"].shape[0] // (parts.products * heads)
        return cls(parts, heads, dim, sets, *recurrent_weights(parts, heads, dim, sets))

    def only(self, begin: int, end: int) -> Together:
        """The sets from one to another."""
        if (begin, end) == (0, len(self.sets)):
            return self
        here = slice(begin * self.heads, end * self.heads)
        return Together(self.parts, self.heads, self.dim, self.sets[begin:end], self.r[:, here], self.b[:, here])

    def run(
        self, xs: Sequence[Tensor], initial: Sequence[Tensor] | None, whole: bool, chunk: int | None = None
    ) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
        """Run each over its x [B, T, I].

        initial: the states, each [K, B, D] (h [K, B, P] where it is projected), or None for zeros. whole: whether to
        give every state, or h alone. chunk: steps of a chunk of a checkpointed pass. Returns the states after every
        step, for each state and each set [B, T, D], and those after the last step, [B, D].
        """
        weights = [one["weight_ih"] for one in self.sets]
        start = first = None
        if initial is not None:
            given = list(initial)
            if "weight_hr" in self.sets[0]:
                # The recurrence is that of m with h = W_hr m, and not every h comes from some m: so the first step gets
                # W_hh h beside Wx, and starts from m = 0.
                sent = [h.unsqueeze(1) for h in given[0]]
                first = input_product(sent, [one["weight_hh"] for one in self.sets], self.heads, self.dim).squeeze(1)
                given[0] = torch.zeros_like(given[1])
            batch, units = xs[0].shape[0], self.r.shape[1]
            start = torch.stack([state.transpose(0, 1).reshape(batch, units, self.dim) for state in given])
        if chunk is None:
            wx = input_product(xs, weights, self.heads, self.dim)
            if first is not None:
                wx = torch.cat([wx[:, :1] + first.unsqueeze(1), wx[:, 1:]], dim=1)
            states, last = rnn(wx, self.r, self.b, start, self.parts.key, returns="states" if whole else "hidden")
        else:
            x = torch.stack(list(xs), dim=2) if len(xs) > 1 else xs[0].unsqueeze(2)
            w = torch.stack(weights)
            states, last = chunked(x, w, first, self.r, self.b, start, self.parts.key, hidden=not whole, chunk=chunk)
        return self._apart(states), self._apart(last)

    def _apart(self, states: Tensor) -> list[list[Tensor]]:
        """[S, ..., K H, D] as K tensors [..., H D] of each state, the first one projected."""
        apart = [list(state.unflatten(-2, (len(self.sets), -1)).flatten(-2).unbind(-2)) for state in states.unbind()]
        if "weight_hr" in self.sets[0]:
            apart[0] = [functional.linear(h, one["weight_hr"]) for h, one in zip(apart[0], self.sets, strict=True)]
        return apart


def run_layer(
    together: Together,
    x: Tensor,
    initial: Sequence[Tensor] | None,
    lengths: Tensor | None,
    every: bool,
    chunk: int | None = None,
) -> LayerResult:
    """Run a layer in one direction or two over x [B, T, I]; what the reverse one reads and writes is turned round.

    together: the directions. initial: the states, each [K, B, D], or None for zeros. lengths: [B] on x's device, or
    None. every: whether to give every state. chunk: steps of a chunk of a checkpointed pass.
    """
    within = None if lengths is None else padding.inside(lengths, x.shape[1])
    x = padding.masked(x, within)
    xs = [x, padding.reverse(x, lengths)] if len(together.sets) == 2 else [x]
    tracks, ends = together.run(xs, initial, every or lengths is not None, chunk)
    if lengths is not None:
        ends = own_ends(tracks, initial, lengths)
    for track in tracks:
        track[1:] = [padding.reverse(one, lengths) for one in track[1:]]
    tracks = [[padding.masked(one, within) for one in track] for track in tracks]
    output = torch.cat(tracks[0], dim=-1) if len(xs) > 1 else tracks[0][0]
    last = tuple(torch.stack(end) for end in ends)
    return LayerResult(output, last, tuple(torch.stack(track) for track in tracks) if every else None)


def own_ends(
    tracks: Sequence[Sequence[Tensor]], initial: Sequence[Tensor] | None, lengths: Tensor
) -> list[list[Tensor]]:
    """Every state at each sequence's own last step, [B, D], of its states after every step [B, T, D]; of a sequence
    without steps the initial one, each [K, B, D]."""
    starts = [[None] * len(tracks[0])] * len(tracks) if initial is None else initial
    return [
        [padding.at_own_end(one, lengths, start) for one, start in zip(track, begun, strict=True)]
        for track, begun in zip(tracks, starts, strict=True)
    ]
