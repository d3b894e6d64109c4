"""What a backward pass does with the gradient that one step sends back to the one before."""

from __future__ import annotations

from dataclasses import dataclass

from kernelgen.errors import CellError

LARGEST = (2 - 2.0**-23) * 2.0**127
"""The largest finite float32: steps are computed in float32, so no constant may exceed it."""


@dataclass(frozen=True)
class GradientOptions:
    """What a backward pass does with the gradient of h(t) that step t + 1 sends back. FlashRNN knows both options.

    recurrent_cut: R passes no gradient on: only the step's own use of h(t) counts, where it has one. (The gradients of
    the gates, and so of R itself, are made as always.) recurrent_clip: a bound v > 0, or None; each element is clamped
    to [-v, v] before the gradient from outside is added to it. The gradient of the initial states is not clamped.

    Raises CellError for a bound that is not positive.
    """

    recurrent_cut: bool = False
    recurrent_clip: float | None = None

    def __post_init__(self) -> None:
        if self.recurrent_clip is not None and not 0 < self.recurrent_clip <= LARGEST:
            raise CellError(
                f"gradients cannot be clipped to [-v, v] with v = {self.recurrent_clip}; v must be positive and "
                f"at most {LARGEST:.6g}, or None for no clipping"
            )


EXACT = GradientOptions()
"""The true gradient."""
