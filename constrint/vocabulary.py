"""Words that restrictions may use beside variables: numbers and functions that somebody else knows, and definitions.

constrint knows what no number of them means. Who reads a problem hands them in: a GPU's limits, a cache's sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from constrint.expr import Expr, as_expr
from constrint.operators import minimum


@dataclass(frozen=True)
class Function:
    """A function whose value is the least of several numbers, such as how often something fits by each of some limits.

    parameters: their names. parts: of the arguments, in that order, each number, by the words that ``explain`` says
    of it.
    """

    parameters: tuple[str, ...]
    parts: Callable[..., Mapping[str, Expr]]


@dataclass(frozen=True)
class Vocabulary:
    """source: whose words these are, as messages say it. A variable of the same name as a word is what is meant."""

    source: str = ""
    numbers: Mapping[str, int] = field(default_factory=dict)
    functions: Mapping[str, Function] = field(default_factory=dict)
    definitions: Mapping[str, Expr] = field(default_factory=dict)

    def names(self) -> list[str]:
        """What may stand where a variable may."""
        return [*self.definitions, *self.numbers]

    def listed(self) -> str:
        """The names, for a message; empty where there are none."""
        own = f"; defined: {', '.join(self.definitions)}" if self.definitions else ""
        return own + (f"; numbers of {self.source}: {', '.join(self.numbers)}" if self.numbers else "")


NONE = Vocabulary()


@dataclass
class Reading:
    """The words of a vocabulary that one text uses. used: numbers. calls: what each call of a function became, and its
    parts."""

    vocabulary: Vocabulary
    used: dict[str, int] = field(default_factory=dict)
    calls: list[tuple[Expr, Mapping[str, Expr]]] = field(default_factory=list)

    def word(self, name: str) -> Expr | None:
        """A definition or a number; None where there is none of that name."""
        if name in self.vocabulary.definitions:
            return self.vocabulary.definitions[name]
        if name not in self.vocabulary.numbers:
            return None
        self.used[name] = self.vocabulary.numbers[name]
        return as_expr(self.used[name])

    def call(self, function: Function, arguments: list[Expr]) -> Expr:
        """What a call becomes."""
        parts = function.parts(*arguments)
        value = as_expr(minimum(*parts.values()))
        self.calls.append((value, parts))
        return value

    def constraints(self, condition: Expr, text: str) -> list[tuple[Expr, str]]:
        """The condition that was read, with words for it: the text and the numbers used.

        Where a call is required to be large (``f(x) >= 2``), each of its parts is a constraint of its own, so that
        ``explain`` names the one that clashes.
        """
        apart: list[tuple[Expr, str]] = []
        whole: list[Expr] = []
        for part in _conjuncts(condition):
            by = self._by_part(part)
            apart += [(each, self._label(text, [words])) for words, each in by.items()]
            whole += [] if by else [part]
        if not apart:
            return [(condition, self._label(text))]
        joined = whole[:1]
        for part in whole[1:]:
            joined = [Expr("and", (joined[0], part))]
        return [*((part, self._label(text)) for part in joined), *apart]

    def _label(self, text: str, words: list[str] | None = None) -> str:
        said = [*(words or ()), *(f"{name} = {value:,}" for name, value in self.used.items())]
        return f"{text} [{self.vocabulary.source}: {', '.join(said)}]" if said else text

    def _by_part(self, condition: Expr) -> dict[str, Expr]:
        """The conditions that ``call >= number`` is, by words; empty for anything else."""
        if len(condition.args) != 2:
            return {}
        left, right = condition.args
        for call, parts in self.calls:
            if len(parts) > 1 and condition.op in (">=", ">") and left is call:
                return {words: Expr(condition.op, (part, right)) for words, part in parts.items()}
            if len(parts) > 1 and condition.op in ("<=", "<") and right is call:
                return {words: Expr(condition.op, (left, part)) for words, part in parts.items()}
        return {}


def _conjuncts(condition: Expr) -> list[Expr]:
    if condition.op != "and":
        return [condition]
    return [part for arg in condition.args for part in _conjuncts(arg)]
