"""Time limits reach every part of a question, and large easy problems take little work. Work is counted, not timed."""

from __future__ import annotations

import random
import time

import pytest
from work import Ticking

from constrint import Problem, TimeLimit, has_core
from constrint.core import load_core
from constrint.diagram import Diagram
from constrint.engine import SearchCall
from constrint.order import Estimate, improved, proposals
from constrint.parts import split
from constrint.presolve import prepare
from constrint.residual import residual
from constrint.search import elimination_order, frontiers

pytestmark = pytest.mark.unit
ENGINES = ["native", "python"] if has_core() else ["python"]
PAST = 0.0
"""A deadline that has passed."""


def free_problem(count: int) -> Problem:
    problem = Problem("free")
    for i in range(count):
        problem.variable(f"x{i}", [0, 1])
    return problem


def coupled_problem(count: int) -> Problem:
    """Variables that constraints of four join at random: no order keeps a diagram small."""
    rng, problem = random.Random(count), Problem("coupled")
    names = [problem.variable(f"x{i}", range(rng.choice([3, 5, 9]))) for i in range(count)]
    for _ in range(2 * count):
        a, b, c, d = rng.sample(names, 4)
        problem.add(a * b + c * rng.randint(1, 3) <= rng.randint(5, 30) + d)
    return problem


@pytest.mark.parametrize("engine", ENGINES)
def test_unconstrained_variables_are_not_searched(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = free_problem(2000)

    def never(*_: object) -> None:
        raise AssertionError("there is nothing to search for")

    monkeypatch.setattr(SearchCall, "prover", never)
    result = problem.solve(prefer=[("x7", "max")], time_limit=60, engine=engine)
    assert result.solution == {f"x{i}": int(i == 7) for i in range(2000)}
    assert problem.count(time_limit=60, engine=engine) == 2**2000
    assert problem.explain(time_limit=60, engine=engine) == []
    assert len(problem.sample(3, seed=1, time_limit=60, engine=engine)) == 3
    assert "2**2,000" not in repr(problem.solution_set())
    assert "about 2**12,000" in repr(free_problem(12_000).solution_set())


def test_independent_parts_are_searched_over_their_own_variables_alone() -> None:
    problem = free_problem(400)
    from constrint.expr import variable

    for i in range(0, 400, 2):
        problem.add(variable(f"x{i}") + variable(f"x{i + 1}") == 1)
    program = prepare(problem).program
    assert program is not None
    parts = split(program)
    assert len(parts) == 200
    assert {len(part.local(program).names) for part in parts} == {2}
    for engine in ENGINES:
        solution = problem.solve(prefer=[("x2", "max")], engine=engine).solution
        assert solution == {f"x{i}": int(i == 2 or (i % 2 == 1 and i != 3)) for i in range(400)}
        assert problem.count(engine=engine) == 2**200


def test_every_stage_heeds_the_deadline() -> None:
    problem = coupled_problem(60)
    program = prepare(problem).program
    assert program is not None
    variables = list(range(60))
    terms = [residual(code, program.domains) for code in program.codes]
    order = elimination_order(program, variables)
    stages = [
        lambda: prepare(problem, deadline=PAST),
        lambda: prepare(problem, core=load_core(), deadline=PAST),
        lambda: elimination_order(program, variables, PAST),
        lambda: proposals(program, program.codes, terms, variables, PAST),
        lambda: improved(terms, order, program.domains, PAST),
        lambda: Estimate(terms, variables, program.domains, PAST).of(order),
    ]
    for stage in stages:
        with pytest.raises(TimeLimit):
            stage()
    for engine in ENGINES:
        assert problem.solve(time_limit=0, engine=engine).status == "unknown"
        assert problem.best(minimize=sum_of(problem), time_limit=0, engine=engine).status == "unknown"
        for question in (problem.count, problem.solution_set, problem.explain, problem.to_numpy):
            with pytest.raises(TimeLimit):
                question(time_limit=0, engine=engine)


def sum_of(problem: Problem):  # type: ignore[no-untyped-def]
    from constrint.expr import variable

    total = variable(next(iter(problem.domains)))
    for name in list(problem.domains)[1:]:
        total = total + variable(name)
    return total


@pytest.mark.parametrize("engine", ENGINES)
def test_the_order_does_not_outlast_a_limit(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that moves a millisecond whenever it is read: a limit of a second is at most some thousand looks."""
    clock, problem = Ticking(), coupled_problem(80)
    monkeypatch.setattr(time, "perf_counter", clock)
    with pytest.raises(TimeLimit):
        problem.solution_set(time_limit=1, engine=engine)
    assert clock.looks < 1200


def test_best_uses_all_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be proved in time, the last question ends with the limit and not before."""
    now = 1000.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)

    class Slow:
        def __init__(self, variables: int) -> None:
            self.weight = [1.0] * variables

        def any(self, deadline: float) -> None:
            nonlocal now
            now = deadline + 0.001
            raise TimeLimit

    class NoSearch:
        def best(self, order: object, descending: object, bounded: object, deadline: float) -> tuple[None, None, bool]:
            nonlocal now
            now = deadline + 0.001
            return None, None, False

    problem = coupled_problem(12)
    monkeypatch.setattr(SearchCall, "prover", lambda self, program, *_: Slow(len(program.names)))
    monkeypatch.setattr(SearchCall, "search", lambda *_: NoSearch())
    monkeypatch.setattr("constrint.optimum.costs", lambda *_: None)
    problem.best(maximize=sum_of(problem) * sum_of(problem), time_limit=20)
    assert 1020 <= now < 1021


@pytest.mark.parametrize("engine", ENGINES)
def test_a_long_table_is_counted_in_steps_of_its_rows(engine: str) -> None:
    rng, problem = random.Random(5), Problem("rows")
    columns = [problem.variable(name, range(200)) for name in "abcd"]
    rows = {tuple(rng.randrange(200) for _ in columns) for _ in range(2000)}
    problem.table(columns, rows)
    found = problem.solution_set(engine=engine)
    ((_, factor),) = found._factors
    assert found.count == len(rows)
    assert factor.steps <= 4 * len(rows)  # type: ignore[attr-defined]
    assert {tuple(solution.values()) for solution in found} == rows
    problem.add(columns[0] < columns[3])
    kept = {row for row in rows if row[0] < row[3]}
    found = problem.solution_set(engine=engine)
    assert {tuple(solution.values()) for solution in found} == kept
    assert problem.best(maximize=columns[1], engine=engine).objective == max(row[1] for row in kept)
    problem = Problem("without")
    columns = [problem.variable(name, range(9)) for name in "abc"]
    rows = {tuple(rng.randrange(12) for _ in columns) for _ in range(300)}
    problem.add(~_table(columns, rows))
    inside = sum(max(row) < 9 for row in rows)
    assert problem.count(engine=engine) == 9**3 - inside
    assert isinstance(factor, Diagram) is (engine == "python")


def _table(columns, rows):  # type: ignore[no-untyped-def]
    from constrint import table

    return table(columns, rows)


@pytest.mark.parametrize("engine", ENGINES)
def test_exclusions_of_whole_solutions_are_one_constraint(engine: str) -> None:
    problem = free_problem(8)
    seen = []
    for _ in range(40):
        result = problem.solve(engine=engine)
        seen.append(result.require())
        problem.exclude(result.require())
    assert len({tuple(solution.values()) for solution in seen}) == 40
    program = prepare(problem).program
    assert program is not None
    assert len(program.codes) == 1
    assert problem.count(engine=engine) == 2**8 - 40
    # What is lowered once serves the next question.
    assert len(problem.lowered) == 40
    core = problem.subproblem([*problem.constraints, problem.subproblem([]).exclude({"x0": 0})]).explain(engine=engine)
    assert core == []


def test_orders_and_frontiers_are_what_their_definitions_say() -> None:
    """The incremental order against the definition, which looks at everything at each step."""
    for seed in range(40):
        rng, problem = random.Random(seed), Problem("order")
        names = [problem.variable(f"x{i}", range(rng.randint(2, 9))) for i in range(8)]
        for _ in range(rng.randint(3, 9)):
            chosen = rng.sample(names, rng.randint(2, 4))
            total = chosen[0]
            for name in chosen[1:]:
                total = total + name
            problem.add(total != rng.randint(3, 9))
        program = prepare(problem).program
        assert program is not None
        order = elimination_order(program, range(8))
        assert sorted(order) == list(range(8))
        scopes = [set(code.variables) for code in program.codes]

        def frontier(decided: set[int], scopes: list[set[int]] = scopes) -> set[int]:
            return {v for scope in scopes if scope & decided and not scope <= decided for v in scope & decided}

        def volume(found: set[int], program=program) -> float:  # type: ignore[no-untyped-def]
            from math import log

            return round(sum(log(len(program.domains[v])) for v in found), 6)

        for depth, v in enumerate(order):
            before = set(order[:depth])
            least = min(volume(frontier(before | {u})) for u in order[depth:])
            assert volume(frontier(before | {v})) == least, (seed, depth)
            kept = frontiers(program, order)[depth]
            assert kept is None or set(kept) >= frontier(before)
