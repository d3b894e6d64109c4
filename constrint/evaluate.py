"""What an expression means: its exact value under an assignment. Everything else in constrint must agree with this.

Numbers are exact: integers of any size, and rationals where ``/`` appears. ``//`` and ``%`` floor as Python's do,
for negative operands too. A division or modulo by 0, and a negative exponent, have no value: the number is
undefined, and so is every number and comparison made from it. Conditions join by Kleene's three-valued logic:
``true | undefined`` is true, ``false & undefined`` is false, every other mixture is undefined. A constraint holds
where it is true; undefined is not true. (So ``(n == 0) | divides(n, 12)`` holds at n = 0, and ``12 % n == 0``
and ``12 % n != 0`` both fail there.)
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from constrint.errors import ConstrintError
from constrint.expr import Expr

Value = int | Fraction | bool | None
MAX_BITS = 1 << 20


def evaluate(expr: Expr, assignment: Mapping[str, int]) -> Value:
    """The value of ``expr``: a number, a bool for a condition, None where undefined.

    assignment: a value for each variable of the expression; raises ConstrintError where one is missing.
    """
    op = expr.op
    if op == "const":
        return expr.value
    if op == "var":
        if expr.name not in assignment:
            raise ConstrintError(f"no value for the variable {expr.name!r}")
        return assignment[expr.name]
    if op in ("true", "false"):
        return op == "true"
    values = [evaluate(arg, assignment) for arg in expr.args]
    if op in ("and", "or", "implies", "not"):
        return _logic(op, values)
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return None
    if op == "table":
        return tuple(numbers) in expr.rows
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
    """base ** exponent for an integer exponent of at least 0, else None.

    Raises ConstrintError where the result would have more than 2**20 bits.
    """
    if exponent < 0 or (isinstance(exponent, Fraction) and exponent.denominator != 1):
        return None
    count = int(exponent)
    largest = max(abs(base.numerator), base.denominator)
    if largest > 1 and largest.bit_length() * count > MAX_BITS:
        raise ConstrintError(f"({base}) ** {count} has more than {MAX_BITS:,} bits; give the exponent a smaller domain")
    result: int | Fraction = base**count
    return result
