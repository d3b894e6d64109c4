"""From the statement of a problem to an answer: the engines, and the choice among them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod

from constrint.core import has_core, load_core
from constrint.domains import size
from constrint.errors import ConstrintError, TimeLimit
from constrint.expr import Expr
from constrint.integers import shown
from constrint.limits import deadline_in
from constrint.parts import named, split
from constrint.presolve import prepare
from constrint.protocols import EngineCall
from constrint.result import Answer
from constrint.searcher import Searcher
from constrint.statement import Solution, Statement

ENGINES = ("auto", "native", "python", "cp-sat")
NATIVE = ("auto", "native")
"""Those that use the C++ core where it can."""


class SearchCall(Searcher):
    """Presolved once per call, then searched by the core or its Python twin."""

    def __init__(self, problem: Statement, native: bool) -> None:
        super().__init__(problem, native)
        # What finding one conflict teaches serves the next.
        self.weight = [1.0] * len(problem.domains)

    def first(self, order: Mapping[str, bool], time_limit: float | None) -> Answer:
        deadline = deadline_in(time_limit)
        try:
            program = self.prepare(deadline=deadline).program
        except TimeLimit:
            return Answer("unknown")
        if program is None:
            return Answer("infeasible")
        status, values = self.first_of(program, split(program), order, deadline)
        return Answer(status, None if values is None else named(program, values))

    def find_conflict(self, chosen: Iterable[int], time_limit: float | None) -> Solution | frozenset[int]:
        """Any solution under the constraints chosen, by number, or else the numbers of some that cannot hold together
        (perhaps more than needed). Raises TimeLimit."""
        deadline = deadline_in(time_limit)
        prepared = prepare(self.problem, None, load_core() if self.native else None, chosen, deadline)
        program = prepared.program
        if program is None:
            return bits(prepared.conflict)
        values = [domain[0] for domain in program.domains]
        for part in split(program):
            local = part.local(program)
            prover = self.prover(local, range(len(part.variables)), [False] * len(part.variables))
            prover.weight = [self.weight[v] for v in part.variables]
            found = prover.any(deadline)
            for v, weight in zip(part.variables, prover.weight, strict=True):
                self.weight[v] = weight
            if found is None:
                return bits(prover.conflict())
            for v, value in zip(part.variables, found, strict=True):
                values[v] = value
        return named(program, values)

    def best(self, objective: Expr, sign: int, order: Mapping[str, bool], time_limit: float | None) -> Answer:
        from constrint.optimum import best

        return best(self, objective, sign, order, time_limit)

    def solutions(self, order: Mapping[str, bool]) -> Iterator[Solution]:
        program = self.prepare().program
        if program is None:
            return
        parts = split(program)
        if len(parts) > 1 and self.first_of(program, parts, order, None)[0] == "infeasible":
            return
        positions = [program.names.index(name) for name in order]
        for values in self.search(program).solutions(positions, list(order.values())):
            yield named(program, values)

    def count(self, time_limit: float | None) -> int:
        from constrint.search import elimination_order

        deadline = deadline_in(time_limit)
        program = self.prepare(deadline=deadline).program
        if program is None:
            return 0
        parts = split(program)
        joined = {v for part in parts for v in part.variables}
        total = prod(size(domain) for v, domain in enumerate(program.domains) if v not in joined)
        for part in parts:
            local = part.local(program)
            total *= self.search(local).count(elimination_order(local, range(len(part.variables)), deadline), deadline)
            if not total:
                break
        return total


def engine_call(problem: Statement, engine: str) -> EngineCall:
    """The calls of the engine named, for a problem. Raises ConstrintError for an unknown engine."""
    if engine == "cp-sat":
        from constrint.cpsat import CpSatCall

        return CpSatCall(problem)
    if engine not in ENGINES:
        raise ConstrintError(f"unknown engine {shown(engine)}; known: {', '.join(ENGINES)}")
    call = SearchCall(problem, engine in NATIVE and has_core())
    if engine == "auto":
        from constrint.auto import AutoCall

        return AutoCall(problem, call)
    return call


def bits(number: int) -> frozenset[int]:
    """The places of the bits that are set."""
    return frozenset(place for place in range(number.bit_length()) if number >> place & 1)
