"""One factor of a solution set: which variables constraints join, and the diagram over such a group."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Protocol

from constrint.core import load_core
from constrint.diagram import TooLarge, build
from constrint.diagram import product as every_combination
from constrint.domains import Domain, size
from constrint.errors import ConstrintError
from constrint.intervals import TRUE
from constrint.limits import check_time
from constrint.order import improved, proposals
from constrint.program import Code, Program
from constrint.residual import Term, residual

QUICK = (4_000, 40_000)
"""Steps allowed to the proposed orders before one is improved."""
PATIENT = (400_000, 4_000_000, 20_000_000)
"""Steps allowed after that; more than the last would take over a gigabyte."""
SMALL = 1_500
"""Groups of at most this many combinations need no choice of order: any is done in fewer steps than QUICK allows."""

Values = tuple[int, ...]
"""The values of a group's variables, in the factor's order."""


class Factor(Protocol):
    """The solutions over one group of variables; see ``constrint.diagram.Diagram``."""

    @property
    def total(self) -> int: ...

    @property
    def size(self) -> int: ...

    def trim(self) -> None: ...

    def decode(self, indices: Sequence[int]) -> list[Values]: ...

    def index(self, values: Sequence[int]) -> int: ...

    def best(
        self,
        costs: Sequence[Sequence[int]],
        order: Sequence[int],
        descending: Sequence[bool],
        deadline: float | None = None,
    ) -> tuple[int, list[int]]: ...

    @property
    def domains(self) -> Sequence[Domain]: ...

    def fill(
        self,
        columns: Sequence[Any],
        deadline: float | None = None,
        first: int = 0,
        count: int | None = None,
        values: Sequence[Sequence[int]] = (),
    ) -> None: ...

    def spread(self, values: Any, inner: int, column: Any, deadline: float | None = None) -> None: ...


class DoesNotFactor(ConstrintError):
    """No order of the variables keeps the diagram of a group small enough to build."""


_Group = tuple[list[int], list[Code], list[Term]]


def independent(program: Program, deadline: float | None = None) -> list[_Group] | None:
    """Variables joined by constraints, with those constraints; None where one of these can never hold."""
    root = list(range(len(program.names)))

    def find(v: int) -> int:
        while root[v] != v:
            root[v] = v = root[root[v]]
        return v

    domains = program.domains
    kept: list[tuple[int, Code, Term]] = []
    for code in program.codes:
        check_time(deadline)
        term = residual(code, domains)
        # What surely holds joins nothing, nor is there anything where one surely does not.
        if not term.span[2] & TRUE:
            return None
        if term.span[2] == TRUE:
            continue
        scope = [v for v in code.variables if domains[v][0] != domains[v][-1]]
        kept.append((scope[0], code, term))
        for v in scope[1:]:
            a, b = find(v), find(scope[0])
            # The smaller position is the root, so that groups come in order of declaration.
            root[max(a, b)] = min(a, b)
    # Variables with one value make one group: there is nothing to choose in it.
    decided = [v for v in range(len(root)) if domains[v][0] == domains[v][-1]]
    for v in decided:
        root[v] = decided[0]
    groups: dict[int, _Group] = {}
    group_of = [groups.setdefault(find(v), ([], [], [])) for v in range(len(root))]
    for v, (variables, _, _) in enumerate(group_of):
        variables.append(v)
    for v, code, term in kept:
        group_of[v][1].append(code)
        group_of[v][2].append(term)
    return list(groups.values())


def make_factor(
    name: str,
    program: Program,
    variables: list[int],
    codes: list[Code],
    terms: list[Term],
    native: bool,
    deadline: float | None,
    limits: Sequence[int],
) -> tuple[list[int], Factor]:
    """The order and the diagram of one group: the proposed orders race with growing allowances."""
    if prod(size(program.domains[v]) for v in variables) <= SMALL:
        orders = [variables]
    else:
        orders = proposals(program, codes, terms, variables, deadline)
    for number, limit in enumerate(limits):
        if limit in PATIENT and (number == 0 or limits[number - 1] in QUICK) and len(variables) > 2:
            better = improved(terms, orders[0], program.domains, deadline)
            orders = [better, *(order for order in orders if order != better)]
        for order in orders:
            try:
                return order, _build(terms, order, program.domains, limit, native, deadline)
            except TooLarge:
                continue
    raise DoesNotFactor(
        f"the solutions of {name!r} over {', '.join(program.names[v] for v in variables)} do not factor: no order of "
        f"these variables was done in {limits[-1]:,} steps; iterate over solutions(), estimate() their number, "
        "sample(), or narrow the domains"
    )


def at_once(
    terms: Sequence[Term],
    order: Sequence[int],
    domains: Sequence[Domain],
    limit: int,
    native: bool,
    deadline: float | None,
) -> Factor | None:
    """The diagram of one group in the order declared, of the values that solutions have; None where it takes more than
    ``limit`` steps."""
    try:
        factor = _build(terms, order, domains, limit, native, deadline)
    except TooLarge:
        return None
    factor.trim()
    return factor


def _build(
    terms: Sequence[Term],
    order: Sequence[int],
    domains: Sequence[Domain],
    limit: int,
    native: bool,
    deadline: float | None,
) -> Factor:
    found = _native(terms, order, domains, limit, deadline) if native else None
    return build(terms, order, domains, limit, deadline) if found is None else found


def free_factor(variables: Sequence[int], domains: Sequence[Domain], native: bool, deadline: float | None) -> Factor:
    """Variables that no constraint joins."""
    found = _native((), variables, domains, QUICK[0], deadline) if native and len(variables) < QUICK[0] else None
    return every_combination([domains[v] for v in variables]) if found is None else found


def _native(
    terms: Sequence[Term], order: Sequence[int], domains: Sequence[Domain], limit: int, deadline: float | None
) -> Factor | None:
    """The core's diagram; None where its numbers do not suffice."""
    from constrint.native_diagram import NativeDiagram, Overflow, fits

    if not fits(terms, [domains[v] for v in order]):
        return None
    try:
        return NativeDiagram(load_core(), terms, order, domains, limit, deadline)
    except Overflow:
        return None
