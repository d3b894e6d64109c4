"""Restrictions and parameters as other tuners hold them: Kernel Tuner's, python-constraint's, pyATF's.

None of these packages is imported: what is given is known by the names of its classes and what it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from operator import add, mul
from typing import Any

from constrint import expr as build
from constrint.errors import ConstrintError
from constrint.expr import Expr
from constrint.integers import shown
from constrint.model import Problem
from constrint.text import add_restriction

TOTALS: dict[str, tuple[str, str, Callable[[Any, Any], Any]]] = {
    "MaxSumConstraint": ("_maxsum", "<=", add),
    "MinSumConstraint": ("_minsum", ">=", add),
    "ExactSumConstraint": ("_exactsum", "==", add),
    "MaxProdConstraint": ("_maxprod", "<=", mul),
    "MinProdConstraint": ("_minprod", ">=", mul),
    "ExactProdConstraint": ("_exactprod", "==", mul),
}
"""python-constraint's sums and products: where the limit is held, how it is compared, and of what."""


def add_foreign(problem: Problem, restriction: Any, name: str = "") -> None:
    """Add a restriction as Kernel Tuner takes it: text, a function, a constraint of python-constraint, or a tuple of
    one and the names of its parameters. Raises ConstrintError, ParseError for text."""
    names: Any = None
    if isinstance(restriction, tuple | list) and 2 <= len(restriction) <= 3:
        restriction, names = restriction[0], restriction[1]
    kind = type(restriction).__name__
    if kind.endswith("FunctionConstraint"):
        restriction = restriction._func
    elif kind.endswith("Constraint") and hasattr(restriction, "preProcess"):
        problem.add(_constraint(problem, restriction, list(problem.domains) if names is None else list(names)))
        return
    if names is not None and callable(restriction):
        add_restriction(problem, (restriction, names), name)
    else:
        add_restriction(problem, restriction, name)


def _constraint(problem: Problem, constraint: Any, names: Sequence[str]) -> Expr:
    """A constraint of python-constraint over these parameters, as a condition."""
    kind = type(constraint).__name__
    columns = [build.variable(name) for name in names]
    if kind in TOTALS:
        attribute, comparison, join = TOTALS[kind]
        limit = getattr(constraint, attribute)
        factors = getattr(constraint, "_multipliers", None)
        terms = columns if not factors else [column * factor for column, factor in zip(columns, factors, strict=True)]
        return Expr(comparison, (reduce(join, terms), build.as_expr(limit)))
    if kind in ("InSetConstraint", "NotInSetConstraint"):
        tests = [column.isin(constraint._set) for column in columns]
        if kind == "NotInSetConstraint":
            tests = [~test for test in tests]
        return _all(tests)
    pairs = [(a, b) for place, a in enumerate(columns) for b in columns[:place]]
    if kind == "AllDifferentConstraint":
        return _all([a != b for a, b in pairs])
    if kind == "AllEqualConstraint":
        return _all([a == b for a, b in pairs])
    raise ConstrintError(f"{kind} is not known; write it as an expression or a function: {shown(constraint)}")


def _all(conditions: Sequence[Expr]) -> Expr:
    return reduce(lambda a, b: a & b, conditions) if conditions else build.as_expr(True)


def problem_of_pyatf(parameters: Iterable[Any], name: str = "pyATF") -> Problem:
    """The problem of pyATF's tuning parameters (``TP(name, Interval(...) or Set(...), constraint)``).

    A constraint is a function of its own parameter and earlier ones, by their names. Raises ConstrintError for anything
    else.
    """
    problem = Problem(name)
    for parameter in parameters:
        if not isinstance(getattr(parameter, "name", None), str) or not isinstance(
            getattr(parameter, "values", None), Iterable
        ):
            raise ConstrintError(f"a tuning parameter of pyATF has a name and values; {shown(parameter)} has not")
        problem.variable(parameter.name, list(parameter.values))
        if parameter.constraint is not None:
            problem.add(parameter.constraint)
    return problem
