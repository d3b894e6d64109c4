"""Constraints over many variables at once, and variables that all differ."""

from __future__ import annotations

import itertools
import random

import pytest
from work import counted

from constrint import (
    ConstrintError,
    Problem,
    all_different,
    choose,
    count,
    cumulative,
    load_space,
    print_space,
    total,
)
from constrint.matching import distinct

pytestmark = pytest.mark.unit

ENGINES = ("auto", "native", "python", "cp-sat")


def test_distinct_values_are_those_of_some_way_to_give_them() -> None:
    for seed in range(1500):
        rng = random.Random(seed)
        domains = [tuple(sorted(rng.sample(range(6), rng.randint(1, 4)))) for _ in range(rng.randint(1, 5))]
        ways = [row for row in itertools.product(*domains) if len(set(row)) == len(row)]
        found = distinct(range(len(domains)), domains)
        if not ways:
            assert found is None, domains
            continue
        expected = {v: tuple(sorted({row[v] for row in ways})) for v in range(len(domains))}
        assert found == {v: kept for v, kept in expected.items() if len(kept) < len(domains[v])}, domains


def pigeons(pairwise: bool, count: int, holes: int) -> Problem:
    problem = Problem("pigeons")
    birds = [problem.variable(f"bird{i}", range(holes)) for i in range(count)]
    if pairwise:
        for a, b in itertools.combinations(birds, 2):
            problem.add(a != b)
    else:
        problem.add(all_different(birds))
    return problem


@pytest.mark.parametrize("pairwise", [True, False])
@pytest.mark.parametrize("engine", ["auto", "native", "python"])
def test_pigeons_are_refuted_without_search(engine: str, pairwise: bool) -> None:
    with counted() as work:
        assert pigeons(pairwise, 14, 13).solve(engine=engine).status == "infeasible"
    assert work.nodes == 0
    crowded = pigeons(pairwise, 4, 3)
    crowded.add(crowded.add(total([]) == 0).condition, "nothing")
    core = crowded.explain(engine=engine)
    assert len(core) == (6 if pairwise else 1)
    assert pigeons(pairwise, 5, 5).count(engine=engine) == 120


@pytest.mark.parametrize("engine", ENGINES)
def test_all_different_of_expressions_and_texts(engine: str) -> None:
    problem = Problem("queens")
    rows = [problem.variable(f"row{i}", range(6)) for i in range(6)]
    problem.add(all_different(rows))
    problem.add(all_different([row + i for i, row in enumerate(rows)]))
    problem.add(all_different([row - i for i, row in enumerate(rows)]))
    assert problem.count(engine=engine) == 4
    found = problem.solve(engine=engine, prefer=None).solution
    assert found is not None
    assert problem.contains(found)
    named = Problem("named")
    texts = [named.variable(name, ["a", "b", None, 1.5]) for name in "xyz"]
    named.add(all_different(texts))
    assert named.count(engine=engine) == 24


@pytest.mark.parametrize("engine", ENGINES)
def test_tasks_that_share_a_resource(engine: str) -> None:
    problem = Problem("tasks")
    starts = [problem.variable(f"s{i}", range(5)) for i in range(3)]
    lengths = [problem.variable(f"d{i}", range(3)) for i in range(2)]
    capacity = problem.variable("capacity", [2, 3])
    problem.add(cumulative(starts, [*lengths, 2], [1, 2, 2], capacity))
    problem.add(count(starts, 0) == 1)

    def fits(values: tuple[int, ...]) -> bool:
        begin, length, most = values[:3], (*values[3:5], 2), values[5]
        loads = [sum(q for s, d, q in zip(begin, length, (1, 2, 2), strict=True) if s <= t < s + d) for t in range(8)]
        return max(loads) <= most and begin.count(0) == 1

    domains = [range(5)] * 3 + [range(3)] * 2 + [[2, 3]]
    assert problem.count(engine=engine) == sum(map(fits, itertools.product(*domains)))
    end = problem.variable("end", range(9))
    for start, length in zip(starts, [*lengths, 2], strict=True):
        problem.add(end >= start + length)
    for length in lengths:
        problem.add(length == 2)
    best = problem.best(minimize=end, engine=engine)
    # The second and third exclude each other, and one task begins at 0.
    assert best.objective == 4
    assert best.proven


def test_their_meaning_where_something_has_no_value() -> None:
    for engine in ENGINES:
        problem = Problem("undefined")
        x, y = problem.variable("x", range(3)), problem.variable("y", range(3))
        problem.add(all_different([6 // x, y, 2]) | (x == 0))
        assert problem.count(engine=engine) == 3 + sum(
            6 // a != b and b != 2 and 6 // a != 2 for a in (1, 2) for b in range(3)
        )
        other = problem.subproblem([])
        other.add(~all_different([6 // x, y, 2]))
        # Two that are equal are, whatever the third is.
        assert other.count(engine=engine) == 1 + sum(len({6 // a, b, 2}) < 3 for a in (1, 2) for b in range(3))


def test_sums_of_any_length_and_refusals() -> None:
    problem = Problem("sum")
    bits = [problem.variable(f"b{i}", [0, 1]) for i in range(600)]
    problem.add(total(bits) == 599)
    assert problem.count() == 600
    assert total([]).value == 0
    with pytest.raises(ConstrintError, match="as many starts as durations and demands, not 2, 1, 1"):
        cumulative([1, 2], [1], [1], 1)
    with pytest.raises(ConstrintError, match="cannot demand -1"):
        cumulative([1], [1], [-1], 1)
    assert choose(problem.add(total(bits) >= 0).condition, 1, 2).op == "if"


@pytest.mark.parametrize("seed", range(40))
def test_random_groups_of_unequal_variables(seed: int) -> None:
    """Some pairwise unequal, some all different, with other constraints: every engine, against brute force."""
    rng = random.Random(seed)
    problem = Problem(f"groups {seed}")
    variables = [problem.variable(f"x{i}", rng.sample(range(6), rng.randint(1, 5))) for i in range(rng.randint(3, 5))]
    conditions = []
    for a, b in itertools.combinations(variables, 2):
        if rng.random() < 0.7:
            conditions.append(a != b)
    if rng.random() < 0.5:
        conditions.append(all_different(rng.sample(variables, 3)))
    conditions.append(total(variables) >= rng.randint(0, 12))
    if rng.random() < 0.3:
        conditions.append(cumulative(variables[:2], [2, 3], [1, 1], rng.randint(1, 2)))
    for condition in conditions:
        problem.add(condition)
    expected = [
        solution
        for row in itertools.product(*problem.domains.values())
        if problem.contains(solution := dict(zip(problem.domains, row, strict=True)))
    ]
    for engine in ENGINES:
        assert list(problem.solutions(engine=engine)) == expected, seed
        assert problem.count(engine=engine) == len(expected)
        core = problem.explain(engine=engine)
        assert bool(core) is (not expected)
        for left_out in core:
            assert (
                problem.subproblem([c for c in core if c is not left_out]).solve(engine="native").status == "feasible"
            )
        if core:
            assert problem.subproblem(core).count(engine="cp-sat") == 0


def test_spaces_hold_them_taken_apart() -> None:
    problem = Problem("written")
    variables = [problem.variable(name, range(3)) for name in "abc"]
    problem.add(all_different(variables))
    problem.add(cumulative(variables, [1, 2, 1], [1, 1, 1], 1))
    assert load_space(print_space(problem)).count() == problem.count() > 0
