"""Solution sets as layered diagrams: one layer a variable, equal futures shared; the Python twin of _core/diagram.cpp.

A node stands for every partial assignment with the same future. Its runs say which values of the layer's variable
lead to which node of the next layer. The diagram is built layer by layer from the slots of the constraints
(``constrint.layers``), then reduced from the last layer up: dead ends vanish, nodes with the same runs become one,
and each learns how many solutions lie below it. The literature: multi-valued decision diagrams; the chain of trees
(Rasch et al., TACO 2021, 10.1145/3427093) without the sharing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from constrint.domains import Domain, place_of, size
from constrint.intervals import TRUE
from constrint.layers import Layers, Slots
from constrint.limits import check_time
from constrint.residual import Term
from constrint.search import deep

SPLIT_ABOVE = 64
"""More values than this are halved, as long as no half is decided by bounds, rather than tried one by one."""
Run = tuple[int, int, int]
"""Positions start .. stop - 1 of a domain, and the node of the next layer that they lead to."""
_Key = tuple[Slots | bool, ...]


class TooLarge(Exception):
    """Building took more steps than allowed."""


@dataclass
class Diagram:
    """The solutions over some variables, in lexicographic order of their values, first variable first.

    domains: the variables' values, by layer. layers[d][n]: the runs of a node. counts[d][n]: the solutions below it;
    counts[len(domains)] belongs to the one node after the last layer. root: the first layer's node, -1 if there is no
    solution. steps: what building took.
    """

    domains: list[Domain]
    layers: list[list[tuple[Run, ...]]]
    counts: list[list[int]]
    root: int
    steps: int

    @property
    def total(self) -> int:
        """The number of solutions."""
        return 0 if self.root < 0 else self.counts[0][self.root]

    @property
    def size(self) -> int:
        """The number of nodes."""
        return sum(len(layer) for layer in self.layers)

    def trim(self) -> None:
        """Drop the values that no solution has, of a range those beyond the least and the largest."""
        for d, domain in enumerate(self.domains if self.root >= 0 else ()):
            runs = [run for node in self.layers[d] for run in node]
            if isinstance(domain, range):
                first, last = min(start for start, _, _ in runs), max(stop for _, stop, _ in runs)
                kept: Domain = domain[first:last]
                place = {position: position - first for start, stop, _ in runs for position in (start, stop)}
            else:
                held = {position for start, stop, _ in runs for position in range(start, stop)}
                before = accumulate(map(held.__contains__, range(len(domain))), initial=0)
                place = dict(enumerate(before))
                kept = tuple(domain[position] for position in sorted(held))
            self.domains[d] = kept
            self.layers[d] = [
                tuple((place[start], place[stop], child) for start, stop, child in node) for node in self.layers[d]
            ]

    def decode(self, indices: Sequence[int]) -> list[tuple[int, ...]]:
        """The solutions of these indices, each within 0 .. total - 1."""
        return [self._decode(index) for index in indices]

    def _decode(self, index: int) -> tuple[int, ...]:
        node, values = self.root, []
        for d, domain in enumerate(self.domains):
            for start, stop, child in self.layers[d][node]:
                below = self.counts[d + 1][child]
                if index < (stop - start) * below:
                    values.append(domain[start + index // below])
                    node, index = child, index % below
                    break
                index -= (stop - start) * below
        return tuple(values)

    def index(self, values: Sequence[int]) -> int:
        """The index of a solution, by layer; -1 for anything else."""
        node, index = self.root, 0
        if node < 0:
            return -1
        for d, (domain, value) in enumerate(zip(self.domains, values, strict=True)):
            position = place_of(domain, value)
            if position < 0:
                return -1
            for start, stop, child in self.layers[d][node]:
                below = self.counts[d + 1][child]
                if start <= position < stop:
                    index += (position - start) * below
                    node = child
                    break
                index += (stop - start) * below
            else:
                return -1
        return index

    def best(
        self,
        costs: Sequence[Sequence[int]],
        order: Sequence[int],
        descending: Sequence[bool],
        deadline: float | None = None,
    ) -> tuple[int, list[int]]:
        """The least sum of costs[d][position] over a solution, and the values, by layer, of the first that has it.

        That is the one with layer order[0] at its smallest value (descending[0]: its largest), of those the one with
        order[1] so, and so on. No costs of a layer: all 0. There must be a solution; ``order`` must name every layer.
        """
        return _Paths(self, costs, deadline).best(order, descending)

    def fill(
        self,
        columns: Sequence[Any],
        deadline: float | None = None,
        first: int = 0,
        count: int | None = None,
        values: Sequence[Sequence[int]] = (),
    ) -> None:
        """Write solutions first .. first + count - 1 (by default all), in order, into the first places of one NumPy
        column a layer. values: what is written in place of each position of a layer's domain; its value where none
        are given."""
        if first or (count is not None and count < self.total):
            last = first + (self.total - first if count is None else count)
            for row, found in enumerate(self.decode(range(first, last))):
                check_time(deadline)
                for d, value in enumerate(found):
                    written = values[d] if values else ()
                    columns[d][row] = written[place_of(self.domains[d], value)] if written else value
            return
        placed: dict[tuple[int, int], int] = {}

        def write(d: int, node: int, row: int) -> None:
            check_time(deadline)
            count = self.counts[d][node]
            earlier = placed.setdefault((d, node), row)
            if earlier != row:
                for column in columns[d:]:
                    column[row : row + count] = column[earlier : earlier + count]
                return
            for start, stop, child in self.layers[d][node]:
                below = self.counts[d + 1][child]
                for position in range(start, stop):
                    columns[d][row : row + below] = ((values and values[d]) or self.domains[d])[position]
                    if d + 1 < len(columns):
                        write(d + 1, child, row)
                    row += below

        if self.root >= 0:
            with deep(self.domains):
                write(0, self.root, 0)

    def spread(self, values: Any, inner: int, column: Any, deadline: float | None = None) -> None:
        """Fill a NumPy column with each value ``inner`` times, over and over."""
        check_time(deadline)
        period = len(values) * inner
        column[:period].reshape(len(values), inner)[:] = values.reshape(-1, 1)
        column[period:].reshape(-1, period)[:] = column[:period]


class _Paths:
    """The least cost from the root to each node (reach), and from each node to the end (rest); None: no way."""

    def __init__(self, diagram: Diagram, costs: Sequence[Sequence[int]], deadline: float | None) -> None:
        self.diagram, self.costs, self.deadline = diagram, costs, deadline
        # The positions that are left of each layer.
        self.left = [(0, size(domain)) for domain in diagram.domains]
        sizes = [*map(len, diagram.layers), 1]
        self.reach, self.rest = [_nowhere(count) for count in sizes], [_nowhere(count) for count in sizes]
        self.rest[-1][0] = 0
        self.reach[0][diagram.root] = 0
        self._renew(len(costs) - 1, 0)

    def best(self, order: Sequence[int], descending: Sequence[bool]) -> tuple[int, list[int]]:
        """See Diagram.best."""
        optimum = self.rest[0][self.diagram.root]
        assert optimum is not None
        values = [0] * len(self.costs)
        for d, last in zip(order, descending, strict=True):
            known = [
                position
                for node, child, position, cost in self._edges(d, last)
                if _sum(self.reach[d][node], cost, self.rest[d + 1][child]) == optimum
            ]
            position = (max if last else min)(known)
            self.left[d] = position, position + 1
            values[d] = self.diagram.domains[d][position]
            self._renew(d, d)
        return optimum, values

    def _renew(self, lowest: int, highest: int) -> None:
        """The rests of layers 0 to ``lowest``, and what is reached below layers ``highest`` and on."""
        for d in range(lowest, -1, -1):
            self.rest[d] = _nowhere(len(self.rest[d]))
            for node, child, _, cost in self._edges(d):
                self.rest[d][node] = _least(self.rest[d][node], _sum(self.rest[d + 1][child], cost))
        for d in range(highest, len(self.costs)):
            self.reach[d + 1] = _nowhere(len(self.reach[d + 1]))
            for node, child, _, cost in self._edges(d):
                self.reach[d + 1][child] = _least(self.reach[d + 1][child], _sum(self.reach[d][node], cost))

    def _edges(self, d: int, last: bool = False) -> Iterator[tuple[int, int, int, int]]:
        """Node, child, position and cost of each edge of a layer; one edge of each run where all cost 0."""
        check_time(self.deadline)
        first, end = self.left[d]
        for node, runs in enumerate(self.diagram.layers[d]):
            for start, stop, child in runs:
                start, stop = max(start, first), min(stop, end)
                if start >= stop:
                    continue
                if not self.costs[d]:
                    yield node, child, stop - 1 if last else start, 0
                    continue
                for position in range(start, stop):
                    yield node, child, position, self.costs[d][position]


def _nowhere(count: int) -> list[int | None]:
    return [None] * count


def _sum(*parts: int | None) -> int | None:
    return None if None in parts else sum(part for part in parts if part is not None)


def _least(x: int | None, y: int | None) -> int | None:
    return y if x is None else x if y is None else min(x, y)


def build(
    terms: Sequence[Term], order: Sequence[int], domains: Sequence[Domain], limit: int, deadline: float | None
) -> Diagram:
    """The diagram of the variables ``order``, by position, under the constraints ``terms``.

    limit: steps, each one value (or one range) tried in one node. Raises TooLarge beyond it, and TimeLimit where
    time.perf_counter() passes ``deadline``.
    """
    with deep([domains[v] for v in order]):
        return _Builder(terms, order, domains, limit, deadline).build()


class _Builder:
    def __init__(
        self,
        terms: Sequence[Term],
        order: Sequence[int],
        domains: Sequence[Domain],
        limit: int,
        deadline: float | None,
    ) -> None:
        place = {v: d for d, v in enumerate(order)}
        self.constraints = [Layers(term, place) for term in terms]
        self.domains = [domains[v] for v in order]
        self.limit, self.deadline, self.steps = limit, deadline, 0

    def build(self) -> Diagram:
        key: _Key = tuple(() for _ in self.constraints)
        states: dict[_Key, int] = {key: 0}
        raw: list[list[list[Run]]] = []
        for d in range(len(self.domains)):
            following: dict[_Key, int] = {}
            raw.append([self._expand(d, key, following) for key in states])
            states = following
        return self._reduce(raw)

    def _expand(self, d: int, key: _Key, following: dict[_Key, int]) -> list[Run]:
        """The runs of one state, and the states they lead to."""
        self.parent = list(key)
        self.alive = []
        for number, constraint in enumerate(self.constraints):
            if d in constraint.depths and key[number] is not True:
                constraint.load(d, key[number] if d > constraint.depths[0] else ())  # type: ignore[arg-type]
                self.alive.append(number)
        self.runs: list[Run] = []
        supports = [values for number in self.alive if (values := self.constraints[number].support(d)) is not None]
        if supports:
            domain = self.domains[d]
            for value in min(supports, key=len):
                place = place_of(domain, value)
                if place >= 0:
                    self._single(d, place, following)
        else:
            self._range(d, 0, size(self.domains[d]), following)
        return self.runs

    def _range(self, d: int, start: int, stop: int, following: dict[_Key, int]) -> None:
        """Positions start .. stop - 1 of the variable of depth d."""
        domain = self.domains[d]
        if not self.alive or stop - start > SPLIT_ABOVE:
            self._count_step()
            key = list(self.parent)
            decided = True
            for number in self.alive:
                bits = self.constraints[number].over(d, domain[start], domain[stop - 1])
                if not bits & TRUE:
                    return
                decided = decided and bits == TRUE
                key[number] = True
            if decided:
                self._append(start, stop, tuple(key), following)
                return
            middle = (start + stop) // 2
            self._range(d, start, middle, following)
            self._range(d, middle, stop, following)
            return
        for position in range(start, stop):
            self._single(d, position, following)

    def _single(self, d: int, position: int, following: dict[_Key, int]) -> None:
        """One value of the variable of depth d."""
        self._count_step()
        key = list(self.parent)
        for number in self.alive:
            slots = self.constraints[number].step(d, self.domains[d][position])
            if slots is False:
                return
            key[number] = slots
        self._append(position, position + 1, tuple(key), following)

    def _append(self, start: int, stop: int, key: _Key, following: dict[_Key, int]) -> None:
        child = following.setdefault(key, len(following))
        if self.runs and self.runs[-1][1:] == (start, child):
            start = self.runs.pop()[0]
        self.runs.append((start, stop, child))

    def _count_step(self) -> None:
        self.steps += 1
        if self.steps > self.limit:
            raise TooLarge
        check_time(self.deadline)

    def _reduce(self, raw: list[list[list[Run]]]) -> Diagram:
        layers: list[list[tuple[Run, ...]]] = []
        counts: list[list[int]] = [[1]]
        renamed = [0]
        for nodes in reversed(raw):
            check_time(self.deadline)
            unique: dict[tuple[Run, ...], int] = {}
            names = []
            for runs in nodes:
                kept: list[Run] = []
                for start, stop, child in runs:
                    child = renamed[child]
                    if child < 0:
                        continue
                    if kept and kept[-1][1:] == (start, child):
                        start = kept.pop()[0]
                    kept.append((start, stop, child))
                names.append(unique.setdefault(tuple(kept), len(unique)) if kept else -1)
            layers.append(list(unique))
            counts.append([sum((stop - start) * counts[-1][child] for start, stop, child in runs) for runs in unique])
            renamed = names
        root = renamed[0] if renamed else -1
        return Diagram(self.domains, layers[::-1], counts[::-1], root, self.steps)


def product(domains: Sequence[Domain]) -> Diagram:
    """Every combination of these values."""
    counts = [1]
    for domain in reversed(domains):
        counts.append(counts[-1] * size(domain))
    layers: list[list[tuple[Run, ...]]] = [[((0, size(domain), 0),)] for domain in domains]
    return Diagram(list(domains), layers, [[count] for count in reversed(counts)], 0, 0)


def from_rows(rows: Sequence[tuple[int, ...]], domains: Sequence[Domain]) -> Diagram:
    """The diagram of listed solutions. domains: the variables' values, by layer."""
    layers: list[dict[tuple[Run, ...], int]] = [{} for _ in domains]
    counts: list[list[int]] = [[] for _ in domains]

    def node(d: int, first: int, last: int) -> int:
        """The node of rows first .. last - 1, which agree on everything before layer d."""
        if d == len(domains):
            return 0
        runs: list[Run] = []
        start = first
        for i in range(first + 1, last + 1):
            if i < last and ordered[i][d] == ordered[start][d]:
                continue
            place, child = place_of(domains[d], ordered[start][d]), node(d + 1, start, i)
            joined = bool(runs) and runs[-1][1:] == (place, child)
            runs.append((runs.pop()[0] if joined else place, place + 1, child))
            start = i
        number = layers[d].setdefault(tuple(runs), len(layers[d]))
        if number == len(counts[d]):
            counts[d].append(last - first)
        return number

    ordered = sorted(set(rows))
    with deep(domains):
        root = node(0, 0, len(ordered)) if ordered else -1
    return Diagram(list(domains), [list(layer) for layer in layers], [*counts, [1]], root, 0)
