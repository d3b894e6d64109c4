"""Two engines on one problem: ours, and where it has no answer after a moment CP-SAT beside it. The first proof wins.

What either proves is proved, and what ``solve`` and ``best`` find is fixed by the order of preference, so the answer
does not depend on who was first. Only what a time limit cuts off may differ from one run to the next.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from constrint.core import load_core
from constrint.errors import ConstrintError, TimeLimit
from constrint.expr import Expr
from constrint.forecast import sums_prevail
from constrint.limits import Race, deadline_in, seconds_left
from constrint.presolve import Prepared, prepare
from constrint.protocols import EngineCall
from constrint.result import Answer
from constrint.statement import Solution, Statement

if TYPE_CHECKING:
    from constrint.cpsat import CpSatCall

MOMENT = 0.05
"""Seconds that the native engine has, once the problem is presolved, before CP-SAT starts."""
MODELLING = 0.2
"""Seconds that the native engine waits at most for CP-SAT's model."""
AHEAD = 5.0
"""Seconds that CP-SAT has alone where the problem looks like one of its own."""
LEEWAY = 1.0
"""Seconds that CP-SAT has to end after a time limit that both had."""


class AutoCall:
    """The calls of both engines for one problem. native: ours. prepared: see EngineCall."""

    def __init__(self, problem: Statement, native: EngineCall) -> None:
        self.problem, self.native = problem, native
        self.prepared: Prepared | None = None

    def first(self, order: Mapping[str, bool], time_limit: float | None) -> Answer:
        deadline = deadline_in(time_limit)
        if not self._prepare(None, deadline):
            return Answer("unknown")
        ours, theirs = self._race(
            lambda call: call.first(order, seconds_left(deadline)), lambda answer: answer.status != "unknown"
        )
        return ours if theirs is None or ours.status != "unknown" else theirs

    def best(self, objective: Expr, sign: int, order: Mapping[str, bool], time_limit: float | None) -> Answer:
        deadline = deadline_in(time_limit)
        if not self._prepare(objective if sign > 0 else -objective, deadline):
            return Answer("unknown")
        ours, theirs = self._race(
            lambda call: call.best(objective, sign, order, seconds_left(deadline)),
            lambda answer: answer.proven,
            self._foreseen(),
        )
        return ours if theirs is None or ours.proven else theirs if theirs.proven else _joined(ours, theirs, sign)

    def find_conflict(self, chosen: Iterable[int], time_limit: float | None) -> Solution | frozenset[int]:
        return self.native.find_conflict(chosen, time_limit)

    def solutions(self, order: Mapping[str, bool]) -> Iterator[Solution]:
        return self.native.solutions(order)

    def count(self, time_limit: float | None) -> int:
        return self.native.count(time_limit)

    def _prepare(self, objective: Expr | None, deadline: float | None) -> bool:
        """Presolve once, for both; False where there was no time to."""
        try:
            self.native.prepared = prepare(self.problem, objective, load_core(), deadline=deadline)
        except TimeLimit:
            return False
        return True

    def _foreseen(self) -> bool:
        """Whether CP-SAT is to be expected first."""
        prepared = self.native.prepared
        if prepared is None or prepared.program is None or prepared.objective is None:
            return False
        return sums_prevail(prepared.program, prepared.objective)

    def _race(
        self, ask: Callable[[EngineCall], Answer], final: Callable[[Answer], bool], foreseen: bool = False
    ) -> tuple[Answer, Answer | None]:
        """The answers of the native engine and, where it ran, CP-SAT. foreseen: CP-SAT begins."""
        rival: _Rival | None = None

        def start() -> None:
            nonlocal rival
            rival = _Rival(self.problem, self.native.prepared, ask, final, race.stop)
            rival.begin()

        race = Race(MOMENT, start, load_core())
        try:
            if foreseen:
                race.wake_up()
                assert rival is not None
                rival.thread.join(AHEAD)
            if rival is not None and not rival.thread.is_alive() and rival.answer is not None:
                return Answer("unknown"), rival.answer  # at its end, or that of the time limit
            with race:
                ours = ask(self.native)
            if rival is None or final(ours):
                return ours, None
            # Either it was first, or both ran out of time.
            rival.thread.join(None if race.stopped else LEEWAY)
            return ours, rival.answer
        finally:
            if rival is not None:
                rival.cancel()


class _Rival:
    """CP-SAT in a thread of its own, on a copy of the problem. won: called when it has a final answer."""

    def __init__(
        self,
        problem: Statement,
        prepared: Prepared | None,
        ask: Callable[[EngineCall], Answer],
        final: Callable[[Answer], bool],
        won: Callable[[], None],
    ) -> None:
        self.copy = Statement(problem.name, problem.domains, problem.constraints)
        self.prepared = prepared
        self.ask, self.final, self.won = ask, final, won
        self.answer: Answer | None = None
        self.finished = False
        self.ready = threading.Event()
        self.call: CpSatCall | None = None
        self.thread = threading.Thread(target=self._run, name="constrint CP-SAT")

    def begin(self) -> None:
        """Start, and where OR-tools is loaded let it have a model first: Python lets one thread compute at a time."""
        loaded = "ortools.sat.python.cp_model" in sys.modules
        self.thread.start()
        if loaded:
            self.ready.wait(MODELLING)

    def cancel(self) -> None:
        """Let it end, whatever it is at."""
        self.finished = True
        if self.call is not None:
            self.call.cancel()

    def _run(self) -> None:
        try:
            from constrint.cpsat import CpSatCall

            self.call = CpSatCall(self.copy, self.prepared)
            self.call.modelled = self.ready
            if not self.finished:
                self.answer = self.ask(self.call)
        except (ConstrintError, TimeLimit):  # what it cannot hold, or what was cancelled
            return
        except Exception:
            if not self.finished:  # else Python may be ending, and neither loads a module nor begins a thread
                raise
        finally:
            self.ready.set()
        if self.answer is not None and self.final(self.answer):
            self.won()


def _joined(ours: Answer, theirs: Answer, sign: int) -> Answer:
    """What two searches know together that the time limit cut off. sign: 1 where the objective is minimised."""
    found = [answer for answer in (ours, theirs) if answer.objective is not None]
    bounds = [answer.bound for answer in (ours, theirs) if answer.bound is not None]
    bound = None if not bounds else max(bounds) if sign > 0 else min(bounds)
    if not found:
        return Answer("unknown", bound=bound)
    best = min(found, key=lambda answer: sign * (answer.objective or 0))
    return Answer("feasible", best.solution, best.objective, best.objective == bound, bound)
