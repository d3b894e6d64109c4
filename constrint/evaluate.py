"""What an expression means: its exact value under an assignment. Everything else in constrint must agree with this.

Numbers are exact: integers of any size, and rationals where ``/`` appears. ``//`` and ``%`` floor as Python's do,
for negative operands too, and a negative exponent gives a fraction: ``2 ** -1`` is 1 / 2. A division or modulo by 0,
and 0 to a negative exponent, have no value: the number is undefined, and so is every number and comparison made from
it. Conditions join by Kleene's three-valued logic: ``true | undefined`` is true, ``false & undefined`` is false, every
other mixture is undefined. A constraint holds where it is true; undefined is not true. (So ``(n == 0) | divides(n,
12)`` holds at n = 0, and ``12 % n == 0`` and ``12 % n != 0`` both fail there.)

Text equals text alone, None equals None alone; text is ordered as Python orders it, against anything else it has no
order, and arithmetic on it has no value. Of a conditional expression and of a list's element, only what is chosen has
to have a value. Bits are those of two's complement; shifts by a negative number have no value.
"""

from __future__ import annotations

import math
import operator
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from constrint.errors import ConstrintError
from constrint.expr import COMPARISONS, RICH, Expr
from constrint.functions import call
from constrint.global_constraints import GLOBAL, decomposed
from constrint.integers import grouped
from constrint.values import NOTHING, Atom, atom, is_number, plain_value

Value = Atom | bool | None
MAX_BITS = 1 << 20


def evaluate(expr: Expr, assignment: Mapping[str, Any]) -> Value:
    """The value of ``expr``: a number, a bool for a condition, None where undefined; text, or NOTHING for None.

    assignment: a value for each variable of the expression; raises ConstrintError where one is missing or of no kind
    that a parameter may have.
    """
    op = expr.op
    if op == "const":
        return expr.value
    if op == "var":
        if expr.name not in assignment:
            raise ConstrintError(f"no value for the variable {expr.name!r}")
        return _given(expr.name, assignment[expr.name])
    if op in ("true", "false"):
        return op == "true"
    if op in GLOBAL:
        return evaluate(decomposed(expr), assignment)
    return _applied(expr, [evaluate(arg, assignment) for arg in expr.args])


def evaluate_each(expr: Expr, columns: Mapping[str, Sequence[Any]], count: int) -> list[Value]:
    """The values of ``expr`` under ``count`` assignments at once, of which ``columns`` holds the values of each
    variable. Raises as ``evaluate``."""
    op = expr.op
    if op == "const":
        return [expr.value] * count
    if op == "var":
        if expr.name not in columns:
            raise ConstrintError(f"no value for the variable {expr.name!r}")
        given = columns[expr.name]
        return list(given) if set(map(type, given)) == {int} else [_given(expr.name, value) for value in given]
    if op in ("true", "false"):
        return [op == "true"] * count
    if op in GLOBAL:
        return evaluate_each(decomposed(expr), columns, count)
    if not expr.args:
        return [_applied(expr, [])] * count
    parts = [evaluate_each(arg, columns, count) for arg in expr.args]
    kind, function = _PLAIN.get(op, (None, None))
    if function is not None and all(set(map(type, part)) == {kind} for part in parts):
        return list(map(function, *parts))
    return [_applied(expr, list(values)) for values in zip(*parts, strict=True)]


_PLAIN: dict[str, tuple[type, Callable[..., Any]]] = {
    "+": (int, operator.add),
    "-": (int, operator.sub),
    "*": (int, operator.mul),
    "//": (int, lambda a, b: a // b if b else None),
    "%": (int, lambda a, b: a % b if b else None),
    "/": (int, lambda a, b: _quotient(a, b) if b else None),
    "divides": (int, lambda a, b: b % a == 0 if a else None),
    "neg": (int, operator.neg),
    "==": (int, operator.eq),
    "!=": (int, operator.ne),
    "<": (int, operator.lt),
    "<=": (int, operator.le),
    ">": (int, operator.gt),
    ">=": (int, operator.ge),
    "and": (bool, operator.and_),
    "or": (bool, operator.or_),
    "not": (bool, operator.not_),
}
"""What operators are where every operand is of this kind."""


def _given(name: str, value: Any) -> Atom:
    return value if type(value) is int else atom(plain_value(value, f"the value of {name!r}"))


def _applied(expr: Expr, values: list[Value]) -> Value:
    """The value of an expression whose operands have these."""
    op = expr.op
    if op in ("and", "or", "implies", "not"):
        return _logic(op, [None if value is None else bool(value) for value in values])
    if op in ("if", "element"):
        return _chosen(op, values)
    defined = [value for value in values if value is not None]
    if len(defined) < len(values):
        return None
    if op == "table":
        if not all(map(is_number, defined)):
            return False
        row = tuple(value for value in defined if isinstance(value, int | Fraction))
        place = bisect_left(expr.rows, row)
        return place < len(expr.rows) and expr.rows[place] == row
    if op == "value":
        return expr.other  # type: ignore[no-any-return]
    if op == "rows":
        return any(tuple(map(atom, row)) == tuple(defined) for row in expr.other)
    if op == "truth":
        return bool(defined[0]) and defined[0] is not NOTHING
    if op == "len":
        return len(defined[0]) if isinstance(defined[0], str) else None
    numbers = [value for value in defined if isinstance(value, int | Fraction)]
    if len(numbers) < len(defined):
        return _compared(op, defined)
    if op in RICH:
        return _rich(op, expr.name, numbers)
    return _arithmetic(op, numbers)


def _chosen(op: str, values: list[Value]) -> Value:
    """The value that a condition or an index chooses; the others may be undefined."""
    which = values[0]
    if op == "if":
        return None if which is None else values[1 if which else 2]
    if not isinstance(which, int) or not -(len(values) - 1) <= which < len(values) - 1:
        return None
    return values[1:][which]


def _compared(op: str, values: list[Any]) -> bool | None:
    """A comparison of which a side is no number: like kinds have an order, other kinds only differ."""
    a, b = values[0], values[-1]
    if op in ("==", "!="):
        return bool((a == b) is (op == "=="))
    if op in COMPARISONS and isinstance(a, str) and isinstance(b, str):
        return {"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[op]
    return None


def _rich(op: str, name: str, values: list[int | Fraction]) -> int | Fraction | None:
    """The operators that ``constrint.encode`` states in others."""
    a = values[0]
    match op:
        case "floor":
            return math.floor(a)
        case "ceil":
            return math.ceil(a)
        case "int":
            return math.trunc(a)
        case "round":
            return round(a)
        case "call":
            return call(name, values)
    b = values[1]
    if isinstance(a, Fraction) or isinstance(b, Fraction):
        return None
    a, b = int(a), int(b)
    match op:
        case "bitand":
            return a & b
        case "bitor":
            return a | b
        case "bitxor":
            return a ^ b
    if b < 0:
        return None
    return a * power(2, b) if op == "<<" else a >> min(b, MAX_BITS)  # type: ignore[operator]


def holds(expr: Expr, assignment: Mapping[str, Any]) -> bool:
    """Whether the condition is true (neither false nor undefined)."""
    return evaluate(expr, assignment) is True


def _logic(op: str, values: list[bool | None]) -> bool | None:
    if op == "not":
        return None if values[0] is None else not values[0]
    if op == "implies":
        values = [None if values[0] is None else not values[0], values[1]]
        op = "or"
    decisive = op == "or"
    if any(value is not None and bool(value) is decisive for value in values):
        return decisive
    return None if None in values else not decisive


def _arithmetic(op: str, values: list[int | Fraction]) -> Value:
    a = values[0]
    if op == "neg":
        return -a
    if op == "abs":
        return a if a >= 0 else -a
    if op in ("min", "max"):
        for value in values[1:]:
            a = value if (value < a) is (op == "min") else a
        return a
    b = values[1]
    match op:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "//":
            return a // b if b else None
        case "cdiv":
            return -(-a // b) if b else None
        case "%":
            return a % b if b else None
        case "/":
            return _quotient(a, b) if b else None
        case "**":
            return power(a, b)
        case "==":
            return a == b
        case "!=":
            return a != b
        case "<":
            return a < b
        case "<=":
            return a <= b
        case ">":
            return a > b
        case ">=":
            return a >= b
        case "divides":
            return b % a == 0 if a else None
    raise ConstrintError(f"unknown operator {op!r}")


def _quotient(a: int | Fraction, b: int | Fraction) -> int | Fraction:
    return a // b if a % b == 0 else Fraction(a) / b


def _simple(value: Fraction) -> int | Fraction:
    return value.numerator if value.denominator == 1 else value


def _written(value: int | Fraction) -> str:
    """A number in a message, however long it is."""
    denominator = "" if value.denominator == 1 else f"/{grouped(value.denominator)}"
    return grouped(value.numerator) + denominator


def power(base: int | Fraction, exponent: int | Fraction) -> int | Fraction | None:
    """base ** exponent for an integer exponent, exact; None for 0 to a negative one.

    Raises ConstrintError where the result would have more than 2**20 bits, or the exponent is no integer.
    """
    if isinstance(exponent, Fraction) and exponent.denominator != 1:
        asked = f"({_written(base)}) ** ({_written(exponent)})"
        raise ConstrintError(f"{asked} has no exact value; an exponent must be an integer expression")
    count = int(exponent)
    if count < 0 and not base:
        return None
    largest = max(abs(base.numerator), base.denominator)
    if largest > 1 and largest.bit_length() * abs(count) > MAX_BITS:
        asked = f"({_written(base)}) ** {_written(count)}"
        raise ConstrintError(f"{asked} has more than {MAX_BITS:,} bits; give the exponent a smaller domain")
    return _simple(Fraction(base) ** count) if count < 0 else base**count
