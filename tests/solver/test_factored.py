"""Solution sets against brute force: counted, listed, indexed, sampled; native and Python engines alike."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from itertools import pairwise
from types import FrameType

import numpy as np
import pytest
from random_problems import random_problem, solutions_of

from constrint import ConstrintError, Problem, TimeLimit, cdiv, divides, has_core

pytestmark = pytest.mark.unit
ENGINES = ("native", "python")


def in_order(solutions, order):  # type: ignore[no-untyped-def]
    return sorted(solutions, key=lambda solution: [solution[name] for name in order])


def check_set(problem: Problem, expected: list[dict[str, int]], engine: str) -> None:
    """Everything a set answers, against the list of its solutions."""
    context = f"{engine}: {[str(c) for c in problem.constraints]} over {dict(problem.domains)}"
    found = problem.solution_set(engine=engine)
    assert (found.count, len(found), bool(found)) == (len(expected), len(expected), bool(expected)), context
    assert problem.count(engine=engine) == len(expected), context
    ranked = in_order(expected, found.order)
    assert list(found) == ranked, context
    assert [found[i] for i in range(len(ranked))] == ranked, context
    assert found[1:-1] == ranked[1:-1], context
    assert [found.index(solution) for solution in ranked] == list(range(len(ranked))), context
    table = found.to_numpy()
    assert table.shape == (len(ranked), len(found.names)), context
    assert table.tolist() == [[solution[name] for name in found.names] for solution in ranked], context
    for seed in range(3):
        drawn = found.sample(min(5, len(ranked)), seed)
        assert all(solution in ranked for solution in drawn), context
        assert len({tuple(solution.values()) for solution in drawn}) == len(drawn), context
    rng = random.Random(0)
    for _ in range(20):
        point = {name: rng.choice(list(domain)) for name, domain in problem.domains.items()}
        assert (point in found) == (point in ranked) == problem.contains(point), context


@pytest.mark.parametrize("engine", ENGINES)
def test_random_problems(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of them as if the declared order had not served, so that an order is chosen after propagation."""
    for seed in range(150):
        monkeypatch.setattr("constrint.factored.QUICK", (0, 4_000, 40_000) if seed % 2 else (4_000, 40_000))
        problem = random_problem(seed, 250, ranges=seed % 6 == 0)
        check_set(problem, solutions_of(problem), engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_values_that_no_solution_has_are_dropped(engine: str) -> None:
    """Of lists each, of ranges those beyond the ends: a table is as narrow as if it had never held them."""
    problem = Problem("gaps")
    x, y = problem.variable("x", [1, 2, 3, 500, 60_000]), problem.variable("y", [-(10**9), 0, 7, 9, 70_000])
    z, far = problem.variable("z", range(0, 2**33, 7)), problem.variable("far", range(-(2**30), 2**30))
    problem.add((x * y == 9) | (x * y == 14))
    problem.add((z > 20) & (z < 30 * x))
    problem.add((far - z <= 3) & (far - z >= 2))
    found = problem.solution_set(engine=engine)
    table = found.to_numpy(dtype="smallest")
    expected = [
        {"x": x, "y": y, "z": z, "far": z + step}
        for x, y in ((1, 9), (2, 7))
        for z in range(21, 30 * x, 7)
        for step in (2, 3)
    ]
    assert in_order(expected, found.order) == list(found)
    assert table.dtype == np.int8
    assert [found.index(solution) for solution in found] == list(range(found.count))
    assert {"x": 3, "y": 0, "z": 21, "far": 23} not in found
    again = pickle.loads(pickle.dumps(found))
    assert list(again) == list(found)
    assert again.to_numpy(dtype="smallest").tolist() == table.tolist()


def test_cp_sat_gives_the_same_set() -> None:
    for seed in range(1000, 1012):
        problem = random_problem(seed, 100)
        check_set(problem, solutions_of(problem), "cp-sat")


def test_engines_agree_on_order_and_sample() -> None:
    for seed in range(200, 260):
        problem = random_problem(seed, 250, ranges=seed % 4 == 0)
        native, python = (problem.solution_set(engine=engine) for engine in ENGINES)
        assert native.order == python.order
        assert native.nodes == python.nodes
        if native:
            assert native.sample(9, seed, replace=True) == python.sample(9, seed, replace=True)


def coupled(values: int, limit: int) -> tuple[Problem, list[int]]:
    """Twenty parameters, one sum over eighteen of them, one divisibility."""
    problem = Problem("coupled")
    xs = [problem.variable(f"x{i}", range(1, values + 1)) for i in range(20)]
    weights = [random.Random(i).randint(1, 40) for i in range(18)]
    total = weights[0] * xs[0]
    for weight, x in zip(weights[1:], xs[1:18], strict=True):
        total = total + weight * x
    problem.add(total <= limit)
    problem.add(divides(xs[18], xs[0] * 4))
    return problem, weights


@pytest.mark.parametrize("engine", ENGINES)
def test_coupled_space_is_counted_exactly(engine: str) -> None:
    values, limit = (8, 1600) if engine == "native" else (3, 700)
    problem, weights = coupled(values, limit)
    # Independently: the distribution of the sum, for each value of x0.
    expected = 0
    for first in range(1, values + 1):
        ways = {weights[0] * first: 1}
        for weight in weights[1:]:
            after: dict[int, int] = {}
            for total, count in ways.items():
                for x in range(1, values + 1):
                    after[total + weight * x] = after.get(total + weight * x, 0) + count
            ways = after
        below = sum(count for total, count in ways.items() if total <= limit)
        expected += below * sum(4 * first % x == 0 for x in range(1, values + 1)) * values
    found = problem.solution_set(engine=engine)
    assert found.count == expected
    assert expected > 10**8
    drawn = found.sample(200, seed=3)
    assert all(problem.contains(solution) for solution in drawn)
    assert [found[found.index(solution)] for solution in drawn[:50]] == drawn[:50]
    assert found[-1] == found[found.count - 1]


@pytest.mark.parametrize("engine", ENGINES)
def test_sampling_is_uniform(engine: str) -> None:
    problem = Problem("small")
    x, y = problem.variable("x", range(1, 9)), problem.variable("y", range(1, 9))
    problem.variable("free", [0, 1])
    problem.add(x * y <= 24)
    found = problem.solution_set(engine=engine)
    n = 200 * found.count
    seen = [0] * found.count
    for solution in found.sample(n, seed=7, replace=True):
        seen[found.index(solution)] += 1
    chi = sum((count - 200) ** 2 / 200 for count in seen)
    freedom = found.count - 1
    # Wilson and Hilferty: 4.5 standard deviations either way, so uneven and too even sampling both fail.
    z = ((chi / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / (2 / (9 * freedom)) ** 0.5
    assert abs(z) < 4.5
    assert sorted(found.index(solution) for solution in found.sample(found.count, seed=1)) == list(range(found.count))


@pytest.mark.parametrize("engine", ENGINES)
def test_counts_beyond_64_and_128_bits(engine: str) -> None:
    problem = Problem("wide")
    xs = [problem.variable(f"x{i}", range(16)) for i in range(40)]
    for left, right in pairwise(xs):
        problem.add(left <= right + 14)
    ways = [1] * 16
    for _ in range(39):
        ways = [sum(ways[left] for left in range(16) if left <= right + 14) for right in range(16)]
    found = problem.solution_set(engine=engine)
    assert found.count == sum(ways) > 1 << 128
    with pytest.raises(OverflowError, match="count"):
        len(found)
    for index in (0, 1 << 70, found.count - 1):
        assert found.index(found[index]) == index
    assert len(found.sample(5, seed=1)) == 5
    with pytest.raises(ConstrintError, match="GB"):
        found.to_numpy()


@pytest.mark.parametrize("engine", ENGINES)
def test_numbers_beyond_64_bits(engine: str) -> None:
    problem = Problem("large")
    x = problem.variable("x", [10**20, 2 * 10**20, 3])
    y = problem.variable("y", [1, 2, 10**20])
    problem.add(divides(y, x))
    assert list(problem.solution_set(engine=engine)) == in_order(solutions_of(problem), ["x", "y"])
    with pytest.raises(ConstrintError, match="64 bits"):
        problem.to_numpy(engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_ranges_too_long_to_list(engine: str) -> None:
    problem = Problem("ranges")
    a, b = problem.variable("a", range(1, 30)), problem.variable("b", [1, 2, 4, 8])
    size = problem.variable("size", range(0, 2**40, 4))
    free = problem.variable("free", range(2**40))
    problem.add(size == 32 * cdiv(a, b) * b)
    problem.add(free >= 7)
    found = problem.solution_set(engine=engine)
    assert found.count == 29 * 4 * (2**40 - 7)
    for solution in found.sample(50, seed=2):
        assert problem.contains(solution)
        assert found[found.index(solution)] == solution


def test_infeasible_and_empty_problems() -> None:
    for engine in ENGINES:
        problem = Problem("none")
        x, y = problem.variable("x", [1, 2, 3]), problem.variable("y", [1, 2, 3])
        problem.add(x * y == 5)
        found = problem.solution_set(engine=engine)
        assert (found.count, list(found), found.to_numpy().shape) == (0, [], (0, 2))
        assert {"x": 1, "y": 1} not in found
        with pytest.raises(IndexError):
            found[0]
        with pytest.raises(ConstrintError, match="cannot draw"):
            found.sample(1)
        assert Problem("void").count(engine=engine) == 1


def test_wrong_questions() -> None:
    problem = Problem("p")
    problem.variable("x", [1, 2])
    found = problem.solution_set()
    assert {"x": "1"} not in found
    assert {"y": 1} not in found
    assert "x" not in found
    with pytest.raises(ValueError, match="not in the set"):
        found.index({"x": 3})
    with pytest.raises(ConstrintError, match="unknown engine"):
        problem.solution_set(engine="abacus")
    assert len(found.sample(5, replace=True, seed=0)) == 5


def heavy() -> Problem:
    """A product of sums whose partial values are nearly all different."""
    problem = Problem("heavy")
    primes = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43]
    xs = [problem.variable(f"x{i}", [p + k * k * 97 for k in range(8)]) for i, p in enumerate(primes)]
    for i in range(6):
        total = xs[0] * (i + 3)
        for j, x in enumerate(xs[1:], 1):
            total = total + x * ((i * j * 7919) % 101 + 1)
        problem.add(total % (1009 + 2 * i) != 5)
    return problem


@pytest.mark.parametrize("engine", ENGINES)
def test_time_limit(engine: str) -> None:
    with pytest.raises(TimeLimit):
        heavy().solution_set(time_limit=0.1, engine=engine)
    with pytest.raises(TimeLimit):
        heavy().count(time_limit=0.1, engine=engine)


def test_interrupt_leaves_native_work() -> None:
    """Ctrl-C is looked for while the core works: alarms that a call leaves waiting until it is done ring once."""
    import signal

    from constrint import native_diagram

    if not has_core():
        pytest.skip("needs the C++ core")

    alarms: Counter[tuple[FrameType, int]] = Counter()

    def stop(_: int, frame: FrameType | None) -> None:
        if frame is not None and frame.f_code.co_filename == native_diagram.__file__:
            alarms[frame, frame.f_lasti] += 1
            if max(alarms.values()) == 4:
                raise KeyboardInterrupt

    problem = heavy()
    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        with pytest.raises(KeyboardInterrupt):
            problem.solution_set(time_limit=60)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_does_not_factor_is_still_counted(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem("p")
    x, y, z = (problem.variable(name, range(1, 25)) for name in "xyz")
    problem.add((x * x + y * z) % 7 == 3)
    expected = problem.count(engine=engine)
    for module in ("factor", "factored"):
        monkeypatch.setattr(f"constrint.{module}.QUICK", (10,))
        monkeypatch.setattr(f"constrint.{module}.PATIENT", (20,))
    with pytest.raises(ConstrintError, match="do not factor"):
        problem.solution_set(engine=engine)
    assert problem.count(engine=engine) == expected
    assert expected == sum((a * a + b * c) % 7 == 3 for a in range(1, 25) for b in range(1, 25) for c in range(1, 25))


def test_table_columns_are_contiguous_int64() -> None:
    problem = Problem("p")
    problem.variable("a", range(50))
    problem.variable("b", range(60))
    table = problem.to_numpy()
    assert table.dtype == np.int64
    assert table[:, 0].flags.c_contiguous
    assert np.array_equal(table[:, 0] * 60 + table[:, 1], np.arange(3000))
