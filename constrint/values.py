"""The values of one parameter, of any kind, and the integers that stand for them inside.

Numbers stand for themselves, those with decimals as multiples of a common fraction (0.5 and 1.25 are 2/4 and 5/4, so 2
and 5); text and None come after the largest number, in the order given. Booleans are the numbers 0 and 1. Two values
that Python finds equal are one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any

from constrint.domains import Domain
from constrint.errors import ConstrintError
from constrint.integers import as_index, is_truth, shown


class Nothing:
    """What None is to an expression, whose own None means that it has no value."""

    def __repr__(self) -> str:
        return "None"


NOTHING = Nothing()

Atom = int | Fraction | str | Nothing
"""What an expression computes with: numbers, exact, and what is no number."""


def is_number(value: object) -> bool:
    """Whether an Atom is a number."""
    return isinstance(value, int | Fraction)


def plain_value(value: object, what: str) -> object:
    """A value as Python's own kinds hold it: int, float, bool, str or None, whatever library it came from.

    Raises ConstrintError for anything else, and for a float that is no number.
    """
    if value is None or type(value) in (int, bool, str):
        return value
    if is_truth(value):
        return bool(value)
    found = as_index(value)
    if found is not None:
        return found
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Fraction):
        return value.numerator if value.denominator == 1 else value
    item = getattr(value, "item", None)
    if not isinstance(value, float) and callable(item) and getattr(value, "shape", None) == ():
        value = item()
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConstrintError(f"{what} must be a number, not {shown(value)}")
        return float(value)
    words = "only numbers, text, True, False and None are values"
    raise ConstrintError(f"{what} cannot be {shown(value)} ({type(value).__name__}); {words}")


def atom(value: object) -> Atom:
    """What a plain value is to an expression. A float is the decimal that Python writes it as: 0.1 means 1/10."""
    if value is None:
        return NOTHING
    if type(value) is bool:
        return int(value)
    if isinstance(value, float):
        exact = Fraction(repr(value))
        return exact.numerator if exact.denominator == 1 else exact
    if isinstance(value, int | str | Fraction):
        return value
    return NOTHING


@dataclass(frozen=True)
class Coding:
    """How the values of one parameter are numbered.

    values: as they came, in the order given, each once. codes: the integer of each. scale: what the codes of numbers
    are multiples of is 1 / scale. top: the largest code of a number, None where no value is one.
    """

    values: tuple[Any, ...]
    codes: tuple[int, ...]
    scale: int
    top: int | None

    @cached_property
    def code(self) -> dict[Any, int]:
        """The integer of each value."""
        return dict(zip(self.values, self.codes, strict=True))

    @cached_property
    def value(self) -> dict[int, Any]:
        """The value of each integer."""
        return dict(zip(self.codes, self.values, strict=True))

    @cached_property
    def position(self) -> dict[int, int]:
        """Where the value of each integer stands in the order given."""
        return {code: place for place, code in enumerate(self.codes)}

    @cached_property
    def domain(self) -> tuple[int, ...]:
        """The integers, ascending."""
        return tuple(sorted(self.codes))

    @property
    def plain(self) -> bool:
        """Whether every value is the integer that stands for it."""
        return all(type(value) is int for value in self.values)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The codes of the values that are numbers, ascending."""
        return () if self.top is None else tuple(code for code in self.domain if code <= self.top)

    @property
    def mixed(self) -> bool:
        """Whether some value is no number."""
        return self.top is None or self.domain[-1] > self.top

    def find(self, value: object) -> int | None:
        """The integer of a value of any library; None for what is no value of this parameter."""
        try:
            return self.code.get(value)
        except TypeError:  # no key of a dictionary, such as an array of one number
            try:
                return self.code.get(plain_value(value, "a value"))
            except ConstrintError:
                return None


def make_coding(name: str, values: Iterable[object]) -> Coding:
    """The values of the parameter ``name``, numbered. Raises ConstrintError for none, and for what is no value."""
    kept: dict[Any, Atom] = {}
    for value in values:
        plain = plain_value(value, f"a value of {name!r}")
        kept.setdefault(plain, atom(plain))
    if not kept:
        raise ConstrintError(f"the variable {name!r} has no values to choose from")
    numbers = [x for x in kept.values() if isinstance(x, int | Fraction)]
    scale = math.lcm(*(x.denominator for x in numbers)) if numbers else 1
    top = max((int(x * scale) for x in numbers), default=None)
    following = 0 if top is None else top + 1
    codes = []
    for x in kept.values():
        if isinstance(x, int | Fraction):
            codes.append(int(x * scale))
        else:
            codes.append(following)
            following += 1
    return Coding(tuple(kept), tuple(codes), scale, top)


@dataclass
class Codings:
    """The codings of a problem's parameters whose values are other than integers; empty for most problems.

    given: of those whose integers did not come in ascending order, the values in the order given.
    """

    of: dict[str, Coding] = field(default_factory=dict)
    given: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def texts(self) -> list[str]:
        """The parameters some of whose values are no numbers."""
        return [name for name, coding in self.of.items() if coding.mixed]

    def decoded(self, solution: Mapping[str, int]) -> dict[str, Any]:
        """A solution in the values that were given."""
        result: dict[str, Any] = dict(solution)
        for name, coding in self.of.items():
            if name in result:
                result[name] = coding.value[result[name]]
        return result

    def values(self, name: str, domain: Domain) -> tuple[Any, ...] | range:
        """The values of a parameter as they came, in the order given."""
        coding = self.of.get(name)
        return coding.values if coding is not None else self.given.get(name, domain)
