"""Neighbours and exclusions against brute force."""

from __future__ import annotations

import random

import pytest
from random_problems import random_problem, solutions_of

from constrint import ConstrintError, Problem

pytestmark = pytest.mark.unit


def test_neighbours_of_random_points() -> None:
    checked = 0
    for seed in range(300, 380):
        problem = random_problem(seed, 250)
        solutions = solutions_of(problem)
        rng = random.Random(seed)
        point = {name: rng.choice(list(domain)) for name, domain in problem.domains.items()}
        for start in [point, *solutions[:2]]:
            near = [s for s in solutions if sum(s[name] != start[name] for name in s) == 1]
            found = list(problem.neighbours(start))
            assert sorted(map(str, found)) == sorted(map(str, near))
            places = {name: list(domain) for name, domain in problem.domains.items()}
            steps = [
                s
                for s in near
                if all(abs(places[name].index(s[name]) - places[name].index(start[name])) <= 1 for name in s)
            ]
            assert sorted(map(str, problem.neighbours(start, kind="adjacent"))) == sorted(map(str, steps))
            checked += len(near)
    assert checked > 100


def test_neighbours_along_a_range_too_long_to_list() -> None:
    problem = Problem("p")
    n, d = problem.variable("n", range(1, 10**9)), problem.variable("d", [1, 2, 3])
    problem.add(n * n * d <= 100)
    found = list(problem.neighbours({"n": 3, "d": 1}))
    assert [s["n"] for s in found if s["d"] == 1] == [1, 2, 4, 5, 6, 7, 8, 9, 10]
    assert [s["d"] for s in found if s["n"] == 3] == [2, 3]
    assert [s["n"] for s in problem.neighbours({"n": 3, "d": 1}, kind="adjacent") if s["d"] == 1] == [2, 4]


def test_neighbours_of_a_value_outside_its_domain() -> None:
    problem = Problem("p")
    x = problem.variable("x", [1, 2, 4, 8])
    problem.variable("y", [0, 1])
    problem.add(x > 1)
    assert list(problem.neighbours({"x": 3, "y": 0}, kind="adjacent")) == [{"x": 2, "y": 0}, {"x": 4, "y": 0}]
    assert list(problem.neighbours({"x": 3, "y": 5})) == []
    with pytest.raises(ConstrintError, match="unknown kind"):
        problem.neighbours({"x": 1, "y": 0}, kind="near")  # type: ignore[arg-type]
    with pytest.raises(ConstrintError, match="no value for"):
        problem.neighbours({"x": 1})


@pytest.mark.parametrize("engine", ["native", "python"])
def test_exclude_one_after_another(engine: str) -> None:
    for seed in range(400, 420):
        problem = random_problem(seed, 120)
        left = solutions_of(problem)
        rng = random.Random(seed)
        for _ in range(min(6, len(left))):
            gone = left.pop(rng.randrange(len(left)))
            problem.exclude(gone)
            assert not problem.contains(gone)
            assert problem.count(engine=engine) == len(left)
            first = problem.solve(engine=engine).solution
            assert first == (left[0] if left else None)


def test_exclude_part_of_an_assignment() -> None:
    problem = Problem("p")
    for name in "abc":
        problem.variable(name, range(5))
    constraint = problem.exclude({"a": 1, "b": 2})
    assert str(constraint) == "not (a = 1, b = 2)"
    assert problem.count() == 120
    with pytest.raises(ConstrintError, match="at least one"):
        problem.exclude({})
    with pytest.raises(ConstrintError, match="does not declare"):
        problem.exclude({"z": 1})
