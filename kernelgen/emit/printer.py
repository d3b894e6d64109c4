"""What all printers share: infix arithmetic with the fewest parentheses, and a rule for each kind of node.

A target is a subclass that overrides the rules in which it differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import sympy
from sympy.core.relational import Relational
from sympy.logic.boolalg import And, Not, Or

from kernelgen.errors import CellError
from kernelgen.symbolic.lower import is_constant
from kernelgen.symbolic.products import split_product

CHOICE, OR, AND, RELATION, SUM, PRODUCT, UNARY, ATOM = range(8)
"""How tightly a piece of text binds, loosest first."""


class Printer:
    """Prints expressions. symbols: the text of each symbol, where it is not its name."""

    functions: ClassVar[Mapping[str, str]] = {}
    """The target's name for each function of the cell language."""
    words: ClassVar[Mapping[str, str]] = {
        "and": "and",
        "or": "or",
        "not": "not ",
        "==": "==",
        "!=": "!=",
        "<=": "<=",
        ">=": ">=",
    }

    def __init__(self, symbols: Mapping[str, str] | None = None) -> None:
        self.symbols = dict(symbols or {})

    def text(self, expression: Any, binding: int = CHOICE) -> str:
        """The text of an expression, in parentheses where it binds less tightly than ``binding``."""
        own, text = self._print(expression)
        return f"({text})" if own < binding else text

    # ---- rules a target may override ----

    def number(self, value: Any) -> str:
        """A non-negative number."""
        return repr(float(value))

    def order(self, arguments: Sequence[Any]) -> list[Any]:
        """The order in which the terms of a sum or the factors of a product are written."""
        return list(arguments)

    def call(self, name: str, arguments: Sequence[Any]) -> tuple[int, str]:
        """A function of the language."""
        return ATOM, f"{self.functions[name]}({', '.join(self.text(argument) for argument in arguments)})"

    def where(self, condition: Any, a: Any, b: Any) -> tuple[int, str]:
        """A choice between two values."""
        return self.call("where", (condition, a, b))

    def power(self, base: Any, exponent: Any) -> tuple[int, str]:
        """A power that is no division."""
        raise NotImplementedError

    def quotient(self, factors: list[Any], divisors: list[Any]) -> tuple[int, str]:
        """A product with divisors."""
        below = self.text(sympy.Mul(*divisors), UNARY)
        return PRODUCT, f"{self._factors(factors)} / {below}"

    def product(self, factors: list[Any]) -> tuple[int, str]:
        """A product of at least two factors."""
        return PRODUCT, self._factors(factors)

    # ---- common to all ----

    def _factors(self, factors: list[Any]) -> str:
        return " * ".join(self.text(factor, PRODUCT) for factor in self.order(factors)) or self.number(1)

    def _print(self, node: Any) -> tuple[int, str]:
        if node.is_Symbol:
            return ATOM, self.symbols.get(node.name, node.name)
        if is_constant(node):
            text = self.number(abs(node))
            return (UNARY, f"-{text}") if node < 0 else (ATOM, text)
        if node.is_Add:
            return SUM, self._sum(node)
        if node.is_Mul or (node.is_Pow and node.exp.is_Integer and node.exp.is_negative):
            return self._product(node)
        if node.is_Pow:
            return self.power(node.base, node.exp)
        if isinstance(node, Relational):
            left, right = (self.text(side, SUM) for side in node.args)
            return RELATION, f"{left} {self.words.get(node.rel_op, node.rel_op)} {right}"
        if isinstance(node, And | Or):
            word, own = (self.words["and"], AND) if isinstance(node, And) else (self.words["or"], OR)
            parts = sorted(node.args, key=sympy.default_sort_key)
            return own, f" {word} ".join(self.text(part, RELATION) for part in parts)
        if isinstance(node, Not):
            return UNARY, f"{self.words['not']}{self.text(node.args[0], UNARY)}"
        name = node.func.__name__
        if name == "where":
            return self.where(*node.args)
        if name not in self.functions:
            raise CellError(f"{type(self).__name__} cannot print the function {name}")
        return self.call(name, node.args)

    def _sum(self, node: Any) -> str:
        terms = self.order(sympy.Add.make_args(node))
        # A sum reads, and computes, best when it starts with a term that needs no negation.
        terms.sort(key=lambda term: split_product(term)[0])
        text = ""
        for term in terms:
            negative = split_product(term)[0]
            part = self.text(-term if negative else term, PRODUCT)
            text += (" - " if negative else " + ") + part if text else ("-" if negative else "") + part
        return text

    def _product(self, node: Any) -> tuple[int, str]:
        negative, factors, divisors = split_product(node)
        if divisors:
            own, text = self.quotient(factors, divisors)
        elif len(factors) == 1:
            own, text = self._print(factors[0])
        else:
            own, text = self.product(factors)
        if not negative:
            return own, text
        return UNARY, f"-{text}" if own >= PRODUCT else f"-({text})"


class PythonPrinter(Printer):
    """What the targets share that are Python over arrays: &, | and ~ for conditions."""

    words: ClassVar[Mapping[str, str]] = {"and": "&", "or": "|", "not": "~"}

    def text(self, expression: Any, binding: int = CHOICE) -> str:
        """As any printer, but with parentheses around every comparison, which & and | would tear apart."""
        text = super().text(expression, binding)
        return f"({text})" if getattr(expression, "is_Relational", False) else text
