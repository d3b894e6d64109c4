"""Variables that all differ, looked at together: each needs a value of its own.

Where there is no way to give them different values there is no solution; where a value is in no such way, it goes
(Regin, AAAI 1994). Which variables differ: those of an ``all_different``, and those that are pairwise unequal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from constrint.domains import Domain
from constrint.program import Code, Op

MOST_VALUES = 20_000
"""Groups whose domains hold more values together are left alone."""

Group = tuple[tuple[int, ...], int]
"""Variables that differ, by position, and the constraints that say so, as a sum of 1 << number."""


def groups(codes: Iterable[Code]) -> list[Group]:
    """Sets of three or more variables that are pairwise unequal by constraints of their own."""
    unequal: dict[int, dict[int, int]] = {}
    for code in codes:
        if code.ops == [Op.VAR, Op.VAR, Op.NE] and code.a[0] != code.a[1]:
            a, b = code.a[:2]
            unequal.setdefault(a, {})[b] = unequal.setdefault(b, {})[a] = 1 << code.source
    found: list[Group] = []
    seen: set[tuple[int, ...]] = set()
    covered: set[int] = set()
    for first in sorted(unequal, key=lambda v: -len(unequal[v])):
        if first in covered or len(unequal[first]) < 2:
            continue
        clique = [first]
        for v in sorted(unequal[first], key=lambda v: -len(unequal[v])):
            if all(v in unequal[u] for u in clique):
                clique.append(v)
        covered.update(clique)
        members = tuple(sorted(clique))
        if len(members) > 2 and members not in seen:
            seen.add(members)
            why = 0
            for place, u in enumerate(members):
                for v in members[:place]:
                    why |= unequal[u][v]
            found.append((members, why))
    return found


def distinct(variables: Sequence[int], domains: Sequence[Domain]) -> Mapping[int, tuple[int, ...]] | None:
    """The values that variables which all differ can have, where these are fewer than before; None where there are no
    different values for all."""
    listed = {v: domain for v in variables if isinstance(domain := domains[v], tuple)}
    if len(listed) < len(variables) or sum(map(len, listed.values())) > MOST_VALUES:
        return {}
    owner = _matching(listed)
    if owner is None:
        return None
    mine = {v: value for value, v in owner.items()}
    kept = _supported(listed, owner, mine)
    return {
        v: values
        for v, domain in listed.items()
        if len(values := tuple(x for x in domain if mine[v] == x or (v, x) in kept)) < len(domain)
    }


def _matching(listed: Mapping[int, tuple[int, ...]]) -> dict[int, int] | None:
    """A value of its own for each variable, by value; None where there is none."""
    owner: dict[int, int] = {}
    mine: dict[int, int] = {}

    def place(v: int) -> bool:
        """Give v a value; others move, along the shortest way to a value that nobody has."""
        taker: dict[int, int] = {}
        waiting = [v]
        for u in waiting:
            for value in listed[u]:
                if value in taker:
                    continue
                taker[value] = u
                if value in owner:
                    waiting.append(owner[value])
                    continue
                while True:
                    mover = taker[value]
                    left = mine.get(mover, value)
                    owner[value], mine[mover] = mover, value
                    if mover == v:
                        return True
                    value = left
        return False

    return owner if all(place(v) for v in listed) else None


def _supported(
    listed: Mapping[int, tuple[int, ...]], owner: Mapping[int, int], mine: Mapping[int, int]
) -> set[tuple[int, int]]:
    """The pairs of a variable and another value that some way to give all of them values holds."""
    takers: dict[int, list[int]] = {}
    for v, domain in listed.items():
        for value in domain:
            if mine[v] != value:
                takers.setdefault(value, []).append(v)
    # From a value to the variables that could take it, and from each of these to the value it would leave.
    after = {value: [mine[v] for v in takers.get(value, ())] for value in {*takers, *owner}}
    free = [value for value in after if value not in owner]
    reached = set(free)
    while free:
        for value in after[free.pop()]:
            if value not in reached:
                reached.add(value)
                free.append(value)
    component = _components(after)
    return {
        (v, value)
        for value, others in takers.items()
        for v in others
        if value in reached or component[value] == component[mine[v]]
    }


def _components(after: Mapping[int, Sequence[int]]) -> dict[int, int]:
    """The strongly connected component of each node (Tarjan), without recursion."""
    number: dict[int, int] = {}
    low: dict[int, int] = {}
    component: dict[int, int] = {}
    path: list[int] = []
    for root in after:
        if root in number:
            continue
        calls = [(root, 0)]
        while calls:
            node, place = calls.pop()
            if not place:
                number[node] = low[node] = len(number)
                path.append(node)
            if place:
                low[node] = min(low[node], low[after[node][place - 1]])
            for i in range(place, len(after[node])):
                child = after[node][i]
                if child not in number:
                    calls += [(node, i + 1), (child, 0)]
                    break
                if child not in component:
                    low[node] = min(low[node], number[child])
            else:
                if low[node] == number[node]:
                    while True:
                        last = path.pop()
                        component[last] = node
                        low[last] = len(number) + len(after)  # no way back into it
                        if last == node:
                            break
    return component
