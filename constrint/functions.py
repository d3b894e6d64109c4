"""Functions of Python's math that restrictions may call, on exact numbers.

Each has the value that Python's own function has there, as an exact number (math.log2(8) is 3, math.log2(3) the double
nearest to it); where that raises an error, none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

Number = int | Fraction


def _log(x: Number, base: Number | None = None) -> float:
    return math.log(x) if base is None else math.log(x, base)


def _log2(x: Number) -> Number | float:
    if isinstance(x, Fraction) or x <= 0 or x & (x - 1):
        return math.log2(x)
    return x.bit_length() - 1


def _whole(function: Callable[..., int]) -> Callable[..., int]:
    def checked(*values: Number) -> int:
        return function(*(_integer(value) for value in values))

    return checked


def _integer(value: Number) -> int:
    if isinstance(value, Fraction):
        raise TypeError("not an integer")
    return value


FUNCTIONS: dict[str, tuple[Callable[..., Number | float], int, int]] = {
    "log2": (_log2, 1, 1),
    "log10": (math.log10, 1, 1),
    "log": (_log, 1, 2),
    "log1p": (math.log1p, 1, 1),
    "exp": (math.exp, 1, 1),
    "sqrt": (math.sqrt, 1, 1),
    "cbrt": (math.cbrt, 1, 1),
    "sin": (math.sin, 1, 1),
    "cos": (math.cos, 1, 1),
    "tan": (math.tan, 1, 1),
    "isqrt": (_whole(math.isqrt), 1, 1),
    "factorial": (_whole(math.factorial), 1, 1),
    "comb": (_whole(math.comb), 2, 2),
    "gcd": (_whole(math.gcd), 1, 16),
    "lcm": (_whole(math.lcm), 1, 16),
    "bit_length": (_whole(int.bit_length), 1, 1),
    "bit_count": (_whole(int.bit_count), 1, 1),
}
"""By name: the function, and the fewest and the most numbers it takes."""

LARGEST_FACTORIAL = 2_000


def call(name: str, values: Sequence[Number]) -> Number | None:
    """The value of a function, None where it has none."""
    function, _, _ = FUNCTIONS[name]
    if name in ("factorial", "comb") and max(values) > LARGEST_FACTORIAL:
        return None
    try:
        found = function(*values)
    except (ArithmeticError, ValueError, TypeError):
        return None
    if isinstance(found, float):
        if not math.isfinite(found):
            return None
        exact = Fraction(found)
        return exact.numerator if exact.denominator == 1 else exact
    return found
