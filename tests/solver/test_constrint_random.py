"""Random small problems with every operator: each answer of each engine against brute force."""

from __future__ import annotations

import pytest
from brute_force import check_everything
from random_problems import random_problem, solutions_of

from constrint import has_core
from constrint.evaluate import holds
from constrint.python_printing import print_expression
from constrint.python_text import parse_restriction

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("block", range(6))
def test_native_engine(block: int) -> None:
    if not has_core():
        pytest.skip("the C++ core is not built; test_constrint_core.py says whether it should be")
    for seed in range(100 * block, 100 * (block + 1)):
        check_everything(seed, "native", largest=600)


@pytest.mark.parametrize("block", range(6))
def test_python_engine(block: int) -> None:
    for seed in range(100_000 + 50 * block, 100_000 + 50 * (block + 1)):
        check_everything(seed, "python", largest=400)


@pytest.mark.parametrize("engine", ["native", "python", "cp-sat"])
def test_ranges_that_are_not_listed(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges keep bounds alone and are split in halves; here small ones are made to."""
    monkeypatch.setattr("constrint.domains.LIST_LIMIT", 2)
    monkeypatch.setattr("constrint.search.SPLIT_ABOVE", 3)
    for seed in range(600_000, 600_000 + {"native": 60, "python": 30, "cp-sat": 10}[engine]):
        check_everything(seed, engine, ranges=True)


def test_cp_sat_engine() -> None:
    for seed in range(200_000, 200_080):
        check_everything(seed, "cp-sat", largest=150)


def test_solutions_pass_check_and_others_do_not() -> None:
    for seed in range(300_000, 300_100):
        problem = random_problem(seed, 200)
        for solution in problem.solutions():
            assert problem.check(solution) == []
            assert all(holds(c.condition, solution) for c in problem.constraints)
        if problem.explain():
            first = {name: domain[0] for name, domain in problem.domains.items()}
            assert problem.check(first)


def test_python_text_round_trip() -> None:
    """What is printed reads back to the same solutions and prints the same again."""
    for seed in range(400_000, 400_300):
        problem = random_problem(seed, 150)
        texts = [print_expression(constraint.condition) for constraint in problem.constraints]
        again = problem.subproblem([])
        for text in texts:
            again.add(parse_restriction(text, problem.domains))
        assert solutions_of(again) == solutions_of(problem), (seed, texts)
        parsed = [print_expression(constraint.condition) for constraint in again.constraints]
        reparsed = [print_expression(parse_restriction(text, problem.domains)) for text in parsed]
        assert parsed == reparsed, seed


def test_the_generator_covers_every_operator() -> None:
    seen: set[str] = set()
    for seed in range(300):
        stack = [constraint.condition for constraint in random_problem(seed).constraints]
        while stack:
            node = stack.pop()
            seen.add(node.op)
            stack.extend(node.args)
    every = "const var + - * // cdiv / % ** min max abs neg == != < <= > >= and or not implies divides table"
    assert seen >= set(every.split())


def test_random_problems_are_neither_all_feasible_nor_all_infeasible() -> None:
    feasible = sum(random_problem(seed).solve().status == "feasible" for seed in range(200))
    assert 40 < feasible < 195
