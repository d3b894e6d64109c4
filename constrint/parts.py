"""A program in parts that share no undecided variable, and small things that are read from a program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from constrint.program import Code, Program
from constrint.statement import Solution


def bounds(program: Program) -> tuple[list[int], list[int]]:
    return [domain[0] for domain in program.domains], [domain[-1] for domain in program.domains]


def named(program: Program, values: Sequence[int]) -> Solution:
    return dict(zip(program.names, values, strict=True))


@dataclass(frozen=True)
class Part:
    """Constraints of a program that share undecided variables with each other, and with no other constraint.

    variables: every variable that they name, by position, ascending.
    """

    codes: list[Code]
    variables: list[int]

    def local(self, program: Program) -> Program:
        """The part as a program of its own, over its variables alone, in their order."""
        if len(self.variables) == len(program.names):
            return replace(program, codes=self.codes)
        place = {v: i for i, v in enumerate(self.variables)}
        return Program(
            [program.names[v] for v in self.variables],
            [program.domains[v] for v in self.variables],
            [code.renumbered(place) for code in self.codes],
            program.sources,
            [program.why[v] for v in self.variables] if program.why else [],
            program.bit_width,
            [rule.renumbered(place) for rule in program.rules if all(v in place for v in rule.variables)],
        )


def split(program: Program) -> list[Part]:
    """The constraints of a program in parts that share no undecided variable."""
    parent = list(range(len(program.names)))

    def find(v: int) -> int:
        while parent[v] != v:
            parent[v] = v = parent[parent[v]]
        return v

    undecided = [domain[0] != domain[-1] for domain in program.domains]
    scopes = [[v for v in code.variables if undecided[v]] for code in program.codes]
    for scope in scopes:
        for v in scope[1:]:
            parent[find(v)] = find(scope[0])
    groups: dict[int, list[Code]] = {}
    for code, scope in zip(program.codes, scopes, strict=True):
        groups.setdefault(find(scope[0]) if scope else -1, []).append(code)
    return [Part(codes, sorted({v for code in codes for v in code.variables})) for codes in groups.values()]
