"""The C++ core behind the same calls as ``PythonSearch`` and ``PythonProver``."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from constrint.domains import Domain
from constrint.errors import TimeLimit
from constrint.forward import forward
from constrint.intervals import Interval
from constrint.limits import PASSED
from constrint.program import Code, Op, Program

if TYPE_CHECKING:
    from constrint.prove import PythonProver

SAFE = 1 << 61
"""The core can add two numbers of up to this size in 64 bits."""
LARGEST_BATCH = 4096
WIDE, NARROW = 1, 2
"""What ``bit_width`` says of a program's numbers."""


def fits(program: Program, wide: bool = False) -> bool:
    """Whether 64 bits suffice: every node of every constraint stays within +-2**61 over the program's domains.

    Interval arithmetic is inclusion-monotone, so this holds below the root too. wide: sums and products of numbers
    that are never negative may be larger; the core's prover lets them saturate. They may only be added, multiplied
    and compared.
    """
    needed = WIDE if wide else NARROW
    if program.bit_width < needed:
        program.bit_width = bit_width(program)
    return program.bit_width >= needed


def bit_width(program: Program) -> int:
    """NARROW where every number stays within +-2**61, WIDE where those that do not may saturate, else 0."""
    low = [domain[0] for domain in program.domains]
    high = [domain[-1] for domain in program.domains]
    if any(abs(x) > SAFE for x in (*low, *high)):
        return 0
    found = NARROW
    for code in program.codes:
        if any(abs(x) > SAFE for x in code.a) or any(reach > SAFE for reach in code.reaches):
            return 0
        if all(op == Op.VAR for op in code.ops[:-1]):
            continue
        spans = forward(code, low, high)
        large = {i for i, (least, most, _) in enumerate(spans) if abs(least) > SAFE or abs(most) > SAFE}
        if large and not _saturates(code, spans, large):
            return 0
        found = min(found, WIDE if large else NARROW)
    return found


def _saturates(code: Code, spans: Sequence[Interval], large: set[int]) -> bool:
    """Whether the core may let the large nodes saturate."""
    for i, (op, a, b) in enumerate(zip(code.ops, code.a, code.b, strict=True)):
        if op in (Op.ADD, Op.MUL):
            if large & {i, a, b} and min(spans[a][0], spans[b][0]) < 0:
                return False
        elif op in (Op.TABLE, Op.NOT_TABLE):
            if large & set(code.tables[a][0]):
                return False
        elif i in large or (op > Op.VAR and op < Op.INDICATOR and large & {a, b}):
            return False
    return True


class NativeSearch:
    """The search over one presolved program for which ``fits`` holds. deadline: a time.perf_counter() value."""

    def __init__(self, program: Program, core: Any) -> None:
        assert max(Op) == core.LAST_OP
        self.program, self.core = program, core

    def _make(self, order: Sequence[int], descending: Sequence[bool], always: Sequence[int] = ()) -> Any:
        from constrint.search import frontiers

        large = [int(down) for down in descending]
        return self.core.Search(*_program(self.program), list(order), large, frontiers(self.program, order, always))

    def solutions(
        self, order: Sequence[int], descending: Sequence[bool], deadline: float | None = None
    ) -> Iterator[list[int]]:
        """See PythonSearch; solutions come in growing batches, each continuing after the last solution."""
        search = self._make(order, descending)
        last, limit = None, 1
        while True:
            try:
                batch = search.solutions(last, limit, _seconds(deadline))
            except self.core.CoreTimeLimit:
                raise TimeLimit(PASSED) from None
            yield from batch
            if len(batch) < limit:
                return
            last, limit = batch[-1], min(limit * 4, LARGEST_BATCH)

    def count(self, order: Sequence[int], deadline: float | None = None) -> int:
        """See PythonSearch; a count beyond 128 bits is left to it."""
        try:
            high, low = self._make(order, [False] * len(order)).count(_seconds(deadline))
        except self.core.CoreTimeLimit:
            raise TimeLimit(PASSED) from None
        except self.core.CoreCountOverflow:
            from constrint.search import PythonSearch

            return PythonSearch(self.program).count(order, deadline)
        return int(high) << 64 | int(low)

    def probe(
        self, order: Sequence[int], rows: Iterable[Sequence[float]], deadline: float | None = None
    ) -> Iterator[tuple[list[int], list[int]]]:
        """See PythonSearch."""
        search = self._make(order, [False] * len(order))
        for row in rows:
            try:
                yield search.probe(list(row), _seconds(deadline))
            except self.core.CoreTimeLimit:
                raise TimeLimit(PASSED) from None

    def best(
        self, order: Sequence[int], descending: Sequence[bool], bounded: Code, deadline: float | None = None
    ) -> tuple[int | None, list[int] | None, bool]:
        """See PythonSearch."""
        assert self.program.codes[-1] is bounded
        value, solution, finished = self._make(order, descending, bounded.variables).best(_seconds(deadline))
        return value, None if value is None else solution, finished


class NativeProver:
    """See PythonProver, which takes over where saturated numbers (see ``fits``) cannot be told apart."""

    def __init__(self, program: Program, order: Sequence[int], descending: Sequence[bool], core: Any) -> None:
        self.core = core
        self.program, self.order, self.descending = program, order, descending
        self.prover = make_prover(program, order, descending, core)
        self.twin: PythonProver | None = None

    def any(self, deadline: float | None = None) -> list[int] | None:
        """See PythonProver."""
        return self._ask("any", deadline)

    def first(self, deadline: float | None = None) -> list[int] | None:
        """See PythonProver."""
        return self._ask("first", deadline)

    @property
    def weight(self) -> list[float]:
        """See PythonProver."""
        weight: list[float] = self.prover.weight if self.twin is None else self.twin.weight
        return weight

    @weight.setter
    def weight(self, weight: list[float]) -> None:
        self.prover.weight = weight

    def conflict(self) -> int:
        """See PythonProver."""
        return _bits(self.prover.conflict()) if self.twin is None else self.twin.conflict()

    def _ask(self, what: Literal["any", "first"], deadline: float | None) -> list[int] | None:
        self.twin = None
        try:
            found: list[int] | None = getattr(self.prover, what)(_seconds(deadline))
            return found
        except self.core.CoreTimeLimit:
            raise TimeLimit(PASSED) from None
        except self.core.CoreTooWide:
            from constrint.prove import PythonProver

            self.twin = PythonProver(self.program, self.order, self.descending)
            return self.twin.any(deadline) if what == "any" else self.twin.first(deadline)


class NativeRoot:
    """Propagation at the root by the core; what ``presolve`` reads from a ``State``, by the same names."""

    def __init__(self, program: Program, core: Any, deadline: float | None = None) -> None:
        self.program, self.core, self.deadline = program, core, deadline
        self.prover = make_prover(program, (), (), core)

    def propagate(self) -> bool:
        """Propagate everything; False where there is no solution. Raises TimeLimit."""
        try:
            if not self.prover.fixpoint(_seconds(self.deadline)):
                return False
        except self.core.CoreTimeLimit:
            raise TimeLimit(PASSED) from None
        found = self.prover.root()
        self.values, self.low, self.high = ([row[column] for row in found] for column in range(3))
        self.why = [_bits(row[3]) for row in found]
        self.entailed = [self.prover.entailed(number) for number in range(len(self.program.codes))]
        return True

    def failure(self) -> int:
        """After False: the reasons."""
        return _bits(self.prover.conflict())

    def domain(self, v: int) -> Domain:
        """What is left of a variable's domain."""
        old = self.program.domains[v]
        return range(self.low[v], self.high[v] + 1, old.step) if isinstance(old, range) else tuple(self.values[v])


def make_prover(program: Program, order: Sequence[int], descending: Sequence[bool], core: Any) -> Any:
    """The core's prover of a program."""
    source = [code.source for code in program.codes]
    why = [_numbers(reasons) for reasons in program.why]
    large = [int(down) for down in descending]
    return core.Prover(*_program(program), program.sources, source, why, list(order), large)


def _bits(numbers: Sequence[int]) -> int:
    return sum(1 << number for number in numbers)


def _seconds(deadline: float | None) -> float:
    return -1.0 if deadline is None else max(0.0, deadline - time.perf_counter())


def _numbers(bits: int) -> list[int]:
    """The numbers of the bits that are set."""
    result = []
    while bits:
        least = bits & -bits
        result.append(least.bit_length() - 1)
        bits ^= least
    return result


def _program(program: Program) -> tuple[list[object], list[object], list[object]]:
    """Domains, codes and rules as the core takes them."""
    domains: list[object] = [
        ([], domain[0], domain[-1], domain.step) if isinstance(domain, range) else (domain, domain[0], domain[-1], 1)
        for domain in program.domains
    ]
    rules: list[object] = [
        (rule.variables, rule.offsets, rule.durations, rule.demands, rule.capacity, _numbers(rule.why))
        for rule in program.rules
    ]
    return domains, [_arguments(code) for code in program.codes], rules


def _arguments(code: Code) -> tuple[object, ...]:
    tables = [(operands, [x for row in rows for x in row]) for operands, rows in code.tables]
    return code.ops, code.a, code.b, tables, code.variables
