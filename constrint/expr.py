"""Expressions over integer variables, built with Python's operators.

Every builder here also takes plain integers and then returns a plain integer or bool, so that one formula serves
a Problem's variables and plain numbers alike.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import NoReturn, SupportsIndex, overload

from constrint.errors import ConstrintError

NUMERIC = frozenset({"const", "var", "+", "-", "*", "//", "cdiv", "/", "%", "**", "min", "max", "abs", "neg"})
COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">="})
LOGIC = frozenset({"and", "or", "not", "implies"})
# "divides"(d, n): n % d == 0. "table"(x, y, ...): the tuple of values is one of ``rows``.
BOOLEAN = COMPARISONS | LOGIC | {"true", "false", "divides", "table"}

Row = tuple[int, ...]

MAX_DEPTH = 250
"""How deep an expression may be; the engines walk it recursively."""


class Expr:
    """One node of an expression; immutable. A number, or a condition where ``is_condition``.

    op: the operator, one of NUMERIC or BOOLEAN. args: its operands. value: the integer of a "const".
    name: of a "var". rows: of a "table", sorted, no repeats.

    ``== != < <= > >=`` build conditions, ``& | ~`` join them; a condition used as a number is 0 or 1. ``/`` is exact
    (a rational number); ``//`` and ``%`` floor as Python's do. Where a divisor is 0 or an exponent negative the
    expression is undefined: see ``constrint.evaluate``.
    """

    __slots__ = ("args", "name", "op", "rows", "value")

    def __init__(
        self, op: str, args: tuple[Expr, ...] = (), value: int = 0, name: str = "", rows: tuple[Row, ...] = ()
    ) -> None:
        self.op, self.args, self.value, self.name, self.rows = op, args, value, name, rows

    @property
    def is_condition(self) -> bool:
        """Whether the expression is true or false rather than a number."""
        return self.op in BOOLEAN

    def variables(self) -> list[str]:
        """Names of the variables, in order of first appearance."""
        seen: dict[str, None] = {}
        stack = [self]
        while stack:
            node = stack.pop()
            if node.op == "var":
                seen[node.name] = None
            stack.extend(reversed(node.args))
        return list(seen)

    def depth(self) -> int:
        """The number of operators on the longest way from this node to a variable or number."""
        deepest, level = 0, [self]
        while level := [arg for node in level for arg in node.args]:
            deepest += 1
            if deepest > MAX_DEPTH:
                break
        return deepest

    def isin(self, values: Iterable[int]) -> Expr:
        """The condition that this expression takes one of ``values``."""
        rows = tuple(sorted({(exact_int(value, "a value of isin"),) for value in values}))
        return Expr("table", (self,), rows=rows)

    def __str__(self) -> str:
        from constrint.python_text import print_expression

        return print_expression(self)

    def __repr__(self) -> str:
        return f"Expr({self})"

    def __bool__(self) -> NoReturn:
        raise ConstrintError(
            f"the condition ({self}) has no truth value before it is solved; join conditions with & | ~ "
            "instead of and, or, not, and write a chain a <= b <= c as (a <= b) & (b <= c)"
        )

    __hash__ = object.__hash__

    def __add__(self, other: Operand) -> Expr:
        return _binary("+", self, other)

    def __radd__(self, other: Operand) -> Expr:
        return _binary("+", other, self)

    def __sub__(self, other: Operand) -> Expr:
        return _binary("-", self, other)

    def __rsub__(self, other: Operand) -> Expr:
        return _binary("-", other, self)

    def __mul__(self, other: Operand) -> Expr:
        return _binary("*", self, other)

    def __rmul__(self, other: Operand) -> Expr:
        return _binary("*", other, self)

    def __floordiv__(self, other: Operand) -> Expr:
        return _binary("//", self, other)

    def __rfloordiv__(self, other: Operand) -> Expr:
        return _binary("//", other, self)

    def __truediv__(self, other: Operand) -> Expr:
        return _binary("/", self, other)

    def __rtruediv__(self, other: Operand) -> Expr:
        return _binary("/", other, self)

    def __mod__(self, other: Operand) -> Expr:
        return _binary("%", self, other)

    def __rmod__(self, other: Operand) -> Expr:
        return _binary("%", other, self)

    def __pow__(self, other: Operand) -> Expr:
        return _binary("**", self, other)

    def __rpow__(self, other: Operand) -> Expr:
        return _binary("**", other, self)

    def __neg__(self) -> Expr:
        return Expr("neg", (self,))

    def __pos__(self) -> Expr:
        return self

    def __abs__(self) -> Expr:
        return Expr("abs", (self,))

    def __eq__(self, other: object) -> Expr:  # type: ignore[override]
        return _binary("==", self, other)

    def __ne__(self, other: object) -> Expr:  # type: ignore[override]
        return _binary("!=", self, other)

    def __lt__(self, other: Operand) -> Expr:
        return _binary("<", self, other)

    def __le__(self, other: Operand) -> Expr:
        return _binary("<=", self, other)

    def __gt__(self, other: Operand) -> Expr:
        return _binary(">", self, other)

    def __ge__(self, other: Operand) -> Expr:
        return _binary(">=", self, other)

    def __and__(self, other: Operand) -> Expr:
        return _logic("and", self, other)

    def __rand__(self, other: Operand) -> Expr:
        return _logic("and", other, self)

    def __or__(self, other: Operand) -> Expr:
        return _logic("or", self, other)

    def __ror__(self, other: Operand) -> Expr:
        return _logic("or", other, self)

    def __invert__(self) -> Expr:
        return Expr("not", (condition(self, "~"),))


Operand = Expr | int


def exact_int(value: object, what: str) -> int:
    """``value`` as a Python int; raise ConstrintError for a bool, a float or anything else that is no integer."""
    if type(value) is int:
        return value
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise ConstrintError(f"{what} must be an integer, not {value!r} ({type(value).__name__})")
    return operator.index(value)


def as_expr(value: object) -> Expr:
    """``value`` as an expression: an Expr, an integer, or a bool (which is a condition)."""
    if isinstance(value, Expr):
        return value
    if isinstance(value, bool):
        return Expr("true" if value else "false")
    if isinstance(value, SupportsIndex):
        return Expr("const", value=operator.index(value))
    raise ConstrintError(f"cannot use {value!r} ({type(value).__name__}) in an expression; only integers and variables")


def condition(value: object, what: str) -> Expr:
    """``value`` as a condition; raise ConstrintError for a number."""
    expr = as_expr(value)
    if not expr.is_condition:
        raise ConstrintError(f"{what} joins conditions, but ({expr}) is a number; compare it with something")
    return expr


def _binary(op: str, left: object, right: object) -> Expr:
    return Expr(op, (as_expr(left), as_expr(right)))


def _logic(op: str, left: object, right: object) -> Expr:
    symbol = {"and": "&", "or": "|", "implies": "implies"}[op]
    return Expr(op, (condition(left, symbol), condition(right, symbol)))


def compare(op: str, left: Expr, right: Expr) -> Expr:
    """A comparison as the text formats write it: ``number % divisor == 0`` is divisibility."""
    if op == "==" and left.op == "%" and right.op == "const" and right.value == 0:
        return divides(left.args[1], left.args[0])
    return Expr(op, (left, right))


def variable(name: str) -> Expr:
    """The variable ``name`` of whatever problem the expression is added to."""
    return Expr("var", name=name)


@overload
def cdiv(a: int, b: int) -> int: ...
@overload
def cdiv(a: Expr, b: Operand) -> Expr: ...
@overload
def cdiv(a: int, b: Expr) -> Expr: ...
def cdiv(a: Operand, b: Operand) -> Expr | int:
    """Division rounded up, -(-a // b). Plain integers give a plain integer (and ZeroDivisionError where b is 0)."""
    if isinstance(a, Expr) or isinstance(b, Expr):
        return _binary("cdiv", a, b)
    return -(-a // b)


@overload
def minimum(*values: int) -> int: ...  # type: ignore[overload-overlap]
@overload
def minimum(*values: Operand) -> Expr: ...
def minimum(*values: Operand) -> Expr | int:
    """The smallest of one or more numbers."""
    return _extreme("min", values)


@overload
def maximum(*values: int) -> int: ...  # type: ignore[overload-overlap]
@overload
def maximum(*values: Operand) -> Expr: ...
def maximum(*values: Operand) -> Expr | int:
    """The largest of one or more numbers."""
    return _extreme("max", values)


def _extreme(op: str, values: Sequence[Operand]) -> Expr | int:
    if not values:
        raise ConstrintError(f"{op}imum needs at least one value")
    plain = [value for value in values if not isinstance(value, Expr)]
    if len(plain) == len(values):
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
        return _binary("divides", divisor, number)
    return divisor != 0 and number % divisor == 0


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
def isin(x: int, values: Iterable[int]) -> bool: ...
@overload
def isin(x: Expr, values: Iterable[int]) -> Expr: ...
def isin(x: Operand, values: Iterable[int]) -> Expr | bool:
    """Whether ``x`` is one of ``values``."""
    return x.isin(values) if isinstance(x, Expr) else x in set(values)


def table(columns: Sequence[Operand], rows: Iterable[Sequence[int]]) -> Expr:
    """The condition that the values of ``columns``, taken together, are one of ``rows``.

    Raises ConstrintError for no columns, or a row of another length than ``columns``.
    """
    if not columns:
        raise ConstrintError("a table needs at least one column")
    kept = set()
    for row in rows:
        if len(row) != len(columns):
            raise ConstrintError(
                f"the table has {len(columns)} columns, but the row {tuple(row)} has {len(row)} values"
            )
        kept.add(tuple(exact_int(value, "a value of a table") for value in row))
    return Expr("table", tuple(as_expr(column) for column in columns), rows=tuple(sorted(kept)))
