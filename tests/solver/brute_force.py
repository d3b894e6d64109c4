"""One random problem, every question, against brute force."""

from __future__ import annotations

import random
import time
from itertools import islice

from random_problems import (
    has_solution,
    objective_values,
    random_groups_problem,
    random_number,
    random_problem,
    solutions_of,
)
from random_values import random_values_problem

from constrint import Expr


class Timer:
    """Asks questions and keeps, of each kind, the most seconds that one took: the processor's, and wall-clock."""

    def __init__(self) -> None:
        self.worst: dict[str, tuple[float, float]] = {}

    def __call__(self, question, ask, *arguments, **named):  # type: ignore[no-untyped-def]
        wall, busy = time.perf_counter(), time.thread_time()
        answer = ask(*arguments, **named)
        busy, wall = time.thread_time() - busy, time.perf_counter() - wall
        before = self.worst.get(question, (0.0, 0.0))
        self.worst[question] = max(before[0], busy), max(before[1], wall)
        return answer


def check_everything(
    seed: int, engine: str, largest: int = 1500, ranges: bool = False, values: bool = False, groups: bool = False
) -> dict[str, tuple[float, float]]:
    """Ask every question of random problem ``seed`` and compare with brute force; AssertionError names the seed.

    Returns the seconds that the slowest question of each kind took: the processor's, and wall-clock.
    """
    timed = Timer()
    if groups:
        problem = random_groups_problem(seed)
    else:
        problem = random_values_problem(seed) if values else random_problem(seed, largest, ranges=ranges)
    rng = random.Random(seed + 10**9)
    expected = solutions_of(problem)
    names = list(problem.domains)
    context = f"seed {seed}, engine {engine}: {[str(c) for c in problem.constraints]} over {dict(problem.domains)}"

    assert timed("count", problem.count, engine=engine) == len(expected), context

    chosen = rng.sample(names, rng.randint(0, len(names)))
    prefer = [(name, rng.choice(["min", "max"])) for name in chosen]
    order = prefer + [(name, "min") for name in names if name not in chosen]

    def rank(solution: dict[str, int]) -> tuple[int, ...]:
        codes = problem.encoded(solution)
        return tuple(-codes[name] if way == "max" else codes[name] for name, way in order)

    ranked = sorted(expected, key=rank)
    result = timed("solve", problem.solve, prefer=prefer, engine=engine)
    assert result.status == ("feasible" if ranked else "infeasible"), context
    assert result.solution == (ranked[0] if ranked else None), context
    assert result.proven, context
    listed = timed("solutions", lambda: list(islice(problem.solutions(prefer=prefer, engine=engine), len(ranked) + 2)))
    assert listed == ranked, context
    if values:
        check_set(problem, ranked, engine, context)
    whole = [name for name in names if all(type(value) is int for value in problem.values(name))]
    objective = random_number(rng, [_variable(name) for name in whole], 2, False) if len(whole) > 1 else 0
    if isinstance(objective, Expr):
        check_best(problem, objective, ranked, prefer, engine, context, timed)
    check_explain(problem, not expected, engine, context, timed)
    return timed.worst


def check_best(problem, objective, ranked, prefer, engine, context, timed):  # type: ignore[no-untyped-def]
    """``best`` both ways; ``ranked``: the solutions in order of preference."""
    scored = objective_values(objective, ranked)
    for way in ("minimize", "maximize"):
        result = timed("best", problem.best, **{way: objective}, prefer=prefer, engine=engine)
        context_here = f"{way} {objective}; {context}"
        if not scored:
            assert (result.status, result.proven) == ("infeasible", True), context_here
            continue
        value = (min if way == "minimize" else max)(value for value, _ in scored)
        first = next(solution for score, solution in scored if score == value)
        assert (result.status, result.objective, result.bound) == ("feasible", value, value), context_here
        assert result.proven, context_here
        assert result.solution == first, context_here


def check_set(problem, ranked, engine, context):  # type: ignore[no-untyped-def]
    """The solution set holds what was listed, and finds each of it; ``contains`` and ``exclude`` agree."""
    found = problem.solution_set(engine=engine)
    everything = list(found)
    assert sorted(map(repr, everything)) == sorted(map(repr, ranked)), context
    for place, solution in enumerate(everything[:20]):
        assert found.index(solution) == place, context
        assert found[place] == solution, context
        assert problem.contains(solution), context
    if ranked:
        fewer = problem.subproblem(problem.constraints)
        fewer.exclude(ranked[0])
        assert fewer.count(engine=engine) == len(ranked) - 1, context


def check_explain(problem, infeasible, engine, context, timed):  # type: ignore[no-untyped-def]
    """The core conflicts, and without any one of its members it does not (these problems have no definitions)."""
    core = timed("explain", problem.explain, engine=engine)
    assert bool(core) is infeasible, context
    if core:
        assert not has_solution(problem.subproblem(core)), context
        for left_out in core:
            assert has_solution(problem.subproblem([c for c in core if c is not left_out])), context


def _variable(name: str) -> Expr:
    from constrint.expr import variable

    return variable(name)
