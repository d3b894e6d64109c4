"""One layer of a module, in one direction or two, from its parameters to one call of rnn()."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from kernelgen.torch import padding
from kernelgen.torch.checkpoint import run as chunked
from kernelgen.torch.input_norm import WEIGHT, normalised_product
from kernelgen.torch.operator import rnn
from kernelgen.torch.parts import Parts, input_product, recurrent_weights
from kernelgen.torch.sequences import NOTHING, Own


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
        self,
        xs: Sequence[Tensor],
        initial: Sequence[Tensor] | None,
        whole: bool,
        chunk: int | None = None,
        own: Own = NOTHING,
    ) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
        """Run each over its x [B, T, I].

        initial: the states, each [K, B, D] (h [K, B, P] where it is projected), or None for zeros. whole: whether to
        give every state, or h alone. chunk: steps of a chunk of a checkpointed pass, which takes no resets. own: see
        rnn(); what x holds behind an end is zero. Returns the states after every step, for each state and each set
        [B, T, D], and those after the last step, [B, D].
        """
        start = first = None
        if initial is not None:
            given = list(initial)
            if "weight_hr" in self.sets[0]:
                # The recurrence is that of m with h = W_hr m, and not every h comes from some m: so a step that begins
                # from h gets W_hh h beside Wx, and starts from m = 0.
                sent = [h.unsqueeze(1) for h in given[0]]
                first = input_product(sent, [one["weight_hh"] for one in self.sets], self.heads, self.dim).squeeze(1)
                given[0] = torch.zeros_like(given[1])
            batch, units = xs[0].shape[0], self.r.shape[1]
            start = torch.stack([state.transpose(0, 1).reshape(batch, units, self.dim) for state in given])
        key = self.parts.key
        w = None
        if chunk is None or WEIGHT in self.sets[0]:
            wx = normalised_product(self.parts, xs, self.sets, self.heads, self.dim)
        else:  # each chunk multiplies its own steps of x
            wx, w = torch.stack(list(xs), dim=2), torch.stack([one["weight_ih"] for one in self.sets])
        if chunk is None:
            if first is not None:
                wx = _added(wx, first, own.resets)
            returns: Literal["states", "hidden"] = "states" if whole else "hidden"
            states, last = rnn(wx, self.r, self.b, start, key, returns=returns, resets=own.resets, lengths=own.lengths)
        else:
            states, last = chunked(wx, w, first, self.r, self.b, start, own, key, hidden=not whole, chunk=chunk)
        ends = self._apart(last)
        if first is not None and initial is not None and own.lengths is not None:
            # Without a step there is no m that h comes from.
            empty = (own.lengths <= 0).unsqueeze(1)
            ends[0] = [torch.where(empty, h.to(end.dtype), end) for h, end in zip(initial[0], ends[0], strict=True)]
        return self._apart(states), ends

    def _apart(self, states: Tensor) -> list[list[Tensor]]:
        """[S, ..., K H, D] as K tensors [..., H D] of each state, the first one projected."""
        apart = [list(state.unflatten(-2, (len(self.sets), -1)).flatten(-2).unbind(-2)) for state in states.unbind()]
        if "weight_hr" in self.sets[0]:
            apart[0] = [functional.linear(h, one["weight_hr"]) for h, one in zip(apart[0], self.sets, strict=True)]
        return apart


def _added(wx: Tensor, first: Tensor, resets: Tensor | None) -> Tensor:
    """Wx [B, T, ...] with ``first`` [B, ...] added to the first step, and where resets [B, T] begin anew."""
    if resets is None:
        return torch.cat([wx[:, :1] + first.unsqueeze(1), wx[:, 1:]], dim=1)
    begins = torch.cat([torch.ones_like(resets[:, :1]), resets[:, 1:]], dim=1)
    return wx + padding.masked(first.unsqueeze(1).expand_as(wx), begins)


def run_layer(
    together: Together,
    x: Tensor,
    initial: Sequence[Tensor] | None,
    own: Own,
    every: bool,
    chunk: int | None = None,
) -> LayerResult:
    """Run a layer in one direction or two over x [B, T, I]; what the reverse one reads and writes is turned round.

    together: the directions. initial: the states, each [K, B, D], or None for zeros. own: resets and lengths, on x's
    device; the reverse direction begins anew behind a reset's step. every: whether to give every state. chunk: steps of
    a chunk of a checkpointed pass.
    """
    lengths = own.lengths
    if lengths is not None:
        x = padding.masked(x, padding.inside(lengths, x.shape[1]))
    xs = [x, padding.reverse(x, lengths)] if len(together.sets) == 2 else [x]
    if own.resets is None or len(xs) == 1:
        tracks, ends = together.run(xs, initial, every, chunk, own)
    else:  # each direction has resets of its own
        found = []
        for k, resets in enumerate((own.resets, padding.reversed_resets(own.resets, lengths))):
            states = None if initial is None else [state[k : k + 1] for state in initial]
            found.append(together.only(k, k + 1).run([xs[k]], states, every, chunk, own._replace(resets=resets)))
        tracks, ends = ([a + b for a, b in zip(*parts, strict=True)] for parts in zip(*found, strict=True))
    for track in tracks:
        track[1:] = [padding.reverse(one, lengths) for one in track[1:]]
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
