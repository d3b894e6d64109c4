"""Constraints over many variables at once: all different, tasks that share a resource, how often a value occurs.

For the engines of constrint each is stated by others (``decomposed``), and variables that are all different are looked
at together at the root (``constrint.matching``). CP-SAT gets its own (``constrint.cpsat``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from constrint import expr as build
from constrint.errors import ConstrintError
from constrint.expr import Expr, Operand

GLOBAL = frozenset({"all_different", "cumulative"})


def all_different(values: Iterable[Operand]) -> Expr:
    """That no two of these values are the same."""
    return Expr("all_different", tuple(build.as_expr(value) for value in values))


def cumulative(
    starts: Sequence[Operand], durations: Sequence[Operand], demands: Sequence[Operand], capacity: Operand
) -> Expr:
    """That the tasks which run at any time demand at most ``capacity`` together.

    A task runs from its start until just before its start plus its duration (not at all where that is not positive).
    Demands must not be negative. Raises ConstrintError where there are not as many starts as durations and demands.
    """
    parts = [[build.as_expr(value) for value in each] for each in (starts, durations, demands)]
    if len({len(part) for part in parts}) != 1:
        sizes = ", ".join(str(len(part)) for part in parts)
        raise ConstrintError(f"cumulative takes as many starts as durations and demands, not {sizes}")
    for demand in parts[2]:
        if demand.op in ("const", "neg") and (demand.op == "neg" or demand.value < 0):
            raise ConstrintError(f"a task cannot demand {demand}; demands are at least 0")
    return Expr("cumulative", (*parts[0], *parts[1], *parts[2], build.as_expr(capacity)))


def count(values: Iterable[Operand], value: Operand) -> Expr:
    """How many of these values are ``value``."""
    return halved("+", [build.as_expr(each) == value for each in values]) + 0


def total(values: Iterable[Operand]) -> Expr:
    """The sum of these values, however many: Python's ``sum`` nests additions, and is refused beyond 250 of them."""
    return halved("+", [build.as_expr(value) for value in values])


def tasks(expr: Expr) -> tuple[list[tuple[Expr, Expr, Expr]], Expr]:
    """Of a cumulative, start, duration and demand of each task, and the capacity."""
    size = len(expr.args) // 3
    starts, durations, demands = (expr.args[size * i : size * (i + 1)] for i in range(3))
    return list(zip(starts, durations, demands, strict=True)), expr.args[-1]


def decomposed(expr: Expr) -> Expr:
    """The same stated by constraints over few variables at a time."""
    if expr.op == "all_different":
        pairs = [(a, b) for place, a in enumerate(expr.args) for b in expr.args[:place]]
        return halved("and", [Expr("!=", pair) for pair in pairs])
    listed, capacity = tasks(expr)
    # Demands are highest where some task starts.
    parts = []
    for start, duration, _ in listed:
        running = [
            demand if other is start else Expr("*", (demand, (other <= start) & (start < other + length)))
            for other, length, demand in listed
        ]
        limit = Expr("<=", (halved("+", running), capacity))
        parts.append(limit if duration.op == "const" and duration.value > 0 else Expr("implies", (duration > 0, limit)))
    return halved("and", parts)


def halved(op: str, parts: Sequence[Expr]) -> Expr:
    """Parts joined by an operator, in halves, so that the result is not deep."""
    if not parts:
        return build.as_expr(0) if op == "+" else build.as_expr(op == "and")
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return Expr(op, (halved(op, parts[:middle]), halved(op, parts[middle:])))
