"""A backward step in two parts: what waits for no gradient, and is hoisted, and the critical path.

Every subexpression without a gradient in it is hoisted, so that the critical path, which later steps wait for, is as
short as it can be: for an LSTM two multiply-adds.
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
class SplitStep:
    """hoisted, critical: (symbol, expression) in order of use; the critical ones may use hoisted symbols, gates and
    previous states, and the gradients of the new states. outputs: the gates' gradients, then the previous states'.
    ready: what the critical path reads of the hoisted part: symbols of its temporaries, gates and states."""

    hoisted: tuple[tuple[Any, Any], ...]
    critical: tuple[tuple[Any, Any], ...]
    outputs: tuple[Any, ...]
    ready: tuple[Any, ...]


@lru_cache(maxsize=128)
def split_step(cell: Cell) -> SplitStep:
    """Split a cell's backward step."""
    code = derive(cell)
    given = {*cell.gate_symbols, *cell.state_symbols, *(symbol for symbol, _ in code.temporaries)}
    split = _Split(given, {*code.seeds})
    for symbol, expression in code.temporaries:
        split.add(symbol, expression)
    outputs = tuple(split.hoist(expression) for expression in code.outputs)
    read = set().union(*(expression.free_symbols for expression in [*(e for _, e in split.critical), *outputs]))
    known = [*(symbol for symbol, _ in split.hoisted), *cell.gate_symbols, *cell.state_symbols]
    return SplitStep(
        tuple(split.hoisted), tuple(split.critical), outputs, tuple(symbol for symbol in known if symbol in read)
    )


class _Split:
    """The two parts while they grow. waiting: the symbols that depend on a gradient."""

    def __init__(self, known: set[Any], seeds: set[Any]) -> None:
        self.hoisted: list[tuple[Any, Any]] = []
        self.critical: list[tuple[Any, Any]] = []
        self._waiting = set(seeds)
        self._taken = {symbol.name for symbol in known | seeds}
        self._named: dict[Any, Any] = {}

    def add(self, symbol: Any, expression: Any) -> None:
        """Put a temporary into the part it belongs to."""
        if self._waits(expression):
            self._waiting.add(symbol)
            self.critical.append((symbol, self.hoist(expression)))
        else:
            self._named.setdefault(expression, symbol)
            self.hoisted.append((symbol, expression))

    def hoist(self, expression: Any) -> Any:
        """The expression with a symbol in the place of every part that waits for no gradient."""
        if not self._waits(expression):
            return self._name(expression)
        if expression.is_Symbol:
            return expression
        if expression.is_Mul or expression.is_Add:
            hoisted = expression.func(*(part for part in expression.args if not self._waits(part)))
            rest = [self.hoist(part) for part in expression.args if self._waits(part)]
            return expression.func(self._name(hoisted), *rest)
        return expression.func(*(self.hoist(part) for part in expression.args))

    def _waits(self, expression: Any) -> bool:
        return not self._waiting.isdisjoint(expression.free_symbols)

    def _name(self, expression: Any) -> Any:
        """A symbol for a hoisted expression; what costs nothing stays as it is."""
        negative = expression.is_Mul and len(expression.args) == 2 and expression.args[0] == -1
        if expression.is_Atom or is_constant(expression) or (negative and expression.args[1].is_Symbol):
            return expression
        if expression not in self._named:
            symbol = sympy.Symbol(temporary_name(expression, self._taken), real=True)
            self._taken.add(symbol.name)
            self._named[expression] = symbol
            self.hoisted.append((symbol, expression))
        return self._named[expression]
