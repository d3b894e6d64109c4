"""The C++ core's diagrams behind the same calls as ``constrint.diagram``."""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from itertools import chain, pairwise
from typing import Any

from constrint.diagram import Diagram, TooLarge
from constrint.domains import Domain, size
from constrint.errors import TimeLimit
from constrint.layers import arranged
from constrint.limits import PASSED
from constrint.program import Op
from constrint.residual import SAFE, Term
from constrint.residual import fits as term_fits

_MASK = (1 << 64) - 1
_LIMIT = 1 << 62
"""The core's bounds of larger numbers."""


class Overflow(Exception):
    """A count of more than 128 bits, which the Python twin can hold."""


def fits(terms: Sequence[Term], domains: Sequence[Domain]) -> bool:
    """Whether the core's 64-bit numbers and 32-bit positions suffice for these constraints and domains."""
    for domain in domains:
        if domain[0] < -SAFE or domain[-1] > SAFE or size(domain) >= 1 << 32:
            return False
    return all(map(term_fits, terms))


class NativeDiagram:
    """See ``constrint.diagram.Diagram``."""

    def __init__(
        self,
        core: Any,
        terms: Sequence[Term],
        order: Sequence[int],
        domains: Sequence[Domain],
        limit: int,
        deadline: float | None,
    ) -> None:
        place = {v: d for d, v in enumerate(order)}
        self.core, self.domains = core, [domains[v] for v in order]
        constraints = [_nodes(arranged(term, place), place, core.UNDEFINED) for term in terms]
        try:
            self.diagram = core.Diagram(constraints, _choices(self.domains), limit, _seconds(deadline))
        except core.DiagramTooLarge:
            raise TooLarge from None
        except core.DiagramOverflow:
            raise Overflow from None
        except core.DiagramTimeLimit:
            raise TimeLimit(PASSED) from None
        self._measure()

    def _measure(self) -> None:
        high, low = self.diagram.total
        self.total: int = high << 64 | low
        self.size: int = self.diagram.size
        self.steps: int = self.diagram.steps

    def __reduce__(self) -> tuple[Any, ...]:
        return restored, (self.domains, self.layers(), self.diagram.root, self.steps)

    def layers(self) -> list[tuple[Any, Any]]:
        """Of each layer, where the runs of its nodes begin, and start, stop and child of every run."""
        return [(array("Q", begin), array("q", runs)) for begin, runs in self.diagram.layers()]

    def trim(self) -> None:
        """See ``constrint.diagram.Diagram``."""
        if self.diagram.trim():
            self.domains = [
                tuple(values) if values else range(low, low + count * step, step)
                for values, low, step, count in self.diagram.domains()
            ]

    def decode(self, indices: Sequence[int]) -> list[tuple[int, ...]]:
        """The solutions of these indices, each within 0 .. total - 1."""
        if self.total > _MASK:
            flat = self.diagram.decode([index >> 64 for index in indices], [index & _MASK for index in indices])
        else:
            flat = self.diagram.decode((), indices)
        return list(zip(*[iter(flat)] * len(self.domains), strict=True))

    def index(self, values: Sequence[int]) -> int:
        """The index of a solution, by layer; -1 for anything else."""
        if any(abs(value) > SAFE for value in values):
            return -1
        found = self.diagram.index(values)
        return -1 if found is None else found[0] << 64 | found[1]

    def best(
        self,
        costs: Sequence[Sequence[int]],
        order: Sequence[int],
        descending: Sequence[bool],
        deadline: float | None = None,
    ) -> tuple[int, list[int]]:
        """See ``constrint.diagram.Diagram``; the costs must sum within 62 bits."""
        large = [int(down) for down in descending]
        try:
            value, values = self.diagram.best(list(costs), list(order), large, _seconds(deadline))
        except self.core.DiagramTimeLimit:
            raise TimeLimit(PASSED) from None
        return value, values

    def fill(
        self,
        columns: Sequence[Any],
        deadline: float | None = None,
        first: int = 0,
        count: int | None = None,
        values: Sequence[Sequence[int]] = (),
    ) -> None:
        """See ``constrint.diagram.Diagram``; the columns hold signed integers of one width."""
        written = values or [()] * len(self.domains)
        try:
            self.diagram.fill(columns, _seconds(deadline), first, self.total if count is None else count, written)
        except self.core.DiagramTimeLimit:
            raise TimeLimit("the time limit passed before the table was filled") from None

    def spread(self, values: Any, inner: int, column: Any, deadline: float | None = None) -> None:
        """Fill a column with each value ``inner`` times, over and over."""
        try:
            self.core.spread(values, inner, column, _seconds(deadline))
        except self.core.DiagramTimeLimit:
            raise TimeLimit("the time limit passed before the table was filled") from None


def restored(domains: list[Domain], layers: list[tuple[Any, Any]], root: int, steps: int) -> Diagram | NativeDiagram:
    """A diagram that was pickled, for the core or, where it was not built, for its Python twin."""
    from constrint.core import load_core

    core = load_core()
    if core is not None:
        diagram = NativeDiagram.__new__(NativeDiagram)
        diagram.core, diagram.domains = core, domains
        diagram.diagram = core.Diagram(_choices(domains), layers, root, steps)
        diagram._measure()
        return diagram
    return python_diagram(domains, layers, root, steps)


def python_diagram(domains: list[Domain], layers: list[tuple[Any, Any]], root: int, steps: int) -> Diagram:
    """The Python twin of a diagram of the core's, of what ``NativeDiagram.layers`` gave."""
    runs = [
        [tuple(zip(*[iter(flat[3 * first : 3 * last])] * 3, strict=True)) for first, last in pairwise(begin)]
        for begin, flat in layers
    ]
    counts = [[1]]
    for nodes in reversed(runs):
        counts.append([sum((stop - start) * counts[-1][child] for start, stop, child in node) for node in nodes])
    return Diagram(domains, runs, counts[::-1], root, steps)


def _choices(domains: Sequence[Domain]) -> list[tuple[object, ...]]:
    """The domains as the core takes them."""
    return [
        ([], domain[0], domain.step, size(domain)) if isinstance(domain, range) else (domain, 0, 0, len(domain))
        for domain in domains
    ]


def _seconds(deadline: float | None) -> float:
    return -1.0 if deadline is None else max(0.0, deadline - time.perf_counter())


def _nodes(root: Term, place: dict[int, int], undefined: int) -> list[tuple[object, ...]]:
    """The tree in postorder, as the core takes it."""
    nodes: list[tuple[object, ...]] = []

    def append(term: Term) -> int:
        op, operands, start, coefs, rows, span = term
        args = list(map(append, operands))
        if op == Op.VAR:
            start = place[start or 0]
        low, high, rest = span
        if low < -_LIMIT or high > _LIMIT:
            span = _clamp(low), _clamp(high), rest
        flat = list(chain.from_iterable(rows))
        nodes.append((int(op), args, undefined if start is None else start, coefs, flat, span))
        return len(nodes) - 1

    append(root)
    return nodes


def _clamp(x: int) -> int:
    return max(-_LIMIT, min(_LIMIT, x))
