"""How many solutions there are, about, and solutions drawn, where no diagram can hold them all.

The problem is taken in the groups that share no variable. A group that factors is counted. Of any other, as many
constraints as still factor, those over fewest variables first, are a relaxation: its solutions are drawn uniformly,
and the share that satisfies the rest is counted. Such solutions are uniform, too. Where that share is too small, the
search goes down at random: the product of the numbers of choices on the way, 0 at a dead end, is right on average
(Knuth, Math. Comp. 29, 1975). Then solutions are drawn by these weights, which makes them uniform only approximately.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod
from typing import Protocol

from constrint.core import load_core
from constrint.errors import ConstrintError
from constrint.factor import QUICK, DoesNotFactor, Factor, independent, make_factor
from constrint.forward import test
from constrint.integers import grouped
from constrint.limits import check_time
from constrint.parts import Part
from constrint.presolve import prepare
from constrint.program import Code, Program
from constrint.searcher import Searcher
from constrint.statement import Solution, Statement

EXACT = QUICK
"""Steps allowed to the diagram of a group before it is estimated."""
RELAXED = (QUICK[-1], 1_000_000)
"""Steps allowed to that of a relaxation; after the first only to the core, of FEW constraints."""
FEW = 4
PILOT = 200
"""Solutions of a relaxation that are drawn to see whether enough of them satisfy the rest."""
ENOUGH = 8
"""So many of these must."""
OVERSAMPLING = 20
"""Ways down at random for each solution that is drawn by its weight."""
ROUNDS = 10
"""So often as many solutions as asked for are drawn, until enough of them differ."""


class ApproximateSample(UserWarning):
    """The solutions drawn are only approximately uniform."""


@dataclass(frozen=True)
class Estimate:
    """How many solutions there are, about.

    count: an estimate that is right on average; error: its standard error, itself estimated from the same draws (0:
    the count is exact), and ``upper`` where no draw found a solution. lower, upper: the true number lies between, for
    certain. draws: how many it rests on.
    """

    count: int
    error: int
    lower: int
    upper: int
    draws: int

    @property
    def exact(self) -> bool:
        """Whether the number is known."""
        return self.lower == self.upper

    def __str__(self) -> str:
        if self.exact:
            return f"{grouped(self.count)} solutions"
        if not self.count:
            return f"none of {self.draws:,} draws is a solution; there are at most {_rounded(self.upper)}"
        return (
            f"about {_rounded(self.count)} solutions (standard error {_rounded(self.error)}, {self.draws:,} draws); at "
            f"least {_rounded(self.lower)}, at most {_rounded(self.upper)}"
        )


def _rounded(number: int) -> str:
    """A number as it is where that is short, else with three digits."""
    if number < 10**6:
        return f"{number:,}"
    exponent = len(str(number)) - 1
    return f"{number / 10**exponent:.2f}e{exponent}"


class _Group(Protocol):
    """Variables that constraints join. uniform: whether what is drawn is exactly so."""

    variables: Sequence[int]
    uniform: bool

    def estimate(self, draws: int) -> Estimate: ...

    def draw(self, n: int) -> list[Sequence[int]]:
        """About ``n`` solutions, with repeats, as values by ``variables``; none where none was found."""


@dataclass
class _Exact:
    """A group whose solutions factor."""

    variables: Sequence[int]
    factor: Factor
    rng: random.Random
    uniform: bool = True

    def estimate(self, draws: int) -> Estimate:
        total = self.factor.total
        return Estimate(total, 0, total, total, 0)

    def draw(self, n: int) -> list[Sequence[int]]:
        return list(self.factor.decode([self.rng.randrange(self.factor.total) for _ in range(n)]))


@dataclass
class _Relaxed:
    """A group as the solutions of some of its constraints, of which those count that satisfy the rest."""

    program: Program
    variables: Sequence[int]
    factors: list[tuple[Sequence[int], Factor]]
    rest: list[Code]
    rng: random.Random
    deadline: float | None
    uniform: bool = True

    @property
    def total(self) -> int:
        """The number of solutions of the relaxation."""
        return prod(factor.total for _, factor in self.factors)

    def estimate(self, draws: int) -> Estimate:
        found = self.hits(draws)
        share = Fraction(len(found), draws)
        error = _root(share * (1 - share) / draws)
        return Estimate(
            round(self.total * share), round(self.total * error), len(set(map(tuple, found))), self.total, draws
        )

    def draw(self, n: int) -> list[Sequence[int]]:
        found: list[Sequence[int]] = []
        while len(found) < n:
            found += self.hits(max(n, PILOT))
        return found[:n]

    def hits(self, draws: int) -> list[Sequence[int]]:
        """Of so many solutions of the relaxation, those that satisfy the rest."""
        if not self.total:
            return []
        columns = [
            (variables, factor.decode([self.rng.randrange(factor.total) for _ in range(draws)]))
            for variables, factor in self.factors
        ]
        point = [domain[0] for domain in self.program.domains]
        found: list[Sequence[int]] = []
        for row in range(draws):
            check_time(self.deadline)
            for variables, decoded in columns:
                for v, value in zip(variables, decoded[row], strict=True):
                    point[v] = value
            if all(test(code, point) for code in self.rest):
                found.append([point[v] for v in self.variables])
        return found


@dataclass
class _Searched:
    """A group that the search goes down at random."""

    part: Part
    program: Program
    upper: int
    searcher: Searcher
    rng: random.Random
    deadline: float | None
    uniform: bool = False
    variables: Sequence[int] = field(init=False)

    def __post_init__(self) -> None:
        self.variables = self.part.variables

    def ways(self, count: int) -> list[tuple[int, list[int]]]:
        """The weight of each way, and the solution at its end."""
        local = self.part.local(self.program)
        rows = ([self.rng.random() for _ in local.names] for _ in range(count))
        found = self.searcher.search(local).probe(range(len(local.names)), rows, self.deadline)
        return [(prod(sizes) if solution else 0, solution) for sizes, solution in found]

    def estimate(self, draws: int) -> Estimate:
        ways = self.ways(draws)
        weights = [weight for weight, _ in ways]
        mean = Fraction(sum(weights), draws)
        variance = sum(((weight - mean) ** 2 for weight in weights), start=Fraction(0)) / (draws - 1)
        lower = len({tuple(solution) for _, solution in ways if solution})
        return Estimate(round(mean), round(_root(variance / draws)), lower, self.upper, draws)

    def draw(self, n: int) -> list[Sequence[int]]:
        ways = [way for way in self.ways(max(PILOT, OVERSAMPLING * n)) if way[1]]
        if not ways:
            return []
        largest = max(weight for weight, _ in ways)
        shares = [weight / largest for weight, _ in ways]
        return [solution for _, solution in self.rng.choices(ways, shares, k=n)]


class _Estimator:
    """The groups of a problem. groups: None where it has no solution."""

    def __init__(self, problem: Statement, native: bool, seed: int | None, deadline: float | None) -> None:
        self.problem, self.native, self.deadline = problem, native, deadline
        self.rng = random.Random(seed)
        self.groups: list[_Group] | None = None
        program = prepare(problem, None, load_core() if native else None, deadline=deadline).program
        groups = None if program is None else independent(program, deadline)
        if program is None or groups is None:
            return
        self.program = program
        self.groups = [self._group(variables, codes) for variables, codes, _ in groups]

    def estimate(self, draws: int) -> Estimate:
        """Of all groups together."""
        if self.groups is None:
            return Estimate(0, 0, 0, 0, 0)
        found = [group.estimate(draws) for group in self.groups]
        count = prod(each.count for each in found)
        spread = (
            prod((1 + Fraction(each.error, each.count) ** 2 for each in found if each.count), start=Fraction(1)) - 1
        )
        # Where nothing was found, nothing is known but the bounds.
        error = round(count * _root(spread)) if count else prod(each.upper for each in found)
        return Estimate(
            count,
            error,
            prod(each.lower for each in found),
            prod(each.upper for each in found),
            max((each.draws for each in found), default=0),
        )

    def draw(self, n: int, replace: bool) -> list[Solution]:
        """See ``draw``."""
        groups = self.groups or []
        names = self.program.names if groups else []
        found: dict[tuple[int, ...], None] | list[tuple[int, ...]] = [] if replace else {}
        for _ in range(ROUNDS if groups else 0):
            parts = [group.draw(n) for group in groups]
            if not all(parts):
                continue
            for rows in zip(*parts, strict=True):
                values = [0] * len(names)
                for group, row in zip(groups, rows, strict=True):
                    for v, value in zip(group.variables, row, strict=True):
                        values[v] = value
                if isinstance(found, dict):
                    found.setdefault(tuple(values))
                else:
                    found.append(tuple(values))
            if len(found) >= n:
                return [dict(zip(names, values, strict=True)) for values in list(found)[:n]]
        raise ConstrintError(
            f"only {len(found):,} of {n:,} solutions of {self.problem.name!r} were found by drawing; there may be no "
            "more, or they are too rare: iterate over solutions()"
        )

    def _group(self, variables: list[int], codes: list[Code]) -> _Group:
        exact = self._factors(variables, codes, EXACT)
        if exact is not None:
            (order, factor), *more = exact
            if not more:
                return _Exact(order, factor, self.rng)
        upper = None
        for limit in RELAXED if self.native and len(codes) <= FEW else RELAXED[:1]:
            relaxed = self._relaxed(variables, codes, limit)
            upper = relaxed.total if upper is None else min(upper, relaxed.total)
            if len(relaxed.hits(PILOT)) >= ENOUGH:
                return relaxed
        part, searcher = Part(codes, variables), Searcher(self.problem, self.native)
        return _Searched(part, self.program, upper or 0, searcher, self.rng, self.deadline)

    def _relaxed(self, variables: list[int], codes: list[Code], limit: int) -> _Relaxed:
        """The longest beginning of the constraints that factors."""
        ranked = sorted(codes, key=lambda code: len(code.variables))
        kept, beyond, factors = 0, len(ranked), self._factors(variables, [], (limit,)) or []
        while beyond - kept > 1:
            middle = (kept + beyond) // 2
            found = self._factors(variables, ranked[:middle], (limit,))
            if found is None:
                beyond = middle
            else:
                kept, factors = middle, found
        return _Relaxed(self.program, variables, factors, ranked[kept:], self.rng, self.deadline)

    def _factors(
        self, variables: list[int], codes: list[Code], limits: Sequence[int]
    ) -> list[tuple[Sequence[int], Factor]] | None:
        """The solutions of some constraints over these variables, in factors; None where they do not factor."""
        program = self.program
        alone = Program(program.names, program.domains, codes, program.sources, program.why)
        mine = set(variables)
        found: list[tuple[Sequence[int], Factor]] = []
        for joined, own, terms in independent(alone, self.deadline) or ():
            used = [v for v in joined if v in mine]
            if not used:
                continue
            try:
                order, factor = make_factor(
                    self.problem.name, program, used, own, terms, self.native, self.deadline, limits
                )
            except DoesNotFactor:
                return None
            found.append((order, factor))
        return found


def estimate(
    problem: Statement, native: bool, draws: int, seed: int | None = None, deadline: float | None = None
) -> Estimate:
    """See ``Problem.estimate``."""
    if draws < 2:
        raise ConstrintError(f"an estimate needs at least 2 draws, not {draws}")
    return _Estimator(problem, native, seed, deadline).estimate(draws)


def draw(
    problem: Statement, native: bool, n: int, seed: int | None, replace: bool, deadline: float | None
) -> list[Solution]:
    """``n`` solutions of a problem whose solutions do not factor, each once unless ``replace``; with a warning where
    they are not exactly uniform. Raises ConstrintError where not enough are found."""
    estimator = _Estimator(problem, native, seed, deadline)
    if not all(group.uniform for group in estimator.groups or ()):
        warnings.warn(
            f"the solutions of {problem.name!r} do not factor: they are drawn by weights, only about uniformly",
            ApproximateSample,
            stacklevel=3,
        )
    return estimator.draw(n, replace)


def _root(number: Fraction) -> Fraction:
    """The square root of a number of any size, to a few digits."""
    scale = max(0, (number.numerator.bit_length() - number.denominator.bit_length()) // 2)
    return Fraction(math.sqrt(number / (1 << 2 * scale))) * (1 << scale)
