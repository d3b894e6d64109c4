"""About how many solutions there are, and drawing some, where they do not factor."""

from __future__ import annotations

import warnings
from collections import Counter

import pytest
from random_problems import random_problem, solutions_of

from constrint import ConstrintError, Problem, TimeLimit, all_different, has_core, total
from constrint import estimate as module
from constrint.estimate import ApproximateSample, Estimate, draw, estimate

pytestmark = pytest.mark.unit


@pytest.fixture
def nothing_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Diagrams of one step: groups are estimated, whatever their size."""
    monkeypatch.setattr(module, "EXACT", (1,))
    monkeypatch.setattr(module, "RELAXED", (300,))
    monkeypatch.setattr("constrint.factor.SMALL", 0)


def queens(size: int) -> Problem:
    problem = Problem("queens")
    rows = [problem.variable(f"row{i}", range(size)) for i in range(size)]
    for sign in (-1, 0, 1):
        problem.add(all_different([row + sign * i for i, row in enumerate(rows)]))
    return problem


@pytest.mark.parametrize("native", [True, False] if has_core() else [False])
def test_estimates_are_as_near_as_they_say(native: bool, nothing_factors: None) -> None:
    kinds: Counter[str] = Counter()
    for seed in range(40):
        problem = random_problem(seed, 600)
        known = len(solutions_of(problem))
        found = estimate(problem, native, 400, seed)
        kinds["exact" if found.exact else "found" if found.count else "none"] += 1
        assert found.lower <= known <= found.upper, seed
        assert abs(found.count - known) <= 6 * found.error + 1, seed
        if found.exact:
            assert (found.count, found.error) == (known, 0)
    assert kinds["found"] > 5
    assert kinds["exact"] > 5


@pytest.mark.skipif(not has_core(), reason="the C++ core was not built")
def test_both_engines_go_the_same_ways(nothing_factors: None) -> None:
    for size in (5, 6):
        problem = queens(size)
        ours, theirs = (estimate(problem, native, 50, 3) for native in (True, False))
        assert ours == theirs
        assert not ours.exact
    with pytest.warns(ApproximateSample):
        assert draw(queens(6), True, 3, 1, False, None) == draw(queens(6), False, 3, 1, False, None)


def test_ways_at_random_weigh_as_many_as_there_are() -> None:
    """Of 8 queens there are 92: every way counts what was left to choose from."""
    problem = queens(8)
    program = module.prepare(problem, None, None).program
    assert program is not None
    search = module.Searcher(problem, has_core()).search(program)
    # All choices of the first two levels and the middle of the others: weights are products of sizes.
    sizes, solution = next(search.probe(range(8), [[0.5] * 8]))
    assert sizes[0] == 8
    assert not solution or problem.contains(dict(zip(problem.domains, solution, strict=True)))
    found = estimate(problem, has_core(), 4000, 1)
    assert abs(found.count - 92) <= 4 * found.error
    assert found.error < 92 / 10


def test_what_factors_is_counted() -> None:
    problem = Problem("small")
    x, y = problem.variable("x", range(10)), problem.variable("y", range(10))
    problem.add(x * y >= 20)
    known = problem.count()
    assert problem.estimate() == Estimate(known, 0, known, known, 0)
    assert str(problem.estimate()) == f"{known} solutions"
    problem.add(x > 10)
    assert problem.estimate().count == 0
    assert problem.estimate().exact


def knapsack() -> Problem:
    """Two sums of 40 variables with large weights, which do not factor; and a variable of its own."""
    problem = Problem("sums")
    taken = [problem.variable(f"x{i}", [0, 1]) for i in range(40)]
    for shift in (3, 7):
        weights = [10**6 + (shift * i**3) % 99991 for i in range(40)]
        problem.add(total(w * x for w, x in zip(weights, taken, strict=True)) <= sum(weights) // 2)
    problem.variable("free", ["a", "b", "c"])
    return problem


def test_a_relaxation_is_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = knapsack()
    monkeypatch.setattr("constrint.factored.PATIENT", ())
    with pytest.raises(ConstrintError, match=r"estimate\(\) their number"):
        problem.solution_set()
    found = problem.estimate(draws=500, seed=1)
    # Each sum holds of about half of 2**40, and mostly of the same half, for the weights hardly differ.
    assert 3 * 2**40 * 0.35 < found.count < 3 * 2**40 * 0.65
    assert found.error < found.count / 10
    assert found.upper == 3 * 2**40
    assert "standard error" in str(found)
    assert problem.estimate(draws=500, seed=1) == found
    with warnings.catch_warnings():
        warnings.simplefilter("error", ApproximateSample)
        drawn = problem.sample(20, seed=2)
    assert len({tuple(solution.values()) for solution in drawn}) == 20
    assert all(problem.contains(solution) for solution in drawn)
    assert {solution["free"] for solution in drawn} == {"a", "b", "c"}


def test_a_sample_that_is_not_uniform_says_so(monkeypatch: pytest.MonkeyPatch, nothing_factors: None) -> None:
    problem = queens(6)
    monkeypatch.setattr("constrint.factored.QUICK", (1,))
    monkeypatch.setattr("constrint.factored.PATIENT", ())
    with pytest.warns(ApproximateSample, match="only about uniformly"):
        drawn = problem.sample(4, seed=1)
    assert len({tuple(solution.values()) for solution in drawn}) == 4
    assert all(problem.contains(solution) for solution in drawn)
    with pytest.warns(ApproximateSample):
        assert len(problem.sample(20, seed=1, replace=True)) == 20
    with pytest.warns(ApproximateSample), pytest.raises(ConstrintError, match="only 4 of 5 solutions"):
        problem.sample(5, seed=1)


def test_where_nothing_is_found_nothing_is_claimed(nothing_factors: None) -> None:
    problem = Problem("rare")
    values = [problem.variable(f"x{i}", range(0, 1000, 2)) for i in range(4)]
    problem.add(values[0] * values[1] * values[2] + values[3] * values[3] == 998 * 994 * 122 + 36)
    found = problem.estimate(draws=20, seed=1)
    assert found.count == found.lower == 0
    assert found.error == found.upper > 0
    assert str(found).startswith("none of 20 draws")
    with pytest.raises(ConstrintError, match="at least 2 draws"):
        problem.estimate(draws=1)
    with pytest.raises(ConstrintError, match="unknown engine"):
        problem.estimate(engine="fast")
    with pytest.raises(TimeLimit):
        knapsack().estimate(time_limit=0)
