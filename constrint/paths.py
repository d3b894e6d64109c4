"""Calling a Python function with expressions, once for each way through it, and what it says as one condition."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from constrint import expr as build
from constrint.expr import COMPARISONS, Expr

MOST_PATHS = 256
"""Ways through a function that are followed."""
_TRUE, _FALSE = Expr("true"), Expr("false")
_EQUAL = frozenset({"==", "!=", "and", "or", "not", "true", "false", "const", "var", "value"})
_TOTAL = COMPARISONS | _EQUAL | frozenset({"+", "-", "*", "neg", "abs", "min", "max", "int"})
_DIVISIONS = frozenset({"//", "%", "/"})


class Untraceable(Exception):
    """A function of too many ways."""


class Facts:
    """What is known of variables that a function is called with. numbers: those all of whose values are numbers.
    not_zero: those that are never 0."""

    def __init__(self, numbers: Iterable[str], not_zero: Iterable[str]) -> None:
        self._numbers, self._not_zero = frozenset(numbers), frozenset(not_zero)

    def is_number(self, value: Expr) -> bool:
        """Whether an expression holds nothing but numbers."""
        return value.op != "value" and self._numbers.issuperset(value.variables())

    def never_zero(self, number: Expr) -> bool:
        """Whether a divisor is surely other than 0; of a product, each factor."""
        if number.op == "var":
            return number.name in self._not_zero
        return (
            number.value != 0 if number.op == "const" else number.op == "*" and all(map(self.never_zero, number.args))
        )

    def is_total(self, value: Expr) -> bool:
        """Whether an expression surely has a value."""
        known = _TOTAL if self.is_number(value) else _EQUAL
        waiting = [value]
        while waiting:
            node = waiting.pop()
            if node.op not in known and not (node.op in _DIVISIONS and self.never_zero(node.args[1])):
                return False
            waiting.extend(node.args)
        return True


class _Path:
    """One way through a function: what was asked, the answers, of which the first were decided before, what was divided
    by, and in the end the value: the condition under which this way comes to true."""

    def __init__(self, answers: list[bool]) -> None:
        self.answers = answers
        self.asked: list[Expr] = []
        self.divisors: list[Expr] = []
        self.value = _TRUE

    def answer(self, condition: Expr) -> bool:
        place = len(self.asked)
        self.asked.append(condition)
        if place == len(self.answers):
            if place > MOST_PATHS:
                raise Untraceable
            self.answers.append(True)
        return self.answers[place]

    def divided(self, divisor: Expr) -> None:
        self.divisors.append(divisor)

    def end(self, found: object, facts: Facts) -> None:
        """Take what the function gave back."""
        self.value = self._outcome(found)
        for divisor in self.divisors:  # whatever became of what was divided
            if self.value.op != "false" and not facts.never_zero(divisor):
                self.value = Expr("and", (divisor != 0, self.value))

    def _outcome(self, found: object) -> Expr:
        if not isinstance(found, Expr):
            return build.as_expr(bool(found))
        for asked, answer in zip(self.asked, self.answers, strict=True):
            if asked is found or (asked.op == "!=" and asked.args[0] is found and _is_zero(asked.args[1])):
                return build.as_expr(answer)
        return found if found.is_condition else found != 0


def follow(function: Callable[..., Any], arguments: Sequence[Any], facts: Facts) -> Expr:
    """The condition that a function of expressions comes to; it holds where Python finds the function true of values,
    as far as their arithmetic is that of expressions, and nowhere else (where it does not, it may have no value).
    Raises Untraceable, and whatever the function raises."""
    function = _with_stand_ins(function, facts)
    waiting: list[list[bool]] = [[]]
    paths: list[_Path] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what a function compares
        while waiting:
            if len(paths) == MOST_PATHS:
                raise Untraceable
            path = _Path(waiting.pop())
            decided = len(path.answers)
            with build.followed(path):
                found = function(*arguments)
            path.end(found, facts)
            paths.append(path)
            waiting += [[*path.answers[:place], False] for place in range(decided, len(path.answers))]
    condition = _joined(paths, 0, facts)
    if condition.depth() > build.MAX_DEPTH:
        raise Untraceable
    return condition


def _joined(paths: Sequence[_Path], place: int, facts: Facts) -> Expr:
    """The condition of paths that differ from an answer on."""
    if len(paths) == 1:
        value = paths[0].value
        for asked, answer in zip(reversed(paths[0].asked[place:]), reversed(paths[0].answers[place:]), strict=True):
            value = _both(asked if answer else Expr("not", (asked,)), value)
        return value
    asked = paths[0].asked[place]
    yes = _joined([path for path in paths if path.answers[place]], place + 1, facts)
    no = _joined([path for path in paths if not path.answers[place]], place + 1, facts)
    if no.op == "false":
        return _both(asked, yes)
    if yes.op == "false":
        return _both(Expr("not", (asked,)), no)
    if yes.op == "true" and facts.is_total(asked):
        return Expr("or", (asked, no))
    if no.op == "true" and facts.is_total(asked):
        return Expr("or", (Expr("not", (asked,)), yes))
    return Expr("or", (_both(asked, yes), _both(Expr("not", (asked,)), no)))


def _both(condition: Expr, value: Expr) -> Expr:
    if value.op == "true":
        return condition
    return value if value.op == "false" else Expr("and", (condition, value))


def _is_zero(number: Expr) -> bool:
    return number.op == "const" and number.value == 0


def _with_stand_ins(function: Callable[..., Any], facts: Facts) -> Callable[..., Any]:
    """A function whose conversions and extremes take expressions, too."""
    if not isinstance(function, types.FunctionType):
        return function
    known = {"int": _int, "float": _float, "min": _extreme(min, "min", facts), "max": _extreme(max, "max", facts)}
    wanted = {name: known[name] for name in function.__code__.co_names if name in known}
    if not wanted or not function.__globals__.keys().isdisjoint(wanted):
        return function
    scope = {**function.__globals__, **wanted}
    made = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def _int(*given: Any) -> Any:
    return Expr("int", given) if len(given) == 1 and isinstance(given[0], Expr) else int(*given)


def _float(*given: Any) -> Any:
    return given[0] if len(given) == 1 and isinstance(given[0], Expr) else float(*given)


def _extreme(function: Callable[..., Any], op: str, facts: Facts) -> Callable[..., Any]:
    """min or max: of numbers one expression, and not a way for each order of them."""

    def extreme(*given: Any, **more: Any) -> Any:
        values = list(given[0]) if len(given) == 1 and not isinstance(given[0], Expr) else given
        numbers = [build.as_expr(value) for value in values] if not more and len(values) > 1 else []
        if any(isinstance(value, Expr) for value in values) and numbers and all(map(facts.is_number, numbers)):
            return Expr(op, tuple(numbers))
        return function(values, **more) if len(given) == 1 else function(*given, **more)

    return extreme
