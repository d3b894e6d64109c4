"""The backward step of any cell, from its definition alone.

The step is taken apart into single operations; sympy differentiates each, and the chain rule is applied to them in
reverse order (Linnainmaa 1976, doi:10.1007/BF01931367), so that the gradient of a shared value is made once. What the
forward step computes and the derivatives need (sigmoid' = s (1 - s)) is computed once too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sympy

from kernelgen.cells.language import Cell, sign, where
from kernelgen.symbolic.lower import is_condition, is_constant, lower, temporary_name


@dataclass(frozen=True)
class Backward:
    """The pointwise backward step of a cell, as straight-line code.

    temporaries: (symbol, expression) in order of use; an expression may use the gates' sums, the previous states, the
    gradients of the new states (``seeds``, one symbol ``d_next_s`` per state s) and earlier temporaries. d_gates: the
    gradient of each gate's sum. d_states: that of each previous state through the step itself; the part of h that
    comes through R is not in it.

    gates, states: indices of the gates' sums and of the previous states that the code reads. saved_gates: the gates
    among them that change from step to step, so the sums to be kept for the backward pass; a gate with a bias alone is
    its bias. saved_states: the previous states to be kept, the same as ``states``.
    """

    seeds: tuple[Any, ...]
    temporaries: tuple[tuple[Any, Any], ...]
    d_gates: tuple[Any, ...]
    d_states: tuple[Any, ...]
    gates: tuple[int, ...]
    states: tuple[int, ...]
    saved_gates: tuple[int, ...]

    @property
    def saved_states(self) -> tuple[int, ...]:
        """Indices of the previous states to be kept for the backward pass."""
        return self.states

    @property
    def read_seeds(self) -> tuple[int, ...]:
        """Indices of the new states whose gradients the code reads."""
        used = set().union(*(expression.free_symbols for _, expression in self.temporaries))
        used = used.union(*(expression.free_symbols for expression in self.outputs))
        return tuple(index for index, seed in enumerate(self.seeds) if seed in used)

    @property
    def outputs(self) -> tuple[Any, ...]:
        """d_gates, then d_states."""
        return self.d_gates + self.d_states


@lru_cache(maxsize=128)
def derive(cell: Cell) -> Backward:
    """Differentiate a cell's step. The result is the same in every process.

    At a kink the derivative is one of the two one-sided ones: that of ``where``'s chosen value, that of
    the first argument that is no constant for maximum and minimum at a tie, 0 for relu and abs at 0
    (1 for abs where the step asks x >= 0 of the same x).
    """
    tape = _Tape()
    code = lower(cell)
    for symbol, expression in code.temporaries:
        tape.bind(symbol, expression)
    outputs = [tape.value(expression) for expression in code.next_states]
    seeds = tuple(sympy.Symbol(f"d_next_{state}", real=True) for state in cell.states)
    gradients = tape.reverse(zip(outputs, seeds, strict=True))
    results = [gradients.get(symbol, sympy.Integer(0)) for symbol in (*cell.gate_symbols, *cell.state_symbols)]
    temporaries, results = _tidy(tape, results, {*cell.gate_symbols, *cell.state_symbols, *seeds})

    used = set().union(*(expression.free_symbols for expression in [*(e for _, e in temporaries), *results]))
    gates = tuple(index for index, symbol in enumerate(cell.gate_symbols) if symbol in used)
    changing = {*cell.recurrent_gates, *cell.input_gates}
    return Backward(
        seeds,
        tuple(temporaries),
        tuple(results[: len(cell.gates)]),
        tuple(results[len(cell.gates) :]),
        gates,
        tuple(index for index, symbol in enumerate(cell.state_symbols) if symbol in used),
        tuple(index for index in gates if index in changing),
    )


class _Tape:
    """Single operations in order, each computed once. Values are symbols (of an operation, or given) or numbers."""

    def __init__(self) -> None:
        self.operations: dict[Any, Any] = {}
        self.names: dict[Any, str] = {}
        self._symbols: dict[Any, Any] = {}
        self._bound: dict[Any, Any] = {}

    def bind(self, symbol: Any, expression: Any) -> None:
        """Let ``symbol`` stand for an expression, and name the operation that gives it after the symbol."""
        value = self.value(expression)
        self._bound[symbol] = value
        if value in self.operations:
            self.names.setdefault(value, symbol.name)

    def value(self, expression: Any) -> Any:
        """The value of an expression of any depth."""
        if expression.is_Symbol:
            return self._bound.get(expression, expression)
        if is_constant(expression) or not expression.args:
            return expression
        if expression.is_Pow and is_constant(expression.exp) and expression.exp.is_negative and expression.exp != -1:
            if expression.exp.is_Integer:  # powers of the one reciprocal
                return self._put(self.value(1 / expression.base) ** -expression.exp)
            return self._put(1 / self.value(expression.base**-expression.exp))
        return self._put(expression.func(*(self.value(argument) for argument in expression.args)))

    def _put(self, operation: Any) -> Any:
        if operation.is_Symbol or is_constant(operation) or not operation.args:
            return operation
        if operation not in self._symbols:
            symbol = sympy.Symbol(f"_{len(self.operations):05d}", real=True)
            self._symbols[operation] = symbol
            self.operations[symbol] = operation
        return self._symbols[operation]

    def reverse(self, outputs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
        """Given (value, its gradient from outside) of the outputs, the gradient of every value they depend on."""
        parts: dict[Any, list[Any]] = {}
        for value, gradient in outputs:
            if value.is_Symbol:
                parts.setdefault(value, []).append(gradient)
        gradients: dict[Any, Any] = {}
        for symbol, operation in reversed(list(self.operations.items())):
            if symbol not in parts or is_condition(operation) or isinstance(operation, sign):
                continue
            gradient = self._sum(parts.pop(symbol))
            if symbol in self.names:
                self.names.setdefault(gradient, f"d_{self.names[symbol].removeprefix('next_')}")
            for argument in sorted(operation.free_symbols, key=str):
                if argument in self.operations and is_condition(self.operations[argument]):
                    continue
                slope = self._slope(operation, argument).xreplace({operation: symbol})
                parts.setdefault(argument, []).append(self._times(gradient, slope))
        for symbol, terms in parts.items():
            gradients[symbol] = self._sum(terms)
        return gradients

    def _slope(self, operation: Any, argument: Any) -> Any:
        """The derivative of one operation."""
        if isinstance(operation, sympy.Abs):  # 0 at 0, but where the step itself tells x >= 0 from x < 0, that serves
            for condition in (argument >= 0, argument > 0):
                if condition in self._symbols:
                    return where(condition, 1, -1)
        return operation.diff(argument)

    def _sum(self, terms: list[Any]) -> Any:
        """The sum of values; choices by one condition are a single choice."""
        choices: dict[Any, list[Any]] = {}
        others = []
        for term in terms:
            operation = self.operations.get(term)
            if isinstance(operation, where):
                choices.setdefault(operation.args[0], []).append(operation)
            else:
                others.append(term)
        for condition, chosen in choices.items():
            a, b = (self._sum([choice.args[index] for choice in chosen]) for index in (1, 2))
            others.append(self._put(where(condition, a, b)))
        return self._put(sympy.Add(*others))

    def _times(self, gradient: Any, slope: Any) -> Any:
        """gradient x slope; a slope that is 0 by a condition chooses, and so stops a NaN or an infinity too."""
        if isinstance(slope, where) and 0 in slope.args[1:]:
            condition, a, b = slope.args
            return self._put(where(self.value(condition), self._times(gradient, a), self._times(gradient, b)))
        return self._put(sympy.Mul(gradient, *(self.value(factor) for factor in sympy.Mul.make_args(slope))))


def _tidy(tape: _Tape, results: list[Any], given: set[Any]) -> tuple[list[tuple[Any, Any]], list[Any]]:
    """Drop what no result needs, write into its place what is used once, and name the rest."""
    needed: set[Any] = set()
    uses: Counter[Any] = Counter()
    for symbol in results:
        uses[symbol] += 1
    for symbol, operation in reversed(list(tape.operations.items())):
        if uses[symbol]:
            needed.add(symbol)
            uses.update(node for node in sympy.preorder_traversal(operation) if node.is_Symbol)
    order = _order(tape, results, needed)

    written: dict[Any, Any] = {}
    kept: list[tuple[Any, Any]] = []
    for symbol in order:
        operation = _factored(tape.operations[symbol].xreplace(written))
        if uses[symbol] == 1 or (operation.is_Mul and len(operation.args) == 2 and operation.args[0] == -1):
            written[symbol] = operation
        else:
            kept.append((symbol, operation))
    results = [_factored(result.xreplace(written)) for result in results]

    taken = {symbol.name for symbol in given}
    renamed: dict[Any, Any] = {}
    temporaries = []
    for symbol, operation in kept:
        operation = operation.xreplace(renamed)
        name = tape.names.get(symbol)
        name = name if name and name not in taken else temporary_name(operation, taken)
        taken.add(name)
        renamed[symbol] = sympy.Symbol(name, real=True)
        temporaries.append((renamed[symbol], operation))
    return temporaries, [result.xreplace(renamed) for result in results]


def _factored(expression: Any) -> Any:
    """a x + b x + c as (a + b) x + c: where x is a gradient, a + b is ready before it."""
    if not expression.is_Add:
        return expression
    factors = [[part for part in sympy.Mul.make_args(term) if not is_constant(part)] for term in expression.args]
    counts = Counter(part for parts in factors for part in set(parts))
    shared = min(counts, key=lambda part: (-counts[part], part.sort_key()))
    if counts[shared] < 2:
        return expression
    inside = [term for term, parts in zip(expression.args, factors, strict=True) if shared in parts]
    outside = [term for term in expression.args if term not in inside]
    common = _factored(sympy.Add(*(term / shared for term in inside)))
    return sympy.Add(sympy.Mul(shared, common), *outside)


def _order(tape: _Tape, results: list[Any], needed: set[Any]) -> list[Any]:
    """The needed operations, those that depend on no gradient first; each group in the order of the tape.

    They are what a kernel can compute while it waits for the gradient.
    """
    late: set[Any] = set()
    for symbol, operation in tape.operations.items():
        if any(free in late or free.name.startswith("d_next_") for free in operation.free_symbols):
            late.add(symbol)
    order = [symbol for symbol in tape.operations if symbol in needed]
    return [symbol for symbol in order if symbol not in late] + [symbol for symbol in order if symbol in late]
