"""Why there is no solution: a minimal set of constraints that cannot hold together.

Definitions are background. In ``SHARED == ROWS * WIDTH; SHARED <= 49152`` people want to read the limit, not what
SHARED means. A definition is an equation ``v == expression`` (or ``expression == v``), the first for v, where v is a
free quantity rather than a choice (declared as a range of more than 4096 values) and does not enter the expression,
directly or through other definitions. What is reported cannot hold together with the definitions, and without any one
of its members the rest can. Where the definitions contradict each other by themselves, a minimal set of them is
reported.

The engine's refutation names the constraints that it used. Each of these is left out in turn: if the rest still
conflicts, the new refutation says what is still needed; if not, the solution found shows that the constraint is
needed, and serves as a witness for every later question about constraints that it satisfies.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from constrint.domains import LIST_LIMIT, size
from constrint.engine import question
from constrint.errors import TimeLimit
from constrint.evaluate import holds

if TYPE_CHECKING:
    from constrint.expr import Expr
    from constrint.model import Constraint, Problem


class Conflict(list["Constraint"]):
    """Constraints that cannot hold together, in the order they were added. definitions: those it rests on."""

    def __init__(self, constraints: Iterable[Constraint], definitions: Iterable[Constraint] = ()) -> None:
        super().__init__(constraints)
        self.definitions = list(definitions)


def minimal_conflict(problem: Problem, time_limit: float | None, engine: str) -> Conflict:
    """A minimal conflict (see the module), empty where the problem has a solution.

    The domains are taken for granted. Raises TimeLimit after ``time_limit`` seconds.
    """
    search = _Explainer(problem, time_limit, engine)
    everything = frozenset(range(len(problem.constraints)))
    used = search.refute(everything)
    if used is None:
        return Conflict([])
    defined = frozenset(definitions(problem))
    background = defined
    needed = search.minimise(used - defined, background)
    if not needed:
        # The definitions contradict each other.
        needed, background = search.minimise(used & defined, frozenset()), frozenset()
    relevant = _used_definitions(problem, needed, background)
    if search.refute(needed | relevant) is None:
        # A definition that they do not name limits them all the same, through the values its variable can take.
        relevant = background
    listed = problem.constraints
    return Conflict([listed[i] for i in sorted(needed)], [listed[i] for i in sorted(relevant)])


class _Explainer:
    def __init__(self, problem: Problem, time_limit: float | None, engine: str) -> None:
        self.problem, self.engine, self.limit = problem, engine, time_limit
        self.deadline = None if time_limit is None else time.perf_counter() + time_limit
        self.satisfied: list[frozenset[int]] = []

    def refute(self, chosen: frozenset[int]) -> frozenset[int] | None:
        """None where the chosen constraints can hold together, else those of them that a refutation used."""
        if any(chosen <= satisfied for satisfied in self.satisfied):
            return None
        numbers = sorted(chosen)
        listed = self.problem.constraints
        part = self.problem.subproblem([listed[i] for i in numbers])
        rest = None if self.deadline is None else max(0.0, self.deadline - time.perf_counter())
        try:
            answer = question(part, self.engine).refute(rest)
        except TimeLimit:
            raise TimeLimit(
                f"the constraints of {self.problem.name!r} that clash were not found within {self.limit} s"
            ) from None
        if isinstance(answer, frozenset):
            return frozenset(numbers[i] for i in answer)
        self.satisfied.append(frozenset(i for i, c in enumerate(listed) if holds(c.condition, answer)))
        return None

    def minimise(self, candidates: frozenset[int], background: frozenset[int]) -> frozenset[int]:
        """The candidates needed for a conflict with the background, where all of them conflict with it."""
        conditions = [constraint.condition for constraint in self.problem.constraints]
        # Those on one variable are doubted last: they keep the domains, and so each question, small.
        doubted = sorted(candidates, key=lambda i: (len(conditions[i].variables()) == 1, -i))
        needed = candidates
        for i in doubted:
            if i in needed:
                used = self.refute(needed - {i} | background)
                if used is not None:
                    needed = needed & used - {i}
        return needed


def definitions(problem: Problem) -> list[int]:
    """The numbers of the constraints that are definitions (see the module)."""
    meaning: dict[str, Expr] = {}
    numbers = []
    for number, constraint in enumerate(problem.constraints):
        if constraint.condition.op != "==":
            continue
        left, right = constraint.condition.args
        for side, other in ((left, right), (right, left)):
            name = side.name
            if (
                side.op == "var"
                and name not in meaning
                and _is_free(problem, name)
                and not _reaches(meaning, other, name)
            ):
                meaning[name] = other
                numbers.append(number)
                break
    return numbers


def _is_free(problem: Problem, name: str) -> bool:
    domain = problem.domains[name]
    return isinstance(domain, range) and size(domain) > LIST_LIMIT


def _reaches(meaning: dict[str, Expr], expression: Expr, name: str) -> bool:
    """Whether a variable enters an expression, directly or through definitions."""
    seen: set[str] = set()
    waiting = expression.variables()
    while waiting:
        current = waiting.pop()
        if current == name:
            return True
        if current not in seen and current in meaning:
            waiting += meaning[current].variables()
        seen.add(current)
    return False


def _used_definitions(problem: Problem, needed: frozenset[int], defined: frozenset[int]) -> frozenset[int]:
    """The definitions whose variable is named by ``needed`` or, in turn, by one of these definitions."""
    constraints = problem.constraints
    reached = {name for i in needed for name in constraints[i].condition.variables()}
    result: set[int] = set()
    while True:
        more = {
            i
            for i in defined - result
            if any(side.op == "var" and side.name in reached for side in constraints[i].condition.args)
        }
        if not more:
            return frozenset(result)
        result |= more
        reached |= {name for i in more for name in constraints[i].condition.variables()}
