"""Constraints as trees of sums, products and other many-place operators: what a diagram's layers are computed from.

The order in which variables are decided need not follow the way a sum was bracketed. Flattened, a sum of ten terms
of which four are decided is one number and six terms, whichever four they are. Comparisons become ``sum <= 0``,
``sum == 0``, ``sum != 0``; variables with one value become constants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd
from typing import NamedTuple

from constrint import intervals
from constrint.domains import Domain
from constrint.evaluate import power
from constrint.expr import Row
from constrint.intervals import ARITHMETIC, FALSE, TRUE, UNDEFINED, Interval
from constrint.program import Code, Op
from constrint.project import ceil_divide
from constrint.rows import some_row

SAFE = 1 << 61
"""Two numbers of up to this size can be added in 64 bits."""
GATHERS = frozenset({Op.ADD, Op.MUL, Op.MIN, Op.MAX, Op.AND, Op.OR})
"""Operators of any number of operands, whose decided operands are gathered into one number."""

_OPS = tuple(Op)

Value = int | None
"""A number, 0 or 1 for a condition, None where undefined."""


class Term(NamedTuple):
    """One operator of a constraint.

    start: the value of a CONST (None: undefined), the position of a VAR, or what an operator of GATHERS starts from
    (its constants are folded into it). coefs: what each operand of an ADD is multiplied by. EQ, NE and LE compare
    their one operand with 0. span: bounds over the domains; of a condition, the last entry holds its bits.
    """

    op: Op
    args: tuple[Term, ...] = ()
    start: Value = 0
    coefs: tuple[int, ...] = ()
    rows: tuple[Row, ...] = ()
    span: Interval = (0, 0, 0)


def residual(code: Code, domains: Sequence[Domain]) -> Term:
    """The tree of one constraint over these domains. A CONST where nothing is left to decide."""
    return _Builder(code, domains).condition(len(code.ops) - 1)


def numeric(code: Code, domains: Sequence[Domain]) -> Term:
    """The tree of a number over these domains."""
    return _Builder(code, domains).number(len(code.ops) - 1)


def value_of(term: Term, x: int) -> Value:
    """The value of a term where its one variable is x."""
    if term.op == Op.VAR:
        return x
    values = [value_of(arg, x) for arg in term.args]
    if term.op == Op.CONST or term.op in GATHERS:
        total = term.start
        scales = term.coefs or [1] * len(values)
        for scale, value in zip(scales, values, strict=True):
            total = combine(term.op, total, None if value is None else scale * value)
        return total
    return apply(term.op, values, term.rows)


def fits(term: Term) -> bool:
    """Whether 64 bits hold every number that deciding the variables in any order may produce, or the core may let the
    one product that is larger saturate."""
    product = _compared_product(term)
    return _holds(term) if product is None else all(_holds(factor) for factor in product.args)


def _compared_product(term: Term) -> Term | None:
    """The product of a constraint that compares it with a number, or has it divide one, its factors never negative.

    However large such a product is, only that it is larger than the number matters.
    """
    product = number = None
    if term.op in (Op.LE, Op.EQ, Op.NE) and term.args[0].op == Op.ADD and term.args[0].coefs in ((1,), (-1,)):
        product, number = term.args[0].args[0], term.args[0].start
    elif term.op in (Op.DIVIDES, Op.NOT_DIVIDES) and term.args[1].op == Op.CONST:
        product, number = term.args[0], term.args[1].start
    if product is None or product.op != Op.MUL or number is None or product.start is None:
        return None
    small = abs(number) <= SAFE and 0 <= product.start <= SAFE
    return product if small and all(arg.span[0] >= 0 and not arg.span[2] for arg in product.args) else None


def _holds(term: Term) -> bool:
    """Whether 64 bits hold every number that deciding the variables in any order may produce."""
    if term.op == Op.VAR:
        return term.span[0] >= -SAFE and term.span[1] <= SAFE
    largest = _reach(term.span) if term.op < Op.TRUE else 1
    if term.op == Op.ADD:
        pairs = zip(term.coefs, term.args, strict=True)
        largest = abs(term.start or 0) + sum(abs(coef) * max(1, _reach(arg.span)) for coef, arg in pairs)
    elif term.op == Op.MUL:
        largest = max(1, abs(term.start or 0))
        for arg in term.args:
            largest *= max(1, _reach(arg.span))
    elif term.op == Op.CONST:
        largest = abs(term.start or 0)
    elif term.op in (Op.MIN, Op.MAX):
        largest = max(largest, abs(term.start or 0))
    elif term.op in (Op.TABLE, Op.NOT_TABLE):
        largest = max((abs(x) for row in term.rows for x in row), default=0)
    return largest <= SAFE and all(map(_holds, term.args))


def _reach(span: Interval) -> int:
    low, high, undefined = span
    return 0 if undefined == 2 else max(-low, high, low, -high)


class _Builder:
    def __init__(self, code: Code, domains: Sequence[Domain]) -> None:
        self.code, self.domains = code, domains

    def condition(self, i: int) -> Term:
        op, a, b = _OPS[self.code.ops[i]], self.code.a[i], self.code.b[i]
        if op in (Op.TRUE, Op.FALSE):
            return _constant(int(op == Op.TRUE), True)
        if op in (Op.AND, Op.OR):
            return _join(op, [self.condition(a), self.condition(b)])
        if op in (Op.TABLE, Op.NOT_TABLE):
            operands, rows = self.code.tables[a]
            return _make(op, tuple(self.number(node) for node in operands), rows)
        if op in (Op.DIVIDES, Op.NOT_DIVIDES):
            return _make(op, (self.number(a), self.number(b)))
        terms, start = self.linear(a)
        others, less = self.linear(b)
        total = None if start is None or less is None else start - less
        terms = terms + [(-coef, term) for coef, term in others]
        if op == Op.LE and total is not None:
            # g x + c <= 0 is x + ceil(c / g) <= 0.
            divisor = gcd(*(coef for coef, _ in terms))
            if divisor > 1:
                terms, total = [(coef // divisor, term) for coef, term in terms], ceil_divide(total, divisor)
        return _make(op, (_sum(terms, total),))

    def number(self, i: int) -> Term:
        terms, start = self.linear(i)
        if len(terms) == 1 and terms[0][0] == 1 and start == 0:
            return terms[0][1]
        return _sum(terms, start)

    def linear(self, i: int) -> tuple[list[tuple[int, Term]], Value]:
        """A number as terms with coefficients, and a constant (None: undefined)."""
        op, a, b = _OPS[self.code.ops[i]], self.code.a[i], self.code.b[i]
        if op == Op.CONST:
            return [], a
        if op == Op.VAR:
            domain = self.domains[a]
            if domain[0] == domain[-1]:
                return [], domain[0]
            return [(1, Term(Op.VAR, start=a, span=(domain[0], domain[-1], 0)))], 0
        if op in (Op.ADD, Op.SUB):
            (left, x), (right, y) = self.linear(a), self.linear(b)
            sign = 1 if op == Op.ADD else -1
            start = None if x is None or y is None else x + sign * y
            return left + [(sign * coef, term) for coef, term in right], start
        if op == Op.MUL:
            return self.product(a, b)
        term = self.other(op, a, b)
        return ([], term.start) if term.op == Op.CONST else ([(1, term)], 0)

    def product(self, a: int, b: int) -> tuple[list[tuple[int, Term]], Value]:
        (left, x), (right, y) = self.linear(a), self.linear(b)
        if x is None or y is None:
            return [], None
        if not left or not right:
            # A constant times a sum. Zero times what may be undefined stays, with its coefficient of 0.
            factor, terms, start = (x, right, y) if not left else (y, left, x)
            return [(coef * factor, term) for coef, term in terms], start * factor
        factors: list[Term] = []
        scale = 1
        for terms, start in ((left, x), (right, y)):
            if len(terms) == 1 and start == 0:
                coef, term = terms[0]
                scale *= coef
                factors += term.args if term.op == Op.MUL else (term,)
            else:
                whole = _sum(terms, start)
                if whole.op == Op.CONST:
                    scale *= whole.start or 0
                else:
                    factors.append(whole)
        if len(factors) < 2:
            return ([(scale, factors[0])], 0) if factors else ([], scale)
        return [(scale, Term(Op.MUL, tuple(factors), 1, span=_fold(intervals.multiply, (1, 1, 0), factors)))], 0

    def other(self, op: Op, a: int, b: int) -> Term:
        if op == Op.INDICATOR:
            return _make(op, (self.condition(a),))
        if op in (Op.MIN, Op.MAX):
            return _extreme(op, [self.number(a), self.number(b)])
        return _make(op, (self.number(a),) if op in (Op.ABS, Op.NONZERO) else (self.number(a), self.number(b)))


def _constant(value: Value, condition: bool = False) -> Term:
    if condition:
        return Term(Op.CONST, start=value, span=(0, 0, UNDEFINED if value is None else TRUE if value else FALSE))
    return Term(Op.CONST, start=value, span=(0, 0, 2) if value is None else (value, value, 0))


def _fold(function: Callable[..., Interval], start: Interval, terms: Sequence[Term]) -> Interval:
    for term in terms:
        start = function(start, term.span)
    return start if start[2] < 2 else intervals.NEVER


def _sum(terms: list[tuple[int, Term]], start: Value) -> Term:
    """Terms plus a constant, with the multiples of one variable joined."""
    if start is None:
        return _constant(None)
    joined: dict[object, tuple[int, Term]] = {}
    for coef, term in terms:
        key = term.start if term.op == Op.VAR else (len(joined), "term")
        joined[key] = (joined[key][0] + coef if key in joined else coef, term)
    kept = [(coef, term) for coef, term in joined.values() if coef or term.span[2]]
    if not kept:
        return _constant(start)
    span = (start, start, 0)
    for coef, term in kept:
        span = intervals.add(span, intervals.multiply((coef, coef, 0), term.span))
    coefs, args = zip(*kept, strict=True)
    return Term(Op.ADD, args, start, coefs, (), span if span[2] < 2 else intervals.NEVER)


def _extreme(op: Op, operands: list[Term]) -> Term:
    flat = [term for operand in operands for term in (operand.args if operand.op == op else (operand,))]
    starts = [operand.start for operand in operands if operand.op == op]
    if any(term.op == Op.CONST and term.start is None for term in flat):
        return _constant(None)
    constants = [term.start for term in flat if term.op == Op.CONST]
    rest = tuple(term for term in flat if term.op != Op.CONST)
    # The bound of an operand changes nothing, so it can stand in for a constant.
    bounds = [term.span[1] if op == Op.MIN else term.span[0] for term in rest if term.span[2] < 2]
    known = [value for value in (*constants, *starts, *bounds) if value is not None]
    start = (min if op == Op.MIN else max)(known, default=0)
    if not rest:
        return _constant(start)
    return Term(op, rest, start, span=_fold(ARITHMETIC[op], (start, start, 0), rest))


def _join(op: Op, operands: list[Term]) -> Term:
    flat = [term for operand in operands for term in (operand.args if operand.op == op else (operand,))]
    start: Value = int(op == Op.AND)
    for operand in operands:
        if operand.op in (op, Op.CONST):
            start = combine(op, start, operand.start)
    rest = tuple(term for term in flat if term.op != Op.CONST)
    if not rest or start == int(op == Op.OR):
        return _constant(start, True)
    bits = UNDEFINED if start is None else TRUE if start else FALSE
    for term in rest:
        bits = (intervals.conjunction if op == Op.AND else intervals.disjunction)(bits, term.span[2])
    return Term(op, rest, start, span=(0, 0, bits))


def _make(op: Op, args: tuple[Term, ...], rows: tuple[Row, ...] = ()) -> Term:
    if all(arg.op == Op.CONST for arg in args):
        return _constant(apply(op, [arg.start for arg in args], rows), op >= Op.TRUE)
    return Term(op, args, 0, (), rows, bound(op, [arg.span for arg in args], rows))


def combine(op: int, total: Value, value: Value) -> Value:
    """An operator of GATHERS over what it has gathered and one more value (times its coefficient, for ADD)."""
    if op == Op.AND:
        return 0 if total == 0 or value == 0 else None if total is None or value is None else 1
    if op == Op.OR:
        return 1 if total == 1 or value == 1 else None if total is None or value is None else 0
    if total is None or value is None:
        return None
    if op == Op.ADD:
        return total + value
    return total * value if op == Op.MUL else min(total, value) if op == Op.MIN else max(total, value)


def apply(op: int, values: Sequence[Value], rows: Sequence[Row] | frozenset[Row] = ()) -> Value:
    """The value of any other operator."""
    if None in values:
        return None
    known = [value for value in values if value is not None]
    if op in (Op.TABLE, Op.NOT_TABLE):
        return int((tuple(known) in rows) is (op == Op.TABLE))
    x, y = known[0], known[-1]
    match op:
        case Op.LE:
            return int(x <= 0)
        case Op.EQ:
            return int(x == 0)
        case Op.NE:
            return int(x != 0)
        case Op.DIVIDES:
            return int(y % x == 0) if x else None
        case Op.NOT_DIVIDES:
            return int(y % x != 0) if x else None
        case Op.FDIV:
            return x // y if y else None
        case Op.MOD:
            return x % y if y else None
        case Op.ABS:
            return abs(x)
        case Op.NONZERO:
            return x or None
        case Op.INDICATOR:
            return x
    result = power(x, y) if y >= 0 else None
    return None if result is None else int(result)


def bound(op: int, spans: Sequence[Interval], rows: Sequence[Row] = ()) -> Interval:
    """The interval (or, of a condition, the bits) of any operator that is not of GATHERS."""
    if op == Op.INDICATOR:
        bits = spans[0][2]
        low, high = (0 if bits & FALSE else 1), (1 if bits & TRUE else 0)
        return intervals.NEVER if bits == UNDEFINED else (low, high, 1 if bits & UNDEFINED else 0)
    if op < Op.TRUE:
        return ARITHMETIC[Op(op)](*spans)
    if op in (Op.TABLE, Op.NOT_TABLE):
        bits = _table_bits(spans, rows)
    elif op in (Op.DIVIDES, Op.NOT_DIVIDES):
        bits = intervals.divides(spans[0], spans[1])
    else:
        bits = (intervals.at_most if op == Op.LE else intervals.equal)(spans[0], (0, 0, 0))
    return 0, 0, intervals.negate(bits) if op in (Op.NE, Op.NOT_DIVIDES, Op.NOT_TABLE) else bits


def _table_bits(spans: Sequence[Interval], rows: Sequence[Row]) -> int:
    if any(span[2] == 2 for span in spans):
        return UNDEFINED
    bits = UNDEFINED if any(span[2] for span in spans) else 0
    found = some_row(spans, rows)
    if all(low == high for low, high, _ in spans):
        return bits | (TRUE if found else FALSE)
    return bits | FALSE | (TRUE if found else 0)
