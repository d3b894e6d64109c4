"""Sizes as text, such as "cdiv(batch, 16)": what depends on a call's batch, heads and seq, and is written down."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Protocol

from kernelgen.errors import ConfigError

Sizes = Mapping[str, int]
"""The values of the names in a rule."""


class Sized(Protocol):
    """What has the sizes that a rule may name: a Shape."""

    @property
    def batch(self) -> int:
        """Sequences."""
        ...

    @property
    def heads(self) -> int:
        """Heads."""
        ...

    @property
    def seq(self) -> int:
        """Steps."""
        ...


_Evaluate = Callable[[Sizes], int]

_OPERATORS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_FUNCTIONS: Mapping[str, Callable[[int, int], int]] = {"cdiv": lambda a, b: -(-a // b), "min": min, "max": max}

LONGEST = 200
"""Characters of a rule at most."""


def sizes_of(shape: Sized) -> dict[str, int]:
    """The names that a rule may use, with their values."""
    return {"batch": shape.batch, "heads": shape.heads, "seq": shape.seq}


def evaluate(rule: str, sizes: Sizes) -> int:
    """The value of a rule: integers, names of ``sizes``, + - * // %, cdiv (division rounded up), min and max.

    Raises ConfigError for anything else, an unknown name, or a division by zero.
    """
    try:
        return _parsed(rule)(sizes)
    except KeyError as error:
        raise ConfigError(f"the rule {rule!r} names {error.args[0]!r}; it may use {', '.join(sizes)}") from error
    except ZeroDivisionError as error:
        raise ConfigError(f"the rule {rule!r} divides by zero") from error


@lru_cache(maxsize=1024)
def _parsed(rule: str) -> _Evaluate:
    if len(rule) > LONGEST:
        raise ConfigError(f"a rule has at most {LONGEST} characters, not {len(rule):,}")
    try:
        tree = ast.parse(rule, mode="eval").body
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ConfigError(f"{rule!r} is no rule for a size: {error}") from error
    return _built(tree, rule)


def _built(node: ast.expr, rule: str) -> _Evaluate:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        value = node.value
        return lambda sizes: value
    if isinstance(node, ast.Name):
        name = node.id
        return lambda sizes: sizes[name]
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _applied(_OPERATORS[type(node.op)], node.left, node.right, rule)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS:
        if len(node.args) == 2 and not node.keywords:
            return _applied(_FUNCTIONS[node.func.id], node.args[0], node.args[1], rule)
        raise ConfigError(f"the rule {rule!r}: {node.func.id} takes two values")
    raise ConfigError(
        f"the rule {rule!r} may hold integers, names, + - * // %, and {', '.join(_FUNCTIONS)}; "
        f"not {ast.unparse(node)!r}"
    )


def _applied(function: Callable[[int, int], int], left: ast.expr, right: ast.expr, rule: str) -> _Evaluate:
    a, b = _built(left, rule), _built(right, rule)
    return lambda sizes: function(a(sizes), b(sizes))
