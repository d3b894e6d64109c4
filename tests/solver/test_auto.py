"""Two engines on one problem: who was first, what stops the other, and what they know together."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import threading
from typing import Any

import pytest

import constrint.auto
import constrint.cpsat
import constrint.searcher
from constrint import ConstrintError, Problem, TimeLimit, cdiv, maximum, total
from constrint.auto import AutoCall
from constrint.engine import SearchCall
from constrint.forecast import sums_prevail
from constrint.limits import check_time
from constrint.presolve import prepare
from constrint.result import Answer

pytestmark = pytest.mark.unit


def knapsack(items: int, limits: int, seed: int = 1) -> tuple[Problem, Any]:
    rng = random.Random(seed)
    problem = Problem("knapsack")
    taken = [problem.variable(f"x{i}", [0, 1]) for i in range(items)]
    for _ in range(limits):
        weights = [rng.randint(1, 1000) for _ in taken]
        problem.add(total(w * x for w, x in zip(weights, taken, strict=True)) <= sum(weights) // 2)
    return problem, total(rng.randint(1, 1000) * x for x in taken)


class Slow:
    """An engine that looks at the clock until it is stopped, or answers when it is told to."""

    def __init__(self, told: threading.Event, answer: Answer) -> None:
        self.told, self.answer, self.stopped = told, answer, False

    def first(self, order: object, time_limit: float | None) -> Answer:
        try:
            # Python lets one thread compute at a time: most of it is the other engine's. 20,000: against a hang alone.
            for _ in range(20_000):
                if self.told.wait(0.003):
                    return self.answer
                check_time(None)
        except TimeLimit:
            self.stopped = True
            return Answer("unknown")
        raise AssertionError("neither told nor stopped")

    def best(self, objective: object, sign: int, order: object, time_limit: float | None) -> Answer:
        return self.first(order, time_limit)


def small() -> tuple[Problem, Any]:
    problem = Problem("small")
    x = problem.variable("x", range(9))
    problem.add(x * x >= 10)
    return problem, x


def test_cp_sat_stops_the_native_engine() -> None:
    problem, _ = small()
    slow = Slow(threading.Event(), Answer("infeasible"))
    answer = AutoCall(problem, slow).first({"x": True}, None)  # type: ignore[arg-type]
    assert (answer.status, answer.solution) == ("feasible", {"x": 8})
    assert slow.stopped


def test_the_native_engine_stops_cp_sat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constrint.auto, "MOMENT", 0.0)
    problem, objective = knapsack(40, 3)
    known = Answer("feasible", {"x": 1}, 1, True, 1)
    solve, begun = constrint.cpsat.CpSatCall._run, threading.Event()

    def beginning(*arguments: Any) -> Any:
        begun.set()
        return solve(*arguments)

    monkeypatch.setattr(constrint.cpsat.CpSatCall, "_run", beginning)
    slow = Slow(begun, known)
    # Finding the first of all best solutions takes CP-SAT one search a variable; ours answers when the first begins.
    order = dict.fromkeys(problem.domains, True)
    assert AutoCall(problem, slow).best(objective * objective, 1, order, None) is known  # type: ignore[arg-type]
    for thread in threading.enumerate():
        if thread.name == "constrint CP-SAT":
            thread.join(timeout=60)  # against a hang alone
            assert not thread.is_alive()


def test_a_quick_answer_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constrint.auto, "MOMENT", 60.0)
    monkeypatch.setattr(constrint.auto, "_Rival", None)
    problem, objective = small()
    assert problem.best(minimize=objective, engine="auto").objective == 4


def test_a_process_may_end_while_cp_sat_is_loading() -> None:
    code = (
        "import constrint.auto; constrint.auto.MOMENT = 0.0; from constrint import Problem; p = Problem('p')\n"
        "x, y = p.variable('x', range(50)), p.variable('y', range(50)); p.add(x * y > 3); print(p.solve().status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (done.stdout, done.stderr, done.returncode) == ("feasible\n", "", 0)


def test_cp_sat_that_cannot_hold_it_leaves_it_to_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constrint.auto, "MOMENT", 0.0)
    problem = Problem("wide")
    x, y = problem.variable("x", range(2**62, 2**62 + 50)), problem.variable("y", range(2**62, 2**62 + 50))
    problem.add(x * y == (2**62 + 7) * (2**62 + 11))
    assert problem.solve(engine="auto").solution == {"x": 2**62 + 7, "y": 2**62 + 11}
    with pytest.raises(ConstrintError, match="2\\*\\*61"):
        problem.solve(engine="cp-sat")


def wide(which: int) -> Problem:
    """Numbers whose bounds CP-SAT may not hold, though every value of the constraint may be small."""
    problem = Problem("wide")
    x, y = problem.variable("x", range(1, 2**50)), problem.variable("y", range(1000, 2000))
    z, w = problem.variable("z", range(1, 2**20)), problem.variable("w", range(1, 2**40))
    none = problem.variable("none", [0])
    conditions = [
        (x // y) * z == 2**58,
        (x % w) * z * 4 >= 2**55,
        x * w * z >= 2**70,
        2**40 * (2**45 * none) + x >= 5,
        cdiv(x * w, z) % 7 == 3,
        cdiv(x, y - 1500) * z * 2 <= 2**50,
        maximum(x * w, 2**63) == 2**63,
    ]
    problem.add(conditions[which])
    return problem


@pytest.mark.parametrize("which", range(7))
def test_numbers_too_wide_for_cp_sat_are_refused_in_words(which: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constrint.auto, "MOMENT", 0.0)
    broken: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", broken.append)
    problem = wide(which)
    for engine in ("auto", "cp-sat"):
        refused, solution = "", None
        try:
            solution = problem.solve(prefer=None, engine=engine).solution
        except ConstrintError as error:
            refused = str(error)
        assert not refused or (engine == "cp-sat" and "2**61" in refused)
        assert not refused or which not in (0, 3), "it could hold these"
        assert refused or (solution is not None and problem.contains(solution))
    for thread in threading.enumerate():
        if thread.name == "constrint CP-SAT":
            thread.join(timeout=60)  # against a hang alone
    assert not broken


def test_errors_of_ours_are_raised() -> None:
    class Broken(Slow):
        def first(self, order: object, time_limit: float | None) -> Answer:
            super().first(order, time_limit)
            raise ConstrintError("broken")

    told = threading.Event()
    told.set()
    with pytest.raises(ConstrintError, match="broken"):
        AutoCall(small()[0], Broken(told, Answer("unknown"))).first({"x": False}, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("moment", [0.0, 0.002])
def test_answers_do_not_depend_on_who_was_first(moment: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constrint.auto, "MOMENT", moment)
    for seed in range(6):
        problem, objective = knapsack(9, 2, seed)
        prefer = [("x3", "max"), ("x1", "max")]
        ours = SearchCall(problem, True).best(objective, -1, problem._order(prefer), None)
        found = problem.best(maximize=objective, prefer=prefer, engine="auto")
        assert (found.objective, found.solution, found.proven) == (ours.objective, ours.solution, True)
        any_best = problem.best(maximize=objective, prefer=None, engine="auto")
        assert any_best.objective == found.objective
        first = problem.solve(prefer=prefer, engine="auto").solution
        assert first == problem.solve(prefer=prefer, engine="python").solution


def test_both_engines_search_what_was_presolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constrint.auto, "MOMENT", 0.0)
    made: list[Any] = []
    real = constrint.auto.prepare

    def preparing(*arguments: Any, **options: Any) -> Any:
        made.append(real(*arguments, **options))
        return made[-1]

    for module in (constrint.auto, constrint.searcher, constrint.cpsat):
        monkeypatch.setattr(module, "prepare", preparing)
    problem, objective = knapsack(30, 3)
    assert problem.best(maximize=objective, engine="auto").objective == 12427
    assert len(made) == 1


def test_sums_over_many_variables_are_cp_sats(monkeypatch: pytest.MonkeyPatch) -> None:
    def foreseen(problem: Problem, objective: Any) -> bool:
        prepared = prepare(problem, -objective)
        assert prepared.program is not None
        assert prepared.objective is not None
        return sums_prevail(prepared.program, prepared.objective)

    problem, objective = knapsack(40, 3)
    assert foreseen(problem, objective)
    assert not foreseen(problem, objective * objective)
    assert not foreseen(*knapsack(15, 3))  # few variables
    assert not foreseen(*knapsack(16, 1))  # which leave the sum few values
    coarse = Problem("coarse")
    steps = [coarse.variable(f"x{i}", range(0, 6400, 3200)) for i in range(200)]
    coarse.add(total(3 * x for x in steps) <= 400_000)
    assert not foreseen(coarse, total(steps))  # its steps are large
    # CP-SAT answers, and ours is not asked; where CP-SAT cannot hold the numbers, ours is.
    never = Slow(threading.Event(), Answer("infeasible"))
    found = AutoCall(problem, never).best(objective, -1, {}, None)  # type: ignore[arg-type]
    assert found.proven
    assert found.objective == problem.best(maximize=objective, prefer=None, engine="cp-sat").objective
    small, objective = knapsack(18, 2)
    assert foreseen(small, objective)
    known = small.best(maximize=objective, prefer=None, engine="native").objective
    monkeypatch.setattr("constrint.cpsat_model.fits", lambda program: False)
    assert small.best(maximize=objective, prefer=None).objective == known


def test_a_time_limit_keeps_the_best_of_both() -> None:
    problem, objective = knapsack(60, 4)
    found = problem.best(maximize=objective * objective, time_limit=0.1, engine="auto")
    assert found.status in ("feasible", "unknown")
    if found.solution is not None:
        assert problem.contains(found.solution)
        assert found.bound is not None
        assert found.objective is not None
        assert found.objective <= found.bound


def test_cp_sat_that_had_no_time_claims_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    solve = constrint.cpsat.CpSatCall._run

    def hurried(call: Any, solver: Any, model: Any, collect: Any) -> Any:
        solver.parameters.max_time_in_seconds = 1e-9
        return solve(call, solver, model, collect)

    monkeypatch.setattr(constrint.cpsat.CpSatCall, "_run", hurried)
    problem, objective = knapsack(60, 4)
    found = problem.best(maximize=objective, prefer=None, engine="cp-sat")
    assert found.status == "unknown"
    assert found.bound is not None
    assert found.bound >= 20_512  # the optimum


@pytest.mark.parametrize(
    ("reported", "bound"), [(53.00000000000001, 53), (53.0, 53), (53.01, 54), (-7.999999999999, -8)]
)
def test_a_bound_of_cp_sat_is_a_rounded_number(reported: float, bound: int) -> None:
    """It may be a little above what was proved."""
    assert constrint.cpsat._bound(reported, -100) == bound
    assert constrint.cpsat._bound(2.0**51 + 1, 0) <= 2**51 + 1
    for nothing in (0.0, float("inf"), float("-inf"), float("nan"), 2.0**60):
        assert constrint.cpsat._bound(nothing, 5) == 5


def test_what_two_searches_know_together() -> None:
    joined = constrint.auto._joined
    ours, theirs = Answer("feasible", {"x": 1}, 7, False, 3), Answer("feasible", {"x": 2}, 6, False, 2)
    assert joined(ours, theirs, 1) == Answer("feasible", {"x": 2}, 6, False, 3)
    assert joined(ours, theirs, -1).objective == 7
    met = joined(Answer("feasible", {"x": 1}, 7, False, 3), Answer("unknown", bound=7), 1)
    assert (met.objective, met.proven, met.bound) == (7, True, 7)
    assert joined(Answer("unknown", bound=2), Answer("unknown"), 1) == Answer("unknown", bound=2)


@pytest.mark.parametrize("engine", ["auto", "native", "python", "cp-sat"])
def test_any_solution_will_do(engine: str) -> None:
    problem = Problem("any")
    variables = [problem.variable(name, range(4)) for name in "abc"]
    for a, b in itertools.combinations(variables, 2):
        problem.add(a * b != 2)
    found = problem.solve(prefer=None, engine=engine)
    assert found.solution is not None
    assert problem.contains(found.solution)
    best = problem.best(maximize=total(variables), prefer=None, engine=engine)
    assert best.solution is not None
    assert sum(best.solution.values()) == best.objective == problem.best(maximize=total(variables)).objective
    problem.add(variables[0] > 5)
    assert problem.solve(prefer=None, engine=engine).status == "infeasible"
    assert problem.best(minimize=variables[1], prefer=None, engine=engine).status == "infeasible"
