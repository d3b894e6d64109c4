"""A cell's equations for people, in plain Unicode text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import sympy

from kernelgen.cells.language import Cell
from kernelgen.emit.printer import ATOM, CHOICE, OR, PRODUCT, UNARY, Printer
from kernelgen.symbolic.derive import derive
from kernelgen.symbolic.lower import lower

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class TextPrinter(Printer):
    """Prints expressions as a paper would: σ for the sigmoid, a dot for products."""

    functions: ClassVar[Mapping[str, str]] = {
        "Abs": "abs",
        "exp": "exp",
        "log": "log",
        "log_sigmoid": "log σ",
        "maximum": "max",
        "minimum": "min",
        "relu": "relu",
        "sigmoid": "σ",
        "sign": "sign",
        "softplus": "softplus",
        "tanh": "tanh",
    }
    words: ClassVar[Mapping[str, str]] = {
        "and": "and",
        "or": "or",
        "not": "not ",
        "==": "=",
        "!=": "≠",
        "<=": "≤",
        ">=": "≥",
    }

    def number(self, value: Any) -> str:
        """Integers and simple fractions as such, other numbers in the shortest decimal form."""
        if value.is_Rational:
            return str(value)
        return f"{float(value):.12g}"

    def _factors(self, factors: list[Any]) -> str:
        return " · ".join(self.text(factor, PRODUCT) for factor in factors) or "1"

    def call(self, name: str, arguments: Any) -> tuple[int, str]:
        """A function; the absolute value between bars."""
        if name == "Abs":
            return ATOM, f"|{self.text(arguments[0])}|"
        return super().call(name, arguments)

    def where(self, condition: Any, a: Any, b: Any) -> tuple[int, str]:
        """A choice, in words."""
        return CHOICE, f"{self.text(a, OR)} if {self.text(condition, OR)} else {self.text(b, OR)}"

    def power(self, base: Any, exponent: Any) -> tuple[int, str]:
        """Roots by their sign, integer powers raised."""
        if exponent == sympy.Rational(1, 2):
            return ATOM, f"√({self.text(base)})"
        if exponent.is_Integer:
            return ATOM, self.text(base, ATOM) + str(int(exponent)).translate(_SUPERSCRIPT)
        return UNARY, f"{self.text(base, ATOM)}^{self.text(exponent, ATOM)}"


def gate_equations(cell: Cell) -> list[str]:
    """One line per gate: the parts it receives."""
    lines = []
    for gate in cell.gates:
        name = gate.name
        parts = [(gate.recurrent, f"R_{name} {cell.states[0]}"), (gate.input, f"Wx_{name}"), (gate.bias, f"b_{name}")]
        lines.append(f"{name} = {' + '.join(text for present, text in parts if present)}")
    return lines


def state_equations(cell: Cell) -> list[str]:
    """The step: intermediate values that are used more than once, then the new states, written with a prime (c')."""
    code = lower(cell)
    printer = TextPrinter(_names(cell))
    lines = _temporaries(cell, printer, code.temporaries)
    for state, expression in zip(cell.states, code.next_states, strict=True):
        if not (expression.is_Symbol and expression.name == f"next_{state}"):
            lines.append(f"{state}' = {printer.text(expression)}")
    return lines


def backward_equations(cell: Cell) -> list[str]:
    """The derived backward step. δx is the gradient of x: δc' as it comes from outside, δc the whole of it, δc(t-1)
    that of the old state through the step alone; δi that of gate i's sum.
    """
    code = derive(cell)
    printer = TextPrinter(_names(cell) | {f"d_next_{state}": f"δ{state}'" for state in cell.states})
    lines = _temporaries(cell, printer, code.temporaries)
    results = [f"δ{gate.name}" for gate in cell.gates] + [f"δ{state}(t-1)" for state in cell.states]
    return lines + [f"{name} = {printer.text(value)}" for name, value in zip(results, code.outputs, strict=True)]


def _names(cell: Cell) -> dict[str, str]:
    return {f"next_{state}": f"{state}'" for state in cell.states} | {f"value_{name}": name for name in cell.names}


def _temporaries(cell: Cell, printer: TextPrinter, temporaries: Sequence[tuple[Any, Any]]) -> list[str]:
    """One line per temporary that is not as short as any name for it; the printer learns how each is written."""
    taken = {*cell.states, *cell.names, *(gate.name for gate in cell.gates)}
    lines = []
    for symbol, expression in temporaries:
        name = symbol.name
        if name not in printer.symbols:
            if expression.is_Function and all(argument.is_Symbol for argument in expression.args):
                printer.symbols[name] = printer.text(expression)  # σ(z) is as short as any name for it
                continue
            of = name.removeprefix("d_")
            text = name if of == name else f"δ{printer.symbols.get(of, of)}"
            printer.symbols[name] = f"{text}_" if text in taken else text
        text = printer.text(expression)
        lines.append(f"{printer.text(symbol)} = {f'({text})' if isinstance(expression, sympy.Eq) else text}")
    return lines


def equations(cell: Cell) -> str:
    """Everything about a cell: title, paper, states, what each gate receives, the step. Ends without a newline."""
    lines = [f"{cell.name}: {cell.title}", *([cell.paper] if cell.paper else []), ""]
    others = f"; {', '.join(cell.states[1:])} in float32" if len(cell.states) > 1 else ""
    lines += [f"states  {cell.states[0]}, multiplied by R{others}"]
    for heading, part in (("gates", gate_equations(cell)), ("step", state_equations(cell))):
        lines += [f"{heading if index == 0 else '':<8}{line}" for index, line in enumerate(part)]
    return "\n".join(lines)
