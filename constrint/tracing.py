"""Python functions as restrictions. They are code, and run: only add those that you would call.

A function is called with expressions in place of values, once for each way through it (each ``if``, ``and``, ``or``
and chain asks whether a condition holds, and both answers are followed); what it gives back becomes one condition.
Where its code is arithmetic of whole numbers (``constrint.bytecode``), that is a proof. Otherwise it is then called
with values, all combinations where they are few, else a sample, and compared. Where tracing fails or differs (a
function of ``math``, a set, ``is``), the function is called for every combination of the variables
that it names, once, and the answers are a table. A function whose answers change, or that does more than answer, is
not for this.
"""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Protocol

from constrint import expr as build
from constrint import operators
from constrint.bytecode import asks_what_it_is_given, is_arithmetic, lambda_text, texts
from constrint.domains import Domain, size
from constrint.encode import Encoder
from constrint.errors import ConstrintError
from constrint.evaluate import evaluate_each
from constrint.expr import COMPARISONS, Expr
from constrint.integers import grouped, shown
from constrint.paths import Facts, follow
from constrint.tabulate import table_of

MOST_CALLS = 1_000_000
"""A function is called for at most so many combinations of values."""
ALL = 2_000
"""At most so many combinations are all compared with what was traced; of more, SAMPLE are drawn."""
SAMPLE = 400
_WHOLE = COMPARISONS | frozenset(
    {"and", "or", "not", "true", "false", "const", "var", "+", "-", "*", "//", "%", "neg", "abs", "int", "min", "max"}
)
"""Operators of which Python's whole numbers and expressions say the same."""


class Declared(Protocol):
    """What declares the variables of a function: a ``constrint.Problem``, which lies above this module."""

    name: str

    @property
    def domains(self) -> Mapping[str, Domain]: ...

    @property
    def encoder(self) -> Encoder: ...

    def values(self, name: str) -> Sequence[Any]: ...


class _Named(Mapping[str, Any]):
    """The mapping of expressions that a function of one parameter is called with; remembers which names it was asked
    for."""

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


class _Row(dict[str, Any]):
    """The mapping of values that a function of one parameter is called with. rest: declared names that it lacks.
    wanted: takes those that it is asked for; looking at all of it asks for all."""

    def __init__(self, values: Iterable[tuple[str, Any]], rest: Collection[str], wanted: dict[str, None]) -> None:
        super().__init__(values)
        self.rest, self.wanted = rest, wanted

    def __missing__(self, name: str) -> Any:
        self._want(name)
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or self._want(name)

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name, default) if name in self else default

    def __iter__(self) -> Iterator[str]:
        self.wanted.update(dict.fromkeys(self.rest))
        return super().__iter__()

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def keys(self) -> Any:
        return list(self)

    def values(self) -> Any:
        return [self[name] for name in self]

    def items(self) -> Any:
        return [(name, self[name]) for name in self]

    def _want(self, name: object) -> bool:
        if name in self.rest:
            self.wanted[str(name)] = None
        return False


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

    def _of(self, names: list[str], wanted: dict[str, None]) -> Callable[[Sequence[Any]], Any]:
        """The function of the values of some variables, in their order. wanted: takes the others that it asks for."""
        function = self.function
        if self.names is None:
            rest = [name for name in self.problem.domains if name not in names]
            if not rest:
                return lambda row: function(dict(zip(names, row, strict=True)))
            return lambda row: function(_Row(zip(names, row, strict=True), rest, wanted))
        if self.names == names:
            return lambda row: function(*row)
        places = [names.index(name) for name in self.names]
        return lambda row: function(*(row[place] for place in places))

    def condition(self) -> Expr:
        """The function as a condition. Raises ConstrintError."""
        try:
            traced = None if asks_what_it_is_given(self.function) else self._traced()
        except Exception:  # whatever the function does with an expression; values have the last word
            traced = None
        if traced is not None and (self._is_proof(traced) or self._agrees(traced)):
            return traced
        return self._tabulated()

    def _traced(self) -> Expr:
        variables = {name: build.variable(name) for name in self.problem.domains}
        values = {name: self.problem.values(name) for name in variables}
        codings = self.problem.encoder.codings
        facts = Facts(
            numbers=[name for name in values if name not in codings or not codings[name].mixed],
            not_zero=[name for name, own in values.items() if 0 not in own],
        )
        if self.names is None:
            return follow(self.function, [_Named(variables, self.asked)], facts)
        return follow(self.function, [variables[name] for name in self.names], facts)

    def _is_proof(self, traced: Expr) -> bool:
        """Whether the function can only say of values what was traced: all is arithmetic of whole numbers."""
        if not is_arithmetic(self.function, self.problem.domains):
            return False
        for name in self.names if self.names is not None else self.asked:
            values = self.problem.values(name)
            if not isinstance(values, range) and set(map(type, values)) != {int}:
                return False
        waiting = [traced]
        while waiting:
            node = waiting.pop()
            if node.op not in _WHOLE:
                return False
            waiting.extend(node.args)
        return True

    def _agrees(self, traced: Expr) -> bool:
        """Whether what was traced and the function say the same of values."""
        names = list(dict.fromkeys([*(self.names or ()), *traced.variables(), *self.asked]))
        values = [self.problem.values(name) for name in names]
        if math.prod(size(self.problem.domains[name]) for name in names) <= ALL:
            rows: list[Sequence[Any]] = list(product(*values))
        else:
            rows = list(_sample(values))
        wanted: dict[str, None] = {}
        function = self._of(names, wanted)
        truths = []
        for row in rows:
            try:
                truths.append(bool(function(row)))
            except ArithmeticError:
                truths.append(False)
            except Exception:
                return False
            if wanted:
                return False
        columns = dict(zip(names, zip(*rows, strict=True), strict=True))
        return [value is True for value in evaluate_each(traced, columns, len(rows))] == truths

    def _tabulated(self) -> Expr:
        problem = self.problem
        names = list(dict.fromkeys(self.names if self.names is not None else self._mentioned()))
        while True:
            count = math.prod(size(problem.domains[name]) for name in names)
            if count > MOST_CALLS:
                raise ConstrintError(
                    f"the function {self.words} is no arithmetic that could be traced, and its variables "
                    f"({', '.join(names)}) have {grouped(count)} combinations of values; it is called for at most "
                    f"{MOST_CALLS:,}. Write it as an expression, or split it into functions of fewer variables"
                )
            wanted, true, false = self._called(names)
            if not wanted:
                return table_of_values(problem, names, true, false)
            names += wanted

    def _called(self, names: list[str]) -> tuple[list[str], list[tuple[int, ...]], list[tuple[int, ...]]]:
        """The combinations of integers that the function is true of, and those that it is not; first, instead of them,
        variables that it asks for and that are not among ``names``."""
        true: list[tuple[int, ...]] = []
        false: list[tuple[int, ...]] = []
        wanted: dict[str, None] = {}
        function = self._of(names, wanted)
        for codes, values in self.problem.encoder.combinations.rows(names):
            try:
                answer = bool(function(values))
            except ArithmeticError:
                answer = False
            except Exception as error:
                if not wanted:
                    row = shown(dict(zip(names, values, strict=True))) if names else "what it is given"
                    raise ConstrintError(
                        f"the function {self.words} failed at {row}: {type(error).__name__}: {error}{self._hint()}"
                    ) from error
            if wanted:
                return list(wanted), [], []
            (true if answer else false).append(codes)
        return [], true, false

    def _hint(self) -> str:
        """What a function of one mapping is given."""
        known = ", ".join(self.problem.domains)
        return "" if self.names is not None else f"; its parameter is no variable, but a mapping of them all: {known}"

    def _mentioned(self) -> list[str]:
        """The variables that a function of one mapping names in its text."""
        constants = texts(self.function)
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
    return operators.table(condition.args, rows)


def _sample(values: Sequence[Sequence[Any]]) -> Iterator[list[Any]]:
    """Combinations of values drawn at random; every value of each variable is in one, of many SAMPLE."""
    rng = random.Random(0)
    for place, own in enumerate(values):
        for value in own if len(own) <= SAMPLE else (own[rng.randrange(len(own))] for _ in range(SAMPLE)):
            yield [value if i == place else each[rng.randrange(len(each))] for i, each in enumerate(values)]
    for _ in range(SAMPLE):
        yield [each[rng.randrange(len(each))] for each in values]


def _described(function: Callable[..., Any]) -> str:
    """The words a function is known by: its name, or the text of a lambda."""
    name = getattr(function, "__name__", type(function).__name__)
    if name != "<lambda>":
        return f"{name}()"
    return lambda_text(function) or "a lambda"
