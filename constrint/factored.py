"""Solution sets in factored form: counted, indexed, sampled and listed without ever multiplying out.

Variables that no constraint joins are factors of their own; those that constraints join form a group, held as a
diagram (``constrint.diagram``). The set is the product of its factors.
"""

from __future__ import annotations

import operator
import random
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, product
from math import prod
from typing import TYPE_CHECKING, Any, overload

from constrint.core import has_core, load_core
from constrint.diagram import Diagram, from_rows
from constrint.domains import Domain, size
from constrint.engine import ENGINES, NATIVE, engine_call
from constrint.errors import ConstrintError, TimeLimit
from constrint.factor import (
    PATIENT,
    QUICK,
    DoesNotFactor,
    Factor,
    Values,
    at_once,
    free_factor,
    independent,
    make_factor,
)
from constrint.integers import exact_int, grouped, shown, whole
from constrint.limits import check_time, deadline_in, seconds_left
from constrint.presolve import lowered, prepare
from constrint.statement import Solution, Statement
from constrint.values import Codings

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import DTypeLike, NDArray

    from constrint.listing import Listing

UNCOUNTED = (
    "the time limit passed before the solutions, which do not factor, were counted; estimate() says about how many "
    "there are"
)
BATCH = 2048
"""Solutions decoded at a time while iterating."""
KEPT = 1 << 16
"""So many combinations of the last factors are decoded once and kept while iterating."""


class SolutionSet:
    """Every solution of a problem, as it was when the set was made; immutable.

    Solutions are numbered from 0 in lexicographic order of ``order``, smallest values first: ``set[i]``, ``set[a:b]``
    (a list), ``set[-1]``. ``solution in set`` and ``set.index(solution)`` ask the other way round. ``count`` is exact
    at any size; ``len`` gives the same up to sys.maxsize.

    names: the variables as declared. order: the variables, most significant first. nodes: nodes of all diagrams.
    """

    def __init__(self, names: Sequence[str], factors: Sequence[tuple[Sequence[str], Factor]]) -> None:
        self.names = tuple(names)
        self._factors = list(factors)
        self.order = tuple(name for group, _ in factors for name in group)
        self.count = prod([factor.total for _, factor in factors])
        self.nodes = sum([factor.size for _, factor in factors])
        self.codings = Codings()
        """Of the variables whose values are not the integers that the factors hold."""
        self.declared: Mapping[str, Domain] = {
            name: domain for group, factor in factors for name, domain in zip(group, factor.domains or (), strict=False)
        }
        # A solution is decoded as one tuple in ``order``; this is where each declared variable stands in it.
        places = {name: place for place, name in enumerate(self.order)}
        self._places = [places[name] for name in self.names] if self.count else []

    def __repr__(self) -> str:
        return (
            f"<SolutionSet of {grouped(self.count)} solutions over {len(self.names)} variables, {self.nodes:,} nodes>"
        )

    def __len__(self) -> int:
        if self.count > sys.maxsize:
            raise OverflowError(f"the set holds {grouped(self.count)} solutions, more than len() can say; use .count")
        return self.count

    def __bool__(self) -> bool:
        return self.count > 0

    @overload
    def __getitem__(self, which: int) -> Solution: ...
    @overload
    def __getitem__(self, which: slice) -> list[Solution]: ...
    def __getitem__(self, which: int | slice) -> Solution | list[Solution]:
        """The solution of an index, or a list of those of a slice. Raises IndexError beyond the last."""
        if isinstance(which, slice):
            return self._decode(range(*which.indices(self.count)))
        index = operator.index(which)
        if not -self.count <= index < self.count:
            raise IndexError(f"no solution {grouped(index)}; the set holds {grouped(self.count)}")
        return self._decode([index % self.count])[0]

    def __iter__(self) -> Iterator[Solution]:
        if self.count:
            split, total = len(self._factors), 1
            while split and total * self._factors[split - 1][1].total <= KEPT:
                split -= 1
                total *= self._factors[split][1].total
            last = [
                tuple(chain.from_iterable(parts)) for parts in product(*(_each(f) for _, f in self._factors[split:]))
            ]
            yield from self._named(self._rows(0, split, last))

    def _rows(self, k: int, split: int, last: list[Values]) -> Iterator[Values]:
        """Every combination of the solutions of the factors from number k on; from ``split`` on they are ``last``."""
        if k == split:
            yield from last
            return
        for values in _each(self._factors[k][1]):
            for rest in last if k + 1 == split else self._rows(k + 1, split, last):
                yield values + rest

    def _named(self, rows: Iterable[Values]) -> Iterator[Solution]:
        """Solutions by name from values in ``order``."""
        if len(self.names) < 2:
            found = (dict(zip(self.names, row, strict=True)) for row in rows)
        else:
            declared = operator.itemgetter(*self._places)
            found = (dict(zip(self.names, declared(row), strict=True)) for row in rows)
        return map(self.codings.decoded, found) if self.codings.of else found

    def __contains__(self, solution: object) -> bool:
        return isinstance(solution, Mapping) and self._find(solution) >= 0

    def index(self, solution: Mapping[str, int]) -> int:
        """The index of a solution; raises ValueError for anything else."""
        found = self._find(solution) if isinstance(solution, Mapping) else -1
        if found < 0:
            raise ValueError(f"{shown(solution)} is not in the set")
        return found

    def sample(self, n: int, seed: int | None = None, replace: bool = False) -> list[Solution]:
        """``n`` solutions drawn uniformly, in random order; each at most once unless ``replace``.

        The same seed gives the same sample, whichever of the native and Python engines made the set. Raises
        ConstrintError where there are fewer than ``n`` solutions (or none).
        """
        n = exact_int(n, "the number of solutions to draw")
        if n < 0 or (n > self.count and not (replace and self.count)):
            raise ConstrintError(
                f"cannot draw {grouped(n)} solutions from {grouped(self.count)}"
                + ("" if replace else " without repeats")
            )
        rng = random.Random(seed)
        if replace:
            return self._decode([rng.randrange(self.count) for _ in range(n)])
        if self.count <= sys.maxsize:
            return self._decode(rng.sample(range(self.count), n))
        drawn: dict[int, None] = {}
        while len(drawn) < n:
            drawn[rng.randrange(self.count)] = None
        return self._decode(list(drawn))

    def to_numpy(
        self, time_limit: float | None = None, dtype: DTypeLike = "int64", file: str | Path | None = None
    ) -> NDArray[Any]:
        """All solutions as an array of integers [count, variables], a row a solution in the order of the set, a column
        a variable in the order of ``names``; each column is contiguous. A variable whose values are not all integers
        (truth values included) has the positions of its values in ``values`` of it.

        dtype: of NumPy's integers, or "smallest", the one of fewest bytes that holds every value. file: where the
        array is written, as numpy.load reads it, and mapped into memory, however large it is. Raises ConstrintError
        where the array would not fit this machine's memory (or the disk) or a value the dtype, TimeLimit after
        ``time_limit`` seconds.
        """
        return self._listing(self._coded()).array(dtype, file, deadline_in(time_limit))

    def chunks(
        self, rows: int = 1 << 20, time_limit: float | None = None, dtype: DTypeLike = "smallest"
    ) -> Iterator[NDArray[Any]]:
        """The array of ``to_numpy`` in parts of at most ``rows`` rows, in little memory."""
        return self._listing(self._coded()).chunks(rows, dtype, deadline_in(time_limit))

    def tuples(self, time_limit: float | None = None) -> list[tuple[Any, ...]]:
        """All solutions as tuples of their values in the order of ``names``, in the order of the set. Raises as
        ``to_numpy``."""
        from constrint.listing import as_tuples

        return as_tuples(self._all_positions(time_limit), self._objects())

    def dicts(self, time_limit: float | None = None) -> list[Solution]:
        """All solutions, as iterating gives them, in one list. Raises as ``to_numpy``."""
        from constrint.listing import as_dicts

        return as_dicts(self._all_positions(time_limit), self.names, self._objects())

    def to_arrow(self, time_limit: float | None = None) -> Any:
        """All solutions as a pyarrow.Table of their values, for pandas and polars: text as dictionaries, None as null.

        Raises ConstrintError where pyarrow is not installed or a variable mixes kinds of values, and as ``to_numpy``.
        """
        from constrint.listing import to_arrow

        return to_arrow(self._all_positions(time_limit), self.names, self._objects())

    def positions(self, time_limit: float | None = None) -> NDArray[Any]:
        """As ``to_numpy`` of the smallest dtype, of every variable the positions of its values in ``values`` of it."""
        table = self._all_positions(time_limit)
        for column, values in enumerate(self._objects()):
            if values is None:  # integers, which were not counted one by one: ascending, as declared
                import numpy as np

                known = np.asarray(self.values(self.names[column]), dtype=table.dtype)
                table[:, column] = np.searchsorted(known, table[:, column])
        return table

    def positions_at(self, ranks: Sequence[int], by: Sequence[str]) -> NDArray[Any]:
        """The rows that ``positions`` has at these places once they are in lexicographic order of the variables ``by``,
        which are all, largest positions first; without listing them. Every variable must have few values enough to
        list. Raises ConstrintError where ``by`` leaves a variable out, IndexError beyond the last."""
        if sorted(by) != sorted(self.names):
            raise ConstrintError(f"an order of solutions names each variable once: {', '.join(self.names)}")
        if len(ranks) and not 0 <= min(ranks) <= max(ranks) < self.count:
            raise IndexError(f"a place beyond the last of {grouped(self.count)} solutions")
        columns = {name: column for column, name in enumerate(self.names)}
        return self._listing(self._placed()).at(ranks, [columns[name] for name in by])

    def values(self, name: str) -> Sequence[Any]:
        """The values of a variable, as they came and in the order given."""
        if name not in self.declared:
            raise ConstrintError(f"the set has no variable {shown(name)}")
        return self.codings.values(name, self.declared[name])

    def _all_positions(self, time_limit: float | None) -> NDArray[Any]:
        return self._listing(self._placed()).array("smallest", None, deadline_in(time_limit))

    def _listing(self, written: Mapping[str, Mapping[int, int]]) -> Listing:
        from constrint.listing import Listing

        return Listing(self.names, self._factors, self.count, written)

    def _coded(self) -> dict[str, dict[int, int]]:
        """What ``to_numpy`` writes in place of the integers of variables that are not their values."""
        return {name: coding.position for name, coding in self.codings.of.items()}

    def _placed(self) -> dict[str, dict[int, int]]:
        """The position of each integer among the values of its variable, where these are not too many to list."""
        from constrint.listing import OBJECTS

        few = [name for name in self.names if name not in self.codings.of and size(self.declared[name]) <= OBJECTS]
        return self._coded() | {name: {x: place for place, x in enumerate(self.values(name))} for name in few}

    def _objects(self) -> list[Sequence[Any] | None]:
        """The values of each variable that the positions of ``_placed`` count."""
        placed = self._placed()
        return [self.values(name) if name in placed else None for name in self.names]

    def _find(self, solution: Mapping[Any, Any]) -> int:
        if set(solution) != set(self.names) or not self.count:
            return -1
        index = 0
        for group, factor in self._factors:
            values = [self._code(name, solution[name]) for name in group]
            if None in values:
                return -1
            place = factor.index([value for value in values if value is not None])
            if place < 0:
                return -1
            index = index * factor.total + place
        return index

    def _code(self, name: str, value: object) -> int | None:
        coding = self.codings.of.get(name)
        return whole(value) if coding is None else coding.find(value)

    def _decode(self, indices: Sequence[int]) -> list[Solution]:
        if not indices:
            return []
        if not self._factors:  # of no variables there is one solution
            return [{} for _ in indices]
        columns: dict[str, Sequence[Any]] = {}
        rest = list(indices)
        for group, factor in reversed(self._factors):
            total = factor.total
            if total == 1:
                found = factor.decode([0]) * len(rest)
            else:
                found = factor.decode([index % total for index in rest])
                rest = [index // total for index in rest]
            columns.update(zip(group, zip(*found, strict=True), strict=True))
        for name, coding in self.codings.of.items():
            columns[name] = [coding.value[code] for code in columns[name]]
        rows = zip(*map(columns.__getitem__, self.names), strict=True)
        return [dict(zip(self.names, row, strict=True)) for row in rows]


def _each(factor: Factor) -> Iterator[Values]:
    """The solutions of one factor, in order."""
    for start in range(0, factor.total, BATCH):
        yield from factor.decode(range(start, min(start + BATCH, factor.total)))


def solution_set(
    problem: Statement, engine: str = "auto", deadline: float | None = None, limits: Sequence[int] | None = None
) -> SolutionSet:
    """The problem's solutions in factored form. "cp-sat" lists them all first.

    limits: steps allowed to one diagram, in the order tried; by default QUICK and PATIENT.
    Raises DoesNotFactor where a diagram would take more than some twenty million steps, TimeLimit after ``deadline``,
    a time.perf_counter() value.
    """
    names = list(problem.domains)
    if engine == "cp-sat":
        rows = []
        for solution in engine_call(problem, engine).solutions(dict.fromkeys(names, False)):
            check_time(deadline)
            rows.append(tuple(solution[name] for name in names))
        return SolutionSet(names, [(names, from_rows(rows, [problem.domains[name] for name in names]))])
    if engine not in ENGINES:
        raise ConstrintError(f"unknown engine {shown(engine)}; known: {', '.join(ENGINES)}")
    native = engine in NATIVE and has_core()
    if limits is None or limits[0] == QUICK[0]:
        found = _at_once(problem, native, deadline)
        if found is not None:
            return found
    limits = limits or (*QUICK, *PATIENT)
    program = prepare(problem, None, load_core() if native else None, deadline=deadline).program
    groups = None if program is None else independent(program, deadline)
    if program is None or groups is None:
        return _none(names)
    factors: list[tuple[list[str], Factor]] = []
    for variables, codes, terms in groups:
        if not terms:
            factors.append(([names[v] for v in variables], free_factor(variables, program.domains, native, deadline)))
            continue
        order, factor = make_factor(problem.name, program, variables, codes, terms, native, deadline, limits)
        factors.append(([names[v] for v in order], factor))
        if not factor.total:
            return SolutionSet(names, factors)
    return SolutionSet(names, factors)


def _at_once(problem: Statement, native: bool, deadline: float | None) -> SolutionSet | None:
    """The set where nothing needs to be propagated, nor an order chosen: most tuning spaces; None for any other."""
    program = lowered(problem, deadline)
    if program is None:
        return None
    groups = independent(program, deadline)
    if groups is None:
        return _none(program.names)
    factors: list[tuple[list[str], Factor]] = []
    for variables, _, terms in groups:
        if terms:
            factor = at_once(terms, variables, program.domains, QUICK[0], native, deadline)
        else:
            factor = free_factor(variables, program.domains, native, deadline)
        if factor is None:
            return None
        factors.append(([program.names[v] for v in variables], factor))
        if not factor.total:
            break
    return SolutionSet(program.names, factors)


def _none(names: Sequence[str]) -> SolutionSet:
    return SolutionSet(names, [(names, Diagram([], [], [[1]], -1, 0))])


def count(problem: Statement, engine: str, time_limit: float | None) -> int:
    """The number of solutions. Diagrams and search take turns, each as long as the other: some problems that do not
    factor have few solutions, which a search finds."""
    start = time.perf_counter()
    deadline = deadline_in(time_limit)
    if engine != "cp-sat":
        for limits in (QUICK, *((limit,) for limit in PATIENT)):
            try:
                return solution_set(problem, engine, deadline, limits).count
            except DoesNotFactor:
                now = time.perf_counter()
                turn = max(0.1, now - start)
            rest = seconds_left(deadline)
            try:
                return engine_call(problem, engine).count(turn if rest is None else min(turn, rest))
            except TimeLimit:
                check_time(deadline)
    try:
        return engine_call(problem, engine).count(seconds_left(deadline))
    except TimeLimit:
        raise TimeLimit(UNCOUNTED) from None
