"""Expressions to what the engines run: integer trees without division signs, negation or rationals.

Negations move to the leaves (valid in Kleene's logic), ``<`` and ``>`` become ``<=``, and exact division is cleared
by cross-multiplication: every rational is kept as numerator and positive denominator. ``NONZERO(d)`` is d where
d != 0 and undefined elsewhere, so that a cleared denominator of 0 still makes its constraint fail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from math import gcd

from constrint.errors import ConstrintError
from constrint.expr import BOOLEAN, Expr
from constrint.intervals import ARITHMETIC, Interval
from constrint.program import Op, Tree

Rational = tuple[Tree, Tree | None]
"""Numerator, and positive denominator (None: 1)."""

ONE = Tree(Op.CONST, value=1)
ZERO = Tree(Op.CONST, value=0)


class Lowering:
    """Lowers expressions over variables whose current bounds are known.

    index: position of each variable. bounds: smallest and largest value of each, by position.
    """

    def __init__(self, index: Mapping[str, int], bounds: Callable[[int], tuple[int, int]]) -> None:
        self.index, self.bounds = index, bounds

    def condition(self, expr: Expr, positive: bool = True) -> Tree:
        """The tree of a condition, or of its negation; a number stands for being other than 0."""
        op, args = expr.op, expr.args
        if op in ("true", "false"):
            return Tree(Op.TRUE if (op == "true") is positive else Op.FALSE)
        if op == "not":
            return self.condition(args[0], not positive)
        if op in ("and", "or", "implies"):
            premise = self.condition(args[0], positive is not (op == "implies"))
            return Tree(Op.AND if (op == "and") is positive else Op.OR, (premise, self.condition(args[1], positive)))
        if op == "table":
            return self._table(expr, positive)
        left, right = map(self.number, args)
        if op == "==" and args[0].op == "%" and args[1].op == "const" and args[1].value == 0:
            number, divisor = args[0].args
            return self._divides(self.number(divisor), self.number(number), positive)
        if op == "divides":
            return self._divides(left, right, positive)
        a, b = _cross(left, right)
        if op in ("==", "!="):
            return Tree(Op.EQ if (op == "==") is positive else Op.NE, (a, b))
        # a < b is a + 1 <= b; the negation of a <= b is b + 1 <= a.
        if op in (">", ">="):
            a, b, op = b, a, "<" if op == ">" else "<="
        if not positive:
            a, b, op = b, a, "<=" if op == "<" else "<"
        return Tree(Op.LE, (self._make(Op.ADD, a, ONE) if op == "<" else a, b))

    def integer(self, expr: Expr, what: str) -> Tree:
        """The tree of a number that holds no exact division; else ConstrintError."""
        numerator, denominator = self.number(expr)
        if denominator is not None:
            raise ConstrintError(
                f"{what} must be an integer expression, but ({expr}) divides with / or has an exponent that may be "
                "negative; use // or multiply out, maximum(exponent, 0)"
            )
        return numerator

    def number(self, expr: Expr) -> Rational:
        """Numerator and positive denominator of a number."""
        op, args = expr.op, expr.args
        if op == "const":
            return Tree(Op.CONST, value=expr.value), None
        if op == "var":
            return Tree(Op.VAR, value=self.index[expr.name]), None
        if op in BOOLEAN:
            return Tree(Op.INDICATOR, (self.condition(expr),)), None
        if op == "**":
            return self._power(args[0], args[1])
        values = list(map(self.number, args))
        if op == "neg":
            return self._make(Op.SUB, ZERO, values[0][0]), values[0][1]
        if op == "abs":
            return Tree(Op.ABS, (values[0][0],)), values[0][1]
        if op in ("min", "max"):
            return reduce(lambda x, y: self._join(Op.MIN if op == "min" else Op.MAX, x, y), values)
        left, right = values
        if op in ("+", "-"):
            return self._join(Op.ADD if op == "+" else Op.SUB, left, right)
        if op == "*":
            return self._make(Op.MUL, left[0], right[0]), self._product(left[1], right[1])
        if op == "/":
            return self._divide(left, right)
        a, b = _cross(left, right)
        if op == "//":
            return self._make(Op.FDIV, a, b), None
        if op == "cdiv":
            return self._make(Op.SUB, ZERO, self._make(Op.FDIV, self._make(Op.SUB, ZERO, a), b)), None
        if op == "%":
            return self._make(Op.MOD, a, b), self._product(left[1], right[1])
        raise ConstrintError(f"unknown operator {op!r}")

    def interval(self, tree: Tree) -> Interval:
        """Bounds of a numeric tree over the current bounds of the variables."""
        if tree.op == Op.CONST:
            return tree.value, tree.value, 0
        if tree.op == Op.VAR:
            return *self.bounds(tree.value), 0
        if tree.op == Op.INDICATOR:
            return 0, 1, 1
        return ARITHMETIC[tree.op](*(self.interval(arg) for arg in tree.args))

    def _make(self, op: Op, a: Tree, b: Tree) -> Tree:
        """The tree ``a op b``, with constants folded and neutral elements dropped."""
        if op == Op.MUL and (a == ONE or b == ONE):
            return b if a == ONE else a
        if b == ZERO and op in (Op.ADD, Op.SUB):
            return a
        if op == Op.SUB and a.op == b.op == Op.VAR and a.value == b.value:
            return ZERO
        if a.op == b.op == Op.CONST:
            low, high, undefined = ARITHMETIC[op]((a.value, a.value, 0), (b.value, b.value, 0))
            if not undefined and low == high:
                return Tree(Op.CONST, value=low)
        return Tree(op, (a, b))

    def _product(self, a: Tree | None, b: Tree | None) -> Tree | None:
        return b if a is None else a if b is None else self._make(Op.MUL, a, b)

    def _join(self, op: Op, left: Rational, right: Rational) -> Rational:
        return self._make(op, *_cross(left, right)), self._product(left[1], right[1])

    def _divide(self, left: Rational, right: Rational) -> Rational:
        numerator, divisor = _cross(left, right)
        low, high, _ = self.interval(divisor)
        if numerator.op == divisor.op == Op.CONST and divisor.value:
            common = gcd(numerator.value, divisor.value) * (1 if divisor.value > 0 else -1)
            numerator, divisor = (Tree(Op.CONST, value=tree.value // common) for tree in (numerator, divisor))
            return numerator, None if divisor == ONE else divisor
        if low <= 0 <= high:
            divisor = Tree(Op.NONZERO, (divisor,))
        if low < 0 < high:
            # The sign is not known: n / d = n d / d**2.
            return self._make(Op.MUL, numerator, divisor), self._make(Op.MUL, divisor, divisor)
        if low < 0:
            return self._make(Op.SUB, ZERO, numerator), self._make(Op.SUB, ZERO, divisor)
        return numerator, divisor

    def _power(self, base: Expr, exponent: Expr) -> Rational:
        count = self.integer(exponent, "an exponent")
        numerator, denominator = self.number(base)
        if self.interval(count)[0] < 0:
            # b ** e is b ** max(e, 0) / b ** max(-e, 0), one of which is 1.
            up, down = (Tree(Op.MAX, (x, ZERO)) for x in (count, self._make(Op.SUB, ZERO, count)))
            over, under = self._raised(numerator, up), self._raised(numerator, down)
            if denominator is not None:
                over = self._make(Op.MUL, over, self._raised(denominator, down))
                under = self._make(Op.MUL, under, self._raised(denominator, up))
            return self._divide((over, None), (under, None))
        return self._raised(numerator, count), None if denominator is None else self._raised(denominator, count)

    def _raised(self, base: Tree, count: Tree) -> Tree:
        powered = self._make(Op.POW, base, count)
        self.interval(powered)
        return powered

    def _divides(self, divisor: Rational, number: Rational, positive: bool) -> Tree:
        return Tree(Op.DIVIDES if positive else Op.NOT_DIVIDES, _cross(divisor, number))

    def _table(self, expr: Expr, positive: bool) -> Tree:
        columns = [self.number(arg) for arg in expr.args]
        if all(denominator is None for _, denominator in columns):
            numbers = tuple(numerator for numerator, _ in columns)
            return Tree(Op.TABLE if positive else Op.NOT_TABLE, numbers, rows=expr.rows)
        # Rational columns: one of the rows, each a conjunction of equations; undefined where a column is.
        equal, join, each = (Op.EQ, Op.OR, Op.AND) if positive else (Op.NE, Op.AND, Op.OR)
        tests = [
            _joined(each, [Tree(equal, _cross(column, _whole(x))) for column, x in zip(columns, row, strict=True)])
            for row in expr.rows
        ]
        differ = Op.NE if positive else Op.EQ
        trees = (tree for column in columns for tree in column if tree is not None)
        tests += [Tree(differ, (tree, tree)) for tree in trees if self.interval(tree)[2]]
        return _joined(join, tests) if tests else Tree(Op.FALSE if positive else Op.TRUE)


def _whole(value: int) -> Rational:
    return Tree(Op.CONST, value=value), None


def _joined(op: Op, trees: list[Tree]) -> Tree:
    """Trees joined by an operator, in halves: however many they are, the result is not deep."""
    if len(trees) == 1:
        return trees[0]
    middle = len(trees) // 2
    return Tree(op, (_joined(op, trees[:middle]), _joined(op, trees[middle:])))


def _cross(left: Rational, right: Rational) -> tuple[Tree, Tree]:
    """Both numerators over the common denominator (which is positive, so every order is kept)."""
    (a, p), (b, q) = left, right
    return (a if q is None else Tree(Op.MUL, (a, q))), (b if p is None else Tree(Op.MUL, (b, p)))
