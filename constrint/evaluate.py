"""What an expression means: its exact value under an assignment. Everything else in constrint must agree with this.

Numbers are exact: integers of any size, and rationals where ``/`` appears. ``//`` and ``%`` floor as Python's do,
for negative operands too, and a negative exponent gives a fraction: ``2 ** -1`` is 1 / 2. A division or modulo by 0,
and 0 to a negative exponent, have no value: the number is undefined, and so is every number and comparison made from
it. Conditions join by Kleene's three-valued logic: ``true | undefined`` is true, ``false & undefined`` is false, every
other mixture is undefined. A constraint holds where it is true; undefined is not true. (So ``(n == 0) | divides(n,
12)`` holds at n = 0, and ``12 % n == 0`` and ``12 % n != 0`` both fail there.)
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from fractions import Fraction

from constrint.errors import ConstrintError
from constrint.expr import Expr
from constrint.integers import whole_number

Value = int | Fraction | bool | None
MAX_BITS = 1 << 20


def evaluate(expr: Expr, assignment: Mapping[str, int]) -> Value:
    """The value of ``expr``: a number, a bool for a condition, None where undefined.

    assignment: a value for each variable of the expression; raises ConstrintError where one is missing or no whole
    number.
    """
    op = expr.op
    if op == "const":
        return expr.value
    if op == "var":
        if expr.name not in assignment:
            raise ConstrintError(f"no value for the variable {expr.name!r}")
        value = assignment[expr.name]
        return value if type(value) is int else whole_number(value, f"the value of {expr.name!r}")
    if op in ("true", "false"):
        return op == "true"
    values = [evaluate(arg, assignment) for arg in expr.args]
    if op in ("and", "or", "implies", "not"):
        return _logic(op, values)
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return None
    if op == "table":
        row = tuple(numbers)
        place = bisect_left(expr.rows, row)
        return place < len(expr.rows) and expr.rows[place] == row
    return _arithmetic(op, numbers)


def holds(expr: Expr, assignment: Mapping[str, int]) -> bool:
    """Whether the condition is true (neither false nor undefined)."""
    return evaluate(expr, assignment) is True


def _logic(op: str, values: list[Value]) -> bool | None:
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
            return _simple(Fraction(a) / b) if b else None
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


def _simple(value: Fraction) -> int | Fraction:
    return value.numerator if value.denominator == 1 else value


def power(base: int | Fraction, exponent: int | Fraction) -> int | Fraction | None:
    """base ** exponent for an integer exponent, exact; None for 0 to a negative one.

    Raises ConstrintError where the result would have more than 2**20 bits, or the exponent is no integer.
    """
    if isinstance(exponent, Fraction) and exponent.denominator != 1:
        raise ConstrintError(f"({base}) ** ({exponent}) has no exact value; an exponent must be an integer expression")
    count = int(exponent)
    if count < 0 and not base:
        return None
    largest = max(abs(base.numerator), base.denominator)
    if largest > 1 and largest.bit_length() * abs(count) > MAX_BITS:
        raise ConstrintError(f"({base}) ** {count} has more than {MAX_BITS:,} bits; give the exponent a smaller domain")
    return _simple(Fraction(base) ** count) if count < 0 else base**count
