"""A problem as data: what every engine takes. ``constrint.model`` adds how one is written and asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from constrint.domains import Domain
from constrint.errors import ConstrintError
from constrint.expr import Expr
from constrint.integers import shown, whole_number

if TYPE_CHECKING:
    from constrint.program import Code

Solution = dict[str, Any]
"""The value of every variable: for the engines its integer, for who asked the value that was given."""


@dataclass(frozen=True, eq=False)
class Constraint:
    """One condition that a solution must satisfy, and the words it is known by.

    core: the condition over the integers of the variables, in the engines' operators; None where that is what it is.
    whole: of a constraint of many variables that ``core`` takes apart, itself, over these integers.
    """

    condition: Expr
    label: str
    core: Expr | None = None
    whole: Expr | None = None

    @property
    def stated(self) -> Expr:
        """What the engines take."""
        return self.condition if self.core is None else self.core

    def __str__(self) -> str:
        return self.label


class Statement:
    """Variables with their values, and the constraints between them.

    name: what messages call it. domains: as ``make_domain`` gives them.
    """

    def __init__(
        self, name: str, domains: Mapping[str, Domain] | None = None, constraints: Iterable[Constraint] = ()
    ) -> None:
        self.name = name
        self._domains = dict(domains or {})
        self._constraints = list(constraints)
        self.lowered: dict[int, list[Code]] = {}
        """What the engines made of the constraints, by number; ``constrint.presolve`` keeps it."""

    @property
    def domains(self) -> Mapping[str, Domain]:
        """The declared values of each variable, in order of declaration: a sorted tuple, or a range."""
        return self._domains

    @property
    def constraints(self) -> Sequence[Constraint]:
        """The constraints, in the order they were added."""
        return tuple(self._constraints)

    def complete(self, assignment: Mapping[str, int]) -> Solution:
        """An assignment of every variable as Python ints, in order of declaration, whatever numbers it came with.

        Raises ConstrintError as ``check`` does.
        """
        values = self._values(assignment)
        for name in values:
            if name not in self._domains:
                raise ConstrintError(f"{self.name!r} has no variable {shown(name)}")
        for name in self._domains:
            if name not in values:
                raise ConstrintError(f"no value for {name!r}")
        return {name: values[name] for name in self._domains}

    def _values(self, assignment: Mapping[str, int]) -> Solution:
        if not isinstance(assignment, Mapping):
            raise ConstrintError(f"an assignment maps names to values; {shown(assignment)} does not")
        return {name: whole_number(value, f"the value of {name!r}") for name, value in assignment.items()}
