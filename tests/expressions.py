"""Random expressions of the cell language."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import sympy

from kernelgen.cells.language import abs as absolute
from kernelgen.cells.language import maximum, sigmoid, sqrt, tanh, where


def random_expression(source: random.Random, symbols: list[Any], depth: int) -> Any:
    """A random expression that is finite wherever its symbols are in (0.5, 1.5)."""
    if depth == 0 or source.random() < 0.1:
        return source.choice([*symbols, sympy.Integer(source.randint(-3, 3)), sympy.Float(source.uniform(-2, 2))])

    def part() -> Any:
        return random_expression(source, symbols, depth - 1)

    rules: list[Callable[[], Any]] = [
        lambda: part() + part(), lambda: part() - part(), lambda: part() * part(), lambda: -part(),
        lambda: part() / (1 + part() ** 2), lambda: tanh(part()) ** source.randint(2, 4), lambda: sigmoid(part()),
        lambda: where((part() < part()) | ~(part() > 1) & (part() >= 0), part(), part()),
        lambda: maximum(part(), part()), lambda: sqrt(1 + part() ** 2), lambda: absolute(part()),
    ]  # fmt: skip
    return source.choice(rules)()
