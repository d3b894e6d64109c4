"""Numbers that may still be open: the formulas of a schedule state its constraints and predict its needs alike."""

from __future__ import annotations

from typing import TypeAlias, TypeVar

from constrint import Expr

Int: TypeAlias = int | Expr
"""An int, or an expression over a Problem's variables."""

Number = TypeVar("Number", int, Expr)
"""One or the other: ints in, ints out."""


def as_int(value: Int) -> int:
    """A number that is open no more. Raises TypeError for an expression."""
    if not isinstance(value, int):
        raise TypeError(f"{value} is an expression, where every tile variable was to have a value")
    return value
