"""Expressions as Python text: what ``str`` of one gives, and how restrictions are written."""

from __future__ import annotations

from collections.abc import Collection
from fractions import Fraction
from itertools import pairwise

from constrint.printing import Node, Printer

_LEVELS = {"if": 0, "or": 1, "implies": 1, "and": 2, "not": 3, "table": 4, "rows": 4, "divides": 4}
_LEVELS |= dict.fromkeys(("==", "!=", "<", "<=", ">", ">="), 4) | {"bitor": 5, "bitxor": 6, "bitand": 7}
_LEVELS |= dict.fromkeys(("<<", ">>"), 8) | dict.fromkeys(("+", "-"), 9) | dict.fromkeys(("*", "/", "//", "%"), 10)
_LEVELS |= {"neg": 11, "cdiv": 11, "**": 12}
_WORDS = {"not": "not ", "bitand": "&", "bitor": "|", "bitxor": "^"}
_FUNCTIONS = ("min", "max", "abs", "int", "round", "len")


class _Printer(Printer):
    taken: Collection[str] = ()
    """The names of variables."""

    def special(self, expr: Node, own: int) -> str | None:
        op, args = expr.op, expr.args
        if op in ("true", "false"):
            word = op.capitalize()
            return f"({int(op == 'true')} == 1)" if word in self.taken else word
        if op == "cdiv":
            return f"-(-{self.text(args[0], self.levels['neg'])} // {self.text(args[1], self.levels['*'] + 1)})"
        if op in ("table", "rows"):
            single = len(args) == 1
            columns = self.text(args[0], own + 1) if single else f"({', '.join(map(self.text, args))})"
            listed = [[_value(value) for value in row] for row in expr.rows or expr.other or ()]
            rows = ", ".join(row[0] if single else f"({', '.join(row)})" for row in listed)
            return f"{columns} in [{rows}]"
        return self._rich(expr)

    def _rich(self, expr: Node) -> str | None:
        """What is written in Python alone."""
        op, args = expr.op, expr.args
        if op == "var":
            return expr.name if expr.name.isidentifier() else f"p[{expr.name!r}]"
        if op == "value":
            return repr(expr.other)
        if op == "if":
            which, chosen, other = self.text(args[0], 1), self.text(args[1], 1), self.text(args[2], 0)
            return f"{chosen} if {which} else {other}"
        if op == "element":
            return f"[{', '.join(map(self.text, args[1:]))}][{self.text(args[0])}]"
        if op in ("all_different", "cumulative"):
            size = len(args) // 3
            ends = [0, len(args)] if op == "all_different" else [0, size, 2 * size, 3 * size]
            lists = [f"[{', '.join(map(self.text, args[a:b]))}]" for a, b in pairwise(ends)]
            return f"{op}({', '.join(lists + [self.text(arg) for arg in args[ends[-1] :]])})"
        if op in ("floor", "ceil", "call"):
            return f"math.{expr.name or op}({', '.join(map(self.text, args))})"
        return f"bool({self.text(args[0])})" if op == "truth" else None


def _value(value: object) -> str:
    """A value in a list. A fraction is written as one, unless it is a decimal."""
    if isinstance(value, Fraction):
        decimal = repr(float(value))
        return decimal if Fraction(decimal) == value else f"{value.numerator} / {value.denominator}"
    return repr(value)


def print_expression(expr: Node, variables: Collection[str] = ()) -> str:
    """The expression as Python text; ``parse_restriction`` reads it back.

    variables: the names that it is read back with, lest the constant True be taken for a variable of that name.
    """
    printer = _Printer(_LEVELS, _WORDS, _FUNCTIONS)
    printer.taken = variables
    return printer.text(expr)
