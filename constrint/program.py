"""The form constraints take inside the engines: flat postorder code over integer nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

from constrint.domains import Domain
from constrint.expr import Row


class Op(IntEnum):
    """Node kinds; the C++ core uses the same numbers. Numbers come first, conditions after TRUE."""

    CONST = 0
    VAR = 1
    ADD = 2
    SUB = 3
    MUL = 4
    FDIV = 5
    MOD = 6
    POW = 7
    MIN = 8
    MAX = 9
    ABS = 10
    NONZERO = 11
    INDICATOR = 12
    TRUE = 13
    FALSE = 14
    EQ = 15
    NE = 16
    LE = 17
    AND = 18
    OR = 19
    DIVIDES = 20
    NOT_DIVIDES = 21
    TABLE = 22
    NOT_TABLE = 23


class Tree(NamedTuple):
    """A lowered expression. value: of a CONST, or the position of a VAR; rows: of a table."""

    op: Op
    args: tuple[Tree, ...] = ()
    value: int = 0
    rows: tuple[Row, ...] = ()


@dataclass
class Code:
    """One constraint as postorder code; node i's operands have smaller numbers and no other user.

    ops[i]: its kind. a[i], b[i]: operands; a is the value of a CONST, the position of a VAR, the number of a table.
    tables: operands and rows of each. variables: positions of the variables it names. source: the number of the
    problem's constraint it states (a part of).
    """

    ops: list[int] = field(default_factory=list)
    a: list[int] = field(default_factory=list)
    b: list[int] = field(default_factory=list)
    tables: list[tuple[tuple[int, ...], tuple[Row, ...]]] = field(default_factory=list)
    row_sets: list[frozenset[Row]] = field(default_factory=list)
    variables: tuple[int, ...] = ()
    source: int = 0

    @cached_property
    def reaches(self) -> list[int]:
        """The largest size of a number in each table."""
        return [max((abs(x) for row in rows for x in row), default=0) for _, rows in self.tables]

    @staticmethod
    def of(tree: Tree, source: int = 0) -> Code:
        """Flatten a tree."""
        code = Code(source=source)
        code._append(tree)
        code.variables = tuple(sorted({a for op, a in zip(code.ops, code.a, strict=True) if op == Op.VAR}))
        return code

    def renumbered(self, place: Mapping[int, int]) -> Code:
        """The same constraint where each variable has another position."""
        a = [place[a] if op == Op.VAR else a for op, a in zip(self.ops, self.a, strict=True)]
        variables = tuple(sorted(place[v] for v in self.variables))
        return Code(self.ops, a, self.b, self.tables, self.row_sets, variables, self.source)

    def _append(self, tree: Tree) -> int:
        operands = tuple(map(self._append, tree.args))
        a, b = tree.value, 0
        if tree.op in (Op.TABLE, Op.NOT_TABLE):
            a = len(self.tables)
            self.tables.append((operands, tree.rows))
            self.row_sets.append(frozenset(tree.rows))
        elif operands:
            a, b = operands[0], operands[-1]
        self.ops.append(int(tree.op))
        self.a.append(a)
        self.b.append(b)
        return len(self.ops) - 1


@dataclass(frozen=True)
class Rule:
    """Variables that all differ, or tasks that share a resource, each a variable plus an offset (``constrint.rules``).

    why: the constraints that say so, as a sum of 1 << number. durations, demands, capacity: of tasks; else empty and 0.
    """

    variables: tuple[int, ...]
    offsets: tuple[int, ...]
    why: int
    durations: tuple[int, ...] = ()
    demands: tuple[int, ...] = ()
    capacity: int = 0

    def constants_within(self, largest: int) -> bool:
        """Whether no constant is larger."""
        return all(abs(x) <= largest for x in (*self.offsets, *self.durations, *self.demands, self.capacity))

    def renumbered(self, place: Mapping[int, int]) -> Rule:
        """The same where each variable has another position."""
        return replace(self, variables=tuple(place[v] for v in self.variables))


@dataclass
class Program:
    """A problem ready for an engine: domains by position, and the constraints' code.

    sources: how many constraints the problem has, one for the bound of an objective included. why: for each variable,
    the constraints that shaped its domain, as a sum of 1 << number (empty: none did). bit_width: what is known of the
    size of its numbers (see ``constrint.native.bit_width``), which smaller domains and fewer codes cannot change for
    the worse. rules: what follows from the codes, for propagation.
    """

    names: list[str]
    domains: list[Domain]
    codes: list[Code]
    sources: int = 1
    why: list[int] = field(default_factory=list)
    bit_width: int = 0
    rules: list[Rule] = field(default_factory=list)


def reasons(code: Code, why: Sequence[int] | Mapping[int, int]) -> int:
    """The constraint itself, and the reasons of the domains of its variables."""
    result = 1 << code.source
    for v in code.variables:
        result |= why[v]
    return result
