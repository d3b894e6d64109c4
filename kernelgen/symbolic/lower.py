"""A cell's step as straight-line code: shared subexpressions become named temporaries, each computed once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sympy
from sympy.logic.boolalg import Boolean

from kernelgen.cells.language import Cell


@dataclass(frozen=True)
class Lowered:
    """temporaries: (symbol, expression) in order of use; an expression may use the gates, the states and earlier
    temporaries. next_states: one expression per state; a bare temporary where that state's new value is shared.

    A temporary that is the new value of state s is called ``next_s``, one that the cell names x ``value_x``; the others
    are named for what they compute (``sigmoid_z``) or numbered (``t0``).
    """

    temporaries: tuple[tuple[Any, Any], ...]
    next_states: tuple[Any, ...]


def is_constant(expression: Any) -> bool:
    """Whether an expression is a number, known before the kernel runs."""
    return isinstance(expression, sympy.Expr) and not expression.free_symbols


def is_condition(expression: Any) -> bool:
    """Whether an expression is true or false rather than a number."""
    return isinstance(expression, Boolean) and not isinstance(expression, sympy.Symbol)


@lru_cache(maxsize=64)
def lower(cell: Cell) -> Lowered:
    """Share the common subexpressions of a cell's new states. The result is the same in every process."""
    folded = [_fold(expression) for expression in cell.next_states]
    pairs, outputs = sympy.cse(folded, symbols=sympy.numbered_symbols("_shared"), order="canonical")
    state_of = {output: name for name, output in reversed([*zip(cell.states, outputs, strict=True)])}
    named = {_fold(expression): f"value_{name}" for name, expression in cell.names.items()}
    taken = {symbol.name for symbol in (*cell.gate_symbols, *cell.state_symbols)}
    full: dict[Any, Any] = {}
    renamed: dict[Any, Any] = {}
    temporaries = []
    for symbol, expression in pairs:
        full[symbol] = expression.xreplace(full)
        expression = expression.xreplace(renamed)
        known = f"next_{state_of[symbol]}" if symbol in state_of else named.get(full[symbol])
        name = known or temporary_name(expression, taken)
        taken.add(name)
        renamed[symbol] = sympy.Symbol(name, real=True)
        temporaries.append((renamed[symbol], expression))
    return Lowered(tuple(temporaries), tuple(output.xreplace(renamed) for output in outputs))


def _fold(expression: Any) -> Any:
    """Work out what is constant, such as sqrt(2) / 3; simple fractions stay as they are."""
    if isinstance(expression, sympy.NumberSymbol) or (expression.args and is_constant(expression)):
        return expression.evalf()
    if expression.is_Atom:
        return expression
    return expression.func(*(_fold(argument) for argument in expression.args))


def temporary_name(expression: Any, taken: set[str]) -> str:
    """A name not taken: function_argument where a temporary is one function of one symbol, else t and a number."""
    if isinstance(expression, sympy.Function) and len(expression.args) == 1 and expression.args[0].is_Symbol:
        name = f"{expression.func.__name__.lower()}_{expression.args[0].name}"
        if name not in taken:
            return name
    number = 0
    while f"t{number}" in taken:
        number += 1
    return f"t{number}"
