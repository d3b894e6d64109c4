"""Conditions over values of any kind, in the integers and operators that the engines know.

A condition made of these alone stays as it is. Otherwise each comparison in it is stated by itself: numbers with
decimals are fractions of their codes, bits are quotients and remainders, a conditional expression is a sum; what has
text in it, what calls a function, and whatever names few combinations of values is tabulated over its variables.
``constrint.evaluate`` states what all of it means.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from constrint.domains import Domain
from constrint.errors import ConstrintError
from constrint.expr import BITWISE, COMPARISONS, NUMERIC, RICH, RICH_CONDITIONS, Expr, as_expr, variable, where
from constrint.global_constraints import GLOBAL, decomposed
from constrint.integers import grouped
from constrint.intervals import PowerTooLarge
from constrint.lower import Lowering
from constrint.operators import isin
from constrint.tabulate import NEVER, TRUE, Combinations, joined, table_of
from constrint.values import NOTHING, Coding, atom

FEW = 1024
"""A comparison that needs more than the engines' operators is tabulated over at most so many combinations at once."""
MOST_COMBINATIONS = 200_000
"""A comparison that cannot be stated otherwise is tabulated over at most so many combinations of values."""
MOST_BITS = 62
_RICH = RICH | RICH_CONDITIONS
_ARITHMETIC = (NUMERIC - {"const", "var"}) | BITWISE | {"call", "floor", "ceil", "int", "round"}


class _NeedsTable(Exception):
    """A number that only a table of the comparison that it stands in can state."""

    def __init__(self, expr: Expr) -> None:
        self.expr = expr


class Encoder:
    """States conditions and numbers over the integers of one problem's variables.

    domains: their integers; codings: of those whose values are others.
    """

    def __init__(self, domains: Mapping[str, Domain], codings: Mapping[str, Coding]) -> None:
        self.domains, self.codings = domains, codings
        self.combinations = Combinations(domains, codings)
        self.places = {name: v for v, name in enumerate(domains)}
        listed = list(domains.values())
        self.lowering = Lowering(self.places, lambda v: (listed[v][0], listed[v][-1]))

    def condition(self, expr: Expr) -> Expr:
        """A condition in the engines' terms. Raises ConstrintError for what cannot be stated."""
        if self._plain(expr):
            return expr
        self._check(expr)
        return self._condition(expr)

    def whole(self, expr: Expr) -> Expr | None:
        """A constraint of many variables with its numbers in the engines' terms; None for any other, and where these
        are not numbers."""
        if expr.op not in GLOBAL or any(map(self._any_kind, expr.args)):
            return None
        try:
            return Expr(expr.op, tuple(map(self._number, expr.args)))
        except _NeedsTable:
            return None

    def number(self, expr: Expr, what: str) -> Expr:
        """A number in the engines' terms."""
        if self._plain(expr):
            return expr
        self._check(expr)
        try:
            return self._number(expr)
        except _NeedsTable as found:
            raise ConstrintError(
                f"{what} cannot hold ({found.expr}), whose values are no multiples of a common fraction; "
                "compare it with something in a constraint instead"
            ) from None

    def _plain(self, expr: Expr) -> bool:
        """Whether the engines know every operator and variable of an expression."""
        waiting = [expr]
        while waiting:
            node = waiting.pop()
            if node.op in _RICH or (node.op == "var" and node.name in self.codings):
                return False
            waiting.extend(node.args)
        return True

    def _check(self, expr: Expr) -> None:
        """Raise ConstrintError for arithmetic on text, and for bits of fractions."""
        if expr.op in _ARITHMETIC:
            for arg in expr.args:
                if arg.op == "value":
                    raise ConstrintError(
                        f"{_quoted(arg)} is no number: it can be compared with == and !=, but not computed with"
                    )
                if arg.op == "var":
                    self._variable(arg.name)
                if expr.op in BITWISE and self._divides(arg):
                    raise ConstrintError(f"the bits of ({arg}) are asked for, which may be other than a whole number")
        for arg in expr.args:
            self._check(arg)

    def _divides(self, expr: Expr) -> bool:
        """Whether a number may be a fraction."""
        if expr.op == "var":
            return expr.name in self.codings and self.codings[expr.name].scale > 1
        return expr.op == "/" or (
            expr.op in ("+", "-", "*", "neg", "min", "max", "abs", "if") and any(map(self._divides, expr.args))
        )

    def _condition(self, expr: Expr) -> Expr:
        op, args = expr.op, expr.args
        if op in ("and", "or", "implies", "not"):
            return Expr(op, tuple(self._condition(self._truth(arg)) for arg in args))
        if self._plain(expr):
            return expr
        if op == "var":
            return self._condition(Expr("truth", (expr,)))
        if op not in GLOBAL and self._holds(expr, _RICH) and self.combinations.count(expr) <= FEW:
            return self.tabulated(expr)
        try:
            return self._comparison(expr)
        except _NeedsTable:
            if self.combinations.count(expr) <= MOST_COMBINATIONS:
                return self.tabulated(expr)
        raise ConstrintError(
            f"({expr}) cannot be stated in integers, and its variables have {grouped(self.combinations.count(expr))} "
            f"combinations of values, of which at most {MOST_COMBINATIONS:,} are tabulated; narrow them, or split it"
        )

    def _truth(self, expr: Expr) -> Expr:
        return expr if expr.is_condition else Expr("truth", (expr,))

    def _holds(self, expr: Expr, ops: frozenset[str]) -> bool:
        return expr.op in ops or any(self._holds(arg, ops) for arg in expr.args)

    def _comparison(self, expr: Expr) -> Expr:
        """A condition that joins no others."""
        op, args = expr.op, expr.args
        if op in GLOBAL:
            return self._condition(decomposed(expr))
        if op == "truth":
            (operand,) = args
            if not self._any_kind(operand):
                return Expr("!=", (self._number(operand), as_expr(0)))
            if operand.op in ("if", "element"):
                return self._lifted(operand, lambda chosen: Expr("truth", (chosen,)))
            return self.tabulated(expr)
        if op in ("table", "rows"):
            return self._table(expr)
        if op not in COMPARISONS or not any(map(self._any_kind, args)):
            return Expr(op, tuple(map(self._number, args)))
        left, right = args
        for place, side in enumerate(args):
            if side.op in ("if", "element") and self._any_kind(side):
                other = args[1 - place]
                return self._lifted(
                    side,
                    lambda chosen, p=place, o=other: Expr(op, (o, chosen) if p else (chosen, o)),  # type: ignore[misc]
                )
        leaves = all(side.op in ("var", "const", "value", "true", "false") for side in args)
        if leaves and self.combinations.count(expr) <= MOST_COMBINATIONS:
            return self.tabulated(expr)
        if op == "!=":
            return Expr("not", (self._comparison(Expr("==", args)),))
        text, number = (left, right) if self._any_kind(left) else (right, left)
        if op != "==":
            # Against a number, only what is a number has an order.
            if text.op == "value" or self.codings[text.name].top is None:
                return NEVER
            return Expr(op, (self._number(left), self._number(right)))
        value = self._number(number)
        undefined = Expr("!=", (value, value))
        if text.op == "value" or self.codings[text.name].top is None:
            return undefined
        known = isin(variable(text.name), self.codings[text.name].numbers)
        return Expr("and", (Expr("or", (known, undefined)), Expr("==", (self._number(text), value))))

    def _lifted(self, chooser: Expr, make: Callable[[Expr], Expr]) -> Expr:
        """A comparison with what a condition or an index chooses, for each choice."""
        if chooser.op == "if":
            which, a, b = chooser.args
            return self._condition(where(self._truth(which), make(a), make(b)))
        index, choices = chooser.args[0], chooser.args[1:]
        parts = [Expr("and", (isin(index, (k, k - len(choices))), make(choice))) for k, choice in enumerate(choices)]
        inside = isin(index, range(-len(choices), len(choices)))
        return self._condition(Expr("or", (joined("or", parts), Expr("not", (Expr("or", (inside, NEVER)),)))))

    def _table(self, expr: Expr) -> Expr:
        columns = expr.args
        rows = expr.rows if expr.op == "table" else expr.other
        if all(column.op == "var" for column in columns):
            found = set()
            for row in rows:
                codes = [self._code(column.name, value) for column, value in zip(columns, row, strict=True)]
                known = [code for code in codes if code is not None]
                if len(known) == len(codes):
                    found.add(tuple(known))
            return Expr("table", tuple(variable(column.name) for column in columns), rows=tuple(sorted(found)))
        if expr.op == "table" and not any(map(self._any_kind, columns)):
            return Expr("table", tuple(map(self._number, columns)), rows=expr.rows)
        parts = [
            joined("and", [Expr("==", (column, as_expr(value))) for column, value in zip(columns, row, strict=True)])
            for row in rows
        ]
        # However few rows there are, a column without a value leaves the table without one.
        parts += [Expr("!=", (column, column)) for column in columns]
        return self._condition(joined("or", parts))

    def _code(self, name: str, value: object) -> int | None:
        """The integer of a value of a variable; None where it is not one of its values."""
        coding = self.codings.get(name)
        if coding is not None:
            return coding.find(value)
        found = atom(value)
        return found if isinstance(found, int) else None

    def _any_kind(self, expr: Expr) -> bool:
        """Whether an expression may be other than a number."""
        if expr.op == "value":
            return True
        if expr.op == "var":
            coding = self.codings.get(expr.name)
            return coding is not None and coding.mixed
        return expr.op in ("if", "element") and any(map(self._any_kind, expr.args[1:]))

    def _number(self, expr: Expr) -> Expr:
        op, args = expr.op, expr.args
        if op == "var":
            return self._variable(expr.name)
        if op == "value":
            raise ConstrintError(f"{_quoted(expr)} is no number, and cannot be computed with")
        if self._plain(expr):
            return expr
        if expr.is_condition:
            return self._condition(expr)
        if op == "len" or (self._holds(expr, frozenset({"call", "len"})) and self.combinations.count(expr) <= FEW):
            found = self.combinations.sum_of_values(expr, FEW)
            if found is not None:
                return found
        if op in ("call", "len"):
            raise _NeedsTable(expr)
        if op == "if":
            return self._if(self._condition(self._truth(args[0])), self._number(args[1]), self._number(args[2]))
        if op == "element":
            return self._element(expr)
        operands = [self._number(arg) for arg in args]
        a, b = operands[0], operands[-1]
        one = as_expr(1)
        if op in BITWISE:
            return self._bits(op, a, b)
        if op == "floor":
            return a // one
        if op == "ceil":
            return Expr("cdiv", (a, one))
        if op == "int":
            zero = as_expr(0)
            return Expr("max", (a // one, zero)) + Expr("min", (Expr("cdiv", (a, one)), zero))
        if op == "round":
            doubled = a * 2 + 1
            half = doubled // 2
            return half - Expr("divides", (as_expr(2), doubled)) * (half % 2)
        return Expr(op, tuple(operands))

    def _variable(self, name: str) -> Expr:
        coding = self.codings.get(name)
        result = variable(name)
        if coding is None:
            return result
        if coding.top is None:
            raise ConstrintError(
                f"no value of {name!r} is a number: it can be compared with == and !=, but not computed with"
            )
        if coding.mixed:
            result = Expr("//", (result, result <= coding.top))
        return result if coding.scale == 1 else Expr("/", (result, as_expr(coding.scale)))

    def _if(self, which: Expr, a: Expr, b: Expr) -> Expr:
        (first, needs), (second, others) = self._total(a), self._total(b)
        result = second + which * (first - second)
        if not needs and not others:
            return result
        defined = Expr("and", (which, joined("and", needs or [TRUE])))
        otherwise = Expr("and", (Expr("not", (which,)), joined("and", others or [TRUE])))
        return self._where(Expr("or", (defined, otherwise)), result)

    def _element(self, expr: Expr) -> Expr:
        index, choices = self._number(expr.args[0]), [self._number(arg) for arg in expr.args[1:]]
        total: Expr = as_expr(0)
        needed: list[Expr] = []
        count = len(choices)
        for k, choice in enumerate(choices):
            here = isin(index, (k, k - count))
            value, needs = self._total(choice)
            if value.op != "const" or value.value:
                total = total + here * value
            if needs:
                needed.append(Expr("implies", (here, joined("and", needs))))
        low, high, undefined = self._span(index)
        if low < -count or high >= count or self._fraction(index):
            needed.append(isin(index, range(-count, count)))
        elif undefined:
            needed.append(Expr("==", (index, index)))
        return self._where(joined("and", needed), total) if needed else total

    def _where(self, condition: Expr, number: Expr) -> Expr:
        """A number that has a value where a condition holds."""
        return Expr("/" if self._fraction(number) else "//", (number, condition))

    def _bits(self, op: str, a: Expr, b: Expr) -> Expr:
        for operand in (a, b):
            if self._fraction(operand):
                raise ConstrintError(f"the bits of ({operand}) are asked for, which may be other than a whole number")
        if op in ("<<", ">>"):
            low, _, _ = self._span(b)
            if low < 0:
                b = Expr("//", (b, b >= 0))
                power = Expr("**", (as_expr(2), Expr("max", (b, as_expr(0)))))
            else:
                power = Expr("**", (as_expr(2), b))
            return a * power if op == "<<" else a // power
        both = self._and(a, b)
        if op == "bitand":
            return both
        return a + b - (both if op == "bitor" else both * 2)

    def _and(self, a: Expr, b: Expr) -> Expr:
        for x, mask in ((a, b), (b, a)):
            if mask.op == "const":
                return x - self._masked(x, ~mask.value) if mask.value < 0 else self._masked(x, mask.value)
        spans = [self._span(x)[:2] for x in (a, b)]
        widths = [max(int(high).bit_length(), (-int(low) - 1).bit_length() if low < 0 else 0) for low, high in spans]
        if max(widths) > MOST_BITS:
            raise ConstrintError(f"the bits of ({a}) and ({b}) are asked for, which may have more than {MOST_BITS}")
        signed = [low < 0 for low, _ in spans]
        # Above the highest bit of a number that is not negative there are zeros.
        width = max(widths) if all(signed) else min(w for w, s in zip(widths, signed, strict=True) if not s)
        parts = [(a // 2**i % 2) * (b // 2**i % 2) * 2**i for i in range(width)]
        if all(signed):
            parts.append(-((a < 0) * (b < 0) * 2**width))
        return joined("+", parts) if parts else a * 0 + b * 0

    def _masked(self, x: Expr, mask: int) -> Expr:
        """x & mask for a mask that is not negative: each run of ones is a quotient's remainder."""
        parts = []
        place = 0
        while mask >> place:
            if not mask >> place & 1:
                place += 1
                continue
            length = 1
            while mask >> (place + length) & 1:
                length += 1
            part = (x // 2**place if place else x) % 2**length
            parts.append(part * 2**place if place else part)
            place += length
        return joined("+", parts) if parts else x * 0

    def tabulated(self, expr: Expr) -> Expr:
        """A condition as a table over the integers of its variables."""
        names, groups = self.combinations.by_value(expr, MOST_COMBINATIONS)
        if names is None:
            raise _NeedsTable(expr)
        return table_of(names, groups.get(True, []), groups.get(False, []), groups.get(None, []))

    def _fraction(self, expr: Expr) -> bool:
        return self.lowering.number(expr)[1] is not None

    def _span(self, expr: Expr) -> tuple[float, float, int]:
        """Bounds of a number's numerator, which has its sign, and whether it may be undefined."""
        try:
            return self.lowering.interval(self.lowering.number(expr)[0])
        except PowerTooLarge:
            return -math.inf, math.inf, 1

    def _total(self, expr: Expr) -> tuple[Expr, list[Expr]]:
        """An expression that has a value everywhere, and the conditions under which it is that of this one."""
        if expr.op in ("const", "var", "true", "false"):
            return expr, []
        parts = [self._total(arg) for arg in expr.args]
        args = [arg for arg, _ in parts]
        needs = [need for _, needed in parts for need in needed]
        if expr.op in ("//", "cdiv", "/", "%", "divides"):
            place = 0 if expr.op == "divides" else 1
            low, high, _ = self._span(args[place])
            if low <= 0 <= high:
                zero = Expr("==", (args[place], as_expr(0)))
                needs.append(Expr("!=", (args[place], as_expr(0))))
                args[place] = args[place] + zero
        elif expr.op == "**":
            low, high, _ = self._span(args[0])
            if low <= 0 <= high and self._span(args[1])[0] < 0:
                below = args[1] < 0
                zero = Expr("and", (Expr("==", (args[0], as_expr(0))), below))
                needs.append(Expr("not", (zero,)))
                args[0] = args[0] + zero
        total = Expr(expr.op, tuple(args), expr.value, expr.name, expr.rows)
        if expr.is_condition and needs:
            needs = [Expr("or", (expr, Expr("not", (expr,))))]
        return total, needs


def _quoted(expr: Expr) -> str:
    return repr(None if expr.other is NOTHING else expr.other)
