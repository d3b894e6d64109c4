"""The code of one constraint over intervals, and at a point."""

from __future__ import annotations

from collections.abc import Sequence

from constrint import intervals
from constrint.evaluate import power
from constrint.intervals import ARITHMETIC, FALSE, NEVER, TRUE, UNDEFINED, Interval
from constrint.program import Code, Op
from constrint.rows import some_row

_FORWARD = {int(op): function for op, function in ARITHMETIC.items()}
LAST = 2


def forward(code: Code, low: Sequence[int], high: Sequence[int]) -> list[Interval]:
    """Each node's interval over the variables' bounds; of a condition, the last entry holds its bits."""
    spans: list[Interval] = []
    for op, a, b in zip(code.ops, code.a, code.b, strict=True):
        if op == Op.VAR:
            span = (low[a], high[a], 0)
        elif op == Op.CONST:
            span = (a, a, 0)
        elif op in (Op.ABS, Op.NONZERO):
            span = _FORWARD[op](spans[a])
        elif op < Op.INDICATOR:
            span = _FORWARD[op](spans[a], spans[b])
        elif op == Op.INDICATOR:
            bits = spans[a][LAST]
            span = (0 if bits & FALSE else 1, 1 if bits & TRUE else 0, 1 if bits & UNDEFINED else 0)
            span = NEVER if bits == UNDEFINED else span
        else:
            span = (0, 0, _bits(code, op, a, b, spans))
        spans.append(span)
    return spans


def _bits(code: Code, op: int, a: int, b: int, spans: list[Interval]) -> int:
    if op == Op.LE:
        return intervals.at_most(spans[a], spans[b])
    if op == Op.EQ:
        return intervals.equal(spans[a], spans[b])
    if op == Op.NE:
        return intervals.negate(intervals.equal(spans[a], spans[b]))
    if op == Op.AND:
        return intervals.conjunction(spans[a][LAST], spans[b][LAST])
    if op == Op.OR:
        return intervals.disjunction(spans[a][LAST], spans[b][LAST])
    if op == Op.DIVIDES:
        return intervals.divides(spans[a], spans[b])
    if op == Op.NOT_DIVIDES:
        return intervals.negate(intervals.divides(spans[a], spans[b]))
    if op in (Op.TABLE, Op.NOT_TABLE):
        operands, rows = code.tables[a]
        columns = [spans[node] for node in operands]
        if any(column[LAST] == 2 for column in columns):
            return UNDEFINED
        bits = UNDEFINED if any(column[LAST] for column in columns) else 0
        if all(column[0] == column[1] for column in columns):
            bits |= TRUE if tuple(column[0] for column in columns) in code.row_sets[a] else FALSE
        else:
            bits |= FALSE | (TRUE if some_row(columns, rows) else 0)
        return bits if op == Op.TABLE else intervals.negate(bits)
    return TRUE if op == Op.TRUE else FALSE


def test(code: Code, point: Sequence[int]) -> bool:
    """Whether the constraint is true where every variable has the value in ``point``."""
    values: list[int | bool | None] = []
    for op, a, b in zip(code.ops, code.a, code.b, strict=True):
        if op == Op.VAR:
            values.append(point[a])
        elif op == Op.CONST:
            values.append(a)
        elif op in (Op.TABLE, Op.NOT_TABLE):
            row = tuple(values[node] for node in code.tables[a][0])
            values.append(None if None in row else (row in code.row_sets[a]) is (op == Op.TABLE))
        elif op in (Op.TRUE, Op.FALSE):
            values.append(op == Op.TRUE)
        else:
            values.append(_combine(op, values[a], values[b]))
    return values[-1] is True


def _combine(op: int, x: int | None, y: int | None) -> int | bool | None:
    if op == Op.AND:
        return False if x is False or y is False else None if x is None or y is None else True
    if op == Op.OR:
        return True if x is True or y is True else None if x is None or y is None else False
    if x is None or y is None:
        return None
    match op:
        case Op.ADD:
            return x + y
        case Op.SUB:
            return x - y
        case Op.MUL:
            return x * y
        case Op.LE:
            return x <= y
        case Op.EQ:
            return x == y
        case Op.NE:
            return x != y
        case Op.DIVIDES:
            return y % x == 0 if x else None
        case Op.NOT_DIVIDES:
            return y % x != 0 if x else None
        case Op.FDIV:
            return x // y if y else None
        case Op.MOD:
            return x % y if y else None
        case Op.MIN:
            return min(x, y)
        case Op.MAX:
            return max(x, y)
        case Op.ABS:
            return abs(x)
        case Op.NONZERO:
            return x or None
        case Op.INDICATOR:
            return int(x)
        case Op.POW:
            result = power(x, y) if y >= 0 else None
            return None if result is None else int(result)
    raise AssertionError(f"no operator {op}")
