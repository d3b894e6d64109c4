"""How near a conflict comes to each of its constraints: of a limit, the value nearest to it that the others allow."""

from __future__ import annotations

from typing import NamedTuple

from constrint.errors import ConstrintError
from constrint.explain import Conflict
from constrint.expr import Expr
from constrint.model import Problem
from constrint.statement import Constraint

_MIRRORED = {"<=": ">=", "<": ">", ">=": "<=", ">": "<"}


class Nearest(NamedTuple):
    """A number, and whether it is the least that there is, else the largest."""

    value: int
    least: bool


def nearest(problem: Problem, conflict: Conflict, time_limit: float | None = None) -> list[Nearest | None]:
    """For each constraint of a conflict that compares a number with a known one (``shared <= 232448``), the least (of
    >= and >: the largest) that the number can be under the others and the definitions; None for any other constraint
    and where that was not proved within ``time_limit`` seconds, each."""
    return [_nearest(problem, conflict, member, time_limit) for member in conflict]


def _nearest(problem: Problem, conflict: Conflict, member: Constraint, time_limit: float | None) -> Nearest | None:
    found = _limited(member.condition)
    if found is None:
        return None
    number, above = found
    rest = problem.subproblem([*(c for c in conflict if c is not member), *conflict.definitions])
    try:
        if above:
            result = rest.best(minimize=number, prefer=None, time_limit=time_limit)
        else:
            result = rest.best(maximize=number, prefer=None, time_limit=time_limit)
    except ConstrintError:  # a fraction
        return None
    return Nearest(result.objective, above) if result.proven and result.objective is not None else None


def _limited(condition: Expr) -> tuple[Expr, bool] | None:
    """The number that a condition bounds by a known one, and whether from above; None for any other condition."""
    if condition.op not in _MIRRORED:
        return None
    left, right = condition.args
    if bool(left.variables()) == bool(right.variables()):
        return None
    op = condition.op if left.variables() else _MIRRORED[condition.op]
    return (left if left.variables() else right), op in ("<=", "<")
