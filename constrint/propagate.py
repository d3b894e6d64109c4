"""Propagation to a fixpoint over finite domains; the Python twin of the core's inner loop.

Each constraint is revised by evaluating its code forward over intervals and projecting the result back (HC4), and,
where one variable is left, by testing each of its values. Neither removes a value that has support.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import reduce
from operator import or_

from constrint import project
from constrint.domains import Domain
from constrint.forward import forward, test
from constrint.intervals import TRUE, Interval
from constrint.limits import check_time
from constrint.program import Code, Op, Program, reasons
from constrint.rules import narrowed

LAST = 2
REVISIONS_PER_CONSTRAINT = 50
"""Revisions of one fixpoint per constraint: beyond that, search splits instead of creeping along huge ranges."""


class State:
    """Current domains of a program's variables, with a trail to undo changes.

    A listed variable has a bit mask over its values; a range has its bounds alone. Constraints known to hold whatever
    happens below are marked entailed and skipped. permanent: the constraint that may never be, since the bound in it
    moves (-1: none). deadline: when ``propagate`` gives up.

    Each domain comes with its reasons, a sum of bits: 1 << number for a constraint of the problem that shaped it,
    and a higher bit for each level of decision (see ``constrint.prove``). A revision's changes have the reasons of
    all it looked at.
    """

    def __init__(self, program: Program, permanent: int = -1, deadline: float | None = None) -> None:
        self.codes, self.permanent, self.deadline = program.codes, permanent, deadline
        self.values: list[tuple[int, ...] | None] = []
        self.steps: list[int] = []
        self.low: list[int] = []
        self.high: list[int] = []
        self.mask: list[int] = []
        for domain in program.domains:
            is_range = isinstance(domain, range)
            self.values.append(None if isinstance(domain, range) else domain)
            self.steps.append(domain.step if isinstance(domain, range) else 1)
            self.low.append(domain[0])
            self.high.append(domain[-1])
            self.mask.append(0 if is_range else (1 << len(domain)) - 1)
        self.entailed = [False] * len(program.codes)
        self.active = len(program.codes)
        self.watch: list[list[int]] = [[] for _ in program.domains]
        for number, code in enumerate(program.codes):
            for v in code.variables:
                self.watch[v].append(number)
        # Rules are numbered after the codes.
        self.rules = program.rules
        self.waiting: set[int] = set()
        self.ruled: list[list[int]] = [[] for _ in program.domains]
        for number, rule in enumerate(program.rules):
            for v in rule.variables:
                self.ruled[v].append(number)
        self.queue: list[int] = []
        self.queued = [False] * len(program.codes)
        self.trail: list[tuple[int, int, int, int, int]] = []
        self.why = list(program.why) or [0] * len(program.domains)
        self.reviser = -1
        self.reason: int | None = 0

    def domain(self, v: int) -> Domain:
        """What is left of a variable's domain."""
        if self.values[v] is None:
            return range(self.low[v], self.high[v] + 1, self.steps[v])
        return tuple(self.current(v))

    def size(self, v: int) -> int:
        """How many values variable ``v`` has left."""
        if self.values[v] is not None:
            return self.mask[v].bit_count()
        return (self.high[v] - self.low[v]) // self.steps[v] + 1

    def current(self, v: int) -> list[int]:
        """The values that variable ``v`` has left, ascending."""
        values, mask = self.values[v], self.mask[v]
        if values is None:
            return list(range(self.low[v], self.high[v] + 1, self.steps[v]))
        result = []
        while mask:
            bit = mask & -mask
            result.append(values[bit.bit_length() - 1])
            mask ^= bit
        return result

    def undo(self, mark: int) -> None:
        """Take back every change since the trail had length ``mark``."""
        while len(self.trail) > mark:
            v, low, high, mask, why = self.trail.pop()
            if v < 0:
                self.entailed[-v - 1] = False
                self.active += 1
            else:
                self.low[v], self.high[v], self.mask[v], self.why[v] = low, high, mask, why
        for number in self.queue:
            self.queued[number] = False
        self.queue.clear()
        self.waiting.clear()

    def scope(self, number: int) -> tuple[int, ...]:
        """The variables of a constraint, or of a rule."""
        count = len(self.codes)
        return self.codes[number].variables if number < count else self.rules[number - count].variables

    def explain(self, number: int) -> int:
        """The reasons of what a revision of constraint ``number`` (or rule) changes or finds."""
        if number >= len(self.codes):
            rule = self.rules[number - len(self.codes)]
            return reduce(or_, (self.why[v] for v in rule.variables), rule.why)
        return reasons(self.codes[number], self.why)

    def failure(self) -> int:
        """After ``propagate`` failed: the reasons."""
        return self.explain(self.reviser)

    def decide(self, v: int, low: int, high: int, reason: int) -> bool:
        """``restrict`` as a decision whose reason is that bit (0: a fact)."""
        self.reviser, self.reason = -1, reason
        return self.restrict(v, low, high)

    def restrict(self, v: int, low: int, high: int) -> bool:
        """Keep the values of ``v`` in low .. high; False where none is left."""
        if low <= self.low[v] and high >= self.high[v]:
            return True
        values = self.values[v]
        if values is None:
            first, step = self.low[v], self.steps[v]
            new_low = first + project.ceil_divide(max(low, first) - first, step) * step
            new_high = first + (min(high, self.high[v]) - first) // step * step
            if new_low > new_high:
                return False
            self._set(v, new_low, new_high, 0)
            return True
        start, stop = bisect_left(values, low), bisect_right(values, high)
        return stop > start and self.keep(v, self.mask[v] & ((1 << stop) - (1 << start)))

    def keep(self, v: int, mask: int) -> bool:
        """Keep the values of the listed variable ``v`` whose bit is in ``mask``; False where none is left."""
        values = self.values[v]
        assert values is not None
        if not mask:
            return False
        if mask != self.mask[v]:
            self._set(v, values[(mask & -mask).bit_length() - 1], values[mask.bit_length() - 1], mask)
        return True

    def _set(self, v: int, low: int, high: int, mask: int) -> None:
        if self.reason is None:
            self.reason = self.explain(self.reviser)
        self.trail.append((v, self.low[v], self.high[v], self.mask[v], self.why[v]))
        self.low[v], self.high[v], self.mask[v] = low, high, mask
        self.why[v] |= self.reason
        for number in self.watch[v]:
            self.schedule(number)
        self.waiting.update(self.ruled[v])

    def schedule(self, number: int) -> None:
        """Have constraint ``number`` revised at the next propagation."""
        if not self.queued[number] and not self.entailed[number]:
            self.queued[number] = True
            self.queue.append(number)

    def propagate(self) -> bool:
        """Revise what is scheduled until nothing changes; False where some constraint cannot hold. Raises TimeLimit."""
        while self._revise_all():
            if not self.waiting:
                return True
            if not self._apply(self.waiting.pop()):
                return False
        return False

    def _apply(self, number: int) -> bool:
        """What a rule leaves of its variables; False where it cannot hold."""
        self.reviser, self.reason = len(self.codes) + number, None
        rule = self.rules[number]
        found = narrowed(rule, self.low, self.high)
        return found is not None and all(
            low <= high and self.restrict(v, low, high) for v, (low, high) in zip(rule.variables, found, strict=True)
        )

    def _revise_all(self) -> bool:
        """As ``propagate``, without the rules."""
        budget = REVISIONS_PER_CONSTRAINT * (len(self.codes) + 1)
        position = 0
        while position < len(self.queue):
            number = self.queue[position]
            position += 1
            self.queued[number] = False
            if self.entailed[number]:
                continue
            check_time(self.deadline)
            if not self._revise(number):
                return False
            budget -= 1
            if budget < 0:
                # Only constraints with something left to decide may be put off: a decided one must be tested.
                rest = [n for n in self.queue[position:] if not self.entailed[n]]
                for n in self.queue[position:]:
                    self.queued[n] = False
                self.queue.clear()
                return all(self._revise(n) for n in rest if self._decided(n))
        self.queue.clear()
        return True

    def _decided(self, number: int) -> bool:
        return all(self.low[v] == self.high[v] for v in self.codes[number].variables)

    def _revise(self, number: int) -> bool:
        code = self.codes[number]
        self.reviser, self.reason = number, None
        spans = forward(code, self.low, self.high)
        bits = spans[-1][LAST]
        if not bits & TRUE:
            return False
        if bits == TRUE:
            self._entail(number)
            return True
        loose = [v for v in code.variables if self.low[v] != self.high[v]]
        if len(loose) == 1 and self.values[loose[0]] is not None:
            return self._filter(number, loose[0])
        return self._backward(code, spans)

    def _entail(self, number: int) -> None:
        if number != self.permanent:
            self.entailed[number] = True
            self.active -= 1
            self.trail.append((-number - 1, 0, 0, 0, 0))

    def _filter(self, number: int, v: int) -> bool:
        """Keep the values of ``v``, the one variable not fixed, under which the constraint holds."""
        code, values, point = self.codes[number], self.values[v], self.low
        assert values is not None
        rest, kept, fixed = self.mask[v], 0, point[v]
        while rest:
            bit = rest & -rest
            rest ^= bit
            point[v] = values[bit.bit_length() - 1]
            if test(code, point):
                kept |= bit
        point[v] = fixed
        if not self.keep(v, kept):
            return False
        self._entail(number)
        return True

    def _backward(self, code: Code, spans: list[Interval]) -> bool:
        ops, left, right = code.ops, code.a, code.b
        wanted: list[tuple[int, int] | None] = [None] * len(ops)
        required = [False] * len(ops)
        required[-1] = True
        # A number other than 0 that the node must divide.
        multiple = [0] * len(ops)

        def want(node: int, bounds: tuple[int, int]) -> bool:
            low, high, _ = spans[node]
            wanted[node] = bounds = max(low, bounds[0]), min(high, bounds[1])
            return bounds[0] <= bounds[1]

        for i in range(len(ops) - 1, -1, -1):
            op, a, b = ops[i], left[i], right[i]
            bounds = wanted[i]
            if bounds is not None:
                if op == Op.VAR:
                    if not self.restrict(a, *bounds) or (multiple[i] and not self._keep_divisors(a, multiple[i])):
                        return False
                elif op == Op.INDICATOR:
                    required[a] = bounds[0] > 0
                elif op != Op.CONST:
                    first, second = PROJECTIONS[op](spans[a][:2], spans[b][:2], bounds)
                    if not want(a, first) or (a != b and not want(b, second)):
                        return False
                    if op == Op.MUL:
                        # The factors of a product divide what the product divides.
                        multiple[a] = multiple[b] = multiple[i]
            elif required[i]:
                x, y = spans[a], spans[b]
                if op == Op.LE:
                    possible = want(a, (x[0], y[1])) and want(b, (x[0], y[1]))
                elif op == Op.EQ:
                    possible = want(a, y[:2]) and want(b, x[:2])
                    multiple[a] = y[0] if y[0] == y[1] else 0
                    multiple[b] = x[0] if x[0] == x[1] else 0
                elif op == Op.NE or op == Op.DIVIDES:
                    first, second = (project.unequal if op == Op.NE else project.divides)(x[:2], y[:2])
                    possible = want(a, first) and want(b, second)
                    if op == Op.DIVIDES and y[0] == y[1]:
                        multiple[a] = y[0]
                    if possible and op == Op.NE:
                        possible = self._remove_value(code, a, b, spans) and self._remove_value(code, b, a, spans)
                elif op == Op.AND:
                    required[a] = required[b] = possible = True
                elif op == Op.OR:
                    if not spans[a][LAST] & TRUE:
                        required[b] = True
                    elif not spans[b][LAST] & TRUE:
                        required[a] = True
                    possible = True
                elif op == Op.TABLE:
                    possible = self._rows(code, a, spans, want)
                else:
                    possible = op not in (Op.FALSE,)
                if not possible:
                    return False
        return True

    def _remove_value(self, code: Code, node: int, other: int, spans: list[Interval]) -> bool:
        """Remove the value of a decided number from a listed variable that must differ from it."""
        low, high, _ = spans[other]
        v = code.a[node]
        values = self.values[v] if code.ops[node] == Op.VAR else None
        if low != high or values is None:
            return True
        place = bisect_left(values, low)
        if place < len(values) and values[place] == low:
            return self.keep(v, self.mask[v] & ~(1 << place))
        return True

    def _keep_divisors(self, v: int, number: int) -> bool:
        """Keep the values of a listed, undecided variable that divide a number other than 0."""
        values, rest = self.values[v], self.mask[v]
        if values is None or self.low[v] == self.high[v]:
            return True
        kept = 0
        while rest:
            bit = rest & -rest
            rest ^= bit
            value = values[bit.bit_length() - 1]
            if value and number % value == 0:
                kept |= bit
        return self.keep(v, kept)

    def _rows(self, code: Code, number: int, spans: list[Interval], want: object) -> bool:
        """Keep what some row of a table supports."""
        operands, rows = code.tables[number]
        lows = [spans[node][0] for node in operands]
        highs = [spans[node][1] for node in operands]
        alive = [row for row in rows if all(map(_within, lows, row, highs))]
        if not alive:
            return False
        for column, node in enumerate(operands):
            supported = {row[column] for row in alive}
            v = code.a[node]
            values = self.values[v] if code.ops[node] == Op.VAR else None
            if values is not None:
                mask = sum(1 << bisect_left(values, x) for x in supported if _member(values, x))
                if not self.keep(v, self.mask[v] & mask):
                    return False
            elif not want(node, (min(supported), max(supported))):  # type: ignore[operator]
                return False
        return True


PROJECTIONS = {int(op): function for op, function in project.PROJECTIONS.items()}


def _within(low: int, value: int, high: int) -> bool:
    return low <= value <= high


def _member(values: tuple[int, ...], x: int) -> bool:
    place = bisect_left(values, x)
    return place < len(values) and values[place] == x
