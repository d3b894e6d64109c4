"""Expressions as Python text: what ``str`` of one gives, and how restrictions are written."""

from __future__ import annotations

from collections.abc import Collection

from constrint.printing import Node, Printer

_LEVELS = {"or": 1, "implies": 1, "and": 2, "not": 3, "table": 4, "divides": 4, "+": 5, "-": 5}
_LEVELS |= dict.fromkeys(("==", "!=", "<", "<=", ">", ">="), 4) | dict.fromkeys(("*", "/", "//", "%"), 6)
_LEVELS |= {"neg": 7, "cdiv": 7, "**": 8}


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
        if op == "table":
            single = len(args) == 1
            columns = self.text(args[0], own + 1) if single else f"({', '.join(map(self.text, args))})"
            rows = ", ".join(str(row[0]) if single else str(row) for row in expr.rows)
            return f"{columns} in [{rows}]"
        return None


def print_expression(expr: Node, variables: Collection[str] = ()) -> str:
    """The expression as Python text; ``parse_restriction`` reads it back.

    variables: the names that it is read back with, lest the constant True be taken for a variable of that name.
    """
    printer = _Printer(_LEVELS, {"not": "not "}, ("min", "max", "abs"))
    printer.taken = variables
    return printer.text(expr)
