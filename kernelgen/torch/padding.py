"""Sequences of different lengths in one batch: padding, reversing each within its own length, and their own ends."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from kernelgen.torch.errors import ArgumentError, ArgumentTypeError, TensorShapeError


def padded(packed: PackedSequence) -> tuple[Tensor, Tensor]:
    """The sequences of a PackedSequence in its own order, longest first: [B, T, I], zero behind their ends, and their
    lengths [B], int64, on the device of the data."""
    x, lengths = pad_packed_sequence(PackedSequence(packed.data, packed.batch_sizes), batch_first=True)
    return x, lengths.to(x.device, non_blocking=True)


def packed_like(x: Tensor, packed: PackedSequence) -> PackedSequence:
    """[B, T, I] in the order of ``padded`` as a PackedSequence with the lengths and the order of another."""
    sizes = packed.batch_sizes
    # Sequence b is as long as there are steps with more than b sequences.
    lengths = (sizes.unsqueeze(1) > torch.arange(int(sizes[0]))).sum(0)
    data = pack_padded_sequence(x, lengths, batch_first=True).data
    return PackedSequence(data, sizes, packed.sorted_indices, packed.unsorted_indices)


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
    if lengths.device.type == "cpu" and batch and (int(lengths.min()) < 0 or int(lengths.max()) > seq):
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
    """[S, B, T, ...] at the last step of each sequence, [S, B, ...]; of an empty one, what it starts from."""
    batch, seq = states.shape[1:3]
    rows = (lengths - 1).clamp(min=0) + seq * torch.arange(batch, device=states.device)
    last = states.flatten(1, 2).index_select(1, rows)
    empty = (lengths == 0).view(-1, *[1] * (last.dim() - 2))
    return last.masked_fill(empty, 0) if initial is None else torch.where(empty, initial, last)
