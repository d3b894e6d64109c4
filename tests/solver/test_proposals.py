"""Solutions proposed one after another, by themselves and to Optuna."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

from constrint import ConstrintError, Problem, Proposals, divides

pytestmark = pytest.mark.unit


def tiles() -> Problem:
    problem = Problem("tiles")
    x, y = problem.variable("x", [1, 2, 4, 8, 16, 32]), problem.variable("y", range(1, 33))
    layout = problem.variable("layout", ["row", "col", None])
    problem.add(divides(y, 64))
    problem.add((x * y <= 128) | (layout == "row"))
    return problem


def worth(solution: dict[str, Any]) -> float:
    return abs(solution["x"] - 16) + abs(solution["y"] - 8) + (solution["layout"] != "col")


def test_each_solution_is_proposed_once() -> None:
    solutions = tiles().solution_set()
    proposals = Proposals(solutions, seed=3)
    seen = []
    while (solution := proposals.ask()) is not None:
        seen.append(solutions.index(solution))
        proposals.tell(solution, worth(solution))
    assert sorted(seen) == list(range(solutions.count))
    assert proposals.told == solutions.count
    assert proposals.best == ({"x": 16, "y": 8, "layout": "col"}, 0)


def test_what_is_told_leads_on() -> None:
    """The best of forty proposals is nearer than the best of forty draws, over some seeds."""
    solutions = tiles().solution_set()
    asked, drawn = 0.0, 0.0
    for seed in range(30):
        proposals = Proposals(solutions, seed=seed)
        for _ in range(40):
            solution = proposals.ask()
            assert solution is not None
            proposals.tell(solution, worth(solution))
        assert proposals.best is not None
        asked += proposals.best[1]
        drawn += min(map(worth, solutions.sample(40, seed=seed)))
    assert asked < drawn


def test_tellings_in_any_order_failures_and_the_other_direction() -> None:
    solutions = tiles().solution_set()
    proposals = Proposals(solutions, seed=1, maximize=True)
    waiting = [proposals.ask() for _ in range(20)]
    assert proposals.best is None
    for solution in reversed(waiting):
        assert solution is not None
        proposals.tell(solution, None if solution["layout"] is None else float(solution["x"]))
    assert proposals.best is not None
    assert proposals.best[1] == max(s["x"] for s in waiting if s is not None and s["layout"] is not None)
    proposals.tell({"x": 32, "y": 64 // 2, "layout": "row"}, 1000)  # never asked for
    assert proposals.best == ({"x": 32, "y": 32, "layout": "row"}, 1000)
    again = Proposals(solutions, seed=1, maximize=True)
    assert [again.ask() for _ in range(20)] == waiting
    with pytest.raises(ConstrintError, match="no solution of the set"):
        proposals.tell({"x": 3, "y": 1, "layout": "row"}, 1.0)
    with pytest.raises(ConstrintError, match="worth a number"):
        proposals.tell({"x": 1, "y": 1, "layout": "row"}, "fast")  # type: ignore[arg-type]
    assert Proposals(Problem("nothing").solution_set()).ask() == {}


def test_a_set_too_large_to_list() -> None:
    problem = Problem("large")
    for name in "abcdefgh":
        problem.variable(name, range(1000))
    proposals = Proposals(problem.solution_set(), seed=5)
    for _ in range(60):
        solution = proposals.ask()
        assert solution is not None
        proposals.tell(solution, sum(solution.values()))
    assert proposals.best is not None


@pytest.mark.parametrize("code", ["import constrint.optuna", "from constrint.kernel_tuner import use; use()"])
def test_a_library_that_is_not_installed_is_named_with_its_install(code: str) -> None:
    code = f"import sys; sys.modules['optuna'] = sys.modules['kernel_tuner'] = None; {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert re.search(r"Error: .*; pip install (\"tilesmith\[optuna\]\"|kernel_tuner)", done.stderr.splitlines()[-1])


def test_optuna_gets_solutions() -> None:
    optuna = pytest.importorskip("optuna")
    from constrint.optuna import SolutionSampler

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    solutions = tiles().solution_set()
    sampler = SolutionSampler(solutions, seed=2)
    study = optuna.create_study(sampler=sampler, direction="minimize")

    def objective(trial: Any) -> float:
        solution = sampler.suggest(trial)
        assert solution in solutions
        return worth(solution) + trial.suggest_float("noise", 0, 0.1)

    study.optimize(objective, n_trials=60)
    assert len({tuple(trial.params[name] for name in solutions.names) for trial in study.trials}) == 60
    assert study.best_value < 6
    more = optuna.create_study(sampler=SolutionSampler(solutions, seed=2), directions=["minimize", "maximize"])
    more.optimize(lambda trial: (worth(more.sampler.suggest(trial)), 1.0), n_trials=5)
    assert len(more.trials) == 5
