"""From a Problem to an answer: presolve, split into independent parts, and the choice of engine."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any, Literal, Protocol

from constrint.domains import size
from constrint.errors import ConstrintError, TimeLimit
from constrint.forward import forward
from constrint.presolve import Prepared, prepare
from constrint.program import Code, Op, Program, Tree

if TYPE_CHECKING:
    from constrint.expr import Expr
    from constrint.model import Problem, Solution

Incumbent = tuple[int, int | None, list[int] | None]
"""Of an objective to be minimised: a lower bound, and the best value so far with its solution."""

SEARCHING = 0.6
"""The share of a time limit in which ``best`` looks for better solutions; the rest raises the bound."""

ENGINES = ("native", "python", "cp-sat")


@dataclass(frozen=True)
class Answer:
    """What an engine found; the fields are those of ``constrint.Result``."""

    status: Literal["feasible", "infeasible", "unknown"]
    solution: Solution | None = None
    objective: int | None = None
    proven: bool = False
    bound: int | None = None


class Question(Protocol):
    """One problem as an engine sees it. order: every variable, and whether its largest value comes first."""

    def first(self, order: Mapping[str, bool], time_limit: float | None) -> Answer: ...

    def refute(self, chosen: Iterable[int], time_limit: float | None) -> Solution | frozenset[int]: ...

    def best(self, objective: Expr, sign: int, order: Mapping[str, bool], time_limit: float | None) -> Answer: ...

    def solutions(self, order: Mapping[str, bool]) -> Iterator[Solution]: ...

    def count(self, time_limit: float | None) -> int: ...


class Search(Protocol):
    """The search over one program; see ``constrint.search.PythonSearch``."""

    def solutions(
        self, order: Sequence[int], descending: Sequence[bool], deadline: float | None = None
    ) -> Iterator[list[int]]: ...

    def count(self, order: Sequence[int], deadline: float | None = None) -> int: ...

    def best(
        self, order: Sequence[int], descending: Sequence[bool], bounded: Code, deadline: float | None = None
    ) -> tuple[int | None, list[int] | None, bool]: ...


class Prover(Protocol):
    """The search for one solution of one program; see ``constrint.prove.PythonProver``."""

    def any(self, deadline: float | None = None) -> list[int] | None: ...

    def first(self, deadline: float | None = None) -> list[int] | None: ...

    def conflict(self) -> int: ...

    weight: list[float]


@cache
def _core() -> Any:
    """The C++ core, or None where it was not built."""
    try:
        from constrint import _core_native
    except ImportError:
        return None
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
        deadline = _deadline(time_limit)
        program = self._prepare().program
        if program is None:
            return Answer("infeasible")
        status, values = self._first(_parts(program), order, deadline)
        return Answer(status, None if values is None else _named(program, values))

    def refute(self, chosen: Iterable[int], time_limit: float | None) -> Solution | frozenset[int]:
        """Any solution under the constraints chosen, by number, or else the numbers of some that cannot hold together
        (perhaps more than needed). Raises TimeLimit."""
        deadline = _deadline(time_limit)
        prepared = prepare(self.problem, None, _core() if self.native else None, chosen, self.lowered)
        program = prepared.program
        if program is None:
            return bits(prepared.conflict)
        values = [domain[0] for domain in program.domains]
        for part in _parts(program):
            if not part.program.codes:
                continue
            chain = sorted(part.variables)
            prover = self._prover(part.program, chain, [False] * len(chain))
            prover.weight = self.weight
            found = prover.any(deadline)
            self.weight = prover.weight
            if found is None:
                return bits(prover.conflict())
            for v in chain:
                values[v] = found[v]
        return _named(program, values)

    def best(self, objective: Expr, sign: int, order: Mapping[str, bool], time_limit: float | None) -> Answer:
        from constrint.search import elimination_order

        deadline = _deadline(time_limit)
        prepared = self._prepare(objective if sign > 0 else -objective)
        program, lowered = prepared.program, prepared.objective
        if program is None or lowered is None:
            return Answer("infeasible", proven=True)
        low, high, undefined = forward(Code.of(lowered), *_bounds(program))[-1]
        if undefined == 2:
            return Answer("infeasible", proven=True)
        bounded = Code.of(Tree(Op.LE, (lowered, Tree(Op.CONST, value=high))), program.sources - 1)
        parts = _parts(Program(program.names, program.domains, [*program.codes, bounded], program.sources, program.why))
        main = next(part for part in parts if any(code is bounded for code in part.program.codes))
        status, values = self._first([part for part in parts if part is not main], order, deadline)
        if values is None:
            return Answer(status, proven=status == "infeasible")
        chain = elimination_order(main.program, sorted(main.variables))
        descending = [_prefers_large(lowered, program, v) for v in chain]
        # With a time limit, the last part of it is spent on the bound.
        soon = deadline if time_limit is None else _deadline(SEARCHING * time_limit)
        value, found, finished = self._search(main.program).best(chain, descending, bounded, soon)
        if not finished:
            low, value, found = self._raise_bound(
                main.program, chain, descending, bounded, (low, value, found), deadline
            )
            finished = low == value
        if value is None or found is None:
            return Answer("infeasible", proven=True) if finished or low > high else Answer("unknown", bound=sign * low)
        if finished:
            # The optimum is known: now the first solution, by preference, that has it.
            bounded.a[-2] = value
            _, preferred = self._first([main], order, deadline)
            found = preferred or found
        for v in main.variables:
            values[v] = found[v]
        return Answer("feasible", _named(program, values), sign * value, finished, sign * (value if finished else low))

    def _raise_bound(
        self,
        program: Program,
        order: Sequence[int],
        descending: Sequence[bool],
        bounded: Code,
        known: Incumbent,
        deadline: float | None,
    ) -> Incumbent:
        """Refute objectives near the lower bound, in growing steps, until it meets the best value or time is up."""
        low, value, found = known
        high, step, growth = bounded.a[-2] if value is None else value - 1, 0, 2
        while low <= high:
            bounded.a[-2] = min(low + step, high)
            now = time.perf_counter()
            soon = None if deadline is None else now + max(0.0, deadline - now) / 4
            try:
                better = self._prover(program, order, descending).any(soon)
            except TimeLimit:
                if deadline is None or deadline - now < 0.01 or not step:
                    break
                step, growth = step // 4, 1
                continue
            if better is None:
                low, step = bounded.a[-2] + 1, growth * step + 1
            else:
                value, found = forward(bounded, better, better)[-3][0], better
                high, step = value - 1, step // 4
        return low, value, found

    def solutions(self, order: Mapping[str, bool]) -> Iterator[Solution]:
        program = self._prepare().program
        if program is None:
            return
        parts = _parts(program)
        if len(parts) > 1 and self._first(parts, order, None)[0] == "infeasible":
            return
        positions = [program.names.index(name) for name in order]
        for values in self._search(program).solutions(positions, list(order.values())):
            yield _named(program, values)

    def count(self, time_limit: float | None) -> int:
        from constrint.search import elimination_order

        deadline = _deadline(time_limit)
        program = self._prepare().program
        total = 0 if program is None else 1
        for part in [] if program is None else _parts(program):
            if part.program.codes:
                chain = elimination_order(part.program, sorted(part.variables))
                total *= self._search(part.program).count(chain, deadline)
            else:
                total *= prod(size(part.program.domains[v]) for v in part.variables)
            if not total:
                break
        return total

    def _first(
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
                found = self._prover(program, ordered, descending).first(deadline)
            except TimeLimit:
                return "unknown", None
            if found is None:
                return "infeasible", None
            for v in ordered:
                values[v] = found[v]
        return "feasible", values or [0] * len(self.problem.domains)

    def _prepare(self, objective: Expr | None = None) -> Prepared:
        return prepare(self.problem, objective, _core() if self.native else None)

    def _prover(self, program: Program, order: Sequence[int], descending: Sequence[bool]) -> Prover:
        if self.native:
            from constrint.native import NativeProver, fits

            if fits(program, wide=True):
                return NativeProver(program, order, descending, _core())
        from constrint.prove import PythonProver

        return PythonProver(program, order, descending)

    def _search(self, program: Program) -> Search:
        if self.native:
            from constrint.native import NativeSearch, fits

            if fits(program):
                return NativeSearch(program, _core())
        from constrint.search import PythonSearch

        return PythonSearch(program)


def _deadline(time_limit: float | None) -> float | None:
    return None if time_limit is None else time.perf_counter() + time_limit


def bits(number: int) -> frozenset[int]:
    """The places of the bits that are set."""
    return frozenset(place for place in range(number.bit_length()) if number >> place & 1)


def _bounds(program: Program) -> tuple[list[int], list[int]]:
    return [domain[0] for domain in program.domains], [domain[-1] for domain in program.domains]


def _named(program: Program, values: Sequence[int]) -> Solution:
    return dict(zip(program.names, values, strict=True))


def _prefers_large(objective: Tree, program: Program, v: int) -> bool:
    """Whether the objective's lower bound is smaller at the largest value of ``v`` than at its smallest."""
    code = Code.of(objective)
    low, high = _bounds(program)
    ends = []
    for end in (low[v], high[v]):
        spans = forward(code, [*low[:v], end, *low[v + 1 :]], [*high[:v], end, *high[v + 1 :]])
        ends.append(spans[-1][0])
    return ends[1] < ends[0]


@dataclass(frozen=True)
class Part:
    """Some variables of a program, by position, and every constraint on them."""

    program: Program
    variables: frozenset[int]


def _parts(program: Program) -> list[Part]:
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
