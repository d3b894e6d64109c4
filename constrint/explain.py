"""Why there is no solution: a minimal set of constraints that cannot hold together."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from constrint.engine import question
from constrint.errors import TimeLimit

if TYPE_CHECKING:
    from constrint.model import Constraint, Problem


def minimal_conflict(problem: Problem, time_limit: float | None, engine: str) -> list[Constraint]:
    """A minimal conflicting subset of the constraints, in the order they were added; empty where there is none.

    QuickXplain (Junker, AAAI 2004): about k log(n / k) solver calls for a conflict of k out of n constraints. The
    domains are taken for granted. Raises TimeLimit after ``time_limit`` seconds.
    """
    deadline = None if time_limit is None else time.perf_counter() + time_limit

    def conflict(constraints: list[Constraint]) -> bool:
        rest = None if deadline is None else max(0.0, deadline - time.perf_counter())
        possible = question(problem.subproblem(constraints), engine).feasible(rest)
        if possible is None:
            raise TimeLimit(f"the constraints of {problem.name!r} that clash were not found within {time_limit} s")
        return not possible

    def narrow(background: list[Constraint], grown: bool, candidates: list[Constraint]) -> list[Constraint]:
        """The part of ``candidates`` needed for a conflict with ``background``."""
        if grown and conflict(background):
            return []
        if len(candidates) == 1:
            return candidates
        half = len(candidates) // 2
        first, second = candidates[:half], candidates[half:]
        needed = narrow(background + first, bool(first), second)
        return narrow(background + needed, bool(needed), first) + needed

    constraints = list(problem.constraints)
    if not conflict(constraints):
        return []
    # Those on one variable come first, hence are doubted last: they keep the domains, and so each check, small.
    core = narrow([], False, sorted(constraints, key=lambda c: len(c.condition.variables()) > 1))
    return [constraint for constraint in constraints if constraint in core]
