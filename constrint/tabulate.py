"""Expressions tabulated: what they are at every combination of their variables' values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import product
from typing import Any

from constrint.domains import Domain, size
from constrint.evaluate import Value, evaluate_each
from constrint.expr import Expr, as_expr, variable
from constrint.values import Coding

MOST_VALUES = 64
"""A function of more values than this is not stated as a sum of them."""
LARGEST_SCALE = 10**6
"""A function whose values are multiples of a smaller fraction than 1 / LARGEST_SCALE is not stated as a sum."""

TRUE, FALSE = Expr("true"), Expr("false")
NEVER = Expr("divides", (as_expr(0), as_expr(1)))
"""Has no value."""


class Combinations:
    """The combinations of values of one problem's variables. domains: their integers; codings: of those whose values
    are others."""

    def __init__(self, domains: Mapping[str, Domain], codings: Mapping[str, Coding]) -> None:
        self.domains, self.codings = domains, codings

    def by_value(self, expr: Expr, most: int) -> tuple[list[str] | None, dict[Value, list[tuple[int, ...]]]]:
        """The variables of an expression, and of each of its values the combinations of integers that have it."""
        names = expr.variables()
        groups: dict[Value, list[tuple[int, ...]]] = {}
        if self.count(expr) > most:
            return None, groups
        rows = list(self.rows(names))
        columns = dict(zip(names, zip(*(values for _, values in rows), strict=True), strict=True))
        for (codes, _), value in zip(rows, evaluate_each(expr, columns, len(rows)), strict=True):
            groups.setdefault(value, []).append(codes)
        return names, groups

    def rows(self, names: Sequence[str]) -> Iterator[tuple[tuple[int, ...], tuple[Any, ...]]]:
        """Every combination of some variables: its integers and its values."""
        choices = []
        for name in names:
            coding = self.codings.get(name)
            domain = self.domains[name]
            choices.append([(code, code if coding is None else coding.value[code]) for code in domain])
        for row in product(*choices):
            yield tuple(code for code, _ in row), tuple(value for _, value in row)

    def count(self, expr: Expr) -> int:
        """How many combinations of values the variables of an expression have."""
        return math.prod(size(self.domains[name]) for name in expr.variables())

    def sum_of_values(self, expr: Expr, most: int) -> Expr | None:
        """A number that names few combinations, as the sum of what it is at each; None where its values are no
        multiples of a common fraction."""
        names, groups = self.by_value(expr, most)
        if names is None:
            return None
        known = {value: rows for value, rows in groups.items() if value is not None}
        if not all(isinstance(value, int | Fraction) for value in known):
            return None
        numbers = {value: rows for value, rows in known.items() if isinstance(value, int | Fraction)}
        scale = math.lcm(*(value.denominator for value in numbers)) if numbers else 1
        if scale > LARGEST_SCALE or not 0 < len(numbers) <= MOST_VALUES:
            return None
        columns = tuple(map(variable, names))
        # The value that most combinations have is where the sum starts.
        common = max(numbers, key=lambda value: len(numbers[value]))
        start = int(common * scale)
        total: Expr = as_expr(start)
        for value, rows in numbers.items():
            if value != common:
                total = total + Expr("table", columns, rows=tuple(sorted(rows))) * (int(value * scale) - start)
        if None in groups:
            total = Expr("//", (total, Expr("not", (Expr("table", columns, rows=tuple(sorted(groups[None]))),))))
        return total if scale == 1 else Expr("/", (total, as_expr(scale)))


def table_of(
    names: Sequence[str],
    true: Sequence[tuple[int, ...]],
    false: Sequence[tuple[int, ...]],
    undefined: Sequence[tuple[int, ...]] = (),
) -> Expr:
    """The condition that holds at some combinations of integers, and has no value at others."""
    columns = tuple(map(variable, names))
    if not undefined:
        if not false:
            return TRUE
        if not true:
            return FALSE
        if len(false) < len(true) and len(names) > 1:
            return Expr("not", (Expr("table", columns, rows=tuple(sorted(false))),))
    here = Expr("table", columns, rows=tuple(sorted(true))) if true else FALSE
    if not undefined:
        return here
    if not true and not false:
        return NEVER
    inside = Expr("not", (Expr("table", columns, rows=tuple(sorted(undefined))),))
    # 0 divides nothing, and has no value: where the combination is one of the undefined.
    return Expr("or", (here, Expr("not", (Expr("divides", (inside, as_expr(0))),))))


def joined(op: str, parts: Sequence[Expr]) -> Expr:
    """Parts joined by an operator, in halves, so that the result is not deep."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return FALSE if op == "or" else TRUE
    middle = len(parts) // 2
    return Expr(op, (joined(op, parts[:middle]), joined(op, parts[middle:])))
