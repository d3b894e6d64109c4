"""In which order a diagram should decide the variables.

Several orders are proposed, and compared by an estimate of the diagram's size; where none of them serves, the best
is improved by moving one variable at a time. ``constrint.factored`` tries them with growing allowances, so a wrong
estimate costs time, never an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import exp, log

from constrint.domains import Domain, size
from constrint.limits import check_time
from constrint.program import Code, Op, Program
from constrint.residual import GATHERS, Term
from constrint.search import elimination_order

MOST_MOVES = 1500


def proposals(
    program: Program,
    codes: Sequence[Code],
    terms: Sequence[Term],
    variables: Sequence[int],
    deadline: float | None = None,
) -> list[list[int]]:
    """Orders of ``variables``, the most promising first, without repeats. codes, terms: the constraints on them.

    Raises TimeLimit at ``deadline``.
    """
    part = replace(program, codes=list(codes))
    orders = [elimination_order(part, variables, deadline), expression_order(terms, variables), sorted(variables)]
    orders = [order for i, order in enumerate(orders) if order not in orders[:i]]
    return sorted(orders, key=Estimate(terms, variables, program.domains, deadline).of) if len(orders) > 1 else orders


def improved(
    terms: Sequence[Term], order: Sequence[int], domains: Sequence[Domain], deadline: float | None = None
) -> list[int]:
    """The order with single variables moved while that lowers the estimate. Raises TimeLimit at ``deadline``."""
    return Estimate(terms, sorted(order), domains, deadline).improve(order)


def expression_order(terms: Sequence[Term], variables: Sequence[int]) -> list[int]:
    """As the constraints name them, the constraints with most variables first: a subterm is decided in one go."""
    named = sorted((_names(term) for term in terms), key=len, reverse=True)
    order = dict.fromkeys(v for names in named for v in names)
    return [*order, *(v for v in variables if v not in order)]


class Estimate:
    """A bound on the number of states that an order leads to.

    A constraint whose decided variables can take n combinations, and whose slots can hold m different values, has at
    most min(n, m) states; the constraints' bounds multiply, up to the combinations of all variables still needed.
    Sets of variables are bit masks.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        variables: Sequence[int],
        domains: Sequence[Domain],
        deadline: float | None = None,
    ) -> None:
        self.deadline = deadline
        self.bit = {v: 1 << i for i, v in enumerate(variables)}
        self.weight = {self.bit[v]: log(size(domains[v])) for v in variables}
        self.scope: dict[int, int] = {}
        self.terms = list(terms)
        for term in terms:
            self._scan(term)
        self.known: list[dict[int, float]] = [{} for _ in terms]
        self.weights: dict[int, float] = {0: 0.0}

    def _scan(self, term: Term) -> int:
        mask = self.bit[term.start or 0] if term.op == Op.VAR else 0
        for arg in term.args:
            mask |= self._scan(arg)
        self.scope[id(term)] = mask
        return mask

    def of(self, order: Sequence[int]) -> float:
        """The logarithm of the estimated number of steps."""
        decided, states, total = 0, 0.0, 0.0
        for v in order:
            check_time(self.deadline)
            total += exp(min(states + self.weight[self.bit[v]], 300.0))
            decided |= self.bit[v]
            states = self._states(decided)
        return log(total)

    def improve(self, order: Sequence[int]) -> list[int]:
        """Move single variables while that lowers the estimate."""
        best, value, moves = list(order), self.of(order), 0
        improved = True
        while improved and moves < MOST_MOVES:
            improved = False
            for v in order:
                rest = [u for u in best if u != v]
                tried = [[*rest[:i], v, *rest[i:]] for i in range(len(best))]
                moves += len(tried)
                found = min(tried, key=self.of)
                if self.of(found) < value - 1e-9:
                    best, value, improved = found, self.of(found), True
        return best

    def _states(self, decided: int) -> float:
        total, frontier = 0.0, 0
        for term, known in zip(self.terms, self.known, strict=True):
            scope = self.scope[id(term)]
            inside = scope & decided
            if not inside or inside == scope:
                continue
            frontier |= inside
            if inside not in known:
                known[inside] = self._slots(term, inside)
            total += known[inside]
        return min(total, self._combinations(frontier))

    def _combinations(self, mask: int) -> float:
        if mask not in self.weights:
            lowest = mask & -mask
            self.weights[mask] = self.weight[lowest] + self._combinations(mask ^ lowest)
        return self.weights[mask]

    def _slots(self, term: Term, decided: int) -> float:
        """The logarithm of a bound on the number of combinations of a subterm's slots."""
        scope = self.scope[id(term)]
        inside = scope & decided
        if not inside:
            return 0.0
        combinations = self._combinations(inside)
        if inside == scope:
            return min(combinations, log(_width(term)))
        total = 0.0
        gathered = 1 if term.op in (Op.ADD, Op.MUL) else 2
        rest = 0
        for i, arg in enumerate(term.args):
            own = self.scope[id(arg)]
            if term.op in GATHERS and own and not own & ~decided:
                width = _width(arg)
                if term.op == Op.ADD:
                    gathered += (width - 1) * abs(term.coefs[i])
                else:
                    gathered = gathered * width if term.op == Op.MUL else max(gathered, width)
            else:
                total += self._slots(arg, decided)
                rest += (_width(arg) - 1) * abs(term.coefs[i]) if term.op == Op.ADD else 0
        if term.op == Op.ADD:
            # Beyond what the rest can still change, the constraint is decided (where the sum is all of it).
            gathered = min(gathered, rest + 2)
        return min(combinations, total + log(gathered))


def _width(term: Term) -> int:
    low, high, undefined = term.span
    return 3 if term.op >= Op.TRUE else max(1, high - low + 1) + (undefined > 0)


def _names(term: Term) -> list[int]:
    """Positions of the variables, in order of appearance."""
    if term.op == Op.VAR:
        return [term.start or 0]
    return list(dict.fromkeys(v for arg in term.args for v in _names(arg)))
