"""The exceptions of constrint: one base class; every message says what was asked, what failed and what to do."""

from __future__ import annotations


class ConstrintError(Exception):
    """Base of every error constrint raises on purpose."""


class Infeasible(ConstrintError):
    """A solution was required of a problem that has none."""


class TimeLimit(ConstrintError):
    """The time limit passed before the answer was known."""


class ParseError(ConstrintError):
    """A text that does not follow its grammar.

    line, column: where, both from 1. source: the offending line. reason: what was expected or refused. The message
    shows the line, of a long one the part around the column.
    """

    SHOWN = 2_000

    def __init__(self, reason: str, source: str, line: int, column: int, name: str = "") -> None:
        self.reason, self.source, self.line, self.column = reason, source, line, column
        where = f"{name}, line {line}" if name else f"line {line}"
        first = max(0, column - 1 - self.SHOWN // 2) if len(source) > self.SHOWN else 0
        part = "".join(c if c.isprintable() or c == "\t" else "?" for c in source[first : first + self.SHOWN])
        # Tabs are kept in the padding so that the caret stays under its character.
        padding = "".join(character if character == "\t" else " " for character in part[: column - 1 - first])
        super().__init__(f"{where}, column {column}: {reason}\n  {part}\n  {padding}^")
