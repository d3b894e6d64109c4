"""Shape: the size of one recurrence, and what the kernel writes for it."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from kernelgen.errors import ShapeError, near_names

SIXTEEN_BITS = ("bfloat16", "float16")
DTYPES = (*SIXTEEN_BITS, "float32", "tf32", "float64")
SAVES = ("hidden", "states", "gates")
FEATURES = ("resets", "lengths")
"""What sequences of a batch may have of their own; a schedule says which of them its kernels honour."""
INPUT_PRODUCT = "inputs"
"""What a schedule honours besides that multiplies its input itself."""

MOST_STEPS = 2**31 - 64
"""Of batch times seq: kernels count the steps of all sequences, and a few beyond the last, in int32."""

MOST_UNITS = 2**31 - 64
"""Of heads times head_dim, likewise."""

LARGEST_HEAD = 1 << 16
"""Units of a head: far more than any GPU holds the weights of."""


@dataclass(frozen=True)
class Shape:
    """What is to be computed, apart from the cell.

    batch, seq, heads, head_dim: B sequences of T steps, H independent heads of D units each.
    dtype: of Wx, R, b, the states and h inside the kernel; accumulation and the other states are float32, of float64
        float64. Not every schedule takes float32 and float64 (Schedule.dtypes). "tf32" is float32, but that products
        round their factors to TF32.
    save: what the forward pass writes for every step: ``"hidden"`` h alone, ``"states"`` every state,
        ``"gates"`` every state and every gate (what a backward pass needs). Backward, ``"hidden"`` means that
        gradients come from outside for h alone, else for every state.
    recompute: backward, the gates are recomputed from Wx, R, b and the states instead of read.
    resets: the kernel takes flags [B, T] that say before which steps the states are the initial ones again.
    lengths: it takes every sequence's own number of steps, at most T; results behind them are zeros.
    inputs: I, the elements of a step's input x, where a forward kernel takes x [B, T, I] and W [G_in, H, D, I] and
        multiplies them itself; 0 where it takes the product Wx. All heads read the same x.

    Raises ShapeError for a size below 1 (inputs: below 0), sizes beyond what kernels can count, or an unknown dtype or
    save.
    """

    batch: int
    seq: int
    heads: int
    head_dim: int
    dtype: str = "bfloat16"
    save: str = "hidden"
    recompute: bool = False
    resets: bool = False
    lengths: bool = False
    inputs: int = 0

    def __post_init__(self) -> None:
        for name in ("batch", "seq", "heads", "head_dim", "inputs"):
            value, least = getattr(self, name), int(name != "inputs")
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ShapeError(
                    f"{name.replace('_', '-')} must be an integer of at least {least}, not {_short(value)}"
                )
        self._check_bounds()
        if self.dtype not in DTYPES:
            raise unknown_dtype(self.dtype)
        if self.save not in SAVES:
            raise ShapeError(f"unknown save {self.save!r}; {near_names(self.save, SAVES)}")

    def _check_bounds(self) -> None:
        for what, value, most in (
            ("batch times seq", self.batch * self.seq, MOST_STEPS),
            ("heads times head-dim", self.heads * self.head_dim, MOST_UNITS),
            ("head-dim", self.head_dim, LARGEST_HEAD),
            ("inputs", self.inputs, LARGEST_HEAD),
        ):
            if value > most:
                raise ShapeError(f"{what} must be at most {most:,}, not {_short(value)}; kernels count in 32 bits")

    def __str__(self) -> str:
        asked = f", {self.inputs} inputs" if self.inputs else ""
        asked += "".join(f", {name}" for name in self.features)
        return f"B={self.batch} T={self.seq} {self.heads}x{self.head_dim} {self.dtype}{asked}"

    @property
    def features(self) -> tuple[str, ...]:
        """Which of FEATURES it has."""
        return tuple(name for name in FEATURES if getattr(self, name))

    @property
    def asked(self) -> tuple[str, ...]:
        """What a schedule must honour: the features, and INPUT_PRODUCT."""
        return (*self.features, *((INPUT_PRODUCT,) if self.inputs else ()))


def unknown_dtype(asked: object) -> ShapeError:
    """The error for a dtype that kernels do not have: it says which there are, and what was perhaps meant."""
    advice = ""
    if isinstance(asked, str):
        names = difflib.get_close_matches(_ALIASES.get(asked.lower(), asked.lower()), DTYPES, n=1, cutoff=0.5)
        advice = f"; did you mean {names[0]}?" if names else ""
    every = f"{', '.join(DTYPES[:-1])} and {DTYPES[-1]}"
    return ShapeError(f"unknown dtype {_short(asked)}: kernels exist for {every}{advice}")


_ALIASES = {"bf16": "bfloat16"} | dict.fromkeys(("fp16", "f16", "half"), "float16")
_ALIASES |= dict.fromkeys(("fp32", "f32", "float", "single"), "float32") | {"tensorfloat32": "tf32"}
_ALIASES |= dict.fromkeys(("fp64", "f64", "double"), "float64")


def _short(value: object) -> str:
    """A wrong value, as far as it fits on a line."""
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a number of more than 40 digits"
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and value > 9999 else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
