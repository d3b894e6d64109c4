"""What every engine can be asked, and what the parts of ours offer each other, for the type checker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from constrint.expr import Expr
from constrint.presolve import Prepared
from constrint.program import Code
from constrint.result import Answer
from constrint.statement import Solution


class EngineCall(Protocol):
    """The calls of one engine for one problem. order: every variable, and whether its largest value comes first; of
    ``first`` and ``best`` it may be empty: any solution, any of the best. prepared: what presolve made of the problem
    (and the objective, negated where it is maximised) for the next ``first`` or ``best``, if somebody else did it."""

    prepared: Prepared | None

    def first(self, order: Mapping[str, bool], time_limit: float | None) -> Answer: ...

    def find_conflict(self, chosen: Iterable[int], time_limit: float | None) -> Solution | frozenset[int]: ...

    def best(self, objective: Expr, sign: int, order: Mapping[str, bool], time_limit: float | None) -> Answer: ...

    def solutions(self, order: Mapping[str, bool]) -> Iterator[Solution]: ...

    def count(self, time_limit: float | None) -> int: ...


class Search(Protocol):
    """The search over one program; see ``constrint.search.PythonSearch``."""

    def solutions(
        self, order: Sequence[int], descending: Sequence[bool], deadline: float | None = None
    ) -> Iterator[list[int]]: ...

    def count(self, order: Sequence[int], deadline: float | None = None) -> int: ...

    def probe(
        self, order: Sequence[int], rows: Iterable[Sequence[float]], deadline: float | None = None
    ) -> Iterator[tuple[list[int], list[int]]]: ...

    def best(
        self, order: Sequence[int], descending: Sequence[bool], bounded: Code, deadline: float | None = None
    ) -> tuple[int | None, list[int] | None, bool]: ...


class Prover(Protocol):
    """The search for one solution of one program; see ``constrint.prove.PythonProver``."""

    def any(self, deadline: float | None = None) -> list[int] | None: ...

    def first(self, deadline: float | None = None) -> list[int] | None: ...

    def conflict(self) -> int: ...

    weight: list[float]
