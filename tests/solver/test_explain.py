"""Conflicts: minimal, of the fewest constraints, in the words they were written in; twenty infeasible kernels."""

from __future__ import annotations

import random
import time
from itertools import combinations, pairwise

import pytest
from kernel_problems import kernels
from random_problems import has_solution, random_problem
from work import Ticking, counted

from constrint import Problem, TimeLimit, has_core, parse_constrint
from constrint.explain import definitions, fewest

pytestmark = pytest.mark.unit
needs_core = pytest.mark.skipif(not has_core(), reason="the C++ core is not built")


@needs_core
@pytest.mark.parametrize("number", range(20))
def test_infeasible_kernels_are_explained_in_few_words(number: int) -> None:
    """At most six constraints after few questions, which conflict, and of which none can be left out."""
    problem = kernels.infeasible_shapes()[number]
    with counted() as work:
        core = problem.explain(time_limit=60)
    assert work.engine_calls <= 12 + 5 * len(core)
    assert 1 <= len(core) <= 6
    whole = [*core, *core.definitions]
    assert problem.subproblem(whole).solve(time_limit=60).status == "infeasible"
    for left_out in core:
        rest = problem.subproblem([c for c in whole if c is not left_out])
        assert rest.solve(time_limit=60).status == "feasible", left_out


def test_there_are_twenty_infeasible_kernels() -> None:
    assert len({problem.name for problem in kernels.infeasible_shapes()}) == 20


@pytest.mark.parametrize("engine", ["native", "python"])
def test_conflicts_are_of_the_fewest_constraints(engine: str) -> None:
    """On random conflicts of several sizes, against all subsets by brute force."""
    sizes = []
    for seed in range(700_000, 700_150):
        problem = random_problem(seed, 60)
        for other in random_problem(seed + 10**6, 60).constraints:
            if all(name in problem.domains for name in other.condition.variables()):
                problem.add(other.condition, other.label)
        core = problem.explain(engine=engine)
        for count in range(len(core)):
            for chosen in combinations(problem.constraints, count):
                assert has_solution(problem.subproblem(chosen)), (seed, [str(c) for c in chosen])
        sizes.append(len(core))
    assert len(set(sizes)) > 3


def test_fewest_members_that_meet_every_set() -> None:
    for seed in range(300):
        rng = random.Random(seed)
        members = range(rng.randint(1, 7))
        sets = [frozenset(rng.sample(members, rng.randint(1, len(members)))) for _ in range(rng.randint(0, 6))]
        size, below = 0, rng.randint(0, 5)
        while not any(all(each & set(chosen) for each in sets) for chosen in combinations(members, size)):
            size += 1
        found = fewest(sets, below)
        assert (found is None) is (size >= below)
        assert found is None or (len(found) == size and all(each & found for each in sets))


@pytest.mark.parametrize("engine", ["native", "python"])
def test_large_conflicts_are_shrunk_with_a_question_a_member(engine: str) -> None:
    """A chain that is one step too long, among constraints that have no part in it: every step is needed."""
    p = Problem("chain")
    x = [p.variable(f"x{i}", range(30)) for i in range(31)]
    steps = [p.add(a < b) for a, b in pairwise(x)]
    for i in range(0, 28, 2):
        p.add((x[i] + x[i + 1]) % 29 != 28)
        p.add(x[i] * x[i + 2] != 7)
    with counted() as work:
        core = p.explain(engine=engine, time_limit=60)
    assert list(core) == steps
    assert work.engine_calls <= len(steps) + 5
    assert work.revisions < 20_000
    assert work.nodes < 40 * work.engine_calls


def test_the_time_of_fewest_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(1)
    sets = [frozenset(rng.sample(range(60), 9)) for _ in range(120)]
    clock = Ticking()
    monkeypatch.setattr(time, "perf_counter", clock)
    with pytest.raises(TimeLimit):
        fewest(sets, 40, clock() + 0.1)
    assert 100 <= clock.looks < 110


@pytest.mark.parametrize("engine", ["native", "python"])
def test_definitions_are_background(engine: str) -> None:
    p = parse_constrint("""
        ROWS == [16, 32, 64]; WIDTH == [64, 128]; STAGES == [1, 2];
        BYTES == 2 * ROWS * WIDTH;
        SHARED == BYTES * STAGES;
        UNUSED == ROWS + 1;
        SHARED <= 4096;
        STAGES * ROWS >= 32;
        ROWS <= 64;
    """)
    assert [str(p.constraints[i]) for i in definitions(p)] == [
        "BYTES == 2 * ROWS * WIDTH",
        "SHARED == BYTES * STAGES",
        "UNUSED == ROWS + 1",
    ]
    assert p.explain(engine=engine) == []
    limit = p.add(p.constraints[3].condition.args[0] <= 2047, "at most 2,047 bytes")
    core = p.explain(engine=engine)
    assert list(core) == [limit] or [str(c) for c in core] == ["SHARED <= 2047"]
    assert [str(c) for c in core.definitions] == ["BYTES == 2 * ROWS * WIDTH", "SHARED == BYTES * STAGES"]


def test_circular_and_second_equations_are_no_definitions() -> None:
    p = parse_constrint("A == B + 1; B == A * C; C == 3; C == D; 5 == E;")
    assert definitions(p) == {0: "A", 2: "C", 3: "D", 4: "E"}
    contradiction = parse_constrint("A == B + C; B == 5; C == 6; A <= 20; D == A; D == 100 | D == 101;")
    core = contradiction.explain()
    assert contradiction.subproblem([*core, *core.definitions]).solve().status == "infeasible"
    scaled = parse_constrint("W == 32; 4 * W * A == B; Z == 0; Z * C == 2; 3 * D == 9 * D; B * E == 12; B == [2 .. 8];")
    assert definitions(scaled) == {0: "W", 1: "A", 2: "Z"}
    # The values that a defined variable can take are a limit too, and then the definition itself is at fault.
    narrow = Problem("narrow")
    a = narrow.variable("a", range(1, 10))
    b = narrow.variable("b", range(100_000))
    narrow.add(b == a - 20, "b is a - 20")
    assert [str(c) for c in narrow.explain()] == ["b is a - 20"]


@needs_core
def test_random_conflicts_with_definitions() -> None:
    """Helper quantities over random choices: what is reported conflicts, and nothing of it can be left out."""
    conflicts = 0
    for seed in range(60):
        rng = random.Random(seed)
        p = Problem(f"helpers {seed}")
        choices = [p.variable(f"x{i}", rng.sample(range(1, 12), 4)) for i in range(4)]
        known = list(choices)
        for i in range(3):
            helper = p.variable(f"h{i}", range(1, 2**30))
            p.add(helper == rng.choice(known) * rng.choice(known) + rng.choice(choices))
            known.append(helper)
        for _ in range(5):
            a, b = rng.choice(known), rng.choice(known)
            p.add(rng.choice([a % rng.randint(2, 5) == 1, a <= b, a + b <= rng.randint(10, 200), a >= 3 * b]))
        for engine in ("native", "python"):
            core = p.explain(engine=engine)
            assert bool(core) is (p.solve(engine="cp-sat").status == "infeasible"), seed
            conflicts += bool(core)
            whole = [*core, *core.definitions]
            assert not core or p.subproblem(whole).solve(engine=engine).status == "infeasible", seed
            for left_out in core:
                rest = p.subproblem([c for c in whole if c is not left_out])
                assert rest.solve().status == "feasible", (seed, left_out)
    assert conflicts > 20
