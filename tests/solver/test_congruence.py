"""Remainders: equations without a solution over long ranges, and what remainders leave of a domain."""

from __future__ import annotations

import random

import pytest
from random_problems import solutions_of
from work import counted

from constrint import Problem, has_core
from constrint.evaluate import evaluate
from constrint.presolve import prepare, presolve
from constrint.python_text import parse_restriction

pytestmark = pytest.mark.unit
ENGINES = ["native", "python"] if has_core() else ["python"]

CONTRADICTIONS = [
    (["2 * x + 2 * y == 7"], 1),
    (["6 * x + 9 * y + 15 * z == 10"], 1),
    (["2 * x * y + 4 * z == 1"], 1),
    (["(2 * x + 4 * y) % 8 == 3"], 1),
    (["(2 * x + 1) % 6 == 0", "x + y == 3"], 1),
    (["x % 4 == 1", "y > x", "x % 6 == 2"], 2),
    (["x % 4 == 1", "x % 6 == 3", "x % 9 == 4"], 2),
    (["x + 6 * y - 4 * z == 0", "x % 10 == 5"], 2),
    (["6 * x ** 3 == 4 * y + 3"], 1),
    (["abs(2 * x) == 2 * y + 1"], 1),
    (["min(2 * x, 4 * y + 2) == 2 * z + 1"], 1),
    (["(x // 3) * 2 == 2 * y + 1"], 1),
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("texts", "size"), CONTRADICTIONS)
def test_contradictions_show_at_once_over_long_ranges(engine: str, texts: list[str], size: int) -> None:
    p = Problem("remainders")
    for name in "xyz":
        p.variable(name, range(-(10**9), 10**9))
    for text in texts:
        p.add(parse_restriction(text, p.domains), text)
    assert prepare(p).program is None, "there is something left to search"
    with counted() as work:
        core = p.explain(engine=engine, time_limit=60)
    assert len(core) == size
    assert work.engine_calls <= 2 * len(texts)
    assert work.revisions < 1500
    assert work.nodes < 200
    assert p.solve(engine=engine, time_limit=60).status == "infeasible"


def test_ranges_take_the_steps_that_remainders_leave() -> None:
    p = Problem("steps")
    x, y = p.variable("x", range(10**9)), p.variable("y", range(1, 10**9, 2))
    p.add(x % 12 == 5)
    p.add((x + y) % 9 == 0)
    program, _ = presolve(p)
    assert program is not None
    assert program.domains[0] == range(5, 10**9, 12)
    assert program.domains[1] == range(1, 10**9, 6)
    for engine in ENGINES:
        solution = p.solve(prefer=[("x", "max")], engine=engine).solution
        assert solution == {"x": 10**9 - 11, "y": 1}
        assert p.check(solution) == []


def test_no_solution_is_lost() -> None:
    """Random equations with remainders, over short ranges: what presolve leaves of the domains holds every solution."""
    shortened = refuted = 0
    for seed in range(1500):
        rng = random.Random(seed)
        p = Problem(f"remainders {seed}")
        for name in "xyz":
            start, step = rng.randint(-20, 5), rng.randint(1, 4)
            p.variable(name, range(start, start + step * rng.randint(1, 9), step))

        def term(rng: random.Random = rng) -> str:
            factor = rng.choice([1, 2, 2, 3, 4, 6, -2, -3])
            inner = rng.choice(
                ["x", "y", "z", "x * y", "x ** 2", "abs(z)", "(x % 4)", "(y // 2)", "min(x, z)", "(z // y)"]
            )
            return f"{factor} * {inner}"

        # Most equations hold at one point at least.
        point = {name: rng.choice(domain) for name, domain in p.domains.items()}
        for _ in range(rng.randint(1, 3)):
            left = " + ".join(term() for _ in range(rng.randint(1, 3)))
            left = f"({left})" + rng.choice([f" % {rng.choice([2, 3, 4, 6, -4])}", "", " % (2 * y)"])
            value = evaluate(parse_restriction(f"{left} == 0", p.domains).args[0], point)
            right = value if value is not None and rng.random() < 0.7 else rng.choice([rng.randint(-9, 9), term()])
            p.add(parse_restriction(f"{left} == {right}", p.domains))
        solutions = solutions_of(p)
        program, _ = presolve(p)
        if program is None:
            assert not solutions, seed
            refuted += 1
            continue
        shortened += any(
            len(domain) < len(p.domains[name]) for name, domain in zip("xyz", program.domains, strict=True)
        )
        for solution in solutions:
            assert all(solution[name] in domain for name, domain in zip("xyz", program.domains, strict=True)), seed
    assert min(shortened, refuted) > 200
