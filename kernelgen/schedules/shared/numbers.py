"""Numbers that may still be open: the formulas of a schedule state its constraints and predict its needs alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast

from constrint import Expr

if TYPE_CHECKING:
    from kernelgen.cells.language import Cell
    from kernelgen.program.shape import Shape

Int: TypeAlias = int | Expr
"""An int, or an expression over a Problem's variables."""

Number = TypeVar("Number", int, Expr)
"""One or the other: ints in, ints out."""


def as_int(value: Int) -> int:
    """A number that is open no more. Raises TypeError for an expression."""
    if not isinstance(value, int):
        raise TypeError(f"{value} is an expression, where every tile variable was to have a value")
    return value


class TileValues(dict[str, int]):
    """The values of one tiling's variables, for one cell and shape, with what formulas have made of them: see once."""

    def __init__(self, values: Mapping[str, int]) -> None:
        super().__init__(values)
        self.made: dict[object, object] = {}


Formula = TypeVar("Formula", bound=Callable[..., object])


def once(formula: Formula) -> Formula:
    """The same formula of a cell, a shape and tile variables, computed once for TileValues: what a tiling needs and
    what it does begin with the same sizes, and a plan has thousands of tilings."""

    @wraps(formula)
    def remembered(cell: Cell, shape: Shape, v: Mapping[str, Int]) -> object:
        if type(v) is not TileValues:
            return formula(cell, shape, v)
        if (found := v.made.get(formula)) is None:
            found = v.made[formula] = formula(cell, shape, v)
        return found

    return cast("Formula", remembered)
