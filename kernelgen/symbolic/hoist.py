"""A backward step in two halves: what waits for no gradient, which a kernel computes early, and the rest.

Every subexpression without a gradient in it moves to the first half, so that the second, which later steps wait for,
is as short as it can be: for an LSTM two multiply-adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sympy

from kernelgen.cells.language import Cell
from kernelgen.symbolic.derive import derive
from kernelgen.symbolic.lower import is_constant, temporary_name


@dataclass(frozen=True)
class Halves:
    """early, late: (symbol, expression) in order of use; the late ones may use early symbols, gates and previous
    states, and the gradients of the new states. outputs: the gates' gradients, then the previous states'. ready: what
    the late half reads of the early one: symbols of early temporaries, gates and states."""

    early: tuple[tuple[Any, Any], ...]
    late: tuple[tuple[Any, Any], ...]
    outputs: tuple[Any, ...]
    ready: tuple[Any, ...]


@lru_cache(maxsize=128)
def halves(cell: Cell) -> Halves:
    """Split a cell's backward step."""
    code = derive(cell)
    given = {*cell.gate_symbols, *cell.state_symbols, *(symbol for symbol, _ in code.temporaries)}
    split = _Split(given, {*code.seeds})
    for symbol, expression in code.temporaries:
        split.add(symbol, expression)
    outputs = tuple(split.hoisted(expression) for expression in code.outputs)
    read = set().union(*(expression.free_symbols for expression in [*(e for _, e in split.late), *outputs]))
    known = [*(symbol for symbol, _ in split.early), *cell.gate_symbols, *cell.state_symbols]
    return Halves(tuple(split.early), tuple(split.late), outputs, tuple(symbol for symbol in known if symbol in read))


class _Split:
    """The two halves while they grow. waiting: the symbols that depend on a gradient."""

    def __init__(self, known: set[Any], seeds: set[Any]) -> None:
        self.early: list[tuple[Any, Any]] = []
        self.late: list[tuple[Any, Any]] = []
        self._waiting = set(seeds)
        self._taken = {symbol.name for symbol in known | seeds}
        self._named: dict[Any, Any] = {}

    def add(self, symbol: Any, expression: Any) -> None:
        """Put a temporary into the half it belongs to."""
        if self._waits(expression):
            self._waiting.add(symbol)
            self.late.append((symbol, self.hoisted(expression)))
        else:
            self._named.setdefault(expression, symbol)
            self.early.append((symbol, expression))

    def hoisted(self, expression: Any) -> Any:
        """The expression with a symbol in the place of every part that waits for no gradient."""
        if not self._waits(expression):
            return self._name(expression)
        if expression.is_Symbol:
            return expression
        if expression.is_Mul or expression.is_Add:
            early = expression.func(*(part for part in expression.args if not self._waits(part)))
            rest = [self.hoisted(part) for part in expression.args if self._waits(part)]
            return expression.func(self._name(early), *rest)
        return expression.func(*(self.hoisted(part) for part in expression.args))

    def _waits(self, expression: Any) -> bool:
        return not self._waiting.isdisjoint(expression.free_symbols)

    def _name(self, expression: Any) -> Any:
        """A symbol for an early expression; what costs nothing stays as it is."""
        negative = expression.is_Mul and len(expression.args) == 2 and expression.args[0] == -1
        if expression.is_Atom or is_constant(expression) or (negative and expression.args[1].is_Symbol):
            return expression
        if expression not in self._named:
            symbol = sympy.Symbol(temporary_name(expression, self._taken), real=True)
            self._taken.add(symbol.name)
            self._named[expression] = symbol
            self.early.append((symbol, expression))
        return self._named[expression]
