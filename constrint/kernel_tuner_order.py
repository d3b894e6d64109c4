"""The order in which Kernel Tuner's default solver lists configurations.

It decides the parameters one after another, those that more constraints name first, of these those with fewer values
left, else as given; and of each the last value first. So its list is in lexicographic order of the parameters in that
order, and what has to be known is what it takes for one constraint: text that compares more than once is several,
lambdas are their text, functions name every parameter, and what names one parameter only takes values from it, as do
sums and products with a limit. (python-constraint 2.9, as Kernel Tuner 1.5 calls it.)
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import mul
from typing import Any

from constrint.bytecode import lambda_text
from constrint.errors import ConstrintError
from constrint.foreign import TOTALS, add_foreign
from constrint.model import Problem
from constrint.value_text import NoValue, read_values

_NAME = re.compile(r"[a-zA-Z_$][a-zA-Z_$0-9]*")
_COMPARED = re.compile(r"<=|>=|==|>|<")
_CHAINED = re.compile(r"<=|>=|>|<")
_OPERATOR = re.compile(r"(?<!\*)\*\*|(?<=[\w)])-|[+*/]")
_MIRRORED = {"<=": ">=", ">=": "<=", "<": ">", ">": "<", "==": "=="}
_NUMBERS = (int, float)
Values = dict[str, list[Any]]


@dataclass(frozen=True)
class Part:
    """One constraint as that solver has it: the parameters it names, and the text or the object, if it is one."""

    names: Sequence[str]
    text: str = ""
    object: Any = None


@dataclass(frozen=True)
class Total:
    """A sum, or a product, of parameters compared with a limit: a number or a parameter."""

    names: Sequence[str]
    product: bool
    comparison: str
    limit: Any
    factors: Sequence[Any] = ()


def listing_order(values: Mapping[str, Sequence[Any]], restrictions: Iterable[Any], threads: Part | None) -> list[int]:
    """The places of the parameters, the most significant first; each counts down from its last value.

    values: of each parameter. threads: the limit on the threads of a block, which is a constraint like others.
    """
    parts = sorted(_parts(list(values), restrictions), key=lambda part: bool(part.text))  # text comes last there
    if threads is not None:
        parts.insert(sum(not part.text for part in parts), threads)
    counts = dict.fromkeys(values, 0)
    for part in parts:
        if len(part.names) > 1 and not _is_membership(part.object):
            for name in part.names:
                counts[name] += 1
    sizes = {name: len(left) for name, left in _pruned(values, parts).items()}
    names = list(values)
    weights = [(-counts[name], sizes[name]) for name in names]
    return sorted(range(len(names)), key=weights.__getitem__)


def block_limit(names: Sequence[str], threads: int) -> Part:
    """The limit on the product of these parameters, the sizes of a block."""
    return Part(names, object=Total(names, True, "<=", threads))


def _parts(names: Sequence[str], restrictions: Iterable[Any]) -> Iterator[Part]:
    for restriction in restrictions:
        named: Sequence[str] = names
        if isinstance(restriction, tuple | list) and 2 <= len(restriction) <= 3:
            restriction, named = restriction[0], [name for name in names if name in restriction[1]]
        if getattr(restriction, "__name__", "") == "<lambda>":
            restriction = _body(restriction) or restriction
        if not isinstance(restriction, str):
            yield Part(named, object=restriction)
            continue
        for text in _divided(restriction):
            own = set(_NAME.findall(text))
            found = [name for name in names if name in own]
            yield Part(found or names, text if found else "True")


def _body(function: Callable[..., Any]) -> str | None:
    """What a lambda gives back, as text of the parameters' names; None where its text is not known."""
    text = lambda_text(function)
    if text is None:
        return None
    try:
        made = ast.parse(text, mode="eval").body
    except SyntaxError:
        return None
    if not isinstance(made, ast.Lambda) or not made.args.args:
        return None
    # Of what ``and`` or ``or`` joins only the names count, not how it is written.
    body = _segment(text, made.body) if isinstance(made.body, ast.BoolOp) else ast.unparse(made.body)
    mapping = re.escape(made.args.args[0].arg)
    return re.sub(rf"\b{mapping}\[\s*(['\"])(.*?)\1\s*\]", r"\2", body)


def _segment(line: str, node: ast.expr) -> str:
    """The text of a node in one line."""
    return line.encode()[node.col_offset : node.end_col_offset].decode()


def _divided(text: str) -> list[str]:
    """A restriction in parts of one comparison each, where it is a chain of them."""
    places = [match.span() for match in _CHAINED.finditer(text)]
    if " and " in text or " or " in text or len(places) < 2:
        return [text.strip()]
    starts = [0] + [stop for _, stop in places[:-1]]
    stops = [start for start, _ in places[1:]] + [len(text)]
    return [text[start:stop].strip() for start, stop in zip(starts, stops, strict=True)]


def _is_membership(constraint: object) -> bool:
    return constraint is not None and type(constraint).__name__ in ("InSetConstraint", "NotInSetConstraint")


def _pruned(values: Mapping[str, Sequence[Any]], parts: Iterable[Part]) -> Values:
    """The values that are left of each parameter before that solver begins to search."""
    left = {name: list(own) for name, own in values.items()}
    numbers = {name for name, own in values.items() if all(issubclass(kind, _NUMBERS) for kind in set(map(type, own)))}
    for part in parts:
        if len(part.names) == 1 or _is_membership(part.object):
            for name in part.names:
                left[name] = _satisfying(name, left[name], part)
            continue
        total = _total(part, numbers)
        if total is not None and all(left.values()):
            (_prune_product if total.product and not isinstance(total.limit, str) else _prune)(left, total)
    return left


def _satisfying(name: str, values: Sequence[Any], part: Part) -> list[Any]:
    """The values of a parameter with which a constraint on it alone holds; all where that cannot be said."""
    total = part.object
    if isinstance(total, Total):
        return [value for value in values if value <= total.limit]
    problem = Problem()
    try:
        problem.variable(name, values)
        add_foreign(problem, part.text or (part.object, [name]))
        kept = {value for (value,) in problem.solution_set().tuples()}
        return [value for value in values if value in kept]
    except ConstrintError:
        return list(values)


def _total(part: Part, numbers: set[str]) -> Total | None:
    """The sum or product that a constraint limits, if it does. numbers: the parameters that have no other values."""
    if isinstance(part.object, Total):
        return part.object
    kind = type(part.object).__name__
    if kind in TOTALS:
        attribute, comparison, join = TOTALS[kind]
        factors = getattr(part.object, "_multipliers", None) or ()
        return Total(part.names, join is mul, comparison, getattr(part.object, attribute), factors)
    names = set(part.names)
    return _total_of_text(part.text, names) if part.text and names <= numbers else None


def _total_of_text(text: str, names: set[str]) -> Total | None:
    """As that solver reads it: every parameter once on one side, by one operator; anything else is a function to it."""
    comparisons = _COMPARED.findall(text)
    if len(comparisons) != 1 or " and " in text or " or " in text:
        return None
    comparison = comparisons[0]
    if text[0] == "(" and text[-1] == ")" and text.count("(") == 1:
        text = text[1:-1]
    left, right = map(str.strip, text.split(comparison))
    used = [set(_OPERATOR.findall(side.replace(" ", ""))) for side in (left, right)]
    if used[0] and used[1]:
        return None
    for operator, inverse in (("-", "+"), ("/", "*")):
        if used[0] | used[1] == {operator}:  # what is taken away goes to the other side
            head, *rest = (left if used[0] else right).split(operator)
            joined = inverse.join([right if used[0] else left, *rest])
            left, right = (head.strip(), joined) if used[0] else (joined, head.strip())
    first, second = [None if names.intersection(_NAME.findall(side)) else _number(side) for side in (left, right)]
    if (first is None) == (second is None):
        return _total_below_parameter(left, comparison, right, names)
    side = left if first is None else right
    number: Any = second if first is None else first
    comparison = comparison if first is None else _MIRRORED[comparison]
    for operator in "*+":
        terms = list(map(str.strip, side.split(operator)))
        if set(terms) == names and len(terms) == len(names):
            strict = {"<": -1e-12, ">": 1e-12}.get(comparison, 0)
            return Total(terms, operator == "*", comparison if not strict else comparison + "=", number + strict)
    return None


def _total_below_parameter(left: str, comparison: str, right: str, names: set[str]) -> Total | None:
    """A sum or product compared with a parameter; the single parameter is the first where both sides are one."""
    if comparison in "<>" or re.search(r"\d", left + right):
        return None
    on_left = bool(_OPERATOR.search(left))
    side, limit = (left, right) if on_left else (right, left)
    terms, operators = _NAME.findall(side), set(re.findall(r"[+*]", side))
    if not terms or len(operators) > 1 or limit not in names or not set(terms) <= names:
        return None
    return Total(terms, operators == {"*"}, comparison if on_left else _MIRRORED[comparison], limit)


def _number(text: str) -> Any:
    if text.isdecimal():
        return int(text)
    try:
        value = read_values(text)
    except NoValue:
        return None
    return value if isinstance(value, int | float) else None


def _prune(left: Values, total: Total) -> None:
    """Take away values that reach the limit with none of the others' least and greatest."""
    factors = dict(zip(total.names, total.factors or [1] * len(total.names), strict=True))
    ends = {name: _ends([value * factors[name] for value in left[name]]) for name in total.names}
    low, high = _ends(left[total.limit]) if isinstance(total.limit, str) else (total.limit, total.limit)
    for name in total.names:
        others = [ends[other] for other in total.names if other != name]
        kept = []
        for value in left[name]:
            reach = _reach(total.product, value * factors[name], others)
            if not (total.comparison in ("<=", "==") and reach[0] > high) and not (
                total.comparison in (">=", "==") and reach[1] < low
            ):
                kept.append(value)
        left[name][:] = kept
        if isinstance(total.limit, str) and kept:  # that solver looks again
            ends[name] = _ends([value * factors[name] for value in kept])


def _reach(product: bool, value: Any, others: Sequence[tuple[Any, Any]]) -> tuple[Any, Any]:
    """The least and the greatest of a value with the others."""
    if not product:
        return value + sum(low for low, _ in others), value + sum(high for _, high in others)
    low, high = 1, 1
    for ends in others:
        corners = [a * b for a in (low, high) for b in ends]
        low, high = min(corners), max(corners)
    return _ends([value * low, value * high])


def _prune_product(left: Values, total: Total) -> None:
    """Of a product with a number: values beyond it, where others only multiply, and zeros that cannot be."""
    limit, names = total.limit, list(total.names)
    zeros = {"<=": limit < 0, ">=": limit > 0, "==": limit != 0}[total.comparison]
    if total.comparison != ">=":
        below = [name for name in names if min(left[name]) < 1]
        if len(below) > 1:
            return
        names = below or names
    for name in names:
        largest = math.inf if total.comparison == ">=" else limit
        left[name][:] = [value for value in left[name] if value <= largest and not (zeros and value == 0)]


def _ends(values: Sequence[Any]) -> tuple[Any, Any]:
    return min(values), max(values)
