"""Exact interval arithmetic: the smallest and largest value an operation can take over boxes of operands.

An interval is (low, high, undefined): undefined is 0 where every choice has a value, 1 where some may have none,
2 where none has one (low and high then mean nothing). Every function is inclusion-monotone: a smaller box gives an
interval inside the larger box's. The C++ core computes the same intervals.
"""

from __future__ import annotations

from collections.abc import Callable

from constrint.errors import ConstrintError
from constrint.evaluate import MAX_BITS
from constrint.integers import grouped
from constrint.program import Op

Interval = tuple[int, int, int]
NEVER: Interval = (0, 0, 2)

TRUE, FALSE, UNDEFINED = 1, 2, 4
"""What a condition can be over a box: any sum of these bits."""


class PowerTooLarge(ConstrintError):
    """A power whose largest value over the domains is too long a number to compute."""


def add(x: Interval, y: Interval) -> Interval:
    """x + y."""
    return x[0] + y[0], x[1] + y[1], max(x[2], y[2])


def subtract(x: Interval, y: Interval) -> Interval:
    """x - y."""
    return x[0] - y[1], x[1] - y[0], max(x[2], y[2])


def multiply(x: Interval, y: Interval) -> Interval:
    """x * y."""
    corners = (x[0] * y[0], x[0] * y[1], x[1] * y[0], x[1] * y[1])
    return min(corners), max(corners), max(x[2], y[2])


def floor_divide(x: Interval, y: Interval) -> Interval:
    """x // y. For each sign of y the quotient is monotone along every edge of the box: the corners bound it."""
    (a, b, u), (c, d, v) = x, y
    undefined = max(u, v)
    if undefined == 2 or c == d == 0:
        return NEVER
    corners = []
    if d > 0:
        low = max(c, 1)
        corners += [a // low, a // d, b // low, b // d]
    if c < 0:
        high = min(d, -1)
        corners += [a // c, a // high, b // c, b // high]
    return min(corners), max(corners), 1 if c <= 0 <= d else undefined


def modulo(x: Interval, y: Interval) -> Interval:
    """x % y with the sign of y, as Python's."""
    (a, b, u), (c, d, v) = x, y
    undefined = max(u, v)
    if undefined == 2 or c == d == 0:
        return NEVER
    bounds = []
    if d > 0:
        bounds.append(_modulo_positive(a, b, max(c, 1), d))
    if c < 0:
        # a % -n == -((-a) % n)
        low, high = _modulo_positive(-b, -a, max(-d, 1), -c)
        bounds.append((-high, -low))
    return min(low for low, _ in bounds), max(high for _, high in bounds), 1 if c <= 0 <= d else undefined


def _modulo_positive(a: int, b: int, c: int, d: int) -> tuple[int, int]:
    if a >= 0 and b < c:
        return a, b
    if c == d and a // c == b // c:
        return a % c, b % c
    return 0, min(b, d - 1) if a >= 0 else d - 1


def raise_power(x: Interval, y: Interval) -> Interval:
    """x ** y; undefined for negative y. The extremes lie at the ends of the base or 0, and the two largest and two
    smallest exponents (parity decides the sign of a negative base)."""
    (a, b, u), (c, d, v) = x, y
    undefined = max(u, v)
    if undefined == 2 or d < 0:
        return NEVER
    low = max(c, 0)
    largest = max(abs(a), abs(b))
    if largest > 1 and largest.bit_length() * d > MAX_BITS:
        reached = f"{grouped(largest)} ** {grouped(d)}"
        raise PowerTooLarge(f"a power may reach {reached}, over {MAX_BITS:,} bits; give it smaller domains")
    bases = {a, b} | ({0} if a < 0 < b else set())
    corners = [base**e for base in bases for e in {low, min(low + 1, d), max(d - 1, low), d}]
    return min(corners), max(corners), 1 if c < 0 else undefined


def smaller(x: Interval, y: Interval) -> Interval:
    """min(x, y)."""
    return min(x[0], y[0]), min(x[1], y[1]), max(x[2], y[2])


def larger(x: Interval, y: Interval) -> Interval:
    """max(x, y)."""
    return max(x[0], y[0]), max(x[1], y[1]), max(x[2], y[2])


def absolute(x: Interval) -> Interval:
    """abs(x)."""
    a, b, u = x
    return (a, b, u) if a >= 0 else (-b, -a, u) if b <= 0 else (0, max(-a, b), u)


def nonzero(x: Interval) -> Interval:
    """x where it is not 0, undefined where it is."""
    a, b, u = x
    if a == b == 0 or u == 2:
        return NEVER
    return a + (a == 0), b - (b == 0), 1 if a <= 0 <= b else u


ARITHMETIC: dict[Op, Callable[..., Interval]] = {
    Op.ADD: add,
    Op.SUB: subtract,
    Op.MUL: multiply,
    Op.FDIV: floor_divide,
    Op.MOD: modulo,
    Op.POW: raise_power,
    Op.MIN: smaller,
    Op.MAX: larger,
    Op.ABS: absolute,
    Op.NONZERO: nonzero,
}


def equal(x: Interval, y: Interval) -> int:
    """The bits of x == y."""
    if x[2] == 2 or y[2] == 2:
        return UNDEFINED
    bits = UNDEFINED if x[2] or y[2] else 0
    if x[0] <= y[1] and y[0] <= x[1]:
        bits |= TRUE
    return bits if x[0] == x[1] == y[0] == y[1] else bits | FALSE


def at_most(x: Interval, y: Interval) -> int:
    """The bits of x <= y."""
    if x[2] == 2 or y[2] == 2:
        return UNDEFINED
    bits = UNDEFINED if x[2] or y[2] else 0
    if x[0] <= y[1]:
        bits |= TRUE
    return bits | FALSE if x[1] > y[0] else bits


def divides(x: Interval, y: Interval) -> int:
    """The bits of y % x == 0."""
    (c, d, u), (a, b, v) = x, y
    if u == 2 or v == 2 or c == d == 0:
        return UNDEFINED
    bits = UNDEFINED if u or v or c <= 0 <= d else 0
    if a == b and c == d:
        return bits | (TRUE if a % c == 0 else FALSE)
    multiple = a <= 0 <= b
    if not multiple and c == d:
        multiple = b // abs(c) * abs(c) >= a
    elif not multiple:
        multiple = max(abs(a), abs(b)) >= (1 if c <= 0 <= d else min(abs(c), abs(d)))
    if multiple:
        bits |= TRUE
    return bits if a == b == 0 or (c >= -1 and d <= 1) else bits | FALSE


def negate(bits: int) -> int:
    """The bits of the negation."""
    return (bits & UNDEFINED) | (FALSE if bits & TRUE else 0) | (TRUE if bits & FALSE else 0)


def conjunction(p: int, q: int) -> int:
    """The bits of p & q: false where either is, else undefined where either is."""
    bits = (TRUE if p & q & TRUE else 0) | (FALSE if (p | q) & FALSE else 0)
    if (p & UNDEFINED and q & (UNDEFINED | TRUE)) or (q & UNDEFINED and p & (UNDEFINED | TRUE)):
        bits |= UNDEFINED
    return bits


def disjunction(p: int, q: int) -> int:
    """The bits of p | q: true where either is, else undefined where either is."""
    return negate(conjunction(negate(p), negate(q)))
