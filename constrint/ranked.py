"""Solutions by their places in an order of the variables that is not their diagrams'; the Python twin of
_core/ranked.cpp.

To list everything in that order and look there takes as long as there are solutions. Here the tree of all solutions,
a variable a level, is gone down to the places asked for, and diagrams count what lies below each value on the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from constrint.core import load_core
from constrint.diagram import Diagram, Run
from constrint.native_diagram import NativeDiagram, python_diagram

if TYPE_CHECKING:
    from constrint.factor import Factor

LARGEST = (1 << 63) - 1
"""So many solutions the core numbers."""


class Turn(NamedTuple):
    """A variable in its turn: the factor and the layer that have it, and the number that stands for each position of
    its domain. Largest numbers come first."""

    factor: int
    layer: int
    numbers: Sequence[int]


def ranked(factors: Sequence[Factor], turns: Sequence[Turn], ranks: Sequence[int], columns: Sequence[Any]) -> None:
    """Of the solutions of all factors, listed in lexicographic order of ``turns``, which name every layer, write those
    at ``ranks``: the number of each turn's value into a NumPy column of 64 bits."""
    core = load_core()
    native = [factor.diagram for factor in factors if isinstance(factor, NativeDiagram)]
    if core is not None and len(native) == len(factors) and prod(factor.total for factor in factors) <= LARGEST:
        core.ranked(native, turns, ranks, columns)
        return
    places = sorted(range(len(ranks)), key=ranks.__getitem__)
    rows = _Descent(factors, turns).rows([ranks[place] for place in places])
    for place, row in zip(places, rows, strict=True):
        for column, number in zip(columns, row, strict=True):
            column[place] = number


class _Descent:
    def __init__(self, factors: Sequence[Factor], turns: Sequence[Turn]) -> None:
        self.turns = turns
        self.orders = [sorted(range(len(turn.numbers)), key=turn.numbers.__getitem__, reverse=True) for turn in turns]
        self.totals = [factor.total for factor in factors]
        self.held = [_Held(_as_python(factor)) for factor in factors]

    def rows(self, ranks: Sequence[int]) -> Iterator[Sequence[int]]:
        """The rows of ranks that ascend."""
        return self._down(0, ranks, 0, prod(self.totals))

    def _down(self, k: int, ranks: Sequence[int], start: int, whole: int) -> Iterator[Sequence[int]]:
        """Those below a node of the tree, of which the first has rank ``start`` and which has ``whole``."""
        if k == len(self.turns):
            yield from ([] for _ in ranks)
            return
        turn = self.turns[k]
        held, total = self.held[turn.factor], self.totals[turn.factor]
        others = whole // total
        counts = held.counts(turn.layer)
        waiting = list(ranks)
        for position in self.orders[k]:
            if not waiting:
                break
            below = counts[position] * others
            inside = [rank for rank in waiting if rank - start < below]
            if inside:
                waiting = waiting[len(inside) :]
                held.at[turn.layer], self.totals[turn.factor] = position, counts[position]
                for row in self._down(k + 1, inside, start, below):
                    yield [turn.numbers[position], *row]
            start += below
        held.at[turn.layer], self.totals[turn.factor] = None, total


class _Held:
    """A diagram of which some layers are held at one position."""

    def __init__(self, diagram: Diagram) -> None:
        self.diagram = diagram
        self.at: list[int | None] = [None] * len(diagram.domains)

    def counts(self, d: int) -> dict[int, int]:
        """How many solutions are left with each position of a layer that is not held."""
        layers = self.diagram.layers
        last = max((after + 1 for after in range(d + 1, len(layers)) if self.at[after] is not None), default=d + 1)
        reach: list[dict[int, int]] = [{self.diagram.root: 1}]
        for layer in range(last - 1):
            reach.append({})
            for node, ways in reach[layer].items():
                for run in layers[layer][node]:
                    reach[-1][run[2]] = reach[-1].get(run[2], 0) + ways * self._left(layer, run)
        rest: Sequence[int] | dict[int, int] = self.diagram.counts[last]
        for layer in range(last - 1, d, -1):
            rest = {
                node: sum(left * rest[run[2]] for run in layers[layer][node] if (left := self._left(layer, run)))
                for node, ways in reach[layer].items()
                if ways
            }
        counts = dict.fromkeys(range(len(self.diagram.domains[d])), 0)
        for node, ways in reach[d].items():
            for start, stop, child in layers[d][node] if ways else ():
                for position in range(start, stop):
                    counts[position] += ways * rest[child]
        return counts

    def _left(self, layer: int, run: Run) -> int:
        """How many of a run's positions are left."""
        at = self.at[layer]
        return run[1] - run[0] if at is None else int(run[0] <= at < run[1])


def _as_python(factor: Factor) -> Diagram:
    if isinstance(factor, Diagram):
        return factor
    assert isinstance(factor, NativeDiagram)
    return python_diagram(factor.domains, factor.layers(), factor.diagram.root, factor.steps)
