"""The best solution by an objective: a shortest path where that is a sum over variables, else branch and bound.

Where the objective adds up what each variable costs and the solutions factor (``constrint.factored``), the best is a
shortest path through each diagram, and the first by preference of the best are found in the same diagrams. Building
these and the search, which improves on what it has found, take turns. With a time limit, the search has most of it, and
the rest raises the bound.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from constrint.domains import size
from constrint.errors import TimeLimit
from constrint.expr import Expr
from constrint.factor import PATIENT, QUICK, DoesNotFactor, independent, make_factor
from constrint.forward import forward, test
from constrint.limits import check_time, deadline_in, passed
from constrint.parts import bounds, named, split
from constrint.program import Code, Op, Program, Tree
from constrint.residual import SAFE, Term, numeric, value_of
from constrint.result import Answer
from constrint.search import elimination_order
from constrint.searcher import Searcher

SEARCHING = 0.6
"""The share of a time limit in which better solutions are looked for; the rest raises the bound."""
TURNS = (QUICK, *((limit,) for limit in PATIENT))
"""Steps allowed to the diagrams in each of their turns (the Python engine stops after the first)."""
MOST_VALUES = 20_000
"""More values than this are not tabulated."""

Costs = dict[int, list[int]]
"""What each value of each variable adds to an objective."""


def best(searcher: Searcher, objective: Expr, sign: int, order: Mapping[str, bool], time_limit: float | None) -> Answer:
    """See ``Problem.best``. sign: 1 to minimise the objective, -1 to maximise it."""
    deadline = deadline_in(time_limit)
    try:
        prepared = searcher.prepare(objective if sign > 0 else -objective, deadline)
    except TimeLimit:
        return Answer("unknown")
    program, lowered = prepared.program, prepared.objective
    if program is None or lowered is None:
        return Answer("infeasible", proven=True)
    low, high, undefined = forward(Code.of(lowered), *bounds(program))[-1]
    if undefined == 2:
        return Answer("infeasible", proven=True)
    bounded = Code.of(Tree(Op.LE, (lowered, Tree(Op.CONST, value=high))), program.sources - 1)
    every = split(replace(program, codes=[*program.codes, bounded], bit_width=0))
    main = next(part for part in every if any(code is bounded for code in part.codes))
    status, values = searcher.first_of(program, [part for part in every if part is not main], order, deadline)
    if values is None:
        return Answer(status, proven=status == "infeasible", bound=sign * low if status == "unknown" else None)
    alone = replace(program, codes=main.codes, bit_width=0)
    try:
        quest = _Quest(searcher, alone, main.variables, lowered, bounded, (low, high), deadline)
    except TimeLimit:
        return Answer("unknown", bound=sign * low)
    quest.run(order)
    value, found = quest.value, quest.found
    if value is None or found is None:
        return Answer("infeasible", proven=True) if quest.finished else Answer("unknown", bound=sign * quest.low)
    if quest.finished and not quest.preferred and order:
        # The optimum is known: now the first solution, by preference, that has it.
        bounded.a[-2] = value
        _, preferred = searcher.first_of(program, [main], order, deadline)
        found = preferred or found
    for v in main.variables:
        values[v] = found[v]
    bound = value if quest.finished else quest.low
    return Answer("feasible", named(program, values), sign * value, quest.finished, sign * bound)


class _Quest:
    """The search for the least objective over the variables that it depends on.

    low: no solution is better. value, found: the best so far. finished: there is none better (or none at all).
    preferred: ``found`` is the first by preference.
    """

    def __init__(
        self,
        searcher: Searcher,
        program: Program,
        variables: list[int],
        objective: Tree,
        bounded: Code,
        span: tuple[int, int],
        deadline: float | None,
    ) -> None:
        self.deadline = deadline
        self.searcher, self.program, self.variables, self.bounded = searcher, program, variables, bounded
        self.objective = objective
        self.low, self.high = span
        self.value: int | None = None
        self.found: list[int] | None = None
        self.finished = self.preferred = False
        self.weight = [1.0] * len(program.domains)
        self.chain = elimination_order(program, variables, deadline)
        self.table = costs(objective, program)
        large = prefer_large(objective, program, self.table, deadline)
        self.descending = [v in large for v in self.chain]

    def run(self, order: Mapping[str, bool]) -> None:
        """Look until the optimum is known or the time is up."""
        start = time.perf_counter()
        deadline = self.deadline
        soon = None if deadline is None else start + SEARCHING * (deadline - start)
        table = self.table
        turns = TURNS if self.searcher.native else TURNS[:1]
        for limits in turns if table is not None else ():
            assert table is not None
            if self._shortest(table, limits, order, soon) or (
                limits[0] == PATIENT[0] and self._relax(table, order, soon)
            ):
                return
            if passed(deadline):  # or CP-SAT was first
                return
            # The search has its turn, as long as the diagrams had.
            now = time.perf_counter()
            turn = now + max(0.1, now - start)
            if self._search(turn if soon is None else min(turn, soon)) or (soon is not None and soon < turn):
                break
        else:
            self._search(soon)
        if not self.finished:
            self._raise_bound()

    def _search(self, deadline: float | None) -> bool:
        """Branch and bound; whether it was finished."""
        value, found, self.finished = self.searcher.search(self.program).best(
            self.chain, self.descending, self.bounded, deadline
        )
        if value is not None:
            self.value, self.found, self.bounded.a[-2] = value, found, value - 1
        return self.finished

    def _shortest(
        self, table: tuple[int, Costs], limits: Sequence[int], order: Mapping[str, bool], deadline: float | None
    ) -> bool:
        """The shortest path; whether the diagrams could be built."""
        try:
            found = self._path([c for c in self.program.codes if c is not self.bounded], table, limits, order, deadline)
        except (DoesNotFactor, TimeLimit):
            return False
        self.value, self.found = found or (None, None)
        self.finished = self.preferred = True
        return True

    def _relax(self, table: tuple[int, Costs], order: Mapping[str, bool], deadline: float | None) -> bool:
        """Raise the bound to the least objective under each constraint by itself; whether that is the optimum."""
        codes = [code for code in self.program.codes if code is not self.bounded]
        for code in codes:
            try:
                found = self._path([code], table, (*QUICK, PATIENT[0]), order, deadline)
            except DoesNotFactor:
                continue
            except TimeLimit:
                break
            if found is None or all(test(other, found[1]) for other in codes):
                # What is first by preference under one constraint and satisfies the others is so under all.
                self.value, self.found = found or (None, None)
                self.finished = self.preferred = True
                break
            self.low = max(self.low, found[0])
        return self.finished

    def _path(
        self,
        codes: list[Code],
        table: tuple[int, Costs],
        limits: Sequence[int],
        order: Mapping[str, bool],
        deadline: float | None,
    ) -> tuple[int, list[int]] | None:
        """The least objective under some constraints, and the first solution that has it; None where there is none.

        Raises DoesNotFactor and TimeLimit.
        """
        program, (total, costs) = self.program, table
        parted = independent(Program(program.names, program.domains, codes, program.sources, program.why), deadline)
        found = [domain[0] for domain in program.domains]
        order = order or dict.fromkeys(program.names, False)
        rank = {program.names.index(name): (place, large) for place, (name, large) in enumerate(order.items())}
        for variables, joined, terms in parted or ():
            if variables[0] not in self.variables:
                continue
            name, native = self.searcher.problem.name, self.searcher.native
            chosen, factor = make_factor(name, program, variables, joined, terms, native, deadline, limits)
            if not factor.total:
                return None
            ranked = sorted((rank[v], d) for d, v in enumerate(chosen))
            layers, descending = [d for _, d in ranked], [large for (_, large), _ in ranked]
            least, values = factor.best([costs.get(v, []) for v in chosen], layers, descending, deadline)
            total += least
            for v, value in zip(chosen, values, strict=True):
                found[v] = value
        return None if parted is None else (total, found)

    def _raise_bound(self) -> None:
        """Refute objectives near the lower bound, in growing steps, until it meets the best value or time is up. Where
        that does not come forward, the rest of the time goes to solutions that are better than the best."""
        high, step, growth = self.bounded.a[-2] if self.value is None else self.value - 1, 0, 2
        while self.low <= high:
            now = time.perf_counter()
            hurry = self.deadline is not None and not growth
            rest = None if self.deadline is None else now + max(0.0, self.deadline - now) / (1 if hurry else 4)
            asked = high if hurry else min(self.low + step, high)
            self.bounded.a[-2] = asked
            prover = self.searcher.prover(self.program, self.chain, self.descending)
            prover.weight = self.weight
            try:
                better = prover.any(rest)
            except TimeLimit:
                self.weight = prover.weight
                if passed(self.deadline):
                    return
                # growth 2: the steps still grow; 1: they have become too long; 0: even the shortest was.
                step, growth = step // 4, 1 if step else 0
                continue
            self.weight = prover.weight
            if better is None:
                self.low, step = asked + 1, growth * step + 1
            else:
                self.value, self.found = forward(self.bounded, better, better)[-3][0], better
                high, step = self.value - 1, step // 4
        self.finished = True


def costs(objective: Tree, program: Program) -> tuple[int, Costs] | None:
    """An objective as a constant and what each value of each variable adds to it, by position in its domain.

    None where it is no sum of terms in one variable each, may be undefined, or these variables have too many values.
    """
    whole = numeric(Code.of(objective), program.domains)
    if whole.start is None:
        return None
    if whole.op == Op.ADD:
        constant, terms = whole.start, list(zip(whole.coefs, whole.args, strict=True))
    else:
        constant, terms = (whole.start, []) if whole.op == Op.CONST else (0, [(1, whole)])
    by_variable: dict[int, list[tuple[int, Term]]] = {}
    for coef, term in terms:
        used = set(_variables(term))
        if len(used) != 1 or term.span[2]:
            return None
        by_variable.setdefault(used.pop(), []).append((coef, term))
    if sum(size(program.domains[v]) for v in by_variable) > MOST_VALUES:
        return None
    result: Costs = {}
    for v, summed in by_variable.items():
        result[v] = [sum(coef * (value_of(term, x) or 0) for coef, term in summed) for x in program.domains[v]]
    largest = sum(max(map(abs, each)) for each in result.values())
    return (constant, result) if largest <= SAFE else None


def _variables(term: Term) -> Iterator[int]:
    if term.op == Op.VAR:
        yield term.start or 0
    for arg in term.args:
        yield from _variables(arg)


def prefer_large(
    objective: Tree, program: Program, table: tuple[int, Costs] | None, deadline: float | None
) -> set[int]:
    """The variables at whose largest value the objective's lower bound is smaller than at their smallest. table: its
    ``costs``. Raises TimeLimit."""
    if table is not None:
        return {v for v, each in table[1].items() if each[-1] < each[0]}
    code = Code.of(objective)
    low, high = bounds(program)
    found = set()
    for v in code.variables:
        check_time(deadline)
        ends, before = [], (low[v], high[v])
        for end in before:
            low[v] = high[v] = end
            ends.append(forward(code, low, high)[-1][0])
        low[v], high[v] = before
        if ends[1] < ends[0]:
            found.add(v)
    return found
