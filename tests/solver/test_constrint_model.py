"""The public face: builders on plain integers, messages, semantics at the edges, start-up."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from constrint import (
    ConstrintError,
    Infeasible,
    Problem,
    cdiv,
    divides,
    implies,
    isin,
    maximum,
    minimum,
    parse_constrint,
)
from constrint.engine import engine_call
from constrint.explain import minimal_conflict
from constrint.expr import Operand
from constrint.factored import solution_set
from constrint.statement import Statement

pytestmark = pytest.mark.unit
ENGINES = ["native", "python", "cp-sat"]


def test_a_problem_prints_what_it_is() -> None:
    problem = Problem("tiles")
    problem.add(problem.variable("rows", [1, 2]) <= 1)
    assert repr(problem) == "Problem('tiles', variables=1, constraints=1)"


def test_builders_take_plain_integers() -> None:
    assert (cdiv(7, 2), cdiv(-7, 2), minimum(3, 4), maximum(3, 4, 9), divides(4, 8), divides(3, 8), divides(0, 8)) == (
        4, -3, 3, 9, True, False, False,
    )  # fmt: skip
    assert implies(False, False) is True
    assert implies(True, False) is False
    assert isin(3, [1, 3]) is True
    assert isinstance(cdiv(7, 2), int)


def test_one_formula_serves_variables_and_numbers() -> None:
    def shared_memory(tile: Operand, stages: Operand) -> Operand:
        return cdiv(tile * tile, 3) * maximum(stages, 2) + 16  # type: ignore[type-var, operator]

    p = Problem("formula")
    tile, stages = p.variable("tile", [4, 8, 16]), p.variable("stages", range(1, 4))
    p.add(shared_memory(tile, stages) <= 200)
    plain = [(t, s) for t in (4, 8, 16) for s in (1, 2, 3) if shared_memory(t, s) <= 200]
    assert [(x["tile"], x["stages"]) for x in p.solutions()] == plain
    assert 0 < len(plain) < 9


def kernel() -> Problem:
    p = Problem("resident")
    units, split = p.variable("units_per_warp", [8, 16]), p.variable("k_split", range(1, 9))
    p.add(units * split <= 64, "shared memory of one block")
    p.add(divides(split, 4))
    p.add((units == 8) | (split > 1))
    return p


@pytest.mark.parametrize("engine", ENGINES)
def test_the_questions(engine: str) -> None:
    p = kernel()
    result = p.solve(prefer=[("k_split", "max"), ("units_per_warp", "min")], engine=engine)
    assert (result.status, result.solution, result.proven) == ("feasible", {"units_per_warp": 8, "k_split": 4}, True)
    assert result.require() == result.solution
    assert p.count(engine=engine) == 5
    units, split = (p.constraints[0].condition.args[0].args[i] for i in (0, 1))
    best = p.best(maximize=units * split, engine=engine)
    assert (best.objective, best.bound, best.proven) == (64, 64, True)
    assert p.check({"units_per_warp": 16, "k_split": 8}) == [p.constraints[0], p.constraints[1]]
    assert str(p.check({"units_per_warp": 9, "k_split": 1})[0]) == "units_per_warp in [8, 16]"
    assert p.explain(engine=engine) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_explain_names_what_clashes_in_its_own_words(engine: str) -> None:
    p = kernel()
    units, split = (p.constraints[0].condition.args[0].args[i] for i in (0, 1))
    p.add(units + split >= 21, "at least 21 of both")
    p.add(units < 1000, "harmless")
    labels = [c.label for c in p.explain(engine=engine)]
    assert labels in (
        ["shared memory of one block", "at least 21 of both"],
        ["4 % k_split == 0", "at least 21 of both"],
    )
    result = p.solve(engine=engine)
    assert (result.status, result.proven, result.solution) == ("infeasible", True, None)


@pytest.mark.parametrize("engine", ENGINES)
def test_division_by_zero_is_not_true(engine: str) -> None:
    cases = [
        (lambda x: 12 // x == 3, [4]),
        (lambda x: 12 // x != 3, [-2, -1, 1, 2, 3]),
        (lambda x: ~(12 % x == 0), []),
        (lambda x: (x == 0) | (12 % x == 0), [-2, -1, 0, 1, 2, 3, 4]),
        (lambda x: (12 / x > 5) | (x <= 0), [-2, -1, 0, 1, 2]),
        (lambda x: 1 / x <= 0, [-2, -1]),
        (lambda x: 0 * (5 // x) == 0, [-2, -1, 1, 2, 3, 4]),
        (lambda x: 2**x <= 4, [-2, -1, 0, 1, 2]),
        (lambda x: 2**x >= 0, [-2, -1, 0, 1, 2, 3, 4]),
        (lambda x: (0 * x) ** x <= 4, [0, 1, 2, 3, 4]),
        (lambda x: x**-1 == x, [-1, 1]),
        (lambda x: (x / 2) ** -2 == 4, [-1, 1]),
    ]
    for make, expected in cases:
        p = Problem("zero")
        x = p.variable("x", range(-2, 5))
        constraint = p.add(make(x))
        assert [s["x"] for s in p.solutions(engine=engine)] == expected, constraint


def test_an_undefined_objective_is_no_solution() -> None:
    p = Problem("objective")
    x = p.variable("x", range(-2, 3))
    for engine in ENGINES:
        assert p.best(minimize=6 // x, engine=engine).solution == {"x": -1}
        assert p.best(maximize=6 // (x * 0), engine=engine).status == "infeasible"


@pytest.mark.parametrize("engine", ["native", "python"])
def test_numbers_of_any_size_are_exact(engine: str) -> None:
    p = Problem("large")
    x, y = p.variable("x", [10**30, 10**30 + 1, 3]), p.variable("y", range(10**24, 10**24 + 5))
    p.add(x**2 * y == (10**30 + 1) ** 2 * (10**24 + 3))
    assert list(p.solutions(engine=engine)) == [{"x": 10**30 + 1, "y": 10**24 + 3}]
    free = Problem("free")
    for i in range(30):
        free.variable(f"v{i}", range(1000))
    assert free.count(engine=engine) == 10**90


def test_cp_sat_refuses_what_it_cannot_hold() -> None:
    p = Problem("large")
    x, y = p.variable("x", [2**40, 2**40 + 1]), p.variable("y", [2**40, 2**40 + 1])
    p.add(x * y > 2**80)
    with pytest.raises(ConstrintError, match="native engine"):
        p.solve(engine="cp-sat")
    assert p.count() == 3


def test_huge_ranges_shrink_by_propagation() -> None:
    p = parse_constrint("A * B == 1000003; A <= B; C == A + 7 * B; 600 % D == 0; D >= 200;")
    assert p.solve().solution == {"A": 1, "B": 1000003, "C": 7000022, "D": 200}
    assert p.count() == 3
    powers = parse_constrint("E == 2 ^ K; K <= 10; E >= 1000;")
    assert powers.solve().solution == {"E": 1024, "K": 10}


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda p, x: p.variable("x", [1]), "already declared"),
        (lambda p, x: p.variable("y", []), "no values"),
        (lambda p, x: p.variable("y", [1j]), "cannot be 1j (complex)"),
        (lambda p, x: p.variable("y", 7), "must be a range or a list"),
        (lambda p, x: p.variable("2y", [1]), "identifier"),
        (lambda p, x: p.add(x + 1), "is a number"),
        (lambda p, x: p.add(Problem("other").variable("z", [1]) == x), "'z'"),
        (lambda p, x: p.add(1 <= x <= 2), "no truth value"),
        (lambda p, x: p.add((x == 1) and (x == 2)), "no truth value"),
        (lambda p, x: p.add(x & 3), "is a number"),
        (lambda p, x: p.add(x == 1j), "only integers, decimals"),
        (lambda p, x: p.add(p.variable("t", ["a", "b"]) + 1 == 2), "no value of 't' is a number"),
        (lambda p, x: p.add(x + "a" == 2), "'a' is no number"),
        (lambda p, x: p.add(x / 2 & 1 == 1), "other than a whole number"),
        (lambda p, x: p.add(sum([x] * 400, x) > 1), "more than 250"),
        (lambda p, x: p.table([x], [(1, 2)]), "1 columns"),
        (lambda p, x: p.solve(prefer=[("y", "min")]), "no variable"),
        (lambda p, x: p.solve(prefer=[("x", "up")]), "'min' or 'max'"),
        (lambda p, x: p.solve(prefer=[("x", "min"), ("x", "max")]), "twice"),
        (lambda p, x: p.solve(engine="magic"), "unknown engine 'magic'"),
        (lambda p, x: p.best(), "exactly one"),
        (lambda p, x: p.best(minimize=x / 2), "integer expression"),
        (lambda p, x: p.check({}), "no value for 'x'"),
        (lambda p, x: p.check({"x": 1, "y": 2}), "no variable 'y'"),
        (lambda p, x: (p.add(2 ** (10**9 * x) > x), p.count()), "bits"),
    ],
)
def test_misuse_ends_in_a_message(act, words: str) -> None:  # type: ignore[no-untyped-def]
    p = Problem("p")
    x = p.variable("x", [1, 2, 3])
    with pytest.raises(ConstrintError) as caught:
        act(p, x)
    assert words in str(caught.value)


def test_require_raises_where_there_is_nothing() -> None:
    p = Problem("empty")
    p.add(p.variable("x", [1, 2]) > 5)
    with pytest.raises(Infeasible, match="'empty' has no solution"):
        p.solve().require()


def test_plain_conditions_and_no_variables() -> None:
    for engine in ENGINES:
        p = Problem("nothing")
        assert (p.count(engine=engine), list(p.solutions(engine=engine))) == (1, [{}])
        assert p.solve(engine=engine).solution == {}
        p.add(divides(4, 8), "a formula on plain numbers")
        assert p.count(engine=engine) == 1
        p.add(divides(4, 9), "another")
        assert (p.count(engine=engine), p.solve(engine=engine).status) == (0, "infeasible")
        assert [c.label for c in p.explain(engine=engine)] == ["another"]


def test_importing_loads_nothing_heavy() -> None:
    script = (
        "import sys, constrint; constrint.Problem('p').solve();"
        "print([m for m in ('numpy', 'ortools', 'sympy', 'yaml', 'kernelgen') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output == "[]\n"


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_take_the_statement_of_a_problem(engine: str) -> None:
    """Data alone: no Problem, and nothing of one but its constraints."""
    problem = Problem("p")
    x, y = problem.variable("x", range(1, 10)), problem.variable("y", [2, 3, 5])
    constraints = [problem.add(x * y == 15), problem.add(x > 3)]
    order = {"x": True, "y": False}
    asked = engine_call(Statement("alone", problem.domains, constraints), engine)
    assert asked.first(order, None).solution == {"x": 5, "y": 3}
    assert list(asked.solutions(order)) == [{"x": 5, "y": 3}]
    assert asked.count(None) == 1
    assert asked.best(x + y, 1, order, None).objective == 8
    narrow = Statement("alone", {**problem.domains, "y": (2, 5)}, constraints)
    assert [str(each) for each in minimal_conflict(narrow, None, engine)] == ["x * y == 15", "x > 3"]
    assert solution_set(narrow, engine).count == 0


@pytest.mark.parametrize("values", [range(10_000), [1, 2, 3], ["a", 0.5]])
def test_a_variable_may_come_after_constraints(values: Any) -> None:
    """Whatever its values: what states conditions of many operators knows it."""
    problem = Problem("later")
    x = problem.variable("x", [1, 2, 3])
    problem.add((x & 1) == 1)
    later = problem.variable("later", values)
    problem.add(((x & 2) == 2) | (later == values[-1]))
    assert problem.count() == len(values) + 1
