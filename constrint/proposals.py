"""Solutions proposed one after another, to be tried elsewhere: ask and tell.

    proposals = Proposals(problem.solution_set(), seed=1)
    while (solution := proposals.ask()) is not None:
        proposals.tell(solution, measure(solution))    # smaller is better; None: it failed
    proposals.best

Whoever asks may ask again before telling, and tell in any order. Each solution is proposed once. A share of the
proposals is drawn uniformly; the others differ in one variable, or in two, from one of the best told so far.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from constrint.errors import ConstrintError
from constrint.factored import SolutionSet
from constrint.integers import is_truth, shown
from constrint.statement import Solution

EXPLORING = 0.3
"""The share of proposals drawn uniformly once something is known."""
FIRST = 10
"""So many proposals are drawn uniformly before anything else."""
ELITE = 5
"""How many of the best are varied."""
TRIES = 40
"""Variations of one solution that are tried before another one is drawn."""


class Proposals:
    """What to try next of a set of solutions.

    seed: the same gives the same proposals to the same tellings. told: how many values were told. Raises ConstrintError
    where it is told of what is no solution of the set.
    """

    def __init__(self, solutions: SolutionSet, seed: int | None = None, maximize: bool = False) -> None:
        self.solutions, self.maximize = solutions, maximize
        self.told = 0
        self._rng = random.Random(seed)
        self._asked: set[int] = set()
        self._values: dict[int, float] = {}
        self._elite: list[tuple[float, int]] = []

    def ask(self) -> Solution | None:
        """A solution that was not proposed before; None where every one was."""
        if len(self._asked) >= self.solutions.count:
            return None
        index = self._varied() if self._elite and len(self._asked) >= FIRST else None
        if index is None:
            index = self._drawn()
        self._asked.add(index)
        return self.solutions[index]

    def tell(self, solution: Mapping[str, Any], value: float | None) -> None:
        """What a solution is worth; None: it failed. A solution that was never proposed may be told too."""
        if solution not in self.solutions:
            raise ConstrintError(f"{shown(dict(solution))} is no solution of the set")
        if value is not None and (is_truth(value) or not isinstance(value, int | float)):
            raise ConstrintError(f"a solution is worth a number, or None where it failed, not {shown(value)}")
        index = self.solutions.index(solution)
        self._asked.add(index)
        self.told += 1
        if value is None or value != value:
            return
        self._values[index] = value
        rank = {i: v for v, i in self._elite} | {index: -value if self.maximize else value}
        self._elite = sorted((v, i) for i, v in rank.items())[:ELITE]

    @property
    def best(self) -> tuple[Solution, float] | None:
        """The best solution told so far and its value; None where nothing but failures was told."""
        if not self._elite:
            return None
        index = self._elite[0][1]
        return self.solutions[index], self._values[index]

    def _drawn(self) -> int:
        """An index that was not asked, drawn uniformly."""
        count = self.solutions.count
        for _ in range(TRIES):
            index = self._rng.randrange(count)
            if index not in self._asked:
                return index
        if count <= 4 * len(self._asked):
            return self._rng.choice([index for index in range(count) if index not in self._asked])
        while index in self._asked:
            index = self._rng.randrange(count)
        return index

    def _varied(self) -> int | None:
        """The index of a solution near one of the best; None where it is time to explore, or none was found."""
        if self._rng.random() < EXPLORING:
            return None
        base = self.solutions[self._rng.choice(self._elite)[1]]
        names = [name for name in self.solutions.names if len(self.solutions.values(name)) > 1]
        for attempt in range(TRIES if names else 0):
            changed = dict(base)
            for name in self._rng.sample(names, min(len(names), 1 + attempt % 2)):
                changed[name] = self._rng.choice(self.solutions.values(name))
            if changed in self.solutions:
                index = self.solutions.index(changed)
                if index not in self._asked:
                    return index
        return None
