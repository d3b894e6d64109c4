"""The same calls answered by OR-tools CP-SAT: a second engine, and a check of the first.

A problem is presolved and lowered as for the search; ``constrint.cpsat_model`` states it for CP-SAT.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import ceil
from typing import Any

from constrint.cpsat_model import Model
from constrint.domains import size
from constrint.errors import ConstrintError, TimeLimit
from constrint.expr import Expr
from constrint.limits import PASSED, deadline_in
from constrint.presolve import Prepared, prepare, presolve
from constrint.program import Program
from constrint.result import Answer
from constrint.statement import Solution, Statement

ROUNDED, ROUNDED_OF = 1e-6, 1e-15
"""A bound that lies so little above an integer, or so much of itself, may be that integer, rounded."""
PATIENCE = 0.02
"""Seconds after which a call looks whether it was cancelled."""
BATCH = 1024
"""Solutions that are listed together, and sorted by preference."""


class CpSatCall:
    """The calls of CP-SAT for one problem; one worker, so that answers repeat. prepared: see EngineCall; what
    this engine presolves itself is done in Python, apart from the core."""

    def __init__(self, problem: Statement, prepared: Prepared | None = None) -> None:
        self.problem, self.prepared = problem, prepared
        self.cancelled = False
        self.modelled = threading.Event()
        """Set once there is a model, from when on OR-tools needs no Python."""

    def cancel(self) -> None:
        """Let whatever is being solved, in another thread, end as at a time limit."""
        self.cancelled = True

    def _prepare(self, objective: Expr | None, deadline: float | None) -> Prepared:
        return self.prepared or prepare(self.problem, objective, deadline=deadline)

    def first(self, order: Mapping[str, bool], time_limit: float | None) -> Answer:
        deadline = deadline_in(time_limit)
        try:
            program = self._prepare(None, deadline).program
        except TimeLimit:
            return Answer("unknown")
        return (
            Answer("infeasible")
            if program is None
            else self._first(Model(program, self.problem.constraints), order, deadline)
        )

    def find_conflict(self, chosen: Iterable[int], time_limit: float | None) -> Solution | frozenset[int]:
        """Any solution under the constraints chosen, by number, or else all their numbers. Raises TimeLimit."""
        everything = frozenset(chosen)
        deadline = deadline_in(time_limit)
        program = prepare(self.problem, chosen=sorted(everything), deadline=deadline).program
        if program is None:
            return everything
        model = Model(program, self.problem.constraints)
        status, solver = self._solve(model, deadline)
        if status == "unknown":
            raise TimeLimit("the time limit passed before the answer was known")
        if status == "infeasible":
            return everything
        return dict(zip(program.names, (solver.value(variable) for variable in model.variables), strict=True))

    def _first(self, model: Model, order: Mapping[str, bool], deadline: float | None) -> Answer:
        """Fix one variable after another at its most preferred value, by one optimisation each."""
        names = model.program.names
        solution: list[int] = []
        for name, large in order.items():
            v = names.index(name)
            preferred = model.high[v] if large else model.low[v]
            if solution and solution[v] == preferred:
                model.model.add(model.variables[v] == preferred)
                continue
            model.model.clear_objective()
            if large:
                model.model.maximize(model.variables[v])
            else:
                model.model.minimize(model.variables[v])
            status, solver = self._solve(model, deadline)
            if status == "infeasible":
                return Answer("infeasible")
            if status != "optimal":
                return Answer("unknown")
            solution = [solver.value(variable) for variable in model.variables]
            model.model.add(model.variables[v] == solution[v])
        if not order:
            status, solver = self._solve(model, deadline)
            if status in ("infeasible", "unknown"):
                return Answer("infeasible" if status == "infeasible" else "unknown")
            solution = [solver.value(variable) for variable in model.variables]
        return Answer("feasible", dict(zip(names, solution, strict=True)))

    def best(self, objective: Expr, sign: int, order: Mapping[str, bool], time_limit: float | None) -> Answer:
        deadline = deadline_in(time_limit)
        try:
            prepared = self._prepare(objective if sign > 0 else -objective, deadline)
        except TimeLimit:
            return Answer("unknown")
        program, lowered = prepared.program, prepared.objective
        if program is None or lowered is None:
            return Answer("infeasible", proven=True)
        model = Model(program, self.problem.constraints, lowered)
        model.model.minimize(model.objective)
        status, solver = self._solve(model, deadline)
        if status == "infeasible":
            return Answer("infeasible", proven=True)
        bound = sign * _bound(solver.best_objective_bound, model.least)
        if status == "unknown":
            return Answer("unknown", bound=bound)
        value = solver.value(model.objective)
        solution = dict(zip(program.names, (solver.value(x) for x in model.variables), strict=True))
        if status == "optimal" and not order:
            return Answer("feasible", solution, sign * value, True, sign * value)
        if status == "optimal":
            model.model.add(model.objective == value)
            answer = self._first(model, order, deadline)
            return Answer("feasible", answer.solution or solution, sign * value, True, sign * value)
        return Answer("feasible", solution, sign * value, False, bound)

    def solutions(self, order: Mapping[str, bool]) -> Iterator[Solution]:
        """CP-SAT enumerates in no order. So where there are more than BATCH solutions, the domain of the most preferred
        variable is halved, and the better half comes first."""
        program, _ = presolve(self.problem)
        waiting = [] if program is None else [program]
        while waiting:
            part = waiting.pop()
            found = self._all(part, None, BATCH)
            places = [(part.names.index(name), large) for name, large in order.items()]
            if len(found) > BATCH:
                v, large = next((v, large) for v, large in places if part.domains[v][0] != part.domains[v][-1])
                middle = size(part.domains[v]) // 2
                halves = part.domains[v][:middle], part.domains[v][middle:]
                # The last one is taken up first.
                for half in halves if large else halves[::-1]:
                    waiting.append(replace(part, domains=[*part.domains[:v], half, *part.domains[v + 1 :]]))
                continue
            for row in sorted(found, key=lambda row: [-row[v] if large else row[v] for v, large in places]):
                yield dict(zip(part.names, row, strict=True))

    def count(self, time_limit: float | None) -> int:
        deadline = deadline_in(time_limit)
        program, _ = presolve(self.problem, deadline=deadline)
        return 0 if program is None else len(self._all(program, deadline))

    def _all(self, program: Program, deadline: float | None, most: int | None = None) -> set[tuple[int, ...]]:
        """Every solution; where there are more than ``most``, so many and one more."""
        from ortools.sat.python import cp_model

        model = Model(program, self.problem.constraints)
        found: set[tuple[int, ...]] = set()

        class Collect(cp_model.CpSolverSolutionCallback):  # type: ignore[misc]
            def on_solution_callback(self) -> None:
                found.add(tuple(self.value(variable) for variable in model.variables))
                if most is not None and len(found) > most:
                    self.stop_search()

        status, _ = self._solve(model, deadline, Collect())
        if status in ("unknown", "feasible") and not (most is not None and len(found) > most):
            raise TimeLimit("the time limit passed before every solution was found")
        return found

    def _solve(self, model: Model, deadline: float | None, collect: Any = None) -> tuple[str, Any]:
        """Solve; the status is "optimal", "feasible", "infeasible" or "unknown"."""
        cp = model.cp
        solver = cp.CpSolver()
        solver.parameters.num_workers = 1
        if collect is not None:
            solver.parameters.enumerate_all_solutions = True
        if deadline is not None:
            solver.parameters.max_time_in_seconds = max(0.001, deadline - time.perf_counter())
        status = self._run(solver, model.model, collect)
        if status == cp.MODEL_INVALID:
            raise ConstrintError(f"CP-SAT refused the model: {model.model.validate()}; use the native engine")
        known = {cp.OPTIMAL: "optimal", cp.FEASIBLE: "feasible", cp.INFEASIBLE: "infeasible"}
        return known.get(status, "unknown"), solver

    def _run(self, solver: Any, model: Any, collect: Any) -> Any:
        """Solve so that Ctrl-C and ``cancel`` stop it. OR-tools' own handling of Ctrl-C would leave the process without
        Python's."""
        solver.parameters.catch_sigint_signal = False
        with ThreadPoolExecutor(1) as pool:
            if self.cancelled:
                raise TimeLimit(PASSED)
            future = pool.submit(solver.solve, model, collect)
            self.modelled.set()
            try:
                while True:
                    try:
                        return future.result(PATIENCE)
                    except TimeoutError:
                        if self.cancelled:
                            solver.stop_search()
            except KeyboardInterrupt:
                solver.stop_search()
                raise


def _bound(reported: float, least: int) -> int:
    """What the solver's bound proves, a double of a few roundings, where that tells integers apart; else the least
    value of the objective. A solver that was stopped before it had one reports 0."""
    if not reported or not abs(reported) < 2**52:
        return least
    return max(least, ceil(reported - ROUNDED - abs(reported) * ROUNDED_OF))
