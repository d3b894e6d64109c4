"""Why there is no solution: a minimal set of constraints that cannot hold together.

Definitions are background. In ``SHARED == ROWS * WIDTH; SHARED <= 49152`` people want to read the limit, not what
SHARED means. A definition is an equation ``v == expression`` (or ``expression == v``, or a known number times v), the
first for v, where v is a free quantity rather than a choice (declared as a range of more than 4096 values) and does not
enter the expression, directly or through other definitions. What is reported cannot hold together with the definitions,
and without any one of its members the rest can. Where the definitions contradict each other by themselves there is no
background: a minimal conflict of any constraints is reported, definitions among them.

The engine's conflict names the constraints that it used. Each of these is left out in turn: if the rest still
conflicts, the new conflict says what is still needed; if not, the solution found shows that the constraint is
needed, and serves as a witness for every later call about constraints that it satisfies. From there, a conflict of
fewer constraints is looked for by implicit hitting sets (Ignatiev et al., CP 2015), for a short time; mostly that ends
with a proof that there is none. What the engine says it used is a hint; what is reported was proved in itself, and of
each member there is a witness that the rest can hold.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from constrint.domains import LIST_LIMIT, size
from constrint.engine import engine_call
from constrint.errors import TimeLimit
from constrint.evaluate import holds
from constrint.expr import Expr
from constrint.limits import deadline_in, passed, seconds_left
from constrint.statement import Constraint, Solution, Statement

SHRINKING = 0.2
"""Seconds in which a smaller conflict is looked for; or as long as the first took to find, if that is longer."""


class Conflict(list[Constraint]):
    """Constraints that cannot hold together, in the order they were added. definitions: those it rests on."""

    def __init__(self, constraints: Iterable[Constraint], definitions: Iterable[Constraint] = ()) -> None:
        super().__init__(constraints)
        self.definitions = list(definitions)


def minimal_conflict(problem: Statement, time_limit: float | None, engine: str) -> Conflict:
    """A minimal conflict (see the module), empty where the problem has a solution.

    The domains are taken for granted. Raises TimeLimit after ``time_limit`` seconds.
    """
    search = _Explainer(problem, time_limit, engine)
    if search.find_conflict(search.everything) is None:
        return Conflict([])
    needed, relevant = search.conflict()
    if not search.has_conflict(needed | relevant):
        # What the engine said it used did not suffice: without that hint every constraint is doubted.
        search.trusting = False
        search.conflicts.clear()
        needed, relevant = search.conflict()
    listed = problem.constraints
    return Conflict([listed[i] for i in sorted(needed)], [listed[i] for i in sorted(relevant)])


class _Explainer:
    def __init__(self, problem: Statement, time_limit: float | None, engine: str) -> None:
        self.problem, self.limit = problem, time_limit
        self.call = engine_call(problem, engine)
        self.deadline = deadline_in(time_limit)
        self.everything = frozenset(range(len(problem.constraints)))
        self.satisfied: list[frozenset[int]] = []
        self.conflicts: list[frozenset[int]] = []
        self.asked: list[frozenset[int]] = []
        """What the engine found in conflict, whole: no hint."""
        self.trusting = True

    def conflict(self) -> tuple[frozenset[int], frozenset[int]]:
        """A minimal conflict of the problem, which has no solution, and the definitions that it rests on."""
        started = time.perf_counter()
        used = self.find_conflict(self.everything) or self.everything
        defined = definitions(self.problem)
        background = frozenset(defined)
        needed = self.minimise(used - background, background)
        if not needed:
            # The definitions contradict each other.
            background = frozenset()
            needed = self.minimise(used, background)
        seconds = max(SHRINKING, time.perf_counter() - started)
        needed = self.smaller(needed, self.everything - background, background, seconds)
        named = _used_definitions(self.problem, needed, defined) & background
        return needed, self.relevant(needed, named, background)

    def has_conflict(self, chosen: frozenset[int]) -> bool:
        """Whether the engine itself finds that the chosen constraints cannot hold together. Raises TimeLimit."""
        if any(asked <= chosen for asked in self.asked):
            return True
        return not isinstance(self._ask(chosen, self.deadline), Mapping)

    def find_conflict(self, chosen: frozenset[int], deadline: float | None = None) -> frozenset[int] | None:
        """None where the chosen constraints can hold together, else those of them that the engine's conflict names.

        deadline: an earlier one than the explanation's. Raises TimeLimit.
        """
        if self._known(chosen) is not None:
            return None
        for conflict in self.conflicts:
            if conflict <= chosen:
                return conflict
        answer = self._ask(chosen, min((d for d in (deadline, self.deadline) if d is not None), default=None))
        if isinstance(answer, frozenset):
            self.asked.append(chosen)
            used = answer if self.trusting else chosen
            self.conflicts.append(used)
            return used
        listed = self.problem.constraints
        self.satisfied.append(frozenset(i for i, c in enumerate(listed) if holds(c.stated, answer)))
        return None

    def _ask(self, chosen: frozenset[int], deadline: float | None) -> Solution | frozenset[int]:
        try:
            return self.call.find_conflict(sorted(chosen), seconds_left(deadline))
        except TimeLimit:
            raise TimeLimit(
                f"the constraints of {self.problem.name!r} that clash were not found within {self.limit} s"
            ) from None

    def _known(self, chosen: frozenset[int]) -> frozenset[int] | None:
        """The most constraints that an assignment met before satisfies, the chosen ones among them."""
        return max((satisfied for satisfied in self.satisfied if chosen <= satisfied), key=len, default=None)

    def minimise(self, candidates: frozenset[int], background: frozenset[int]) -> frozenset[int]:
        """The candidates needed for a conflict with the background, where all of them conflict with it."""
        conditions = [constraint.stated for constraint in self.problem.constraints]
        # Those on one variable are doubted last: they keep the domains, and so each call, small.
        doubted = sorted(candidates, key=lambda i: (len(conditions[i].variables()) == 1, -i))
        needed = candidates
        for i in doubted:
            if i in needed:
                used = self.find_conflict(needed - {i} | background)
                if used is not None:
                    needed = needed & used - {i}
        return needed

    def smaller(
        self, needed: frozenset[int], candidates: frozenset[int], background: frozenset[int], seconds: float
    ) -> frozenset[int]:
        """A conflict of the fewest candidates, or ``needed`` where none smaller is found in that time.

        Whatever an assignment leaves unsatisfied holds a member of every conflict. So the fewest candidates that meet
        each of these sets are a conflict of least size, or there is an assignment that satisfies them: one more set.
        """
        now = time.perf_counter()
        # Half of the time that is left, for what comes after.
        deadline = now + (seconds if self.deadline is None else min(seconds, (self.deadline - now) / 2))
        failed: list[frozenset[int]] = []
        try:
            while True:
                least = fewest(failed, len(needed), deadline)
                if least is None:
                    return needed
                if self.find_conflict(least | background, deadline) is not None:
                    return least
                failed.append(candidates - self._most(least, candidates, background, deadline))
        except TimeLimit:
            return needed

    def relevant(self, needed: frozenset[int], named: frozenset[int], background: frozenset[int]) -> frozenset[int]:
        """The definitions that a conflict rests on: those that it names where they suffice."""
        try:
            if self.find_conflict(needed | named) is not None:
                return named
            # A definition that they do not name limits them all the same, by the values that its variable can take.
            return (self.find_conflict(needed | background) or background) & background
        except TimeLimit:
            return background

    def _most(
        self, chosen: frozenset[int], candidates: frozenset[int], background: frozenset[int], deadline: float
    ) -> frozenset[int]:
        """A set of candidates that can hold together, the chosen ones among them, to which no other can be added."""
        held = chosen
        for i in sorted(candidates):
            known = self._known(held | background)
            held |= candidates & known if known is not None else held
            if i not in held and self.find_conflict(held | {i} | background, deadline) is None:
                held |= {i}
        return held


def fewest(sets: Sequence[frozenset[int]], below: int, deadline: float | None = None) -> frozenset[int] | None:
    """A smallest set that meets each of ``sets``; None where that takes ``below`` members or more.

    Raises TimeLimit at ``deadline``, a time.perf_counter() value.
    """
    if below <= 0:
        return None
    if passed(deadline):
        raise TimeLimit("no smallest set was found in time")
    disjoint: list[frozenset[int]] = []
    for each in sorted(sets, key=len):
        if all(each.isdisjoint(other) for other in disjoint):
            disjoint.append(each)
    if not disjoint:
        return frozenset()
    if len(disjoint) >= below:
        return None
    best = None
    for member in sorted(disjoint[0]):
        rest = fewest([each for each in sets if member not in each], below - 1, deadline)
        if rest is not None:
            best, below = rest | {member}, len(rest) + 1
    return best


def definitions(problem: Statement) -> dict[int, str]:
    """The numbers of the constraints that are definitions (see the module), and the variable that each defines."""
    meaning: dict[str, Expr] = {}
    found: dict[int, str] = {}
    for number, constraint in enumerate(problem.constraints):
        if constraint.stated.op != "==":
            continue
        left, right = constraint.stated.args
        for side, other in ((left, right), (right, left)):
            name = _defined(problem, side, meaning)
            if name and name not in meaning and not _reaches(meaning, other, name):
                meaning[name] = other
                found[number] = name
                break
    return found


def _defined(problem: Statement, side: Expr, meaning: Mapping[str, Expr]) -> str | None:
    """The free quantity that an equation with this side can define: a variable, or known numbers times a variable."""
    if side.op == "var":
        return side.name if _is_free(problem, side.name) else None
    if side.op == "*":
        for factor, rest in (side.args, side.args[::-1]):
            if _is_known(rest, meaning):
                return _defined(problem, factor, meaning)
    return None


def _is_known(expression: Expr, meaning: Mapping[str, Expr]) -> bool:
    """Whether an expression is a product of numbers other than 0, and of names of such numbers."""
    if expression.op == "const":
        return expression.value != 0
    if expression.op == "var":
        return expression.name in meaning and _is_known(meaning[expression.name], meaning)
    return expression.op == "*" and all(_is_known(arg, meaning) for arg in expression.args)


def _is_free(problem: Statement, name: str) -> bool:
    domain = problem.domains[name]
    return isinstance(domain, range) and size(domain) > LIST_LIMIT


def _reaches(meaning: dict[str, Expr], expression: Expr, name: str) -> bool:
    """Whether a variable enters an expression, directly or through definitions."""
    seen: set[str] = set()
    waiting = expression.variables()
    while waiting:
        current = waiting.pop()
        if current == name:
            return True
        if current not in seen and current in meaning:
            waiting += meaning[current].variables()
        seen.add(current)
    return False


def _used_definitions(problem: Statement, needed: frozenset[int], defined: Mapping[int, str]) -> frozenset[int]:
    """The definitions of what ``needed`` or, in turn, one of these definitions names."""
    constraints = problem.constraints
    reached = {name for i in needed for name in constraints[i].stated.variables()}
    result: set[int] = set()
    while True:
        more = {i for i, name in defined.items() if name in reached and i not in result}
        if not more:
            return frozenset(result)
        result |= more
        reached |= {name for i in more for name in constraints[i].stated.variables()}
