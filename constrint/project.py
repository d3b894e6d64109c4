"""Backward projection: what an operand may still be, when the result must lie in given bounds.

Each function takes the operands' bounds and the result's, and returns the operands' new bounds (which may be
empty: low > high). A value is removed only where it has no support, so nothing that could be a solution is lost.
"""

from __future__ import annotations

from collections.abc import Callable

from constrint.program import Op

Bounds = tuple[int, int]
Pair = tuple[Bounds, Bounds]


def ceil_divide(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)


def _quotient(z: Bounds, x: Bounds, y: Bounds) -> Bounds:
    """Bounds of x where x * y = z."""
    (low, high), (c, d) = z, y
    if not low <= 0 <= high:
        # y cannot be 0.
        c, d = c + (c == 0), d - (d == 0)
        if c > d:
            return 1, 0
    if c <= 0 <= d:
        if low <= 0 <= high:
            return x
        reach = max(abs(low), abs(high))
        return max(x[0], -reach), min(x[1], reach)
    down = min(ceil_divide(low, c), ceil_divide(low, d), ceil_divide(high, c), ceil_divide(high, d))
    up = max(low // c, low // d, high // c, high // d)
    return max(x[0], down), min(x[1], up)


def add(x: Bounds, y: Bounds, z: Bounds) -> Pair:
    """x + y = z."""
    return (
        (max(x[0], z[0] - y[1]), min(x[1], z[1] - y[0])),
        (max(y[0], z[0] - x[1]), min(y[1], z[1] - x[0])),
    )


def subtract(x: Bounds, y: Bounds, z: Bounds) -> Pair:
    """x - y = z."""
    return (
        (max(x[0], z[0] + y[0]), min(x[1], z[1] + y[1])),
        (max(y[0], x[0] - z[1]), min(y[1], x[1] - z[0])),
    )


def multiply(x: Bounds, y: Bounds, z: Bounds) -> Pair:
    """x * y = z."""
    x = _quotient(z, x, y)
    return x, _quotient(z, y, x) if x[0] <= x[1] else y


def floor_divide(x: Bounds, y: Bounds, z: Bounds) -> Pair:
    """x // y = z: z y <= x <= z y + y - 1 for y > 0."""
    y = y[0] + (y[0] == 0), y[1] - (y[1] == 0)
    (low, high), (a, b), (c, d) = z, x, y
    if c > 0:
        a, b = max(a, min(low * c, low * d)), min(b, max((high + 1) * c, (high + 1) * d) - 1)
        if a >= 0 and low >= 1:
            d = min(d, b // low)
        if a >= 0 and high >= 0:
            c = max(c, a // (high + 1) + 1)
    elif d < 0:
        # x // y = (-x) // (-y)
        (na, nb), (nc, nd) = floor_divide((-b, -a), (-d, -c), z)
        return (-nb, -na), (-nd, -nc)
    return (a, b), (c, d)


def modulo(x: Bounds, y: Bounds, z: Bounds) -> Pair:
    """x % y = z."""
    y = y[0] + (y[0] == 0), y[1] - (y[1] == 0)
    (low, high), (a, b), (c, d) = z, x, y
    if c > 0:
        c, high = max(c, low + 1), min(high, d - 1)
        if c == d and low <= high:
            rest = a % c
            a += low - rest if rest < low else c - rest + low if rest > high else 0
            rest = b % c
            b -= rest - high if rest > high else rest + c - high if rest < low else 0
        elif a >= 0:
            a = max(a, low)
    elif d < 0:
        # x % y = -((-x) % (-y))
        (na, nb), (nc, nd) = modulo((-b, -a), (-d, -c), (-high, -low))
        return (-nb, -na), (-nd, -nc)
    return (a, b), (c, d)


def root(number: int, degree: int) -> int:
    """The largest r >= 0 with r ** degree <= number, for number >= 0 and degree >= 1."""
    if degree == 1 or number < 2:
        return number
    r = 1 << ceil_divide(number.bit_length(), degree)
    while True:
        smaller = ((degree - 1) * r + number // r ** (degree - 1)) // degree
        if smaller >= r:
            return r
        r = smaller


def raise_power(x: Bounds, y: Bounds, z: Bounds) -> Pair:
    """x ** y = z, y >= 0."""
    (low, high), (a, b), (c, d) = z, x, (max(y[0], 0), y[1])
    if c == d and d >= 1 and (a >= 0 or d % 2 == 0):
        if high < 0:
            return (1, 0), (c, d)
        reach = root(high, d)
        least = root(low - 1, d) + 1 if low > 0 else 0
        a, b = max(a, -reach), min(b, reach)
        if a > -least:
            a = max(a, least)
        if b < least:
            b = min(b, -least)
    elif a == b and a >= 2:
        if high < 1:
            return (a, b), (1, 0)
        d = min(d, _log(high, a))
        if low > 1:
            c = max(c, _log(low - 1, a) + 1)
    return (a, b), (c, d)


def _log(number: int, base: int) -> int:
    """The largest e with base ** e <= number, for number >= 1 and base >= 2."""
    e, reached = 0, base
    while reached <= number:
        e, reached = e + 1, reached * base
    return e


def smaller(x: Bounds, y: Bounds, z: Bounds) -> Pair:
    """min(x, y) = z."""
    low, high = z
    return (
        (max(x[0], low), min(x[1], high) if y[0] > high else x[1]),
        (max(y[0], low), min(y[1], high) if x[0] > high else y[1]),
    )


def larger(x: Bounds, y: Bounds, z: Bounds) -> Pair:
    """max(x, y) = z."""
    low, high = z
    return (
        (max(x[0], low) if y[1] < low else x[0], min(x[1], high)),
        (max(y[0], low) if x[1] < low else y[0], min(y[1], high)),
    )


def absolute(x: Bounds, _: Bounds, z: Bounds) -> Pair:
    """abs(x) = z."""
    low, high = max(z[0], 0), z[1]
    a, b = max(x[0], -high), min(x[1], high)
    if a > -low:
        a = max(a, low)
    if b < low:
        b = min(b, -low)
    return (a, b), (0, 0)


def nonzero(x: Bounds, _: Bounds, z: Bounds) -> Pair:
    """x = z, x != 0."""
    a, b = max(x[0], z[0]), min(x[1], z[1])
    return (a + (a == 0), b - (b == 0)), (0, 0)


PROJECTIONS: dict[int, Callable[[Bounds, Bounds, Bounds], Pair]] = {
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


def unequal(x: Bounds, y: Bounds) -> Pair:
    """x != y."""
    if y[0] == y[1]:
        x = x[0] + (x[0] == y[0]), x[1] - (x[1] == y[0])
    if x[0] == x[1]:
        y = y[0] + (y[0] == x[0]), y[1] - (y[1] == x[0])
    return x, y


def divides(x: Bounds, y: Bounds) -> Pair:
    """y % x = 0."""
    c, d = x[0] + (x[0] == 0), x[1] - (x[1] == 0)
    a, b = y
    if not a <= 0 <= b:
        reach = max(abs(a), abs(b))
        c, d = max(c, -reach), min(d, reach)
    if c == d:
        step = abs(c)
        a, b = ceil_divide(a, step) * step, b // step * step
    return (c, d), (a, b)
