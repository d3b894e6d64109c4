"""From a Problem to an answer: presolve, split into independent parts, and the choice of engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any, Literal

from constrint.domains import size
from constrint.errors import ConstrintError, TimeLimit
from constrint.integers import shown
from constrint.limits import deadline_in
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
        raise ConstrintError(f"unknown engine {shown(engine)}; known: {', '.join(ENGINES)}")
    return SearchQuestion(problem, engine == "native" and has_core())


class SearchQuestion:
    """Presolved once per question, then searched by the core or its Python twin."""

    def __init__(self, problem: Problem, native: bool) -> None:
        self.problem, self.native = problem, native
        # What one refutation learns serves the next.
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

    def refute(self, chosen: Iterable[int], time_limit: float | None) -> Solution | frozenset[int]:
        """Any solution under the constraints chosen, by number, or else the numbers of some that cannot hold together
        (perhaps more than needed). Raises TimeLimit."""
        deadline = deadline_in(time_limit)
        prepared = prepare(self.problem, None, _core() if self.native else None, chosen, deadline)
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

    def first_of(
        self, program: Program, parts: Sequence[Part], order: Mapping[str, bool], deadline: float | None
    ) -> tuple[Literal["feasible", "infeasible", "unknown"], list[int] | None]:
        """The first solution under the constraints of ``parts``, by position of the program's variables. The parts are
        independent, so it is made of the first of each."""
        position = {name: v for v, name in enumerate(program.names)}
        rank = {position[name]: place for place, name in enumerate(order)}
        large = {position[name]: large for name, large in order.items()}
        values = [domain[-1 if large[v] else 0] for v, domain in enumerate(program.domains)]
        for part in parts:
            local = part.local(program)
            ordered = sorted(range(len(part.variables)), key=lambda i: rank[part.variables[i]])
            descending = [large[part.variables[i]] for i in ordered]
            try:
                found = self.prover(local, ordered, descending).first(deadline)
            except TimeLimit:
                return "unknown", None
            if found is None:
                return "infeasible", None
            for v, value in zip(part.variables, found, strict=True):
                values[v] = value
        return "feasible", values

    def prepare(self, objective: Expr | None = None, deadline: float | None = None) -> Prepared:
        return prepare(self.problem, objective, _core() if self.native else None, deadline=deadline)

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


def bits(number: int) -> frozenset[int]:
    """The places of the bits that are set."""
    return frozenset(place for place in range(number.bit_length()) if number >> place & 1)


def bounds(program: Program) -> tuple[list[int], list[int]]:
    return [domain[0] for domain in program.domains], [domain[-1] for domain in program.domains]


def named(program: Program, values: Sequence[int]) -> Solution:
    return dict(zip(program.names, values, strict=True))


@dataclass(frozen=True)
class Part:
    """Constraints of a program that share undecided variables with each other, and with no other constraint.

    variables: every variable that they name, by position, ascending.
    """

    codes: list[Code]
    variables: list[int]

    def local(self, program: Program) -> Program:
        """The part as a program of its own, over its variables alone, in their order."""
        if len(self.variables) == len(program.names):
            return Program(program.names, program.domains, self.codes, program.sources, program.why, program.room)
        place = {v: i for i, v in enumerate(self.variables)}
        return Program(
            [program.names[v] for v in self.variables],
            [program.domains[v] for v in self.variables],
            [code.renumbered(place) for code in self.codes],
            program.sources,
            [program.why[v] for v in self.variables] if program.why else [],
            program.room,
        )


def split(program: Program) -> list[Part]:
    """The constraints of a program in parts that share no undecided variable."""
    parent = list(range(len(program.names)))

    def find(v: int) -> int:
        while parent[v] != v:
            parent[v] = v = parent[parent[v]]
        return v

    undecided = [domain[0] != domain[-1] for domain in program.domains]
    scopes = [[v for v in code.variables if undecided[v]] for code in program.codes]
    for scope in scopes:
        for v in scope[1:]:
            parent[find(v)] = find(scope[0])
    groups: dict[int, list[Code]] = {}
    for code, scope in zip(program.codes, scopes, strict=True):
        groups.setdefault(find(scope[0]) if scope else -1, []).append(code)
    return [Part(codes, sorted({v for code in codes for v in code.variables})) for codes in groups.values()]
