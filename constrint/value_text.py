"""Lists of values written as Python expressions, as T1 documents hold them: parsed, never evaluated as Python.

Literals; ``range`` and ``list`` and ``tuple`` of one; sums, products by a number, and slices of lists; comprehensions;
arithmetic, comparisons and ``min max abs int float round len sum sorted`` on what is known. Whatever else is refused,
and so are more values or steps than MOST_VALUES and MOST_STEPS.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

MOST_VALUES = 1_000_000
MOST_STEPS = 1_000_000
MOST_BITS = 4096
"""Numbers of more bits, and powers that would have them, are refused."""

_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
_UNARY: dict[type, Callable[[Any], Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Not: operator.not_}
_COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "int": int,
    "float": float,
    "round": round,
    "len": len,
    "sum": sum,
    "sorted": sorted,
    "list": list,
    "tuple": tuple,
    "reversed": lambda values: list(values)[::-1],
}
_LISTS = (list, tuple, range)


class NoValue(ValueError):
    """What is no list of values, or too long."""


def read_values(text: str) -> object:
    """The value of an expression. Raises NoValue for what is none of the above."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
        return _Reader().value(node, {})
    except NoValue:
        raise
    except (SyntaxError, ValueError, TypeError, ArithmeticError, LookupError, RecursionError, MemoryError) as error:
        raise NoValue(str(error)) from None


class _Reader:
    def __init__(self) -> None:
        self.steps = 0

    def value(self, node: ast.expr, names: dict[str, Any]) -> Any:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise NoValue("it takes too many steps")
        return self._bounded(self._value(node, names))

    def _bounded(self, value: Any) -> Any:
        if isinstance(value, int) and value.bit_length() > MOST_BITS:
            raise NoValue("a number is too long")
        if isinstance(value, range):
            length = (value.stop - value.start) // value.step
            if length > MOST_VALUES:
                raise NoValue("a range is too long")
        elif isinstance(value, list | tuple | str) and len(value) > MOST_VALUES:
            raise NoValue("a list is too long")
        return value

    def _value(self, node: ast.expr, names: dict[str, Any]) -> Any:
        match node:
            case ast.Constant(value=bool() | int() | float() | str() | None):
                return node.value
            case ast.Name() if node.id in names:
                return names[node.id]
            case ast.List() | ast.Tuple():
                return self._list(node.elts, names)
            case ast.UnaryOp() if type(node.op) in _UNARY:
                return _UNARY[type(node.op)](self.value(node.operand, names))
            case ast.BinOp():
                return self._binary(node, names)
            case ast.BoolOp():
                decisive = isinstance(node.op, ast.Or)
                found: Any = None
                for part in node.values:
                    found = self.value(part, names)
                    if bool(found) is decisive:
                        break
                return found
            case ast.Compare():
                return self._compare(node, names)
            case ast.IfExp():
                return self.value(node.body if self.value(node.test, names) else node.orelse, names)
            case ast.ListComp() | ast.GeneratorExp():
                return [self.value(node.elt, inner) for inner in self._each(node.generators, names)]
            case ast.Subscript():
                return self._subscript(node, names)
            case ast.Call():
                return self._call(node, names)
        raise NoValue(f"{type(node).__name__} is more than a list of values")

    def _list(self, parts: list[ast.expr], names: dict[str, Any]) -> list[Any]:
        result: list[Any] = []
        for part in parts:
            if isinstance(part, ast.Starred):
                found = self.value(part.value, names)
                if not isinstance(found, _LISTS):
                    raise NoValue("* takes a list")
                result += found
            else:
                result.append(self.value(part, names))
        return result

    def _binary(self, node: ast.BinOp, names: dict[str, Any]) -> Any:
        left, right = self.value(node.left, names), self.value(node.right, names)
        op = type(node.op)
        lists = [isinstance(side, _LISTS) for side in (left, right)]
        if any(lists):
            if op is ast.Add and all(lists):
                return [*left, *right]
            if op is ast.Mult and not all(lists):
                values, times = (left, right) if lists[0] else (right, left)
                if isinstance(times, int) and len(values) * times <= MOST_VALUES:
                    return list(values) * times
            raise NoValue("lists can be added, and repeated by a number")
        if not all(isinstance(side, int | float) for side in (left, right)):
            raise NoValue("arithmetic is on numbers")
        if op is ast.Pow:
            if isinstance(right, int) and abs(right) * max(1, abs(math.ceil(left)).bit_length()) > MOST_BITS:
                raise NoValue("a power is too large")
            found = left**right
            if isinstance(found, complex):
                raise NoValue("a power is no number")
            return found
        if op is ast.LShift and right > MOST_BITS:
            raise NoValue("a shift is too large")
        if op not in _BINARY:
            raise NoValue("an operator is not known")
        return _BINARY[op](left, right)

    def _compare(self, node: ast.Compare, names: dict[str, Any]) -> bool:
        left = self.value(node.left, names)
        for op, part in zip(node.ops, node.comparators, strict=True):
            right = self.value(part, names)
            if type(op) not in _COMPARE:
                raise NoValue("a comparison is not known")
            if not _COMPARE[type(op)](left, right):
                return False
            left = right
        return True

    def _each(self, generators: list[ast.comprehension], names: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The names within a comprehension, one round after the other."""
        if not generators:
            yield names
            return
        first = generators[0]
        if first.is_async:
            raise NoValue("async is more than a list of values")
        values = self.value(first.iter, names)
        if not isinstance(values, _LISTS):
            raise NoValue("a comprehension goes over a list")
        for value in values:
            inner = {**names, **self._bind(first.target, value)}
            if all(self.value(condition, inner) for condition in first.ifs):
                yield from self._each(generators[1:], inner)

    def _bind(self, target: ast.expr, value: Any) -> dict[str, Any]:
        if isinstance(target, ast.Name):
            return {target.id: value}
        if isinstance(target, ast.Tuple) and isinstance(value, _LISTS) and len(target.elts) == len(value):
            return {
                name: x
                for part, each in zip(target.elts, value, strict=True)
                for name, x in self._bind(part, each).items()
            }
        raise NoValue("a comprehension names its values")

    def _subscript(self, node: ast.Subscript, names: dict[str, Any]) -> Any:
        values = self.value(node.value, names)
        if not isinstance(values, _LISTS):
            raise NoValue("a subscript is of a list")
        if isinstance(node.slice, ast.Slice):
            ends = (node.slice.lower, node.slice.upper, node.slice.step)
            return list(values[slice(*(None if end is None else self.value(end, names) for end in ends))])
        return values[self.value(node.slice, names)]

    def _call(self, node: ast.Call, names: dict[str, Any]) -> Any:
        if not isinstance(node.func, ast.Name) or node.keywords:
            raise NoValue("only range, list and functions of numbers are called")
        args = self._list(node.args, names)
        if node.func.id == "range":
            return range(*args)
        if node.func.id not in _FUNCTIONS:
            raise NoValue(f"{node.func.id} is not called")
        return _FUNCTIONS[node.func.id](*args)
