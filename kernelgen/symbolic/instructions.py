"""What a cell's step, or its backward step, costs on a GPU, counted on the code that is printed for it.

Two kinds of instruction are told apart: special operations, which go through the multi-function unit (tanh, 2^x,
log2 x, 1/x, square root), and all other float instructions. The counts follow cuda/math.cuh. A multiply whose result
is only added counts with that addition, as one fused multiply-add; negation and absolute value are operand modifiers
and cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import sympy
from sympy.core.relational import Relational
from sympy.logic.boolalg import And, Not, Or

from kernelgen.cells.language import Cell
from kernelgen.symbolic.derive import derive
from kernelgen.symbolic.hoist import split_step
from kernelgen.symbolic.lower import is_condition, is_constant, lower
from kernelgen.symbolic.products import split_product

SPECIAL_CLOCKS = 17
"""Latency of tanh.approx and ex2.approx in clocks, measured on H200; used here only to tell which value is later."""
ARITHMETIC_CLOCKS = 4
"""Latency of a float add, multiply or fma in clocks, Volta and newer (Jia et al. 2018, arXiv:1804.06826)."""


@dataclass(frozen=True)
class CellCost:
    """Instructions of one step of one unit of one sequence.

    special, arithmetic: all of them. chain_special, chain_arithmetic: those on the longest dependent chain from a gate
    to the new h; of a backward step, from a gradient of the new states to one of a gate with a recurrent product.
    live: estimate of the registers needed at the peak beyond those of gates and states (and given gradients). ready: of
    a backward step, the registers that its hoisted part hands to the critical path.
    """

    special: int
    arithmetic: int
    chain_special: int
    chain_arithmetic: int
    live: int
    ready: int = 0


@dataclass(frozen=True)
class _Ops:
    special: int = 0
    arithmetic: int = 0

    def __add__(self, other: _Ops) -> _Ops:
        return _Ops(self.special + other.special, self.arithmetic + other.arithmetic)

    @property
    def clocks(self) -> int:
        return self.special * SPECIAL_CLOCKS + self.arithmetic * ARITHMETIC_CLOCKS


# Each function of cuda/math.cuh: (all its instructions, those between its argument and its result).
_FUNCTIONS = {
    "tanh": (_Ops(1, 0), _Ops(1, 0)),
    "sigmoid": (_Ops(1, 2), _Ops(1, 2)),
    "exp": (_Ops(1, 1), _Ops(1, 1)),
    "log": (_Ops(1, 1), _Ops(1, 1)),
    "log_sigmoid": (_Ops(2, 5), _Ops(2, 3)),
    "softplus": (_Ops(2, 5), _Ops(2, 3)),
    "relu": (_Ops(0, 2), _Ops(0, 2)),
    "maximum": (_Ops(0, 3), _Ops(0, 3)),
    "minimum": (_Ops(0, 3), _Ops(0, 3)),
    "sign": (_Ops(0, 4), _Ops(0, 2)),
    "Abs": (_Ops(), _Ops()),
}


def _power(exponent: Any) -> _Ops:
    if abs(exponent) == sympy.Rational(1, 2):
        return _Ops(1 if exponent > 0 else 2, 1)
    if exponent.is_Integer:
        bits = bin(abs(int(exponent)))[2:]
        return _Ops(0, len(bits) - 1 + bits.count("1") - 1)
    return _Ops(2, 1)


def _own(node: Any) -> tuple[_Ops, _Ops]:
    """The instructions of one node without its arguments: (all, from the last argument to the result)."""
    if node.is_Atom or is_constant(node):
        return _Ops(), _Ops()
    if node.is_Add:
        additions = len(node.args) - 1
        fused = min(additions, sum(_is_product(term) for term in node.args))
        return _Ops(0, additions - fused), _Ops(0, 0 if fused else 1)
    if node.is_Mul or (node.is_Pow and node.exp.is_Integer and node.exp.is_negative):
        _, factors, divisors = split_product(node)
        special = 1 if divisors else 0
        multiplies = max(len(factors) + special - 1, 0) + max(len(divisors) - 1, 0)
        return _Ops(special, multiplies), _Ops(special, min(multiplies, 1))
    if node.is_Pow:
        ops = _power(node.exp)
        return ops, ops
    if isinstance(node, Relational):
        return _Ops(0, 1), _Ops(0, 1)
    if isinstance(node, And | Or):
        return _Ops(0, len(node.args) - 1), _Ops(0, 1)
    if isinstance(node, Not):
        return _Ops(), _Ops()
    name = node.func.__name__
    if name == "where":
        return _Ops(0, 1), _Ops(0, 1)
    if name in ("maximum", "minimum") and is_constant(node.args[0]):
        return _Ops(0, 2), _Ops(0, 2)
    return _FUNCTIONS[name]


def _is_product(term: Any) -> bool:
    _, factors, divisors = split_product(term)
    if len(factors) == 1 and factors[0].is_Pow and factors[0].exp.is_Integer:
        return True
    return len(factors) + bool(divisors) > 1


def _arguments(node: Any) -> list[Any]:
    """The values an instruction reads: a product's factors and divisors, any other node's arguments."""
    if node.is_Atom or is_constant(node):
        return []
    if node.is_Mul or node.is_Pow:
        _, factors, divisors = split_product(node)
        parts = [*factors, *divisors]
        return parts if parts != [node] else [node.base, *([] if is_constant(node.exp) else [node.exp])]
    return list(node.args)


class Depths:
    """How long after its inputs each value of straight-line code is ready.

    inputs: the symbols that arrive last: the gates of a step, the gradients of a backward step. Whatever depends on
    none of them is ready before. temporaries: (symbol, expression) in order of use.
    """

    def __init__(self, inputs: Iterable[Any], temporaries: Iterable[tuple[Any, Any]]) -> None:
        self._chains: dict[Any, _Ops | None] = {symbol: _Ops() for symbol in inputs}
        for symbol, expression in temporaries:
            self._chains[symbol] = self.chain(expression)

    def chain(self, node: Any) -> _Ops | None:
        """The longest chain from an input to a value, or None where the value depends on no input."""
        if node in self._chains:
            return self._chains[node]
        chains = [chain for argument in _arguments(node) if (chain := self.chain(argument)) is not None]
        if not chains:
            return None
        result = max(chains, key=lambda chain: chain.clocks) + _own(node)[1]
        self._chains[node] = result
        return result

    def clocks(self, node: Any) -> int:
        """Clocks from the inputs to a value; -1 for one that is ready before them."""
        chain = self.chain(node)
        return -1 if chain is None else chain.clocks


def _total(node: Any) -> _Ops:
    return sum((_total(argument) for argument in _arguments(node)), _own(node)[0])


def _need(node: Any) -> int:
    """Registers to evaluate an expression whose symbols are in registers already (Sethi and Ullman 1970)."""
    needs = sorted((_need(argument) for argument in _arguments(node)), reverse=True)
    held = [need + place for place, need in enumerate(need for need in needs if need > 0)]
    own = 0 if node.is_Atom or is_constant(node) or is_condition(node) else 1
    return max([own, *held])


def _live(temporaries: Sequence[tuple[Any, Any]], outputs: Sequence[Any]) -> int:
    statements = [*temporaries, *((None, expression) for expression in outputs)]
    last = {symbol: index for index, (_, expression) in enumerate(statements) for symbol in expression.free_symbols}
    numbers = {symbol for symbol, expression in temporaries if not is_condition(expression)}
    peak, live = 0, set[Any]()
    finished = 0
    for index, (symbol, expression) in enumerate(statements):
        peak = max(peak, len(live) + finished + _need(expression))
        live = {held for held in live if last.get(held, -1) > index}
        if symbol in numbers:
            live.add(symbol)
        if symbol is None and not expression.is_Symbol:
            finished += 1
    return peak


def _count(
    temporaries: Sequence[tuple[Any, Any]], outputs: Sequence[Any], inputs: Sequence[Any], ends: Sequence[Any]
) -> CellCost:
    total = sum((_total(expression) for expression in [*(e for _, e in temporaries), *outputs]), _Ops())
    depths = Depths(inputs, temporaries)
    chain = max((depths.chain(end) or _Ops() for end in ends), key=lambda ops: ops.clocks)
    return CellCost(total.special, total.arithmetic, chain.special, chain.arithmetic, _live(temporaries, outputs))


@lru_cache(maxsize=64)
def cell_cost(cell: Cell) -> CellCost:
    """Count the instructions of a cell's step as kernelgen.emit.cuda prints it."""
    code = lower(cell)
    return _count(code.temporaries, code.next_states, cell.gate_symbols, code.next_states[:1])


@lru_cache(maxsize=64)
def backward_cost(cell: Cell) -> CellCost:
    """Count the instructions of a cell's backward step as kernelgen.emit.cuda prints it."""
    parts = split_step(cell)
    ends = [parts.outputs[index] for index in cell.recurrent_gates]
    cost = _count((*parts.hoisted, *parts.critical), parts.outputs, derive(cell).seeds, ends)
    conditions = {symbol for symbol, expression in parts.hoisted if is_condition(expression)}
    return replace(cost, ready=len([symbol for symbol in parts.ready if symbol not in conditions]))
