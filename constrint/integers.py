"""What enters constrint as a number: a Python int from then on, whatever library it came from."""

from __future__ import annotations

import math
import operator
import reprlib
from numbers import Real
from typing import SupportsIndex, cast

from constrint.errors import ConstrintError

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 100
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = _REPR.maxset = 8
_REPR.maxlevel = 3


def shown(value: object) -> str:
    """A value as a message shows it: its repr, shortened where it is long or deeply nested."""
    try:
        return _REPR.repr(value)
    except Exception:  # a repr is foreign code
        return f"a {type(value).__name__}"


def grouped(number: int) -> str:
    """A number with its digits in groups of three; of one longer than Python likes to print, its size."""
    bits = number.bit_length()
    return f"{number:,}" if bits < 10_000 else f"about 2**{bits - 1:,}"


def is_truth(value: object) -> bool:
    """Whether a value is a bool, Python's or NumPy's."""
    kind = type(value)
    return kind is bool or (kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_"))


def as_index(value: object) -> int | None:
    """An integer of any library as a Python int; None for a truth value and whatever else is no integer."""
    if type(value) is int:
        return value
    if type(value) is str or is_truth(value) or not hasattr(type(value), "__index__"):
        return None
    try:
        return operator.index(cast(SupportsIndex, value))
    except Exception:  # an array of several numbers has __index__ all the same
        return None


def exact_int(value: object, what: str) -> int:
    """``value`` as a Python int; raise ConstrintError for a bool, a float or anything else that is no integer."""
    found = as_index(value)
    if found is None:
        raise ConstrintError(f"{what} must be an integer, not {shown(value)} ({type(value).__name__})")
    return found


def whole(value: object, truth: bool = True) -> int | None:
    """A number as files and assignments hold it, as a Python int: an integer, a whole number such as 2.0, or, where
    ``truth`` says so, a truth value (0 or 1). None for anything else."""
    if is_truth(value):
        return int(bool(value)) if truth else None
    found = as_index(value)
    if found is None and isinstance(value, Real):
        try:
            floor = cast(int, math.floor(value))
        except (OverflowError, ValueError):  # infinite, or no number
            return None
        return floor if floor == value else None
    return found


def whole_number(value: object, what: str, truth: bool = True) -> int:
    """See ``whole``; raises ConstrintError in place of None."""
    found = whole(value, truth)
    if found is None:
        raise ConstrintError(f"{what} must be an integer, not {shown(value)} ({type(value).__name__})")
    return found
