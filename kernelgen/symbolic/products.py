"""A product taken apart, for printers and for counting instructions."""

from __future__ import annotations

from typing import Any

import sympy


def split_product(expression: Any) -> tuple[bool, list[Any], list[Any]]:
    """A product as (negative, factors, divisors): -a/b is (True, [a], [b]). Other expressions are a single factor."""
    negative = False
    factors: list[Any] = []
    divisors: list[Any] = []
    for argument in sympy.Mul.make_args(expression):
        if argument.is_Number and argument.is_negative:
            negative, argument = not negative, -argument
        if argument.is_Pow and argument.exp.is_Integer and argument.exp.is_negative:
            divisors.append(argument.base ** (-argument.exp))
        elif argument != 1:
            factors.append(argument)
    return negative, factors, divisors
