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

    line, column: where, both from 1. source: the offending line. reason: what was expected or refused.
    """

    def __init__(self, reason: str, source: str, line: int, column: int, name: str = "") -> None:
        self.reason, self.source, self.line, self.column = reason, source, line, column
        where = f"{name}, line {line}" if name else f"line {line}"
        # Tabs are kept in the padding so that the caret stays under its character.
        padding = "".join(character if character == "\t" else " " for character in source[: column - 1])
        super().__init__(f"{where}, column {column}: {reason}\n  {source}\n  {padding}^")
