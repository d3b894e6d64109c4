"""Functions that build expressions where Python has no operator.

Each also takes plain integers and then returns a plain integer or bool, so that one formula serves a Problem's
variables and plain numbers alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard, overload

from constrint.errors import ConstrintError
from constrint.expr import Expr, Operand, as_expr, binary, condition, listed, table_of_rows, where
from constrint.integers import exact_int, is_truth, shown


def choose(condition_: Expr | bool, a: Operand, b: Operand) -> Expr:
    """``a`` where a condition holds, else ``b``: Python's ``a if condition else b``. Only what is chosen has to have a
    value."""
    return where(condition(condition_, "choose"), as_expr(a), as_expr(b))


def element(index: Operand, values: Iterable[Operand]) -> Expr:
    """The value at an index, from 0, or from the end where the index is negative; without a value beyond either end.

    Raises ConstrintError for no values.
    """
    choices = tuple(as_expr(value) for value in listed(values, "the values of element"))
    if not choices:
        raise ConstrintError("element needs at least one value to choose from")
    return Expr("element", (as_expr(index), *choices))


def compare(op: str, left: Expr, right: Expr) -> Expr:
    """A comparison as the text formats write it: ``number % divisor == 0`` is divisibility."""
    if op == "==" and left.op == "%" and right.op == "const" and right.value == 0:
        return divides(left.args[1], left.args[0])
    return Expr(op, (left, right))


@overload
def cdiv(a: int, b: int) -> int: ...
@overload
def cdiv(a: Expr, b: Operand) -> Expr: ...
@overload
def cdiv(a: int, b: Expr) -> Expr: ...
def cdiv(a: Operand, b: Operand) -> Expr | int:
    """Division rounded up, -(-a // b). Plain integers give a plain integer (and ZeroDivisionError where b is 0)."""
    if type(a) is int and type(b) is int:  # formulas are asked thousands of times with these
        return -(-a // b)
    if isinstance(a, Expr) or isinstance(b, Expr):
        return binary("cdiv", a, b)
    return -(-_plain(a, "an operand of cdiv") // _plain(b, "an operand of cdiv"))


@overload
def minimum(*values: int) -> int: ...  # type: ignore[overload-overlap]
@overload
def minimum(*values: Operand) -> Expr: ...
def minimum(*values: Operand) -> Expr | int:
    """The smallest of one or more numbers."""
    return min(values) if _are_plain(values) else _extreme("min", values)


@overload
def maximum(*values: int) -> int: ...  # type: ignore[overload-overlap]
@overload
def maximum(*values: Operand) -> Expr: ...
def maximum(*values: Operand) -> Expr | int:
    """The largest of one or more numbers."""
    return max(values) if _are_plain(values) else _extreme("max", values)


def _are_plain(values: tuple[Operand, ...]) -> TypeGuard[tuple[int, ...]]:
    """Whether there are values, all of them ints: formulas are asked thousands of times with these."""
    for value in values:
        if type(value) is not int:
            return False
    return bool(values)


def _extreme(op: str, values: Sequence[Operand]) -> Expr | int:
    if not values:
        raise ConstrintError(f"{op}imum needs at least one value")
    if not any(isinstance(value, Expr) for value in values):
        plain = [_plain(value, f"a value of {op}imum") for value in values]
        return min(plain) if op == "min" else max(plain)
    return Expr(op, tuple(as_expr(value) for value in values)) if len(values) > 1 else as_expr(values[0])


@overload
def divides(divisor: int, number: int) -> bool: ...
@overload
def divides(divisor: Expr, number: Operand) -> Expr: ...
@overload
def divides(divisor: int, number: Expr) -> Expr: ...
def divides(divisor: Operand, number: Operand) -> Expr | bool:
    """Whether ``divisor`` divides ``number``: number % divisor == 0. 0 divides nothing."""
    if isinstance(divisor, Expr) or isinstance(number, Expr):
        return binary("divides", divisor, number)
    by, of = _plain(divisor, "an operand of divides"), _plain(number, "an operand of divides")
    return by != 0 and of % by == 0


@overload
def implies(premise: bool, conclusion: bool) -> bool: ...
@overload
def implies(premise: Expr, conclusion: Expr | bool) -> Expr: ...
@overload
def implies(premise: bool, conclusion: Expr) -> Expr: ...
def implies(premise: Expr | bool, conclusion: Expr | bool) -> Expr | bool:
    """That ``conclusion`` holds wherever ``premise`` does."""
    if isinstance(premise, Expr) or isinstance(conclusion, Expr):
        return _logic("implies", premise, conclusion)
    return not premise or conclusion


@overload
def isin(x: int, values: Iterable[Any]) -> bool: ...
@overload
def isin(x: Expr, values: Iterable[Any]) -> Expr: ...
def isin(x: Operand, values: Iterable[Any]) -> Expr | bool:
    """Whether ``x`` is one of ``values``."""
    if isinstance(x, Expr):
        return x.isin(values)
    if isinstance(values, range):
        return _plain(x, "x of isin") in values
    return _plain(x, "x of isin") in {exact_int(value, "a value of isin") for value in listed(values, "isin")}


def table(columns: Sequence[Operand], rows: Iterable[Sequence[Any]]) -> Expr:
    """The condition that the values of ``columns``, taken together, are one of ``rows``.

    Raises ConstrintError for no columns, or a row of another length than ``columns``.
    """
    operands = [as_expr(column) for column in listed(columns, "the columns of a table")]
    if not operands:
        raise ConstrintError("a table needs at least one column")
    kept = []
    for row in listed(rows, "the rows of a table"):
        values = tuple(listed(row, "a row of a table"))
        if len(values) != len(operands):
            raise ConstrintError(
                f"the table has {len(operands)} columns, but the row {shown(values)} has {len(values)} values"
            )
        kept.append(values)
    return table_of_rows(tuple(operands), kept, "a value of a table")


def _plain(value: object, what: str) -> int:
    """A plain operand of a function: NumPy's integers would wrap."""
    if type(value) is int:
        return value
    return int(bool(value)) if is_truth(value) else exact_int(value, what)


def _logic(op: str, left: object, right: object) -> Expr:
    symbol = {"and": "&", "or": "|", "implies": "implies"}[op]
    return Expr(op, (condition(left, symbol), condition(right, symbol)))
