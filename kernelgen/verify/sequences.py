"""What sequences of a batch have of their own, for the float64 reference: resets and lengths as masks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from kernelgen.errors import ShapeError

Mask = npt.NDArray[np.bool_]
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sequences:
    """resets [B, T]: where the states before a step are the initial ones again; never behind a sequence's end. ends
    [B]: how many steps each sequence has."""

    resets: Mask
    ends: npt.NDArray[np.int64]

    @classmethod
    def of(cls, resets: npt.NDArray[Any] | None, lengths: npt.NDArray[Any] | None, batch: int, seq: int) -> Self:
        """Those of B sequences of T steps at most. resets [B, T]: nonzero for a reset; None for none, and for whole
        sequences. Raises ShapeError for an array of another shape, and for a length that is not from 0 to T."""
        ends = np.full(batch, seq, np.int64) if lengths is None else np.asarray(lengths, np.int64)
        found = np.zeros((batch, seq), np.bool_) if resets is None else np.asarray(resets) != 0
        for name, array, shape in (("lengths", ends, (batch,)), ("resets", found, (batch, seq))):
            if array.shape != shape:
                raise ShapeError(f"{name} must have shape {shape}, not {array.shape}")
        low, high = int(ends.min(initial=seq)), int(ends.max(initial=0))
        if low < 0 or high > seq:
            raise ShapeError(f"lengths must be from 0 to T = {seq}; they are from {low} to {high}")
        return cls(found & (np.arange(seq) < ends[:, None]), ends)

    def part(self, rows: slice) -> Self:
        """Those of some sequences."""
        return type(self)(self.resets[rows], self.ends[rows])

    @cached_property
    def plain(self) -> bool:
        """Whether every sequence runs through all steps, with no reset."""
        return not self.resets.any() and bool((self.ends == self.resets.shape[1]).all())

    def running(self, t: int) -> Mask:
        """[B, 1]: whether step t is one of the sequence's."""
        return (t < self.ends)[:, None]

    def inside(self, value: Array, t: int, behind: Array | float = 0) -> Array:
        """The rows [.., B, D] of step t, and ``behind`` in those of sequences that have ended."""
        return value if self.plain else np.where(self.running(t), value, behind)

    def last(self, t: int) -> Mask:
        """[B, 1]: whether step t is the sequence's last, or behind it."""
        return (t >= self.ends - 1)[:, None]

    def restarts(self, t: int) -> Mask:
        """[B, 1]: whether the states before step t are the initial ones, for a reset."""
        return self.resets[:, t, None]

    @property
    def whole(self) -> Mask:
        """[B, T]: whether a step is one of the sequence's."""
        mask: Mask = np.arange(self.resets.shape[1]) < self.ends[:, None]
        return mask

    def before(self, hidden: npt.NDArray[Any], start: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """h before every step [B, T, H, D], from h after every step, likewise, and the first [B, H, D]."""
        found = np.concatenate([start[:, None], hidden[:, :-1]], axis=1)
        return np.where(self.resets[:, :, None, None], start[:, None], found)
