"""The solutions one step away from an assignment, for local search."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from constrint.domains import Domain, size
from constrint.engine import engine_call
from constrint.errors import ConstrintError
from constrint.evaluate import holds
from constrint.integers import shown
from constrint.statement import Constraint, Solution, Statement

KINDS = ("hamming", "adjacent")
LISTED = 4096
"""Values of one variable that are tried one by one; beyond that, they are solved for."""


def neighbours(problem: Statement, assignment: Mapping[str, int], kind: str) -> Iterator[Solution]:
    """See ``Problem.neighbours``."""
    if kind not in KINDS:
        raise ConstrintError(f"unknown kind of neighbours {shown(kind)}; known: {', '.join(KINDS)}")
    assignment = problem.complete(assignment)
    scopes = [(constraint, frozenset(constraint.stated.variables())) for constraint in problem.constraints]
    # A step in one variable can only mend what names that variable.
    broken = [scope for constraint, scope in scopes if not holds(constraint.stated, assignment)]
    broken += [frozenset((name,)) for name, domain in problem.domains.items() if assignment[name] not in domain]
    return _steps(problem, assignment, kind, scopes, broken)


def _steps(
    problem: Statement,
    assignment: Solution,
    kind: str,
    scopes: list[tuple[Constraint, frozenset[str]]],
    broken: list[frozenset[str]],
) -> Iterator[Solution]:
    for name, domain in problem.domains.items():
        if not all(name in scope for scope in broken):
            continue
        touched = [constraint for constraint, scope in scopes if name in scope]
        if kind == "hamming" and size(domain) > LISTED and touched:
            yield from _solved(problem, assignment, name, touched)
            continue
        for value in _adjacent(domain, assignment[name]) if kind == "adjacent" else domain:
            step = {**assignment, name: value}
            if value != assignment[name] and all(holds(constraint.stated, step) for constraint in touched):
                yield step


def _adjacent(domain: Domain, value: int) -> Iterable[int]:
    """The nearest smaller and the nearest larger value."""
    low, high = 0, size(domain)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if domain[middle] < value else (low, middle)
    above = low + (low < size(domain) and domain[low] == value)
    return [domain[place] for place in (low - 1, above) if 0 <= place < size(domain)]


def _solved(problem: Statement, assignment: Solution, name: str, touched: list[Constraint]) -> Iterator[Solution]:
    domains = {other: (value,) for other, value in assignment.items()} | {name: problem.domains[name]}
    fixed = Statement(problem.name, domains, touched)
    order = {name: False} | dict.fromkeys(assignment, False)
    for solution in engine_call(fixed, "native").solutions(order):
        if solution[name] != assignment[name]:
            yield {**assignment, name: solution[name]}
