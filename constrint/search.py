"""Depth-first search over propagated domains, in Python; the core holds the same search in C++.

What lies below a node depends only on the values of the earlier variables that share a constraint with a later one
(the frontier). Subtrees are remembered by those values, so that none is counted, or found empty, twice.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from heapq import heapify, heappop, heappush
from math import log

from constrint.domains import Domain, size
from constrint.errors import TimeLimit
from constrint.forward import forward
from constrint.limits import check_time
from constrint.program import Code, Program
from constrint.propagate import State

SPLIT_ABOVE = 64
"""A range with more values than this is halved rather than tried value by value."""
MEMORY_LIMIT = 1_000_000
"""Remembered subtrees; beyond that the search goes on without remembering more."""

Key = tuple[int, ...]


def frontiers(program: Program, order: Sequence[int], always: Sequence[int] = ()) -> list[tuple[int, ...] | None]:
    """For each depth, the earlier variables that share a constraint with a later one, or are among ``always``.

    None where that is every earlier variable (remembering could never pay). Variables with one value are left out.
    """
    place = {v: depth for depth, v in enumerate(order)}
    last = dict.fromkeys(order, -1) | dict.fromkeys((v for v in always if v in place), len(order))
    for code in program.codes:
        reach = max((place[v] for v in code.variables if v in place), default=-1)
        for v in code.variables:
            if v in place:
                last[v] = max(last[v], reach)
    result: list[tuple[int, ...] | None] = []
    frontier: list[int] = []
    earlier = 0
    for depth, v in enumerate(order):
        frontier = [u for u in frontier if last[u] >= depth]
        result.append(tuple(frontier) if len(frontier) < earlier else None)
        if size(program.domains[v]) > 1:
            frontier.append(v)
            earlier += 1
    return result


def elimination_order(program: Program, variables: Sequence[int], deadline: float | None = None) -> list[int]:
    """An order of the variables with small frontiers: greedily, the next adds least to the frontier's volume.

    Raises TimeLimit at ``deadline``.
    """
    return _Elimination(program, variables, deadline).order()


class _Elimination:
    """A constraint is open while some of its variables are chosen and some are not; the frontier is what is chosen of
    the open ones. Costs are renewed only where a choice can have changed them."""

    def __init__(self, program: Program, variables: Sequence[int], deadline: float | None) -> None:
        self.deadline = deadline
        self.place = {v: i for i, v in enumerate(variables)}
        self.weight = {v: log(size(program.domains[v])) for v in variables}
        self.scopes = [[v for v in code.variables if v in self.place] for code in program.codes]
        self.of: dict[int, list[int]] = {v: [] for v in variables}
        for number, scope in enumerate(self.scopes):
            for v in scope:
                self.of[v].append(number)
        # Of each constraint, the variables not chosen; of each chosen variable, its constraints that are still open.
        self.left = [len(scope) for scope in self.scopes]
        self.open: dict[int, int] = {}

    def order(self) -> list[int]:
        costs = {v: self.cost(v) for v in self.place}
        waiting = [(cost, v) for v, cost in costs.items()]
        heapify(waiting)
        order: list[int] = []
        while waiting:
            cost, v = heappop(waiting)
            if costs.get(v) != cost:
                continue
            check_time(self.deadline)
            del costs[v]
            order.append(v)
            for u in self.choose(v):
                renewed = self.cost(u) if u in costs else None
                if renewed is not None and renewed != costs[u]:
                    costs[u] = renewed
                    heappush(waiting, (renewed, u))
        return order

    def cost(self, v: int) -> tuple[float, int, float, int]:
        """What choosing v adds to the frontier; how few of its constraints are open; its weight; its place."""
        closing: dict[int, int] = {}
        joined = remaining = 0
        for number in self.of[v]:
            scope = self.scopes[number]
            joined += self.left[number] < len(scope)
            if self.left[number] > 1:
                remaining += 1
                continue
            for u in scope:
                closing[u] = closing.get(u, 0) + 1
        gone = sum(self.weight[u] for u, count in closing.items() if u != v and self.open[u] == count)
        return round((self.weight[v] if remaining else 0.0) - gone, 9), -joined, self.weight[v], self.place[v]

    def choose(self, v: int) -> set[int]:
        """Choose v; returns the variables whose cost that may have changed."""
        touched = {u for number in self.of[v] for u in self.scopes[number]}
        closed = False
        self.open[v] = len(self.of[v])
        for number in self.of[v]:
            self.left[number] -= 1
            if not self.left[number]:
                closed = True
                for u in self.scopes[number]:
                    self.open[u] -= 1
        if closed:
            near = {number for u in touched if u in self.open for number in self.of[u]}
            touched |= {u for number in near if self.left[number] == 1 for u in self.scopes[number]}
        return touched


@contextmanager
def deep(domains: Sequence[Domain]) -> Iterator[None]:
    """Room on the stack for a search that goes down a level a variable, and halves every range."""
    levels = sum(1 if not isinstance(domain, range) else size(domain).bit_length() for domain in domains)
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 3 * levels + 1000))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def branches(state: State, v: int, descending: bool) -> list[tuple[int, int]]:
    """The bounds to try for ``v`` one after the other: single values, or the halves of a long range."""
    if state.values[v] is None and state.size(v) > SPLIT_ABOVE:
        middle = (state.low[v] + state.high[v]) // 2
        result = [(state.low[v], middle), (middle + 1, state.high[v])]
    else:
        result = [(x, x) for x in state.current(v)]
    return result[::-1] if descending else result


class PythonSearch:
    """The search over one presolved program. deadline: a time.perf_counter() value, or None."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def _start(self, order: Sequence[int], deadline: float | None, permanent: int = -1) -> State | None:
        self.order, self.deadline = order, deadline
        # What may still improve below a node depends on every variable of the objective, decided or not.
        always = self.program.codes[permanent].variables if permanent >= 0 else ()
        self.frontier = frontiers(self.program, order, always)
        self.state = State(self.program, permanent, deadline)
        for number in range(len(self.program.codes)):
            self.state.schedule(number)
        return self.state if self.state.propagate() else None

    def _advance(self, depth: int, fresh: bool) -> tuple[int, bool]:
        """Skip decided variables. fresh: whether everything before ``depth`` is decided and nothing at it split."""
        low, high = self.state.low, self.state.high
        while depth < len(self.order) and low[self.order[depth]] == high[self.order[depth]]:
            depth, fresh = depth + 1, True
        return depth, fresh

    def _try(self, v: int, low: int, high: int) -> bool:
        """Restrict a variable and propagate; False where nothing is left."""
        check_time(self.deadline)
        return self.state.restrict(v, low, high) and self.state.propagate()

    def _key(self, depth: int, fresh: bool) -> Key | None:
        frontier = self.frontier[depth] if fresh else None
        return None if frontier is None else (depth, *(self.state.low[v] for v in frontier))

    def solutions(
        self, order: Sequence[int], descending: Sequence[bool], deadline: float | None = None
    ) -> Iterator[list[int]]:
        """Every solution, as values by position, lexicographically by ``order``; descending[i]: largest first at
        order[i]. Variables outside ``order`` keep their smallest value."""
        if self._start(order, deadline) is not None:
            found = self._solutions(0, True, descending, set())
            while True:
                with deep(self.program.domains):
                    solution = next(found, None)
                if solution is None:
                    return
                yield solution

    def _solutions(self, depth: int, fresh: bool, descending: Sequence[bool], dead: set[Key]) -> Iterator[list[int]]:
        depth, fresh = self._advance(depth, fresh)
        state = self.state
        if depth == len(self.order):
            yield list(state.low)
            return
        key = self._key(depth, fresh)
        if key in dead:
            return
        found = False
        v = self.order[depth]
        for low, high in branches(state, v, descending[depth]):
            mark = len(state.trail)
            if self._try(v, low, high):
                for solution in self._solutions(depth, False, descending, dead):
                    found = True
                    yield solution
            state.undo(mark)
        if not found and key is not None and len(dead) < MEMORY_LIMIT:
            dead.add(key)

    def count(self, order: Sequence[int], deadline: float | None = None) -> int:
        """The number of solutions over the variables of ``order``."""
        with deep(self.program.domains):
            return 0 if self._start(order, deadline) is None else self._count(0, True, {})

    def _count(self, depth: int, fresh: bool, known: dict[Key, int]) -> int:
        depth, fresh = self._advance(depth, fresh)
        state = self.state
        if state.active == 0:
            total = 1
            for v in self.order[depth:]:
                total *= state.size(v)
            return total
        key = self._key(depth, fresh)
        if key is not None and key in known:
            return known[key]
        total = 0
        v = self.order[depth]
        for low, high in branches(state, v, False):
            mark = len(state.trail)
            if self._try(v, low, high):
                total += self._count(depth, False, known)
            state.undo(mark)
        if key is not None and len(known) < MEMORY_LIMIT:
            known[key] = total
        return total

    def probe(
        self, order: Sequence[int], rows: Iterable[Sequence[float]], deadline: float | None = None
    ) -> Iterator[tuple[list[int], list[int]]]:
        """Ways down at random, one for each row of numbers in [0, 1), one of these for each variable of ``order``.

        The variable with fewest values left takes one of them; how many there were is a size. What is yielded are the
        sizes, and the solution at the end of the way, empty where it ended before one. The product of the sizes, 0
        where there is no solution, is the number of solutions on average (Knuth, Math. Comp. 29, 1975).
        """
        rooted = self._start(order, deadline) is not None
        for row in rows:
            yield self._probe(row) if rooted else ([], [])

    def _probe(self, row: Sequence[float]) -> tuple[list[int], list[int]]:
        state, sizes = self.state, []
        mark = len(state.trail)
        possible = True
        for draw in row:
            loose = [v for v in self.order if state.low[v] != state.high[v]]
            if not loose:
                break
            v = min(loose, key=state.size)
            count = state.size(v)
            sizes.append(count)
            x = state.domain(v)[min(int(draw * count), count - 1)]
            possible = self._try(v, x, x)
            if not possible:
                break
        found = list(state.low) if possible else []
        state.undo(mark)
        return sizes, found

    def best(
        self, order: Sequence[int], descending: Sequence[bool], bounded: Code, deadline: float | None = None
    ) -> tuple[int | None, list[int] | None, bool]:
        """The smallest objective, one solution that has it, and whether the search was finished.

        bounded: the program's last constraint, objective <= constant; the constant moves down with each solution.
        """
        assert self.program.codes[-1] is bounded
        self.value: int | None = None
        self.incumbent: list[int] | None = None
        finished = True
        try:
            if self._start(order, deadline, len(self.program.codes) - 1) is not None:
                with deep(self.program.domains):
                    self._improve(0, True, descending, bounded, set())
        except TimeLimit:
            finished = False
        return self.value, self.incumbent, finished

    def _improve(self, depth: int, fresh: bool, descending: Sequence[bool], bounded: Code, done: set[Key]) -> None:
        depth, fresh = self._advance(depth, fresh)
        state = self.state
        if depth == len(self.order):
            # Nodes end with: objective, constant, objective <= constant.
            self.value = forward(bounded, state.low, state.high)[-3][0]
            self.incumbent = list(state.low)
            bounded.a[-2] = self.value - 1
            return
        key = self._key(depth, fresh)
        if key in done:
            return
        v = self.order[depth]
        for low, high in branches(state, v, descending[depth]):
            mark = len(state.trail)
            state.schedule(state.permanent)
            if self._try(v, low, high):
                self._improve(depth, False, descending, bounded, done)
            state.undo(mark)
        # Every improvement below was found, and the bound only tightens: nothing is left here.
        if key is not None and len(done) < MEMORY_LIMIT:
            done.add(key)
