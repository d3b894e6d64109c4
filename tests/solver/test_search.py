"""The search that learns from its failures: preferences in any order, proofs, conflicts, bounds; the fused kernel."""

from __future__ import annotations

import random
import sys
from itertools import pairwise

import pytest
from kernel_problems import kernels
from sweep import sweep
from work import counted

from constrint import Problem, TimeLimit, has_core, parse_constrint
from constrint.evaluate import holds
from constrint.native import fits
from constrint.presolve import prepare, presolve
from constrint.prove import PythonProver

pytestmark = pytest.mark.unit
needs_core = pytest.mark.skipif(not has_core(), reason="the C++ core is not built")


FEASIBLE = {(12, 64), (6, 128), (3, 256), (1, 768), (1, 1024), (1, 2048)}


@needs_core
@pytest.mark.parametrize("shape", kernels.SHAPES)
def test_fused_kernels_are_solved_in_preference_order_or_refuted(shape: tuple[int, int]) -> None:
    problem = kernels.fused_kernel(*shape)
    assert (len(problem.domains), len(kernels.PREFERENCES)) == (57, 28)
    result = problem.solve(prefer=kernels.PREFERENCES, time_limit=60)
    assert result.status == ("feasible" if shape in FEASIBLE else "infeasible")
    if result.solution is not None:
        assert problem.check(result.solution) == []
    if shape in {(12, 64), (1, 768), (1, 3072)}:
        assert problem.solve(prefer=kernels.PREFERENCES, engine="cp-sat").solution == result.solution


@needs_core
@pytest.mark.parametrize("seed", range(4))
def test_a_bad_order_of_preferences_does_not_matter(seed: int) -> None:
    """The order in which people prefer is not the order in which a search should decide."""
    rng = random.Random(seed)
    names = rng.sample([name for name, _ in kernels.PREFERENCES], 28)
    prefer = [(name, rng.choice(["min", "max"])) for name in names]
    problem = kernels.fused_kernel(*rng.choice(kernels.SHAPES[:6]))
    result = problem.solve(prefer=prefer, time_limit=60)
    assert result.solution == problem.solve(prefer=prefer, engine="cp-sat").solution is not None


@needs_core
def test_both_engines_find_the_same_first_solution_of_a_kernel() -> None:
    """With hardly any search, which the core does the same way, and better value by better value."""
    problem = kernels.fused_kernel(3, 256)
    native = problem.solve(prefer=kernels.PREFERENCES)
    with counted() as work:
        python = problem.solve(prefer=kernels.PREFERENCES, engine="python")
    assert python.solution == native.solution is not None
    assert work.nodes < 2 * len(problem.domains)
    assert work.revisions < 2000


@needs_core
def test_wide_numbers_saturate_in_the_core_and_stay_exact() -> None:
    """Sums and products beyond 64 bits, of numbers that are never negative: the core against Python's integers."""
    wide = 0
    for seed in range(150):
        rng = random.Random(seed)
        p = Problem(f"wide {seed}")
        x = [
            p.variable(f"x{i}", [rng.choice([0, 1, 2, 3, 2**20, 2**29 - 1, 2**30]) for _ in range(4)]) for i in range(4)
        ]

        def product(x: list = x, rng: random.Random = rng) -> object:
            result = rng.choice(x)
            for _ in range(rng.randint(0, 4)):
                result = result * rng.choice(x)
            return result + rng.choice([0, 1, rng.choice(x)])

        for _ in range(rng.randint(1, 3)):
            a, b = product(), rng.choice([product(), 2 ** rng.randint(20, 59), rng.randint(0, 5)])
            p.add(rng.choice([a == b, a <= b, a != b, a > b, a % 3 == 0]))
        program, _ = presolve(p)
        wide += program is not None and fits(program, wide=True) and not fits(program)
        prefer = [(f"x{rng.randint(0, 3)}", rng.choice(["min", "max"]))]
        native, python = p.solve(prefer=prefer), p.solve(prefer=prefer, engine="python")
        assert (native.status, native.solution) == (python.status, python.solution), seed
        if native.solution is None:
            core = p.explain()
            assert not any(all(holds(c.condition, s) for c in core) for s in p.subproblem([]).solutions()), seed
    assert wide > 20


@needs_core
@pytest.mark.parametrize("engine", ["native", "python"])
def test_time_limits_of_solve_and_explain(engine: str) -> None:
    """Without one, this would take forever."""
    p = Problem("hard")
    x = [p.variable(f"x{i}", range(2, 200)) for i in range(10)]
    p.add(sum(a * b * b for a, b in pairwise(x)) % 1_000_003 == 77)
    p.add(sum(a * a * b for a, b in zip(x, x[2:], strict=False)) % 1_000_033 == 78)
    result = p.solve(prefer=[(f"x{i}", "max") for i in range(10)], time_limit=0.1, engine=engine)
    assert (result.status, result.proven) == ("unknown", False)
    with pytest.raises(TimeLimit):
        p.explain(time_limit=0.1, engine=engine)


def test_the_python_prover_names_what_it_used() -> None:
    p = parse_constrint("A == [1 .. 9]; B == [1 .. 9]; C == [1 .. 9]; A * B == 35; A + B <= 11; C <= 4; B + C >= 3;")
    program, _ = presolve(p)
    if program is not None:
        prover = PythonProver(program, range(3), [False] * 3)
        assert prover.any() is None
        used = prover.conflict()
        assert used & 0b11 == 0b11
        assert not used & 0b1100
    assert [str(c) for c in p.explain(engine="python")] == ["A * B == 35", "A + B <= 11"]


def test_a_short_sweep() -> None:
    """The whole one: tests/solver/sweep.py, 20,000 problems."""
    report = sweep(60, start=900_000, largest=600)
    assert report.wrong == []
    assert len(list(report.lines())) == 1 + len(report.busy) == 1 + 5 * (1 + has_core())


@pytest.mark.parametrize("engine", ["native", "python"])
def test_differences_that_go_round_are_refuted_at_once(engine: str) -> None:
    for text, size in (
        ("X < Y; Y < X;", 2),
        ("A <= 5000; X < Y; Z + 3 == X; Y <= Z + 3; X <= A * 200000;", 3),
        ("X == Y + 1; Y == Z + 1; Z >= X - 1;", 3),
        ("2 * X - 2 * Y >= 1; 2 * X - 2 * Y <= 1;", 2),
        ("3 * X + 1 <= Y * 3; 6 * Y <= 5 + X * 6;", 2),
    ):
        p = parse_constrint(text)
        assert prepare(p).program is None, "there is something left to search"
        with counted() as work:
            core = p.explain(engine=engine, time_limit=60)
        assert work.engine_calls <= 4, text
        assert work.revisions < 500, text
        assert work.nodes < 150, text
        assert len(core) + len(core.definitions) == size, text
    feasible = parse_constrint("X < Y; Y <= Z + 3; Z + 4 <= X + 6; X == 1000;")
    assert feasible.solve(engine=engine).solution == {"X": 1000, "Y": 1001, "Z": 998}


@pytest.mark.parametrize("engine", ["native", "python"])
def test_many_long_ranges_leave_room_on_the_stack(engine: str) -> None:
    p = Problem("deep")
    x = [p.variable(f"x{i}", range(1, 2**30)) for i in range(40)]
    for a, b in pairwise(x):
        p.add((a * b) % 7 != 3)
        p.add(a * a != b)
    before = sys.getrecursionlimit()
    result = p.solve(engine=engine)
    assert result.solution is not None
    assert p.check(result.solution) == []
    assert p.check(next(p.solutions(engine=engine))) == []
    assert sys.getrecursionlimit() == before
