"""The ConstrINT text format, written; ``constrint.constrint_text`` reads it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from constrint.domains import Domain
from constrint.errors import ConstrintError
from constrint.expr import COMPARISONS
from constrint.model import Problem
from constrint.printing import Node, Printer

_LEVELS = {"implies": 0, "or": 0, "and": 1, "not": 2, "%": 4, "+": 5, "-": 5, "*": 6, "//": 6, "/": 6}
_LEVELS |= dict.fromkeys((*COMPARISONS, "divides", "table", "true", "false"), 3) | {"neg": 7, "**": 8}
_WORDS = {"or": "|", "and": "&", "not": "~", "**": "^"}


class _Printer(Printer):
    def operand(self, expr: Node, level: int) -> str:
        if expr.is_condition:
            raise ConstrintError(f"ConstrINT text cannot use the condition ({expr}) as a number")
        return self.text(expr, level)

    def special(self, expr: Node, own: int) -> str | None:
        if expr.op in ("true", "false"):
            return "0 == 0" if expr.op == "true" else "0 == 1"
        if expr.op == "**":
            return f"{self.operand(expr.args[0], own + 1)} ^ {self.operand(expr.args[1], own)}"
        return self._table(expr) if expr.op == "table" else None

    def _table(self, expr: Node) -> str:
        if len(expr.args) == 1:
            column = self.operand(expr.args[0], self.levels["=="] + 1)
            return f"{column} == [{_values([row[0] for row in expr.rows])}]"
        columns = ", ".join(self.operand(arg, 0) for arg in expr.args)
        rows = ", ".join(f"({', '.join(map(str, row))})" for row in expr.rows)
        return f"({columns}) == [{rows}]"


def print_constrint(problem: Problem) -> str:
    """The problem in ConstrINT text; ``parse_constrint`` reads it back. Labels are lost.

    Raises ConstrintError for a variable whose name the format cannot hold.
    """
    printer = _Printer(_LEVELS, _WORDS, ("cdiv", "min", "max", "abs"))
    lines = []
    for name, domain in problem.domains.items():
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise ConstrintError(f"ConstrINT text cannot hold the variable name {name!r}")
        if name in problem.codings.of:
            raise ConstrintError(
                f"ConstrINT text holds integers, and {name!r} has other values; write a space in JSON or YAML instead"
            )
        lines.append(f"{name} == [{_values(domain)}];")
    lines += [f"{printer.text(constraint.stated)};" for constraint in problem.constraints]
    return "\n".join(lines) + "\n"


def _values(domain: Domain | Sequence[int]) -> str:
    if not isinstance(domain, range):
        return ", ".join(map(str, domain))
    return f"{domain[0]} .. {domain[-1]}" + (f" by {domain.step}" if domain.step > 1 else "")
