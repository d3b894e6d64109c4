"""Sequences of different lengths in one batch: padding, reversing each within its own length, and their own ends."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from kernelgen.torch.sequences import Own, own_of_batch


class Padding:
    """How the sequences of a PackedSequence, in its own order, the longest first, lie in [B, T, ...], and back.

    lengths: [B], int32, on the device of the data. sorted_indices, unsorted_indices: the PackedSequence's.
    """

    def __init__(self, packed: PackedSequence) -> None:
        sizes = packed.batch_sizes  # how many sequences have each step; on the CPU
        self._packed, self.sorted_indices, self.unsorted_indices = (
            packed,
            packed.sorted_indices,
            packed.unsorted_indices,
        )
        count, seq = packed.data.shape[0], sizes.shape[0]
        batch = int(sizes[0]) if packed.sorted_indices is None else packed.sorted_indices.shape[0]
        ends = sizes.cumsum(0)
        numbers, rows = torch.arange(batch).unsqueeze(1), torch.arange(count)
        within = numbers < sizes
        steps = torch.searchsorted(ends, rows, right=True)
        apart = torch.where(within, ends - sizes + numbers, 0)
        together = (rows - (ends - sizes)[steps]) * seq + steps
        # One transfer for all three.
        whole = torch.cat([apart.flatten(), together, within.sum(1)]).to(packed.data.device, non_blocking=True)
        self._apart, self._together, lengths = whole.split([batch * seq, count, batch])
        self.lengths = lengths.to(torch.int32)
        self._sizes = (batch, seq)

    def pad(self) -> Tensor:
        """The data [B, T, I]; behind the ends lies any of it."""
        padded: Tensor = self._packed.data.index_select(0, self._apart).unflatten(0, self._sizes)
        return padded

    def own(self, resets: Any) -> Own:
        """The lengths, and resets [B, T] of the sequences in the order that they were packed in. Raises what rnn()
        raises for these."""
        batch = self.lengths.shape[0]
        order = torch.arange(batch, dtype=torch.int32, device=self.lengths.device)
        if resets is not None:
            (resets, *_) = own_of_batch(resets, None, self.lengths.unsqueeze(1).expand(self._sizes))
            if self.sorted_indices is not None:
                resets = resets.index_select(0, self.sorted_indices)
        return Own(resets, self.lengths, order)

    def pack(self, x: Tensor) -> PackedSequence:
        """[B, T, ...] as a PackedSequence like that."""
        data = x.flatten(0, 1).index_select(0, self._together)
        return PackedSequence(data, *self._packed[1:])


def inside(lengths: Tensor, seq: int) -> Tensor:
    """Which steps are within each sequence: [B, T]."""
    return torch.arange(seq, device=lengths.device) < lengths.unsqueeze(1)


def masked(x: Tensor, within: Tensor | None) -> Tensor:
    """[B, T, ...] with zeros, and no gradient, where a step is not within its sequence, whatever stands there."""
    if within is None:
        return x
    return x.masked_fill(~within.view(*within.shape, *[1] * (x.dim() - 2)), 0)


def reverse(x: Tensor, lengths: Tensor | None) -> Tensor:
    """[B, T, ...] with the steps of each sequence in reverse order; what lies behind its end stays there."""
    if lengths is None:
        return x.flip(1)
    batch, seq = x.shape[:2]
    steps = torch.arange(seq, device=x.device)
    turned = lengths.unsqueeze(1) - 1 - steps
    rows = torch.where(turned >= 0, turned, steps) + seq * torch.arange(batch, device=x.device).unsqueeze(1)
    return x.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, (batch, seq))


def reversed_resets(resets: Tensor, lengths: Tensor | None) -> Tensor:
    """Resets [B, T] for the steps in reverse order: what begins anew at a step, seen from behind, ends there."""
    after = torch.cat([resets[:, 1:], torch.zeros_like(resets[:, :1])], dim=1)
    return reverse(after, lengths)


def at_own_end(states: Tensor, lengths: Tensor, initial: Tensor | None) -> Tensor:
    """[B, T, D] at the last step of each sequence, [B, D]; of an empty one the initial state, or zeros."""
    batch, seq = states.shape[:2]
    rows = (lengths - 1).clamp(min=0) + seq * torch.arange(batch, device=states.device)
    last = states.flatten(0, 1).index_select(0, rows)
    empty = (lengths == 0).unsqueeze(1)
    return last.masked_fill(empty, 0) if initial is None else torch.where(empty, initial.to(last.dtype), last)
