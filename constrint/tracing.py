"""Python functions as restrictions. They are code, and run: only add those that you would call.

A function is called with expressions in place of values, once for each way through it (each ``if``, ``and``, ``or``
and chain asks whether a condition holds, and both answers are followed); what it gives back becomes one condition. It
is then called with values, all combinations where they are few, else a sample, and compared. Where tracing fails or
differs (a function of ``math``, ``int``, a set, ``is``), the function is called for every combination of the variables
that it names, once, and the answers are a table. A function whose answers change, or that does more than answer, is
not for this.
"""

from __future__ import annotations

import dis
import inspect
import math
import random
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Protocol

from constrint import expr as build
from constrint.domains import Domain, size
from constrint.encode import Encoder, table_of
from constrint.errors import ConstrintError
from constrint.evaluate import evaluate_each
from constrint.expr import Expr
from constrint.integers import grouped, shown

MOST_PATHS = 256
"""Ways through a function that tracing follows."""
MOST_CALLS = 1_000_000
"""A function is called for at most so many combinations of values."""
ALL = 2_000
"""At most so many combinations are all compared with what was traced; of more, SAMPLE are drawn."""
SAMPLE = 400


class Declared(Protocol):
    """What declares the variables of a function: a ``constrint.Problem``, which lies above this module."""

    name: str

    @property
    def domains(self) -> Mapping[str, Domain]: ...

    @property
    def encoder(self) -> Encoder: ...

    def values(self, name: str) -> Sequence[Any]: ...


class _Untraceable(Exception):
    pass


class _Path:
    """One way through a function: what was asked, and the answers, of which the first were decided before."""

    def __init__(self, answers: list[bool]) -> None:
        self.answers = answers
        self.asked: list[Expr] = []

    def answer(self, condition: Expr) -> bool:
        place = len(self.asked)
        self.asked.append(condition)
        if place == len(self.answers):
            if place > MOST_PATHS:
                raise _Untraceable
            self.answers.append(True)
        return self.answers[place]


class _Named(Mapping[str, Any]):
    """The mapping that a function of one parameter is called with; remembers which names it was asked for."""

    def __init__(self, values: Mapping[str, Any], asked: dict[str, None]) -> None:
        self.values_, self.asked = values, asked

    def __getitem__(self, name: str) -> Any:
        if name not in self.values_:
            raise KeyError(name)
        self.asked[name] = None
        return self.values_[name]

    def __iter__(self) -> Iterator[str]:
        for name in self.values_:
            self.asked[name] = None
            yield name

    def __len__(self) -> int:
        return len(self.values_)


class Restriction:
    """A Python function over variables of a problem. names: of its parameters, in order; None: it takes one mapping."""

    def __init__(self, function: Callable[..., Any], problem: Declared, names: Sequence[str] | None) -> None:
        self.function, self.problem = function, problem
        self.words = _described(function)
        self.asked: dict[str, None] = {}
        self.names = self._parameters() if names is None else list(names)
        for name in self.names or ():
            if name not in problem.domains:
                known = ", ".join(problem.domains) or "none"
                raise ConstrintError(
                    f"the function {self.words} has a parameter {shown(name)}, which {problem.name!r} does not "
                    f"declare; declared: {known}"
                )

    def _parameters(self) -> list[str] | None:
        try:
            parameters = list(inspect.signature(self.function).parameters.values())
        except (TypeError, ValueError):
            raise ConstrintError(f"the parameters of {self.words} are not known; wrap it in a lambda") from None
        declared = self.problem.domains
        if any(each.kind is each.VAR_POSITIONAL for each in parameters):
            return list(declared)
        if any(each.kind is each.VAR_KEYWORD for each in parameters):
            raise ConstrintError(f"the function {self.words} takes any names; name its parameters")
        needed = [each.name for each in parameters if each.name in declared or each.default is each.empty]
        if len(needed) == 1 and needed[0] not in declared:
            return None
        return needed

    def call(self, values: Mapping[str, Any]) -> Any:
        """What the function answers to values, or expressions, by name."""
        if self.names is None:
            return self.function(_Named(values, self.asked))
        return self.function(*(values[name] for name in self.names))

    def condition(self) -> Expr:
        """The function as a condition. Raises ConstrintError."""
        try:
            traced = None if _asks_what_it_is_given(self.function) else self._traced()
        except Exception:  # whatever the function does with an expression; values have the last word
            traced = None
        if traced is not None and self._agrees(traced):
            return traced
        return self._tabulated()

    def _traced(self) -> Expr:
        variables = {name: build.variable(name) for name in self.problem.domains}
        waiting: list[list[bool]] = [[]]
        parts: list[Expr] = []
        paths = 0
        while waiting:
            paths += 1
            if paths > MOST_PATHS:
                raise _Untraceable
            path = _Path(waiting.pop())
            decided = len(path.answers)
            with build.asking(path.answer), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # int() of what has __trunc__ alone
                found = self.call(variables)
            value = _outcome(found)
            for place in range(decided, len(path.answers)):
                waiting.append([*path.answers[:place], False])
            for asked, answer in zip(reversed(path.asked), reversed(path.answers), strict=True):
                value = Expr("and", (asked if answer else Expr("not", (asked,)), value))
            parts.append(value)
        condition = _halved(parts)
        if condition.depth() > build.MAX_DEPTH:
            raise _Untraceable
        return condition

    def _agrees(self, traced: Expr) -> bool:
        """Whether what was traced and the function say the same of values."""
        names = list(dict.fromkeys([*traced.variables(), *(self.names or self.asked)]))
        values = {name: self.problem.values(name) for name in names}
        combinations = math.prod(size(self.problem.domains[name]) for name in names)
        if combinations <= ALL:
            rows: list[Sequence[Any]] = list(product(*values.values()))
        else:
            rows = list(_sample(list(values.values())))
        truths = []
        # A name that tracing missed gives a KeyError, and so does not agree.
        for row in rows:
            try:
                truths.append(bool(self.call(dict(zip(names, row, strict=True)))))
            except ArithmeticError:
                truths.append(False)
            except Exception:
                return False
        columns = dict(zip(names, zip(*rows, strict=True), strict=True))
        return [value is True for value in evaluate_each(traced, columns, len(rows))] == truths

    def _tabulated(self) -> Expr:
        problem = self.problem
        names = self.names if self.names is not None else self._mentioned()
        names = list(dict.fromkeys(names))
        while True:
            count = math.prod(size(problem.domains[name]) for name in names)
            if count > MOST_CALLS:
                raise ConstrintError(
                    f"the function {self.words} is no arithmetic that could be traced, and its variables "
                    f"({', '.join(names)}) have {grouped(count)} combinations of values; it is called for at most "
                    f"{MOST_CALLS:,}. Write it as an expression, or split it into functions of fewer variables"
                )
            missing, true, false = self._called(names)
            if missing is None:
                return table_of_values(problem, names, true, false)
            names.append(missing)

    def _called(self, names: Sequence[str]) -> tuple[str | None, list[tuple[int, ...]], list[tuple[int, ...]]]:
        """The combinations of integers that the function is true of, and those that it is not; first, instead of them,
        a variable that it asks for and that is not among ``names``."""
        true: list[tuple[int, ...]] = []
        false: list[tuple[int, ...]] = []
        for codes, values in self.problem.encoder.rows(names):
            assignment = dict(zip(names, values, strict=True))
            try:
                answer = bool(self.call(assignment))
            except ArithmeticError:
                answer = False
            except Exception as error:
                missing = error.args[0] if isinstance(error, KeyError) and error.args else None
                if self.names is None and missing in self.problem.domains and missing not in names:
                    return missing, [], []
                raise ConstrintError(
                    f"the function {self.words} failed at {shown(assignment)}: {type(error).__name__}: {error}"
                ) from error
            (true if answer else false).append(codes)
        return None, true, false

    def _mentioned(self) -> list[str]:
        """The variables that a function of one mapping names in its text."""
        constants: set[object] = set()
        waiting = [getattr(self.function, "__code__", None)]
        while waiting:
            code = waiting.pop()
            for constant in code.co_consts if code is not None else ():
                if isinstance(constant, types.CodeType):
                    waiting.append(constant)
                elif isinstance(constant, str):
                    constants.add(constant)
        return [name for name in self.problem.domains if name in constants or name in self.asked]


def restriction_of(
    function: Callable[..., Any], problem: Declared, names: Sequence[str] | None = None
) -> tuple[Expr, str]:
    """A Python function as a condition over a problem's variables, and the words it is known by.

    names: of its parameters, where they are not those of the variables. Raises ConstrintError for parameters that are
    no variables, for a function that fails, and for one that would have to be called too often.
    """
    restriction = Restriction(function, problem, names)
    return restriction.condition(), restriction.words


def table_of_values(
    problem: Declared, names: Sequence[str], true: Sequence[tuple[int, ...]], false: Sequence[tuple[int, ...]]
) -> Expr:
    """Combinations of integers that hold, as a condition over the variables' values."""
    condition = table_of(names, true, false)
    return decoded(problem, condition)


def decoded(problem: Declared, condition: Expr) -> Expr:
    """A table over the integers of variables as one over their values."""
    if condition.op == "not":
        return Expr("not", (decoded(problem, condition.args[0]),))
    codings = problem.encoder.codings
    if condition.op != "table" or not any(column.name in codings for column in condition.args):
        return condition
    values = [codings[c.name].value if c.name in codings else None for c in condition.args]
    rows = [
        tuple(x if value is None else value[x] for x, value in zip(row, values, strict=True)) for row in condition.rows
    ]
    return build.table(condition.args, rows)


def _sample(values: Sequence[Sequence[Any]]) -> Iterator[list[Any]]:
    """Combinations of values drawn at random; every value of each variable is in one, of many SAMPLE."""
    rng = random.Random(0)
    for place, own in enumerate(values):
        for value in own if len(own) <= SAMPLE else (own[rng.randrange(len(own))] for _ in range(SAMPLE)):
            yield [value if i == place else each[rng.randrange(len(each))] for i, each in enumerate(values)]
    for _ in range(SAMPLE):
        yield [each[rng.randrange(len(each))] for each in values]


_IDENTITY = frozenset(code for name, code in dis.opmap.items() if name == "IS_OP" or name.endswith("NONE"))
_KINDS = frozenset(("isinstance", "type", "id", "callable", "hasattr", "getattr", "repr", "str", "format"))


def _asks_what_it_is_given(function: Callable[..., Any]) -> bool:
    """Whether a function tells an expression from a value: by ``is``, or by its type or text."""
    waiting = [getattr(function, "__code__", None)]
    while waiting:
        code = waiting.pop()
        if code is None:
            continue
        if _KINDS & set(code.co_names):
            return True
        # Every other byte is an operator, or 0.
        if not _IDENTITY.isdisjoint(code.co_code[::2]):
            return True
        waiting += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return False


def _outcome(found: object) -> Expr:
    if isinstance(found, Expr):
        return found if found.is_condition else found != 0
    return build.as_expr(bool(found))


def _halved(parts: Sequence[Expr]) -> Expr:
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return Expr("or", (_halved(parts[:middle]), _halved(parts[middle:])))


def _described(function: Callable[..., Any]) -> str:
    """The words a function is known by: its name, or the text of a lambda."""
    name = getattr(function, "__name__", type(function).__name__)
    if name != "<lambda>":
        return f"{name}()"
    try:
        text = " ".join(inspect.getsource(function).split())
    except (OSError, TypeError):
        return "a lambda"
    start = text.find("lambda")
    return _closed(text[start:]) if start >= 0 and text.count("lambda") == 1 else "a lambda"


def _closed(text: str) -> str:
    """The text of a lambda up to the bracket or comma that ends it."""
    depth = 0
    body = False
    for place, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        body = body or (character == ":" and depth == 0)
        if depth < 0 or (character == "," and depth == 0 and body):
            return text[:place].strip()
    return text.strip()
