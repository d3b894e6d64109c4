"""Every conflict is one, whatever the definitions: hundreds of small infeasible problems, both engines."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from constrint import Constraint, Problem, cdiv, parse_constrint

pytestmark = pytest.mark.unit

INFEASIBLE = 150
"""Infeasible problems that each engine explains."""


def derived_problem(seed: int) -> Problem:
    """Few choices, quantities derived from them (and from each other) over long ranges, and limits on all of these."""
    rng = random.Random(seed)
    problem = Problem(f"derived {seed}")
    known = [problem.variable(f"a{i}", rng.sample(range(1, 9), rng.randint(1, 3))) for i in range(rng.randint(1, 3))]
    for i in range(rng.randint(1, 3)):
        first = rng.choice([0, 1, 1, 20, 10_000])
        free = problem.variable(f"v{i}", range(first, first + rng.choice([5_000, 100_000, 2**30])))
        x, y = rng.choice(known), rng.choice(known)
        meaning = rng.choice([x * y, x + y, rng.randint(0, 4) * x, cdiv(x, y), x - y, x * x + 3, 12 // x])
        problem.add(rng.choice([free == meaning, meaning == free, 2 * free == meaning, free == meaning]))
        known.append(free)
    for _ in range(rng.randint(1, 4)):
        x, y, bound = rng.choice(known), rng.choice(known), rng.choice([0, 1, 3, 5, 9, 20, 200])
        problem.add(rng.choice([x <= bound, x >= bound, x + y == bound, x % y == 1, x > y, x != y, x == y]))
    return problem


def check_conflict(problem: Problem, core: Sequence[Constraint], definitions: Sequence[Constraint], other: str) -> None:
    """Another engine says that the conflict is one, and a solution of each rest that no member can be left out."""
    context = f"{problem.name}: {[str(c) for c in core]} with {[str(c) for c in definitions]}"
    assert core, context
    assert problem.subproblem([*core, *definitions]).solve(engine=other).status == "infeasible", context
    for left_out in core:
        rest = problem.subproblem([c for c in (*core, *definitions) if c is not left_out])
        witness = rest.solve(time_limit=20).solution
        assert witness is not None, f"{left_out} in {context}"
        assert rest.contains(witness), f"{left_out} in {context}"


@pytest.mark.parametrize("engine", ["native", "python"])
def test_conflicts_of_derived_quantities(engine: str) -> None:
    seed = found = self_contradicting = 0
    while found < INFEASIBLE:
        seed += 1
        problem = derived_problem(seed)
        result = problem.solve()
        core = problem.explain(engine=engine)
        if result.status == "feasible":
            assert core == [], problem.name
            assert result.solution is not None
            assert problem.contains(result.solution)
            continue
        found += 1
        check_conflict(problem, core, core.definitions, "python" if engine == "native" else "native")
        if found % 10 == 0:
            assert problem.subproblem([*core, *core.definitions]).solve(engine="cp-sat").status == "infeasible"
        self_contradicting += not core.definitions
    assert 10 < self_contradicting < found - 10


@pytest.mark.parametrize("engine", ["native", "python", "cp-sat"])
def test_definitions_that_conflict_by_themselves(engine: str) -> None:
    problem = Problem("defined")
    x, w = problem.variable("x", [1, 2]), problem.variable("w", range(10_000, 20_000))
    problem.add(x > 5)
    problem.add(w == x)
    core = problem.explain(engine=engine)
    check_conflict(problem, core, core.definitions, "python")
    for text in ("A == [1, 2]; 5 <= A; S == 0 * A;", "A == [1, 2]; V == 3 * A; 236 <= V; S == 0 * A;"):
        problem = parse_constrint(text)
        core = problem.explain(engine=engine)
        assert len(core) == 1
        check_conflict(problem, core, core.definitions, "python")
    # The one that needs the definition of V names it as such.
    problem = parse_constrint("A == [1, 2]; V == 3 * A; 236 <= V;")
    core = problem.explain(engine=engine)
    assert ([str(c) for c in core], [str(c) for c in core.definitions]) == (["236 <= V"], ["V == 3 * A"])


def test_what_the_engine_says_it_used_is_only_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that names too few of the constraints it used does not lead to a conflict that is none."""
    from constrint.engine import SearchCall

    honest = SearchCall.find_conflict

    def names_too_few(self, chosen, time_limit):  # type: ignore[no-untyped-def]
        answer = honest(self, chosen, time_limit)
        return frozenset(sorted(answer)[:1]) if isinstance(answer, frozenset) else answer

    monkeypatch.setattr(SearchCall, "find_conflict", names_too_few)
    problem = Problem("hints")
    x, y, z = (problem.variable(name, range(5)) for name in "xyz")
    for condition in (x < y, y < z, z < x, x + y + z >= 1):
        problem.add(condition)
    core = problem.explain()
    assert [str(c) for c in core] == ["x < y", "y < z", "z < x"]
