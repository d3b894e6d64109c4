"""The best solution: sums over variables as shortest paths, bounds from relaxations, and what the search adds."""

from __future__ import annotations

import random
import time

import pytest
from random_problems import random_problem, solutions_of
from work import Ticking

from constrint import Expr, Problem, has_core
from constrint.expr import variable
from constrint.factor import _build, independent
from constrint.presolve import presolve

pytestmark = pytest.mark.unit
needs_core = pytest.mark.skipif(not has_core(), reason="the C++ core is not built")
ENGINES = ["native", "python"] if has_core() else ["python"]


def knapsack(count: int, room: int, seed: int, constraints: int = 1, most: int = 7) -> tuple[Problem, Expr]:
    """Items of a number each, weights and values that hardly differ."""
    rng = random.Random(seed)
    p = Problem("knapsack")
    x = [p.variable(f"x{i}", range(most + 1)) for i in range(count)]
    weights: list[int] = []
    for _ in range(constraints):
        weights = [rng.randint(20, 99) for _ in x]
        p.add(sum(w * v for w, v in zip(weights, x, strict=True)) <= room)
    return p, sum((w + rng.randint(-9, 9)) * v for w, v in zip(weights, x, strict=True))  # type: ignore[return-value]


@pytest.mark.parametrize("engine", ENGINES)
def test_sums_over_variables_against_brute_force(engine: str) -> None:
    """The optimum, and of the optimal solutions the first by preference, whatever the order of the diagram."""
    feasible = 0
    for seed in range(800_000, 800_120):
        problem = random_problem(seed, 300)
        rng = random.Random(seed)
        names = list(problem.domains)
        parts = [rng.choice([v * v, abs(v), 3 * v, -2 * v, v // 2, (v % 3) * 2]) for v in map(variable, names)]
        objective = sum(rng.sample(parts, rng.randint(1, len(parts)))) + rng.randint(-5, 5)
        prefer = [(name, rng.choice(["min", "max"])) for name in rng.sample(names, rng.randint(0, len(names)))]
        order = [*prefer, *((name, "min") for name in names if name not in dict(prefer))]
        result = problem.best(minimize=objective, prefer=prefer, engine=engine)
        costs = [({name: s[name] for name in names}, _value(objective, s)) for s in solutions_of(problem)]
        if not costs:
            assert result.status == "infeasible", seed
            continue
        feasible += 1
        least = min(cost for _, cost in costs)
        first = min(
            (s for s, cost in costs if cost == least),
            key=lambda s: [-s[name] if way == "max" else s[name] for name, way in order],
        )
        assert (result.objective, result.solution, result.proven) == (least, first, True), seed
    assert feasible > 40


def _value(objective: Expr, solution: dict[str, int]) -> int:
    from constrint.evaluate import evaluate

    value = evaluate(objective, solution)
    assert isinstance(value, int)
    return value


@needs_core
def test_both_diagrams_find_the_same_path() -> None:
    paths = 0
    for seed in range(820_000, 820_300):
        problem = random_problem(seed, 400)
        program, _ = presolve(problem)
        rng = random.Random(seed)
        for variables, _, terms in (independent(program) if program is not None else None) or ():
            diagrams = [_build(terms, variables, program.domains, 10**6, native, None) for native in (False, True)]
            if not terms or not diagrams[0].total:
                continue
            order = rng.sample(range(len(variables)), len(variables))
            descending = [rng.random() < 0.5 for _ in variables]
            costs = [[rng.randint(-3, 3) for _ in program.domains[v]] if rng.random() < 0.7 else [] for v in variables]
            assert diagrams[0].best(costs, order, descending) == diagrams[1].best(costs, order, descending), seed
            paths += 1
    assert paths > 40


@needs_core
@pytest.mark.parametrize(("count", "room", "constraints"), [(14, 1500, 1), (30, 2000, 1), (12, 1500, 2), (16, 1500, 3)])
def test_knapsacks_are_proved(count: int, room: int, constraints: int) -> None:
    p, objective = knapsack(count, room, 4, constraints, most=4)
    result = p.best(maximize=objective, time_limit=60)
    assert (result.proven, result.bound) == (True, result.objective)
    assert result.solution is not None
    assert p.check(result.solution) == []
    assert result.objective == p.best(maximize=objective, engine="cp-sat").objective


def test_a_knapsack_that_does_not_fit_a_diagram_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that moves a millisecond whenever it is read."""
    p, objective = knapsack(24, 3_000_000, 1)
    wide = sum(
        (w * 997 + 13 * i * i) * variable(f"x{i}")
        for i, w in enumerate(random.Random(5).choices(range(500, 999), k=24))
    )
    p.add(wide <= 20_000_000)
    p.add(wide % 1013 != 5)
    monkeypatch.setattr(time, "perf_counter", Ticking())
    result = p.best(maximize=objective, time_limit=2, engine="python")
    assert not result.proven
    assert result.solution is not None
    assert result.bound is not None
    assert result.objective is not None
    assert p.check(result.solution) == []
    assert result.objective <= result.bound


@pytest.mark.parametrize("engine", ENGINES)
def test_objectives_of_constants_and_of_free_variables(engine: str) -> None:
    p = Problem("free")
    x, y, z = p.variable("x", range(5)), p.variable("y", range(5)), p.variable("z", [3])
    p.add(x + y >= 3)
    assert p.best(minimize=z + 1, engine=engine).solution == {"x": 0, "y": 3, "z": 3}
    assert p.best(maximize=x * 0 + z, prefer=[("x", "max")], engine=engine).solution == {"x": 4, "y": 0, "z": 3}
    assert p.best(minimize=2 * x + z, prefer=[("y", "max")], engine=engine).solution == {"x": 0, "y": 4, "z": 3}
    free = p.variable("free", range(10))
    result = p.best(maximize=2 * free - x - y, prefer=[("x", "max")], engine=engine)
    assert result.solution == {"x": 3, "y": 0, "z": 3, "free": 9}
    p.add(x + y >= 9)
    assert (p.best(minimize=x + y, engine=engine).status, p.explain(engine=engine)[0].label) == (
        "infeasible",
        "x + y >= 9",
    )
