"""One problem for the search, in the C++ core or its Python twin: what every call about it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from constrint.core import load_core
from constrint.errors import TimeLimit
from constrint.expr import Expr
from constrint.parts import Part
from constrint.presolve import Prepared, prepare
from constrint.program import Program
from constrint.protocols import Prover, Search
from constrint.result import Status
from constrint.statement import Statement


class Searcher:
    """native: by the core, where 64 bits suffice. prepared: see EngineCall."""

    def __init__(self, problem: Statement, native: bool) -> None:
        self.problem, self.native = problem, native
        self.prepared: Prepared | None = None

    def first_of(
        self, program: Program, parts: Sequence[Part], order: Mapping[str, bool], deadline: float | None
    ) -> tuple[Status, list[int] | None]:
        """The first solution (of no order: any) under the constraints of ``parts``, by position of the program's
        variables. The parts are independent, so it is made of the first of each."""
        preferred = bool(order)
        order = order or dict.fromkeys(program.names, False)
        position = {name: v for v, name in enumerate(program.names)}
        rank = {position[name]: place for place, name in enumerate(order)}
        large = {position[name]: large for name, large in order.items()}
        values = [domain[-1 if large[v] else 0] for v, domain in enumerate(program.domains)]
        for part in parts:
            local = part.local(program)
            ordered = sorted(range(len(part.variables)), key=lambda i: rank[part.variables[i]])
            descending = [large[part.variables[i]] for i in ordered]
            try:
                prover = self.prover(local, ordered, descending)
                found = prover.first(deadline) if preferred else prover.any(deadline)
            except TimeLimit:
                return "unknown", None
            if found is None:
                return "infeasible", None
            for v, value in zip(part.variables, found, strict=True):
                values[v] = value
        return "feasible", values

    def prepare(self, objective: Expr | None = None, deadline: float | None = None) -> Prepared:
        if self.prepared is not None:
            return self.prepared
        return prepare(self.problem, objective, load_core() if self.native else None, deadline=deadline)

    def prover(self, program: Program, order: Sequence[int], descending: Sequence[bool]) -> Prover:
        if self.native:
            from constrint.native import NativeProver, fits

            if fits(program, wide=True):
                return NativeProver(program, order, descending, load_core())
        from constrint.prove import PythonProver

        return PythonProver(program, order, descending)

    def search(self, program: Program) -> Search:
        if self.native:
            from constrint.native import NativeSearch, fits

            if fits(program):
                return NativeSearch(program, load_core())
        from constrint.search import PythonSearch

        return PythonSearch(program)
