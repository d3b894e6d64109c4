"""From a Problem to an answer: presolve, split into independent parts, and the choice of engine."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any, Literal

from constrint.domains import size
from constrint.errors import ConstrintError, TimeLimit
from constrint.presolve import Prepared, prepare
from constrint.program import Code, Program

if TYPE_CHECKING:
    from constrint.expr import Expr
    from constrint.model import Problem, Solution
    from constrint.protocols import Prover, Question, Search

ENGINES = ("native", "python", "cp-sat")


@dataclass(frozen=True)
class Answer:
    """What an engine found; the fields are those of ``constrint.Result``."""

    status: Literal["feasible", "infeasible", "unknown"]
    solution: Solution | None = None
    objective: int | None = None
    proven: bool = False
    bound: int | None = None


@cache
def _core() -> Any:
    """The C++ core, or None where it was not built."""
    try:
        from constrint import _core_native
    except ImportError:
        return None
    from constrint import native  # noqa: F401  (it is needed with the core, and loads with it)

    return _core_native


def has_core() -> bool:
    """Whether the C++ core was built; without it the Python engine answers."""
    return _core() is not None


def question(problem: Problem, engine: str) -> Question:
    """The problem as the engine named sees it. Raises ConstrintError for an unknown engine."""
    if engine == "cp-sat":
        from constrint.cpsat import CpSatQuestion

        return CpSatQuestion(problem)
    if engine not in ENGINES:
        raise ConstrintError(f"unknown engine {engine!r}; known: {', '.join(ENGINES)}")
    return SearchQuestion(problem, engine == "native" and has_core())


class SearchQuestion:
    """Presolved once per question, then searched by the core or its Python twin."""

    def __init__(self, problem: Problem, native: bool) -> None:
        self.problem, self.native = problem, native
        # What one refutation learns serves the next.
        self.lowered: dict[int, list[Code]] = {}
        self.weight = [1.0] * len(problem.domains)

    def first(self, order: Mapping[str, bool], time_limit: float | None) -> Answer:
        deadline = deadline_in(time_limit)
        program = self.prepare().program
        if program is None:
            return Answer("infeasible")
        status, values = self.first_of(split(program), order, deadline)
        return Answer(status, None if values is None else named(program, values))

    def refute(self, chosen: Iterable[int], time_limit: float | None) -> Solution | frozenset[int]:
        """Any solution under the constraints chosen, by number, or else the numbers of some that cannot hold together
        (perhaps more than needed). Raises TimeLimit."""
        deadline = deadline_in(time_limit)
        prepared = prepare(self.problem, None, _core() if self.native else None, chosen, self.lowered)
        program = prepared.program
        if program is None:
            return bits(prepared.conflict)
        values = [domain[0] for domain in program.domains]
        for part in split(program):
            if not part.program.codes:
                continue
            chain = sorted(part.variables)
            prover = self.prover(part.program, chain, [False] * len(chain))
            prover.weight = self.weight
            found = prover.any(deadline)
            self.weight = prover.weight
            if found is None:
                return bits(prover.conflict())
            for v in chain:
                values[v] = found[v]
        return named(program, values)

    def best(self, objective: Expr, sign: int, order: Mapping[str, bool], time_limit: float | None) -> Answer:
        from constrint.optimum import best

        return best(self, objective, sign, order, time_limit)

    def solutions(self, order: Mapping[str, bool]) -> Iterator[Solution]:
        program = self.prepare().program
        if program is None:
            return
        parts = split(program)
        if len(parts) > 1 and self.first_of(parts, order, None)[0] == "infeasible":
            return
        positions = [program.names.index(name) for name in order]
        for values in self.search(program).solutions(positions, list(order.values())):
            yield named(program, values)

    def count(self, time_limit: float | None) -> int:
        from constrint.search import elimination_order

        deadline = deadline_in(time_limit)
        program = self.prepare().program
        total = 0 if program is None else 1
        for part in [] if program is None else split(program):
            if part.program.codes:
                chain = elimination_order(part.program, sorted(part.variables))
                total *= self.search(part.program).count(chain, deadline)
            else:
                total *= prod(size(part.program.domains[v]) for v in part.variables)
            if not total:
                break
        return total

    def first_of(
        self, parts: Sequence[Part], order: Mapping[str, bool], deadline: float | None
    ) -> tuple[Literal["feasible", "infeasible", "unknown"], list[int] | None]:
        """The first solution over the variables of ``parts``, by position. The parts are independent, so it is made
        of the first of each."""
        values: list[int] = []
        for part in parts:
            program = part.program
            values = values or [0] * len(program.names)
            ordered = [v for v in map(program.names.index, order) if v in part.variables]
            descending = [order[program.names[v]] for v in ordered]
            if not program.codes:
                for v, large in zip(ordered, descending, strict=True):
                    values[v] = program.domains[v][-1 if large else 0]
                continue
            try:
                found = self.prover(program, ordered, descending).first(deadline)
            except TimeLimit:
                return "unknown", None
            if found is None:
                return "infeasible", None
            for v in ordered:
                values[v] = found[v]
        return "feasible", values or [0] * len(self.problem.domains)

    def prepare(self, objective: Expr | None = None) -> Prepared:
        return prepare(self.problem, objective, _core() if self.native else None)

    def prover(self, program: Program, order: Sequence[int], descending: Sequence[bool]) -> Prover:
        if self.native:
            from constrint.native import NativeProver, fits

            if fits(program, wide=True):
                return NativeProver(program, order, descending, _core())
        from constrint.prove import PythonProver

        return PythonProver(program, order, descending)

    def search(self, program: Program) -> Search:
        if self.native:
            from constrint.native import NativeSearch, fits

            if fits(program):
                return NativeSearch(program, _core())
        from constrint.search import PythonSearch

        return PythonSearch(program)


def deadline_in(time_limit: float | None) -> float | None:
    return None if time_limit is None else time.perf_counter() + time_limit


def bits(number: int) -> frozenset[int]:
    """The places of the bits that are set."""
    return frozenset(place for place in range(number.bit_length()) if number >> place & 1)


def bounds(program: Program) -> tuple[list[int], list[int]]:
    return [domain[0] for domain in program.domains], [domain[-1] for domain in program.domains]


def named(program: Program, values: Sequence[int]) -> Solution:
    return dict(zip(program.names, values, strict=True))


@dataclass(frozen=True)
class Part:
    """Some variables of a program, by position, and every constraint on them."""

    program: Program
    variables: frozenset[int]


def split(program: Program) -> list[Part]:
    """Split a program into parts that share no undecided variable."""
    parent = list(range(len(program.names)))

    def find(v: int) -> int:
        while parent[v] != v:
            parent[v] = v = parent[parent[v]]
        return v

    undecided = [domain[0] != domain[-1] for domain in program.domains]
    for code in program.codes:
        scope = [v for v in code.variables if undecided[v]]
        for v in scope[1:]:
            parent[find(v)] = find(scope[0])
    groups: dict[int, set[int]] = {}
    for v in range(len(program.names)):
        groups.setdefault(find(v), set()).add(v)
    codes: dict[int, list[Code]] = {root: [] for root in groups}
    for code in program.codes:
        scope = [v for v in code.variables if undecided[v]]
        codes[find(scope[0]) if scope else next(iter(groups))].append(code)
    return [
        Part(
            Program(program.names, program.domains, codes[root], program.sources, program.why, program.room),
            frozenset(group),
        )
        for root, group in groups.items()
    ]
