"""What constraints over many variables say of bounds together: never too much, and the same in both engines."""

from __future__ import annotations

import itertools
import random

import pytest
from work import counted

from constrint import Problem, all_different, cumulative, has_core, implies
from constrint.presolve import prepare
from constrint.program import Rule
from constrint.rules import different, timetable

pytestmark = pytest.mark.unit


def test_bounds_of_different_numbers_keep_every_way() -> None:
    narrower = 0
    for seed in range(500):
        rng = random.Random(seed)
        bounds = [(low, low + rng.randint(0, 3)) for low in (rng.randint(0, 4) for _ in range(rng.randint(2, 5)))]
        ways = [row for row in itertools.product(*(range(a, b + 1) for a, b in bounds)) if len({*row}) == len(row)]
        found = bounds
        while found is not None and (again := different(found)) != found:
            found, narrower = again, narrower + 1
        # Bounds alone decide it: whatever remains has a way, and its ends do.
        if not ways:
            assert found is None or any(a > b for a, b in found), bounds
            continue
        assert found == [(min(column), max(column)) for column in zip(*ways, strict=True)], bounds
    assert narrower > 100


def test_a_timetable_keeps_every_way() -> None:
    narrower = refuted = 0
    for seed in range(500):
        rng = random.Random(seed)
        count = rng.randint(2, 4)
        bounds = [(low, low + rng.randint(0, 4)) for low in (rng.randint(0, 4) for _ in range(count))]
        lengths, demands = ([rng.randint(1, 4) for _ in range(count)] for _ in range(2))
        capacity = rng.randint(3, 6)

        ways = [
            row
            for row in itertools.product(*(range(a, b + 1) for a, b in bounds))
            if max(
                sum(q for s, d, q in zip(row, lengths, demands, strict=True) if s <= time < s + d) for time in range(14)
            )
            <= capacity
        ]
        found = timetable(bounds, lengths, demands, capacity)
        if found is None or any(a > b for a, b in found):
            assert not ways, bounds
            refuted += 1
            continue
        narrower += found != bounds
        for column, (least, most) in zip(zip(*ways, strict=True), found, strict=False):
            assert least <= min(column)
            assert max(column) <= most
        if all(a == b for a, b in bounds):
            assert ways, "where every start is known it decides"
    assert narrower > 30
    assert refuted > 30


def crowded(birds: int) -> Problem:
    """As many birds as holes, of which whatever is chosen closes one."""
    problem = Problem("crowded")
    closed = problem.variable("closed", [0, 1])
    holes = [problem.variable(f"bird{i}", range(birds)) for i in range(birds)]
    problem.add(all_different([hole + 2 * (i % 2) for i, hole in enumerate(holes)]))
    for i, hole in enumerate(holes):
        problem.add(implies(closed == 0, hole + 2 * (i % 2) <= birds - 2))
        problem.add(implies(closed == 1, hole + 2 * (i % 2) >= 3))
    return problem


def queue(tasks: int) -> Problem:
    """Tasks one after the other, with a time too little."""
    problem = Problem("queue")
    starts = [problem.variable(f"s{i}", range(3 * (tasks - 1))) for i in range(tasks)]
    problem.add(cumulative(starts, [3] * tasks, [2] * tasks, 3))
    return problem


@pytest.mark.parametrize("problem", [crowded(6), queue(4)], ids=["different", "tasks"])
def test_rules_save_nodes(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    with counted() as work:
        assert problem.solve(engine="python").status == "infeasible"
    monkeypatch.setattr("constrint.presolve.find_rules", lambda *arguments: [])
    with counted() as without:
        assert problem.solve(engine="python").status == "infeasible"
    assert work.nodes * 3 < without.nodes
    for engine in ("native", "python"):
        assert len(problem.explain(engine=engine)) == (13 if problem.name == "crowded" else 1)


def test_what_becomes_a_rule() -> None:
    problem = Problem("rules")
    x, y, z, w = (problem.variable(name, range(8)) for name in "xyzw")
    problem.add(all_different([x, y + 1, 2 + z, w - 3]))
    problem.add(cumulative([x, y + 2, 2 * z, w], [2, 3, 1, w], [1, 2, 1, 1], 3))
    problem.add(cumulative([x, y, z], [2, 3, 1], [1, w, 1], z + 1))  # its capacity is not known
    program = prepare(problem).program
    assert program is not None
    assert program.rules == [
        Rule((0, 1, 2, 3), (0, 1, 2, -3), 1),
        Rule((0, 1), (0, 2), 2, (2, 3), (1, 2), 3),
    ]
    assert prepare(problem, chosen=[0]).program.rules == program.rules[:1]  # type: ignore[union-attr]
    counts = {problem.count(engine=engine) for engine in ("native", "python", "cp-sat")}
    assert len(counts) == 1
    if has_core():
        listed = [list(problem.solutions(engine=engine)) for engine in ("native", "python")]
        assert listed[0] == listed[1]
        assert len(listed[0]) == counts.pop() > 0
