"""Shape: the size of one recurrence, and what the kernel writes for it."""

from __future__ import annotations

from dataclasses import dataclass

from kernelgen.errors import ShapeError, near_names

DTYPES = ("bfloat16", "float16")
SAVES = ("hidden", "states", "gates")


@dataclass(frozen=True)
class Shape:
    """What is to be computed, apart from the cell.

    batch, seq, heads, head_dim: B sequences of T steps, H independent heads of D units each.
    dtype: of Wx, R, b, the states and h inside the kernel; accumulation and the other states are float32.
    save: what the forward pass writes for every step: ``"hidden"`` h alone, ``"states"`` every state,
        ``"gates"`` every state and every gate (what a backward pass needs). Backward, ``"hidden"`` means that
        gradients come from outside for h alone, else for every state.
    recompute: backward, the gates are computed again from Wx, R, b and the states instead of read.

    Raises ShapeError for a size below 1 or an unknown dtype or save.
    """

    batch: int
    seq: int
    heads: int
    head_dim: int
    dtype: str = "bfloat16"
    save: str = "hidden"
    recompute: bool = False

    def __post_init__(self) -> None:
        for name in ("batch", "seq", "heads", "head_dim"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ShapeError(f"{name.replace('_', '-')} must be an integer of at least 1, not {value!r}")
        if self.dtype not in DTYPES:
            raise ShapeError(f"unknown dtype {self.dtype!r}; {near_names(self.dtype, DTYPES)}")
        if self.save not in SAVES:
            raise ShapeError(f"unknown save {self.save!r}; {near_names(self.save, SAVES)}")

    def __str__(self) -> str:
        return f"B={self.batch} T={self.seq} {self.heads}x{self.head_dim} {self.dtype}"
