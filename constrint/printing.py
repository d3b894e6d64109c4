"""Expressions as text: what the two text formats have in common."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from constrint.errors import ConstrintError

ATOM = 100
"""Binds stronger than any operator."""


class Node(Protocol):
    """What is printed: ``constrint.Expr``, which itself prints by this module and so lies above it."""

    @property
    def op(self) -> str: ...

    @property
    def args(self) -> Sequence[Node]: ...

    @property
    def value(self) -> int: ...

    @property
    def name(self) -> str: ...

    @property
    def rows(self) -> Sequence[Sequence[int]]: ...

    @property
    def other(self) -> Any: ...

    @property
    def is_condition(self) -> bool: ...


class Printer:
    """Prints an expression with as few parentheses as its operators' levels need.

    levels: how strongly each operator binds. words: how each is written, where that is not its own name. functions:
    what is written as a call. A format adds what it writes in its own way by overriding ``special``.
    """

    def __init__(self, levels: Mapping[str, int], words: Mapping[str, str], functions: Collection[str]) -> None:
        self.levels, self.words, self.functions = levels, words, functions

    def text(self, expr: Node, level: int = 0) -> str:
        """The expression, in parentheses where it binds weaker than ``level``."""
        own = self.level(expr)
        written = self._written(expr, own)
        return f"({written})" if own < level else written

    def level(self, expr: Node) -> int:
        """How strongly an expression binds."""
        # A negative number is written with a minus.
        return self.levels["neg"] if expr.op == "const" and expr.value < 0 else self.levels.get(expr.op, ATOM)

    def operand(self, expr: Node, level: int) -> str:
        """A number that an operator is applied to."""
        return self.text(expr, level)

    def special(self, expr: Node, own: int) -> str | None:
        """What this format writes in its own way, else None. own: the level of the expression."""
        raise NotImplementedError

    def _written(self, expr: Node, own: int) -> str:
        op, args = expr.op, expr.args
        special = self.special(expr, own)
        if special is not None:
            return special
        if op == "const":
            try:
                return str(expr.value)
            except ValueError:  # more digits than Python prints
                raise ConstrintError(
                    f"a number of {expr.value.bit_length():,} bits is too long to be written"
                ) from None
        if op == "var":
            return expr.name
        word = self.words.get(op, op)
        if op in self.functions:
            return f"{op}({', '.join(self.operand(arg, 0) for arg in args)})"
        if op in ("or", "and"):
            return f"{self.text(args[0], own)} {word} {self.text(args[1], own + 1)}"
        if op == "implies":
            premise = self.text(args[0], self.levels["not"] + 1)
            return f"{self.words['not']}{premise} {self.words.get('or', 'or')} {self.text(args[1], own + 1)}"
        if op == "not":
            return f"{word}{self.text(args[0], own + 1)}"
        if op == "neg":
            return f"-{self.operand(args[0], own + 1)}"
        if op == "divides":
            modulo = self.levels["%"]
            return f"{self.operand(args[1], modulo)} % {self.operand(args[0], modulo + 1)} == 0"
        if op == "**":
            return f"{self.operand(args[0], own + 1)} {word} {self.operand(args[1], self.levels['neg'])}"
        # Comparisons chain, so neither side may be one; other operators group to the left.
        left = own + 1 if own == self.levels["=="] else own
        return f"{self.operand(args[0], left)} {word} {self.operand(args[1], own + 1)}"
