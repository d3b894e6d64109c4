"""One constraint while variables are decided one after another: what it still needs to know, in a few numbers.

The variables are decided in a fixed order. Before depth d the first d of them are decided, and of each constraint
only its *slots* are kept: the value of every largest decided subterm, with decided terms of one sum (factors of one
product, ...) gathered into one number. Two partial assignments with the same slots have the same future. The slots
are made as alike as is free of loss: ``p x + s <= 0`` is divided by p, a dividend is kept modulo its divisor. The
columns of a table come in the order in which they are decided (``arranged``), so that the rows that are still possible
lie together. The C++ core holds the same machine in _core/layers.cpp.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from math import gcd

from constrint import intervals
from constrint.intervals import ARITHMETIC, FALSE, NEVER, TRUE, UNDEFINED, Interval
from constrint.program import Op
from constrint.project import ceil_divide
from constrint.residual import GATHERS, Term, Value, apply, bound, combine

Slots = tuple[Value, ...]
_OPEN = 1 << 30


class Layers:
    """The slots of one constraint at every depth.

    place: the depth at which each variable is decided, by position. depths: those of this constraint's variables.
    slots[d]: the nodes whose values are kept before depth d, from the first of ``depths`` to the last. Nodes are
    numbered in postorder.
    """

    def __init__(self, root: Term, place: Mapping[int, int]) -> None:
        root = arranged(root, place)
        self.nodes: list[Term] = []
        self.args: list[tuple[int, ...]] = []
        self._append(root)
        count = len(self.nodes)
        names: list[set[int]] = []
        parent = [-1] * count
        for n, term in enumerate(self.nodes):
            names.append({place[term.start or 0]} if term.op == Op.VAR else set())
            for arg in self.args[n]:
                parent[arg] = n
                names[n] |= names[arg]
        self.first = [min(depths, default=-1) for depths in names]
        self.last = [max(depths, default=-1) for depths in names]
        self.rows = [frozenset(term.rows) for term in self.nodes]
        self.depths = sorted(names[-1])
        self.slots: dict[int, list[int]] = {}
        self.touched: dict[int, list[int]] = {}
        for d in range(self.depths[0], self.depths[-1] + 1):
            self.touched[d] = [n for n in range(count) if d in names[n]]
            self.slots[d] = [n for n in range(count) if self._kept(n, d, parent[n])]
        self.base = [term.start for term in self.nodes]

    def _append(self, term: Term) -> int:
        args = tuple(self._append(arg) for arg in term.args)
        self.nodes.append(term)
        self.args.append(args)
        return len(self.nodes) - 1

    def _kept(self, n: int, d: int, parent: int) -> bool:
        if self.last[n] >= d:
            return self.nodes[n].op in GATHERS and any(0 <= self.last[arg] < d for arg in self.args[n])
        return self.last[n] >= 0 and self.last[parent] >= d and self.nodes[parent].op not in GATHERS

    def load(self, d: int, slots: Sequence[Value]) -> None:
        """Take the slots before depth d as the state that ``step`` and ``over`` start from."""
        self.base = [term.start for term in self.nodes]
        for n, value in zip(self.slots[d], slots, strict=True):
            self.base[n] = value
        self.value = list(self.base)

    def step(self, d: int, x: int) -> Slots | bool:
        """Decide the variable of depth d: False where the constraint fails, True where it holds whatever follows,
        else the slots before the next depth."""
        value = self.value
        for n in self.slots[d]:
            value[n] = self.base[n]
        for n in self.touched[d]:
            term = self.nodes[n]
            if term.op == Op.VAR:
                value[n] = x
            elif term.op in GATHERS:
                total = self.base[n]
                for i, arg in enumerate(self.args[n]):
                    if self.last[arg] == d:
                        part = value[arg]
                        if term.op == Op.ADD and part is not None:
                            part *= term.coefs[i]
                        total = combine(term.op, total, part)
                value[n] = total
            elif self.last[n] == d:
                value[n] = apply(term.op, [value[arg] for arg in self.args[n]], self.rows[n])
        if self.last[-1] == d:
            return value[-1] == 1
        bits = self._bits(d + 1, value, {})
        if bits == TRUE:
            return True
        if not bits & TRUE or not self._normalise(d + 1):
            return False
        return tuple(value[n] for n in self.slots[d + 1])

    def support(self, d: int) -> list[int] | None:
        """Where the constraint is a table whose next column is the variable of depth d, the values that its rows leave
        it, ascending; None: any may be possible."""
        args, term = self.args[-1], self.nodes[-1]
        if term.op != Op.TABLE:
            return None
        decided = [self.base[arg] for arg in args if self.last[arg] < d]
        at = len(decided)
        if at == len(args) or self.nodes[args[at]].op != Op.VAR or self.last[args[at]] != d:
            return None
        prefix = tuple(value for value in decided if value is not None)
        if len(prefix) < at:
            return []
        found: list[int] = []
        place = bisect_left(term.rows, prefix)
        while place < len(term.rows) and term.rows[place][:at] == prefix:
            x = term.rows[place][at]
            found.append(x)
            place = bisect_left(term.rows, (*prefix, x + 1), place)
        return found

    def over(self, d: int, low: int, high: int) -> int:
        """The bits of the constraint where the variable of depth d is anywhere in low .. high."""
        variables: dict[int, Interval] = {n: (low, high, 0) for n in self.touched[d] if self.nodes[n].op == Op.VAR}
        return self._bits(d, self.base, variables)

    def _bits(self, d: int, value: Sequence[Value], variables: Mapping[int, Interval]) -> int:
        """The root's bits, the variables before depth d decided. variables: spans of the nodes at depth d."""
        reach = d if variables else d - 1
        spans: list[Interval] = []
        for n, term in enumerate(self.nodes):
            if n in variables:
                span = variables[n]
            elif self.last[n] < d:
                span = _exact(value[n], term.op >= Op.TRUE)
            elif self.first[n] > reach:
                span = term.span
            elif term.op in GATHERS:
                span = self._partial(n, d, value[n], spans)
            else:
                span = bound(term.op, [spans[arg] for arg in self.args[n]], term.rows)
            spans.append(span)
        return spans[-1][2]

    def _partial(self, n: int, d: int, gathered: Value, spans: Sequence[Interval]) -> Interval:
        """The span of an operator of GATHERS from what it has gathered and its undecided operands."""
        term = self.nodes[n]
        total = _exact(gathered, term.op >= Op.TRUE)
        for i, arg in enumerate(self.args[n]):
            if 0 <= self.last[arg] < d:
                continue
            span = spans[arg]
            if term.op == Op.AND:
                total = (0, 0, intervals.conjunction(total[2], span[2]))
            elif term.op == Op.OR:
                total = (0, 0, intervals.disjunction(total[2], span[2]))
            elif term.op == Op.ADD:
                total = intervals.add(total, intervals.multiply((term.coefs[i], term.coefs[i], 0), span))
            else:
                total = ARITHMETIC[term.op](total, span)
        return NEVER if term.op < Op.TRUE and total[2] == 2 else total

    def _normalise(self, d: int) -> bool:
        """Make slots with the same future equal; False where a divisor shows that there is none."""
        root = self.nodes[-1].op
        if root == Op.LE:
            self._divide_sum(d, self.args[-1][0])
        elif root == Op.DIVIDES:
            return self._reduce_dividend(d, *self.args[-1])
        return True

    def _divide_sum(self, d: int, n: int) -> None:
        """s + a p x + b q y <= 0: divide s by what divides every coefficient, and with it the gathered p, q."""
        value, term, kept = self.value, self.nodes[n], self.slots[d]
        total = value[n]
        if term.op != Op.ADD or n not in kept or total is None:
            return
        whole = common = 0
        products = []
        for i, arg in enumerate(self.args[n]):
            if self.last[arg] < d:
                continue
            gathered: Value = 1
            if self.nodes[arg].op == Op.MUL and arg in kept:
                products.append(arg)
                gathered = value[arg]
            if gathered is None:
                return
            whole, common = gcd(whole, term.coefs[i] * gathered), gcd(common, gathered)
        if whole > 1:
            value[n] = ceil_divide(total, whole) * (whole // common)
            for arg in products:
                value[arg] = (value[arg] or 0) // common

    def _reduce_dividend(self, d: int, divisor: int, dividend: int) -> bool:
        value, kept = self.value, self.slots[d]
        by, of = value[divisor], value[dividend]
        if self.last[dividend] < d:
            # The dividend is known: what was gathered of the divisor must divide it.
            partial = self.nodes[divisor].op == Op.MUL and divisor in kept
            return not partial or by is None or of is None or (by != 0 and of % by == 0)
        if self.last[divisor] < d and by and of and dividend in kept:
            if self.nodes[dividend].op == Op.MUL:
                value[dividend] = gcd(of, by)
            elif self.nodes[dividend].op == Op.ADD:
                value[dividend] = of % abs(by)
        return True


def arranged(term: Term, place: Mapping[int, int]) -> Term:
    """A term where the columns of each table come in the order in which they are decided, known numbers first."""
    if not _holds_table(term):
        return term
    args = tuple(arranged(arg, place) for arg in term.args)
    if term.op not in (Op.TABLE, Op.NOT_TABLE):
        return term._replace(args=args)
    decided = [_last(arg, place) for arg in args]
    order = sorted(range(len(args)), key=decided.__getitem__)
    if order == list(range(len(args))):
        return term._replace(args=args)
    rows = tuple(sorted(tuple(row[column] for column in order) for row in term.rows))
    return term._replace(args=tuple(args[column] for column in order), rows=rows)


def _holds_table(term: Term) -> bool:
    waiting = [term]
    for each in waiting:
        if each.op in (Op.TABLE, Op.NOT_TABLE):
            return True
        waiting += each.args
    return False


def _last(term: Term, place: Mapping[int, int]) -> int:
    """The depth at which a term is decided; -1 for a known number."""
    if term.op == Op.VAR:
        return place[term.start or 0]
    return max((_last(arg, place) for arg in term.args), default=-1)


def _exact(value: Value, condition: bool) -> Interval:
    if condition:
        return 0, 0, UNDEFINED if value is None else TRUE if value else FALSE
    return NEVER if value is None else (value, value, 0)
