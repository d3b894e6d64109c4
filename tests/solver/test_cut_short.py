"""What is claimed when an answer is cut short: by a clock that counts looks, so always at the same place.

Whatever the place, "infeasible", a proof, a bound, a count and a conflict must be true, and a solution must be one.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from random_problems import has_solution, objective_values, random_number, random_problem, solutions_of
from work import Ticking

import constrint.cpsat
from constrint import Expr, Problem, TimeLimit
from constrint.core import load_core
from constrint.expr import variable
from constrint.limits import Race

pytestmark = pytest.mark.unit

PLACES = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610)
"""Looks at the clock after which the time is over."""
MILLISECOND = 0.001


@contextmanager
def python_cut(looks: int) -> Iterator[float]:
    """The time limit that passes after so many looks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "perf_counter", Ticking())
        yield looks * MILLISECOND


@contextmanager
def native_cut(looks: int) -> Iterator[None]:
    """The core counts no looks; it stops at its next, as where another engine was first, once Python has counted."""
    race = Race(3600, lambda: None, load_core())

    class Counting(Ticking):
        def __call__(self) -> float:
            if self.looks >= looks:
                race.stop()
            return super().__call__()

    with pytest.MonkeyPatch.context() as patch, race:
        patch.setattr(time, "perf_counter", Counting())
        yield None


@contextmanager
def cp_sat_cut(looks: int) -> Iterator[None]:
    """OR-tools counts its work itself."""
    solve = constrint.cpsat.CpSatCall._run

    def hurried(call: Any, solver: Any, model: Any, collect: Any) -> Any:
        solver.parameters.max_deterministic_time = 1e-7 * looks**2
        return solve(call, solver, model, collect)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constrint.cpsat.CpSatCall, "_run", hurried)
        yield None


CUTS: dict[str, Callable[[int], Any]] = {"python": python_cut, "native": native_cut, "cp-sat": cp_sat_cut}


def check_claims(seed: int, engine: str, places: tuple[int, ...]) -> int:
    """Every question about one problem, cut at each place; how many were cut."""
    problem = random_problem(seed, 300)
    solutions = solutions_of(problem)
    rng = random.Random(seed)
    objective = random_number(rng, [variable(name) for name in problem.domains], 2, False)
    scores = [score for score, _ in objective_values(objective, solutions)] if isinstance(objective, Expr) else []
    cut = 0
    for looks in places:
        prefer: Any = [(name, "max") for name in problem.domains] if looks % 2 else None
        context = f"seed {seed}, {engine} cut after {looks}: {[str(c) for c in problem.constraints]}"
        with CUTS[engine](looks) as limit:
            solved = problem.solve(prefer=prefer, time_limit=limit, engine=engine)
        cut += solved.status == "unknown"
        assert solved.status != "infeasible" or not solutions, context
        assert solved.solution is None or solved.solution in solutions, context
        if isinstance(objective, Expr):
            for sign, way in ((1, "minimize"), (-1, "maximize")):
                with CUTS[engine](looks) as limit:
                    best = problem.best(**{way: objective}, prefer=prefer, time_limit=limit, engine=engine)
                cut += not best.proven
                check_best(best, sign, scores, solutions, f"{way} {objective}; {context}")
        cut += check_sets(problem, solutions, engine, looks, context)
    return cut


def check_best(best: Any, sign: int, scores: list[int], solutions: list[Any], context: str) -> None:
    """The claims of one optimisation. sign: 1 where the objective is minimised."""
    assert best.status != "infeasible" or not scores, context
    assert best.solution is None or best.solution in solutions, context
    assert best.objective is None or best.objective in scores, context
    if scores:
        true = min(scores) if sign > 0 else max(scores)
        assert best.bound is None or sign * best.bound <= sign * true, context
        assert not best.proven or best.objective == true, context


def check_sets(problem: Problem, solutions: list[Any], engine: str, looks: int, context: str) -> int:
    """Counts, sets, estimates and conflicts, which are whole or not there; how many were not."""
    cut = 0
    questions: list[tuple[Callable[[float | None], Any], Callable[[Any], Any]]] = [
        (lambda limit: problem.count(limit, engine), lambda found: found == len(solutions)),
        (lambda limit: problem.explain(limit, engine), lambda found: bool(found) is not bool(solutions)),
    ]
    if engine != "cp-sat":
        questions += [
            (lambda limit: problem.solution_set(limit, engine), lambda found: found.count == len(solutions)),
            (
                lambda limit: problem.estimate(20, 1, limit, engine),
                lambda found: found.lower <= len(solutions) <= found.upper,
            ),
            (
                lambda limit: problem.to_numpy(limit, engine),
                lambda found: len(found) == len(solutions),
            ),
        ]
    for ask, right in questions:
        try:
            with CUTS[engine](looks) as limit:
                found = ask(limit)
        except TimeLimit:
            cut += 1
            continue
        assert right(found), context
        if isinstance(found, list) and found:
            assert not has_solution(problem.subproblem(found)), context
            for left_out in found:
                assert has_solution(problem.subproblem([c for c in found if c is not left_out])), context
    return cut


@pytest.mark.parametrize(
    ("engine", "seeds", "places"), [("python", 6, PLACES), ("native", 8, PLACES), ("cp-sat", 4, PLACES[::4])]
)
def test_claims_are_true_wherever_they_are_cut(engine: str, seeds: int, places: tuple[int, ...]) -> None:
    assert sum(check_claims(seed, engine, places) for seed in range(seeds)) > 5
