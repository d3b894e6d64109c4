"""Sequences of different lengths in one batch: padding, reversing each within its own length, and their own ends."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from kernelgen.torch.errors import ArgumentError, ArgumentTypeError, TensorShapeError


class Padding:
    """How the sequences of a PackedSequence, in its own order, the longest first, lie in [B, T, ...], and back.

    lengths: [B], int64, on the device of the data. sorted_indices, unsorted_indices: the PackedSequence's.
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
        self._apart, self._together, self.lengths = whole.split([batch * seq, count, batch])
        self._sizes = (batch, seq)

    def pad(self) -> Tensor:
        """The data [B, T, I]; behind the ends lies any of it."""
        padded: Tensor = self._packed.data.index_select(0, self._apart).unflatten(0, self._sizes)
        return padded

    def pack(self, x: Tensor) -> PackedSequence:
        """[B, T, ...] as a PackedSequence like that."""
        data = x.flatten(0, 1).index_select(0, self._together)
        return PackedSequence(data, *self._packed[1:])


def checked_lengths(lengths: Any, batch: int, seq: int, device: torch.device) -> Tensor:
    """Lengths as an int64 tensor [B] on a device. Values are looked at where they are on the CPU: a look at a GPU's
    would wait for it. Raises ArgumentTypeError, TensorShapeError and ArgumentError."""
    if not isinstance(lengths, Tensor):
        try:
            lengths = torch.as_tensor(lengths)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ArgumentTypeError(
                f"lengths must be a tensor of integers, not {type(lengths).__name__} ({error})"
            ) from error
    if lengths.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        raise ArgumentTypeError(f"lengths must be integers, not {lengths.dtype}")
    if list(lengths.shape) != [batch]:
        raise TensorShapeError(f"lengths must be [B] = [{batch}], not {list(lengths.shape)}")
    known = lengths.device.type == "cpu" and not torch.compiler.is_compiling()
    if known and batch and (int(lengths.min()) < 0 or int(lengths.max()) > seq):
        raise ArgumentError(
            f"lengths must be from 0 to T = {seq}, but they go from {int(lengths.min())} to {int(lengths.max())}"
        )
    return lengths.to(device, torch.int64, non_blocking=True)


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


def at_own_end(states: Tensor, lengths: Tensor, initial: Tensor | None) -> Tensor:
    """[B, T, D] at the last step of each sequence, [B, D]; of an empty one the initial state, or zeros."""
    batch, seq = states.shape[:2]
    rows = (lengths - 1).clamp(min=0) + seq * torch.arange(batch, device=states.device)
    last = states.flatten(0, 1).index_select(0, rows)
    empty = (lengths == 0).unsqueeze(1)
    return last.masked_fill(empty, 0) if initial is None else torch.where(empty, initial.to(last.dtype), last)
