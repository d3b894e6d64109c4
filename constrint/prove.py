"""Whether there is a solution, and the first in order of preference, in Python; the core holds the same in C++.

``Prover.any`` searches depth first and is free to choose the variable: the one with the fewest values for the failures
it was part of (Boussemart et al., ECAI 2004), which finds the hard part of a problem whatever the preferences are. Each
domain carries its reasons: the constraints and the decisions that shaped it. A failure therefore comes with a
conflict, the constraints and decisions that cannot hold together. A decision outside the conflict is no cure, so the
search jumps back over it (Prosser, 1993); and what is left at the root are constraints alone: a proof, which
``explain`` starts from.

``Prover.first`` finds any solution, then asks, variable by variable, for one with a better value, by bisection,
until the best is known. What the last solution already has at its best needs no search.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log2

from constrint.limits import check_time
from constrint.program import Op, Program
from constrint.propagate import State
from constrint.search import branches, deep

FEW = 8
"""So few better values are tried one by one rather than by halves."""
FIRST_PATIENCE, GROWTH = 1000.0, 1.5
"""Failures until the search starts afresh with what it learnt about the variables, and the growth of that number."""


class PythonProver:
    """order: variables by importance; descending[i]: order[i] prefers its largest value."""

    def __init__(self, program: Program, order: Sequence[int], descending: Sequence[bool]) -> None:
        self.program, self.order = program, order
        self.descending = dict(zip(order, descending, strict=True))
        self.weight = [1.0] * len(program.domains)
        """How often each variable was part of a failure: what an earlier call learnt may be put here."""

    def any(self, deadline: float | None = None) -> list[int] | None:
        """A solution, as values by position, or None. Raises TimeLimit at ``deadline`` (time.perf_counter())."""
        return self.witness if self._start(deadline) and self._prove() else None

    def first(self, deadline: float | None = None) -> list[int] | None:
        """The first solution in order of preference, or None. Variables outside ``order`` keep their smallest value."""
        if not (self._start(deadline) and self._prove()):
            return None
        state = self.state
        for v in self.order:
            down = self.descending[v]
            while state.low[v] != state.high[v]:
                best, known = (state.high if down else state.low)[v], self.witness[v]
                if known == best:
                    self._fix_bound(v, best, best)
                    break
                gap = abs(best - known)
                reach = gap // 2 if gap > FEW else 0
                low, high = (best - reach, best) if down else (best, best + reach)
                mark = len(state.trail)
                found = state.decide(v, low, high, 0) and state.propagate() and self._prove()
                state.undo(mark)
                if found:
                    low, high = (self.witness[v], state.high[v]) if down else (state.low[v], self.witness[v])
                else:
                    low, high = (state.low[v], low - 1) if down else (high + 1, state.high[v])
                self._fix_bound(v, low, high)
        return self.witness

    def conflict(self) -> int:
        """After None: constraints that cannot hold together, as a sum of 1 << number; perhaps more than needed."""
        return self._conflict & ((1 << self.program.sources) - 1)

    def _start(self, deadline: float | None) -> bool:
        self.deadline = deadline
        # Where the others are decided, so is a range that an equation gives: such variables are chosen last.
        self.given = {
            code.a[side]
            for code in self.program.codes
            if code.ops[-1] == Op.EQ
            for side in (code.a[-1], code.b[-1])
            if code.ops[side] == Op.VAR and isinstance(self.program.domains[code.a[side]], range)
        }
        self.witness: list[int] = []
        self.state = State(self.program, deadline=deadline)
        for number in range(len(self.program.codes)):
            self.state.schedule(number)
        if self.state.propagate():
            return True
        self._conflict = self.state.failure()
        return False

    def _fix_bound(self, v: int, low: int, high: int) -> None:
        """Narrow a variable for good, to bounds that the witness is within."""
        self.state.decide(v, low, high, 0)
        self.state.propagate()

    def _prove(self) -> bool:
        self.patience = FIRST_PATIENCE
        while True:
            self.failures = 0
            self.restart = False
            mark = len(self.state.trail)
            with deep(self.program.domains):
                found = self._descend(0)
            self.state.undo(mark)
            if found or not self.restart:
                return found
            self.patience *= GROWTH

    def _descend(self, level: int) -> bool:
        state = self.state
        if state.active == 0:
            self.witness = [
                high if self.descending.get(v) else low
                for v, (low, high) in enumerate(zip(state.low, state.high, strict=True))
            ]
            return True
        v = self._choose()
        bit = 1 << self.program.sources + level
        reasons = state.why[v]
        for low, high in branches(state, v, self.descending.get(v, False)):
            check_time(self.deadline)
            mark = len(state.trail)
            state.decide(v, low, high, bit)
            if not state.propagate():
                self._conflict = state.failure()
                self._bump_weight(state.reviser)
            elif self._descend(level + 1):
                return True
            state.undo(mark)
            # A conflict that this decision has no part in is one of every other value as well.
            if self.restart or not self._conflict & bit:
                return False
            reasons |= self._conflict
        self._conflict = reasons & ~bit
        return False

    def _choose(self) -> int:
        """The variable with the fewest values for the failures it was part of."""
        state = self.state
        loose = {
            v
            for number, code in enumerate(state.codes)
            if not state.entailed[number]
            for v in code.variables
            if state.low[v] != state.high[v]
        }
        return min(loose, key=lambda v: (v in self.given, log2(state.size(v)) / self.weight[v], v))

    def _bump_weight(self, number: int) -> None:
        for v in self.state.scope(number):
            self.weight[v] += 1
        self.failures += 1
        self.restart = self.failures > self.patience
