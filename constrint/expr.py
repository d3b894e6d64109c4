"""Expressions over integer variables, built with Python's operators.

What Python has no operator for is in ``constrint.operators``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from fractions import Fraction
from typing import Any, NoReturn, Protocol

from constrint.errors import ConstrintError
from constrint.integers import as_index, exact_int, is_truth, shown
from constrint.python_printing import print_expression
from constrint.values import atom, plain_value

NUMERIC = frozenset({"const", "var", "+", "-", "*", "//", "cdiv", "/", "%", "**", "min", "max", "abs", "neg"})
# What ``constrint.encode`` states in the operators above and below before an engine sees it. "value": text or None.
# "if"(c, a, b). "element"(i, a, b, ...): the i-th of a, b, ..., from 0, from the end where i is negative.
# "call": a function of ``constrint.functions``, by its name.
BITWISE = frozenset({"bitand", "bitor", "bitxor", "<<", ">>"})
RICH = BITWISE | {"value", "if", "element", "call", "floor", "ceil", "int", "round", "len"}
COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">="})
LOGIC = frozenset({"and", "or", "not", "implies"})
# "divides"(d, n): n % d == 0. "table"(x, y, ...): the tuple of values is one of ``rows``.
# "rows": a table whose rows hold values of any kind. "truth": what Python finds true. The rest:
# ``constrint.global_constraints``.
RICH_CONDITIONS = frozenset({"rows", "truth", "all_different", "cumulative"})
_PARTIAL = (
    BITWISE | RICH_CONDITIONS | {"//", "cdiv", "/", "%", "**", "divides", "call", "element", "len", "if", "table"}
)
_PARTIAL |= {"<", "<=", ">", ">="}
_DIVISIONS = frozenset({"//", "/", "%"})
BOOLEAN = COMPARISONS | LOGIC | RICH_CONDITIONS | {"true", "false", "divides", "table"}

Row = tuple[int, ...]

MAX_DEPTH = 250
"""How deep an expression may be; the engines walk it recursively."""
LISTED = 1000
"""Membership in a range of more values than this is stated by bounds and divisibility."""


class Follower(Protocol):
    """What follows a Python function that is called with expressions."""

    def answer(self, condition: Expr) -> bool:
        """Whether a condition is to hold that is asked whether it does."""
        ...

    def divided(self, divisor: Expr) -> None:
        """Hear of a divisor, which Python would refuse where it is 0."""


_follower: ContextVar[Follower | None] = ContextVar("follower", default=None)


@contextmanager
def followed(follower: Follower) -> Iterator[None]:
    """Within, expressions tell a follower what they are asked."""
    token = _follower.set(follower)
    try:
        yield
    finally:
        _follower.reset(token)


class Expr:
    """One node of an expression; immutable. A number, or a condition where ``is_condition``.

    op: the operator, one of NUMERIC, RICH or BOOLEAN. args: its operands. value: the integer of a "const".
    name: of a "var", or of the function of a "call". rows: of a "table", sorted, no repeats. other: the text or None of
    a "value", the rows of "rows".

    ``== != < <= > >=`` build conditions, ``& | ~`` join them; a condition used as a number is 0 or 1. ``/`` is exact
    (a rational number); ``//`` and ``%`` floor as Python's do. Where a divisor is 0 the expression is undefined:
    see ``constrint.evaluate``.
    """

    __slots__ = ("args", "name", "op", "other", "rows", "value")

    def __init__(
        self,
        op: str,
        args: tuple[Expr, ...] = (),
        value: int = 0,
        name: str = "",
        rows: tuple[Row, ...] = (),
        other: Any = None,
    ) -> None:
        self.op, self.args, self.value, self.name, self.rows, self.other = op, args, value, name, rows, other

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

    def isin(self, values: Iterable[Any]) -> Expr:
        """The condition that this expression takes one of ``values``."""
        if isinstance(values, range) and len_of(values) > LISTED:
            return _within(self, values if values.step > 0 else values[::-1])
        return table_of_rows((self,), [(value,) for value in listed(values, "isin")], "a value of isin")

    def __str__(self) -> str:
        return print_expression(self)

    def __repr__(self) -> str:
        return f"Expr({self})"

    def __bool__(self) -> bool:
        follower = _follower.get()
        if follower is not None:
            return follower.answer(self if self.is_condition else Expr("!=", (self, Expr("const", value=0))))
        raise ConstrintError(
            f"the condition ({self}) has no truth value before it is solved; join conditions with & | ~ "
            "instead of and, or, not, write a chain a <= b <= c as (a <= b) & (b <= c), and x in values as "
            "isin(x, values)"
        )

    def __hash__(self) -> NoReturn:
        # A hash of its own would make ``x in {1, 2}`` false, silently. Inside, whoever needs a key takes id().
        raise ConstrintError(
            f"({self}) cannot be looked up in a set or a dictionary, for its value is not known before it is solved; "
            "write isin(x, values) for membership, table([x, y], rows) for what a dictionary says"
        )

    def __add__(self, other: Operand) -> Expr:
        return binary("+", self, other)

    def __radd__(self, other: Operand) -> Expr:
        return binary("+", other, self)

    def __sub__(self, other: Operand) -> Expr:
        return binary("-", self, other)

    def __rsub__(self, other: Operand) -> Expr:
        return binary("-", other, self)

    def __mul__(self, other: Operand) -> Expr:
        return binary("*", self, other)

    def __rmul__(self, other: Operand) -> Expr:
        return binary("*", other, self)

    def __floordiv__(self, other: Operand) -> Expr:
        return binary("//", self, other)

    def __rfloordiv__(self, other: Operand) -> Expr:
        return binary("//", other, self)

    def __truediv__(self, other: Operand) -> Expr:
        return binary("/", self, other)

    def __rtruediv__(self, other: Operand) -> Expr:
        return binary("/", other, self)

    def __mod__(self, other: Operand) -> Expr:
        return binary("%", self, other)

    def __rmod__(self, other: Operand) -> Expr:
        return binary("%", other, self)

    def __pow__(self, other: Operand) -> Expr:
        return binary("**", self, other)

    def __rpow__(self, other: Operand) -> Expr:
        return binary("**", other, self)

    def __neg__(self) -> Expr:
        return Expr("neg", (self,))

    def __pos__(self) -> Expr:
        return self

    def __abs__(self) -> Expr:
        return Expr("abs", (self,))

    def __eq__(self, other: object) -> Expr:  # type: ignore[override]
        return binary("==", self, other)

    def __ne__(self, other: object) -> Expr:  # type: ignore[override]
        return binary("!=", self, other)

    def __lt__(self, other: Operand) -> Expr:
        return binary("<", self, other)

    def __le__(self, other: Operand) -> Expr:
        return binary("<=", self, other)

    def __gt__(self, other: Operand) -> Expr:
        return binary(">", self, other)

    def __ge__(self, other: Operand) -> Expr:
        return binary(">=", self, other)

    def __divmod__(self, other: Operand) -> tuple[Expr, Expr]:
        return self // other, self % other

    def __rdivmod__(self, other: Operand) -> tuple[Expr, Expr]:
        return binary("//", other, self), binary("%", other, self)

    def __and__(self, other: Operand) -> Expr:
        return _both_ways("and", "bitand", self, other)

    def __rand__(self, other: Operand) -> Expr:
        return _both_ways("and", "bitand", other, self)

    def __or__(self, other: Operand) -> Expr:
        return _both_ways("or", "bitor", self, other)

    def __ror__(self, other: Operand) -> Expr:
        return _both_ways("or", "bitor", other, self)

    def __xor__(self, other: Operand) -> Expr:
        return _both_ways("!=", "bitxor", self, other)

    def __rxor__(self, other: Operand) -> Expr:
        return _both_ways("!=", "bitxor", other, self)

    def __lshift__(self, other: Operand) -> Expr:
        return binary("<<", self, other)

    def __rlshift__(self, other: Operand) -> Expr:
        return binary("<<", other, self)

    def __rshift__(self, other: Operand) -> Expr:
        return binary(">>", self, other)

    def __rrshift__(self, other: Operand) -> Expr:
        return binary(">>", other, self)

    def __invert__(self) -> Expr:
        return Expr("not", (self,)) if self.is_condition else -self - 1

    def __floor__(self) -> Expr:
        return Expr("floor", (self,))

    def __ceil__(self) -> Expr:
        return Expr("ceil", (self,))

    def __trunc__(self) -> Expr:
        return Expr("int", (self,))

    def __round__(self, digits: int | None = None) -> Expr:
        return rounded(self, digits)


Operand = Expr | int | float | str | None


def as_expr(value: object) -> Expr:
    """``value`` as an expression: an Expr, a number, text, None, or a bool (which is a condition)."""
    if isinstance(value, Expr):
        return value
    if is_truth(value):
        return Expr("true" if value else "false")
    number = as_index(value)
    if number is not None:
        return Expr("const", value=number)
    try:
        found = atom(plain_value(value, "a number in an expression"))
    except ConstrintError:
        words = f"cannot use {shown(value)} ({type(value).__name__}) in an expression; only integers, decimals, text"
        raise ConstrintError(f"{words}, None and variables") from None
    if isinstance(found, Fraction):
        return Expr("/", (Expr("const", value=found.numerator), Expr("const", value=found.denominator)))
    return Expr("const", value=found) if isinstance(found, int) else Expr("value", other=found)


def condition(value: object, what: str) -> Expr:
    """``value`` as a condition; raise ConstrintError for a number."""
    expr = as_expr(value)
    if not expr.is_condition:
        raise ConstrintError(f"{what} joins conditions, but ({expr}) is a number; compare it with something")
    return expr


def binary(op: str, left: object, right: object) -> Expr:
    """An operator between two operands; a follower hears of a divisor."""
    operands = as_expr(left), as_expr(right)
    if op in _DIVISIONS and (follower := _follower.get()) is not None:
        follower.divided(operands[1])
    return Expr(op, operands)


def _both_ways(logic: str, bitwise: str, left: object, right: object) -> Expr:
    """An operator between conditions, or between the bits of numbers."""
    a, b = as_expr(left), as_expr(right)
    return Expr(logic if a.is_condition and b.is_condition else bitwise, (a, b))


def rounded(number: Expr, digits: object = None) -> Expr:
    """A number rounded to so many decimals, halves to the even neighbour, as Python's round does with exact numbers."""
    places = 0 if digits is None else exact_int(digits, "the number of decimals of round")
    if not places:
        return Expr("round", (number,))
    power = Expr("const", value=10 ** abs(places))
    if places > 0:
        return Expr("/", (Expr("round", (number * power,)), power))
    return Expr("round", (Expr("/", (number, power)),)) * power


def where(condition_: Expr, a: Expr, b: Expr) -> Expr:
    """``a`` where a condition holds, else ``b``; without a value where the condition has none."""
    if not (a.is_condition and b.is_condition):
        return Expr("if", (condition_, a, b))
    otherwise = Expr("not", (condition_,))
    chosen = Expr("or", (Expr("and", (condition_, a)), Expr("and", (otherwise, b))))
    # A condition and its opposite: false, or without a value.
    return Expr("or", (chosen, Expr("and", (condition_, otherwise)))) if _partial(condition_) else chosen


def _partial(expr: Expr) -> bool:
    """Whether an expression holds an operator that may have no value."""
    return expr.op in _PARTIAL or any(map(_partial, expr.args))


def variable(name: str) -> Expr:
    """The variable ``name`` of whatever problem the expression is added to."""
    return Expr("var", name=name)


def len_of(values: range) -> int:
    """The number of values of a range (len() itself refuses more than 2**63)."""
    return max(0, (values.stop - values.start + values.step - (1 if values.step > 0 else -1)) // values.step)


def _within(number: Expr, values: range) -> Expr:
    """That a number is one of the values, ascending, of a range."""
    inside = (number >= values[0]) & (number <= values[-1])
    if values.step == 1 and not _may_be_fraction(number):
        return inside
    return inside & binary("divides", values.step, number - values[0])


def _may_be_fraction(number: Expr) -> bool:
    """Whether a number may be other than whole."""
    waiting = [number]
    while waiting:
        node = waiting.pop()
        if node.op in ("/", "**"):
            return True
        if not node.is_condition:
            waiting += node.args
    return False


def table_of_rows(columns: tuple[Expr, ...], rows: Sequence[tuple[object, ...]], what: str) -> Expr:
    """Rows of integers make a "table", of other values "rows"."""
    indices = [[as_index(value) for value in row] for row in rows]
    whole = [tuple(value for value in row if value is not None) for row in indices]
    if all(len(row) == len(columns) for row in whole):
        return Expr("table", columns, rows=tuple(sorted(set(whole))))
    plain = (tuple(plain_value(value, what) for value in row) for row in rows)
    return Expr("rows", columns, other=tuple(dict.fromkeys(plain)))


def listed(values: object, what: str) -> Iterable[object]:
    """``values`` where they can be listed; raise ConstrintError in words where they cannot."""
    if isinstance(values, Iterable) and not isinstance(values, str | bytes):
        return values
    raise ConstrintError(f"{what} must be listed, not {shown(values)} ({type(values).__name__})")
