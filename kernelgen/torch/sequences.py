"""What sequences of a batch have of their own, as tensors: resets and lengths, checked, and as masks for the loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernelgen.torch.errors import ArgumentError, ArgumentTypeError, TensorShapeError
from kernelgen.torch.exporting import to_onnx, untraced

INTEGERS = (torch.int32, torch.int64)


class Own(NamedTuple):
    """resets [B, T] bool or None; lengths [B] int32 or None; order [B] int32: the numbers of the sequences, the longest
    first unless that saves nothing, where there are lengths, else None. On the device of the other tensors."""

    resets: Tensor | None = None
    lengths: Tensor | None = None
    order: Tensor | None = None

    @property
    def features(self) -> tuple[str, ...]:
        """Which of program.shape.FEATURES there are."""
        return tuple(name for name in ("resets", "lengths") if getattr(self, name) is not None)


NOTHING = Own()


def own_of(resets: Any, lengths: Any, wx: Tensor) -> Own:
    """What rnn() was given for Wx [B, T, ...], checked.

    Raises ArgumentTypeError for what is no bool tensor, and no integers; TensorShapeError for a tensor of another shape
    or on another device; ArgumentError for a length that is not from 0 to T, unless the lengths are on a GPU, where
    looking at them would wait for it.
    """
    if wx.dim() != 5:
        raise TensorShapeError(f"Wx must have the five axes [B, T, G_in, H, D], not shape {list(wx.shape)}")
    batch, _, _, heads, dim = wx.shape
    return own_of_batch(resets, lengths, wx, sort=not side_by_side(heads * -(-batch // 4) * -(-dim // 64), wx.device))


def own_of_input(resets: Any, lengths: Any, x: Tensor, batched: bool) -> Own:
    """As own_of, for a module's input x [B, T, I], with lengths from 0 to T; of an input without a batch, which x has
    one for, resets are [T]."""
    if resets is None and lengths is None:
        return NOTHING
    if isinstance(resets, Tensor) and not batched:
        _check_resets(resets, "[T]", [x.shape[1]], x)
        resets = resets.unsqueeze(0)
    own = own_of_batch(resets, lengths, x)
    return own if own.lengths is None else own._replace(lengths=own.lengths.clamp(0, x.shape[1]))


def own_of_batch(resets: Any, lengths: Any, wx: Tensor, *, sort: bool = True) -> Own:
    """As own_of, for any [B, T, ...]. sort: whether lengths on wx's device are worth a sort."""
    batch, seq = wx.shape[:2]
    if resets is not None:
        _check_resets(resets, "[B, T]", [batch, seq], wx)
    if lengths is None:
        return Own(resets)
    lengths = lengths_of(lengths, batch, seq, wx)
    if (not sort and lengths.device == wx.device) or to_onnx():  # whose nodes need no order
        return Own(resets, lengths, torch.arange(batch, dtype=torch.int32, device=wx.device))
    return Own(resets, *longest_first(lengths, wx.device))


def side_by_side(blocks: int, device: torch.device) -> bool:
    """Whether that many blocks surely run at a time, each on a multiprocessor: then a pass takes as long as its
    longest sequence, whichever share a tile."""
    return device.type == "cuda" and blocks <= int(torch.cuda.get_device_properties(device).multi_processor_count)


def begun_anew(states: Tensor | None, resets: Any, initial: Tensor | None, wx: Tensor) -> Tensor | None:
    """The states [S, B, H, D] of a step with those of the sequences in ``resets`` [B] taken from ``initial``; None are
    zeros. Raises what own_of does, and TensorShapeError for states of different shapes."""
    _check_resets(resets, "[B]", [wx.shape[0]], wx)
    if states is None and initial is None:
        return None
    like = initial if states is None else states
    assert like is not None
    first, found = (like.new_zeros(()) if each is None else each for each in (initial, states))
    if initial is not None and states is not None and initial.shape != states.shape:
        raise TensorShapeError(f"initial states must be {list(states.shape)}, as states, not {list(initial.shape)}")
    if like.dim() != 4 or like.shape[1] != wx.shape[0]:
        raise TensorShapeError(f"states must be [S, B, H, D] with B = {wx.shape[0]}, not {list(like.shape)}")
    return torch.where(resets.view(1, -1, 1, 1), first, found)


@untraced
def _check_resets(resets: Any, axes: str, sizes: list[int], wx: Tensor) -> None:
    """Raise ArgumentTypeError for what is no bool tensor, TensorShapeError for one of other sizes or elsewhere."""
    if not isinstance(resets, Tensor) or resets.dtype != torch.bool:
        kind = resets.dtype if isinstance(resets, Tensor) else type(resets).__name__
        raise ArgumentTypeError(
            f"resets must be a bool tensor {axes}, not {kind}; resets.bool() makes one of a tensor of numbers"
        )
    if list(resets.shape) != sizes:
        raise TensorShapeError(f"resets must be {axes} = {sizes}, as Wx says, not {list(resets.shape)}")
    if resets.device != wx.device:
        raise TensorShapeError(f"resets are on {resets.device}, but Wx is on {wx.device}; move them")


def lengths_of(lengths: Any, batch: int, seq: int, wx: Tensor) -> Tensor:
    """The lengths as an int32 tensor, wherever they are, checked: see own_of. wx: what they are lengths of."""
    if isinstance(lengths, Sequence) and all(isinstance(n, int) and not isinstance(n, bool) for n in lengths):
        lengths = torch.tensor(lengths, dtype=torch.int64)
    _check_lengths(lengths, batch, seq, wx)
    made: Tensor = lengths.to(torch.int32)
    return made


@untraced
def _check_lengths(lengths: Any, batch: int, seq: int, wx: Tensor) -> None:
    """Raise what own_of does for lengths."""
    if not isinstance(lengths, Tensor) or lengths.dtype not in INTEGERS:
        kind = lengths.dtype if isinstance(lengths, Tensor) else type(lengths).__name__
        raise ArgumentTypeError(f"lengths must be an int32 or int64 tensor [B] or a list of ints, not {kind}")
    if tuple(lengths.shape) != (batch,):
        raise TensorShapeError(f"lengths must be [B] = {[batch]}, as Wx says, not {list(lengths.shape)}")
    if lengths.device.type != "cpu" and lengths.device != wx.device:
        raise TensorShapeError(f"lengths are on {lengths.device}, but Wx is on {wx.device}; move them")
    require_range(lengths, seq)


@untraced
def require_range(lengths: Tensor, seq: int) -> None:
    """Raise ArgumentError for a length that is not from 0 to ``seq``; of lengths on the CPU whose values are there."""
    if lengths.device.type != "cpu" or torch.compiler.is_compiling() or torch._C._functorch.is_batchedtensor(lengths):
        return
    if not lengths.numel():
        return
    low, high = int(lengths.min()), int(lengths.max())
    if low < 0 or high > seq:
        raise ArgumentError(f"lengths must be from 0 to T = {seq}; they are from {low} to {high}")


def longest_first(lengths: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """The lengths and the order of the sequences, on the device: in one transfer, where they come from the CPU."""
    order = torch.argsort(lengths, descending=True, stable=True).to(torch.int32)
    if lengths.device == device:
        return lengths, order
    both = torch.stack([lengths, order]).to(device)
    return both[0], both[1]


class Masks:
    """For loops over ``seq`` steps whose tensors are [H, B, D]."""

    def __init__(self, own: Own, seq: int) -> None:
        self._ends = None if own.lengths is None else own.lengths.clamp(0, seq)
        steps = None if self._ends is None else torch.arange(seq, device=self._ends.device)
        self.whole = None if steps is None or self._ends is None else steps < self._ends.unsqueeze(1)
        """[B, T]: whether a step is one of the sequence's; None where all are."""
        self.resets = own.resets
        """[B, T]: where the states before a step are the initial ones again, or None."""
        if self.resets is not None and self.whole is not None:
            self.resets = self.resets & self.whole

    def running(self, t: int) -> Tensor | None:
        """[1, B, 1]: whether step t is one of the sequence's; None where it is all sequences'."""
        return None if self.whole is None else self.whole[:, t].view(1, -1, 1)

    def last(self, t: int) -> Tensor | None:
        """[1, B, 1]: whether step t is the sequence's last or behind it; None where sequences are whole."""
        return None if self._ends is None else (self._ends <= t + 1).view(1, -1, 1)

    def restarts(self, t: int) -> Tensor | None:
        """[1, B, 1]: whether the states before step t are the initial ones again; None where none are."""
        return None if self.resets is None else self.resets[:, t].view(1, -1, 1)

    def clear(self, array: Tensor) -> Tensor:
        """An array [B, T, ...] with zeros behind the ends."""
        return array if self.whole is None else torch.where(_spread(self.whole, array), array, array.new_zeros(()))

    def before(self, hidden: Tensor, initial: Tensor | None) -> Tensor:
        """h before every step [B, T, H, D], from h after every step, likewise, and the initial states [S, B, H, D]."""
        first = torch.zeros_like(hidden[:, :1]) if initial is None else initial[0].unsqueeze(1)
        found = torch.cat([first, hidden[:, :-1]], dim=1)
        return found if self.resets is None else torch.where(_spread(self.resets, found), first, found)


def _spread(mask: Tensor, like: Tensor) -> Tensor:
    """[B, T] as [B, T, 1, ...]."""
    return mask.view(*mask.shape, *[1] * (like.dim() - 2))


def select(mask: Tensor | None, first: Sequence[Tensor], second: Sequence[Tensor]) -> list[Tensor]:
    """Each of ``first`` where the mask says so, else of ``second``; a mask of None says so nowhere."""
    if mask is None:
        return list(second)
    return [torch.where(mask, one, other) for one, other in zip(first, second, strict=True)]
