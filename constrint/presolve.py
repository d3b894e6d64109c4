"""What is done once before a search: lower, propagate at the root, shorten domains, drop what always holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from constrint.congruence import tighten
from constrint.differences import contradiction
from constrint.domains import Domain, divisors, listed, size
from constrint.expr import Expr
from constrint.forward import forward
from constrint.intervals import PowerTooLarge
from constrint.limits import check_time
from constrint.lower import Lowering
from constrint.matching import distinct, groups
from constrint.program import Code, Op, Program, Tree, reasons
from constrint.rules import find_rules
from constrint.statement import Statement

if TYPE_CHECKING:
    from constrint.native import NativeRoot
    from constrint.propagate import State


FEW_MULTIPLES = 256
"""Divisors are listed of a number that has at most this many values."""


@dataclass
class Prepared:
    """A problem after presolve.

    program: with propagated domains; None where propagation alone proves that there is no solution. objective: lowered.
    conflict: in that case, constraints that cannot hold together, as a sum of 1 << number.
    """

    program: Program | None
    objective: Tree | None = None
    conflict: int = 0


def presolve(
    problem: Statement, objective: Expr | None = None, deadline: float | None = None
) -> tuple[Program | None, Tree | None]:
    """The program and the objective of ``prepare``."""
    prepared = prepare(problem, objective, deadline=deadline)
    return prepared.program, prepared.objective


def prepare(
    problem: Statement,
    objective: Expr | None = None,
    core: Any = None,
    chosen: Iterable[int] | None = None,
    deadline: float | None = None,
) -> Prepared:
    """Lower a problem and propagate at the root, in the C++ core if it is given and can.

    chosen: the numbers of the constraints that count; all by default.

    Raises ConstrintError for what cannot be lowered, such as a power too large to compute; TimeLimit.
    """
    codes_of = _Codes(problem)
    program, constraints = codes_of.program, problem.constraints
    chosen = None if chosen is None else list(chosen)
    waiting = list(range(len(constraints)) if chosen is None else chosen)
    while True:
        # A power may be too large over the declared domains and small once the other constraints are applied.
        postponed = []
        trouble = None
        for number in waiting:
            check_time(deadline)
            try:
                program.codes += codes_of(number)
            except PowerTooLarge as error:
                postponed.append(number)
                trouble = error
        if chosen is None:
            program.codes = _join_exclusions(program.codes)
        program.bit_width = 0
        conflict = contradiction(program.codes, deadline) or _shorten(program, core, deadline)
        if conflict:
            return Prepared(None, None, conflict)
        if not postponed:
            break
        if trouble is not None and len(postponed) == len(waiting):
            raise trouble
        waiting = postponed
    program.rules = find_rules(program, constraints, range(len(constraints)) if chosen is None else chosen)
    return Prepared(program, None if objective is None else codes_of.lowering.integer(objective, "the objective"))


def lowered(problem: Statement, deadline: float | None = None) -> Program | None:
    """A problem over its declared domains, nothing propagated; None where a power is too large over these.

    Raises ConstrintError and TimeLimit as ``prepare`` does.
    """
    codes_of = _Codes(problem)
    program = codes_of.program
    for number in range(len(problem.constraints)):
        check_time(deadline)
        try:
            program.codes += codes_of(number)
        except PowerTooLarge:
            return None
    program.codes = _join_exclusions(program.codes)
    return program


class _Codes:
    """What the constraints of a problem become, by number, over the domains of ``program``, empty at first."""

    def __init__(self, problem: Statement) -> None:
        names = list(problem.domains)
        self.problem, self.constraints = problem, problem.constraints
        self.program = Program(names, list(problem.domains.values()), [], len(self.constraints) + 1, [0] * len(names))
        self.lowering = Lowering({name: v for v, name in enumerate(names)}, self._bounds)
        self.depends = False

    def __call__(self, number: int) -> list[Code]:
        """Raises PowerTooLarge. The code of a constraint that does not depend on the domains serves every call."""
        known = self.problem.lowered.get(number)
        if known is not None:
            return known
        self.depends = False
        stated = self.lowering.condition(self.constraints[number].stated)
        codes = [Code.of(tree, number) for tree in _conjuncts(stated)]
        if not self.depends:
            self.problem.lowered[number] = codes
        return codes

    def _bounds(self, v: int) -> tuple[int, int]:
        self.depends = True
        domain = self.program.domains[v]
        return domain[0], domain[-1]


def _join_exclusions(codes: list[Code]) -> list[Code]:
    """The codes with those that exclude rows of the same variables joined to one: a search excludes thousands."""
    groups: dict[tuple[int, ...], list[Code]] = {}
    for code in codes:
        if code.ops[-1] == Op.NOT_TABLE and all(op == Op.VAR for op in code.ops[:-1]):
            groups.setdefault(tuple(code.a[:-1]), []).append(code)
    joined = {id(code): group for group in groups.values() if len(group) > 1 for code in group}
    if not joined:
        return codes
    kept = [code for code in codes if id(code) not in joined]
    for group in {id(group): group for group in joined.values()}.values():
        first = group[0]
        rows = tuple(sorted({row for code in group for row in code.tables[0][1]}))
        tables, sets = [(first.tables[0][0], rows)], [frozenset(rows)]
        kept.append(Code(first.ops, first.a, first.b, tables, sets, first.variables, first.source))
    return kept


def _conjuncts(tree: Tree) -> Iterator[Tree]:
    if tree.op == Op.AND:
        for arg in tree.args:
            yield from _conjuncts(arg)
    else:
        yield tree


def _shorten(program: Program, core: Any, deadline: float | None) -> int:
    """Propagate and list domains until neither changes anything; 0, or the reasons where a constraint cannot hold."""
    while True:
        state = _root(program, core, deadline)
        if not state.propagate():
            return state.failure()
        domains = [listed(state.domain(v)) for v in range(len(program.domains))]
        low, high = [domain[0] for domain in domains], [domain[-1] for domain in domains]
        again = any(
            isinstance(old, range) and not isinstance(new, range)
            for old, new in zip(program.domains, domains, strict=True)
        )
        for number, code in enumerate(program.codes):
            if state.entailed[number]:
                continue
            check_time(deadline)
            for v, values in _factors(code, domains, low, high):
                if not values:
                    return reasons(code, state.why)
                domains[v] = values
                state.why[v] |= reasons(code, state.why)
                again = True
        program.why[:] = state.why
        program.codes[:] = [code for number, code in enumerate(program.codes) if not state.entailed[number]]
        program.domains[:] = domains
        if again:
            continue
        again, conflict = tighten(program.codes, program.domains, program.why, deadline)
        if not again and not conflict:
            again, conflict = _differ(program, deadline)
        if conflict or not again:
            return conflict


def _differ(program: Program, deadline: float | None) -> tuple[bool, int]:
    """Shorten the domains of variables that all differ; whether any was, and the reasons where they cannot."""
    again = False
    for members, why in groups(program.codes):
        check_time(deadline)
        for v in members:
            why |= program.why[v]
        found = distinct(members, program.domains)
        if found is None:
            return False, why
        for v, values in found.items():
            program.domains[v], program.why[v], again = values, why, True
    return again, 0


def _root(program: Program, core: Any, deadline: float | None) -> State | NativeRoot:
    """The program with every constraint to be revised."""
    if core is not None:
        from constrint.native import NativeRoot, fits

        if fits(program, wide=True):
            return NativeRoot(program, core, deadline)
    from constrint.propagate import State

    state = State(program, deadline=deadline)
    for number in range(len(program.codes)):
        state.schedule(number)
    return state


def _factors(
    code: Code, domains: list[Domain], low: list[int], high: list[int]
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Where a product of variables equals or divides one of few known numbers, each of those variables that has other
    values than divisors of these, and those of its values that are."""
    op, left, right = code.ops[-1], code.a[-1], code.b[-1]
    if op not in (Op.EQ, Op.DIVIDES):
        return
    for product, number in ((left, right), (right, left)) if op == Op.EQ else ((left, right),):
        variables = [v for v in _leaves(code, product) if low[v] != high[v]]
        if not variables:
            continue
        if code.ops[number] == Op.VAR:
            values: Domain = domains[code.a[number]]
        elif code.ops[number] == Op.CONST:
            values = (code.a[number],)
        elif all(low[v] == high[v] for v in _variables(code, number)):
            least, most, _ = forward(code, low, high)[number]
            values = range(least, most + 1)
        else:
            continue
        if (isinstance(values, range) and size(values) > 1) or len(values) > FEW_MULTIPLES or 0 in values:
            continue
        found = []
        for value in values:
            found.append(divisors(abs(value)))
            if found[-1] is None:
                break
        if None in found:
            continue
        known = {divisor for each in found if each is not None for divisor in each}
        for v in variables:
            if isinstance(domains[v], range):
                values = tuple(x for x in sorted(known | {-x for x in known}) if x in domains[v])
            else:
                values = tuple(x for x in domains[v] if abs(x) in known)
            if len(values) < size(domains[v]):
                yield v, values


def _variables(code: Code, node: int) -> Iterator[int]:
    """The variables under a numeric node; the operands of a condition in it are left out."""
    op = code.ops[node]
    if op == Op.VAR:
        yield code.a[node]
    elif op not in (Op.CONST, Op.INDICATOR):
        for operand in {code.a[node], code.b[node]}:
            yield from _variables(code, operand)


def _leaves(code: Code, node: int) -> Iterator[int]:
    """The variables that are factors of a node."""
    if code.ops[node] == Op.VAR:
        yield code.a[node]
    elif code.ops[node] == Op.MUL:
        yield from _leaves(code, code.a[node])
        yield from _leaves(code, code.b[node])
