"""What is done once before a search: lower, propagate at the root, shorten domains, drop what always holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from constrint.domains import Domain, divisors, listed
from constrint.expr import Expr
from constrint.intervals import PowerTooLarge
from constrint.lower import Lowering
from constrint.program import Code, Op, Program, Tree
from constrint.propagate import State, forward

if TYPE_CHECKING:
    from constrint.model import Problem


def presolve(problem: Problem, objective: Expr | None = None) -> tuple[Program | None, Tree | None]:
    """The problem as a program with propagated domains, and the lowered objective.

    The program is None where propagation alone proves that there is no solution. Raises ConstrintError for what
    cannot be lowered, such as a power too large to compute.
    """
    names = list(problem.domains)
    program = Program(names, list(problem.domains.values()), [])
    lowering = Lowering(
        {name: v for v, name in enumerate(names)}, lambda v: (program.domains[v][0], program.domains[v][-1])
    )
    waiting = [constraint.condition for constraint in problem.constraints]
    while True:
        # A power may be too large over the declared domains and small once the other constraints are applied.
        postponed = []
        trouble = None
        for condition in waiting:
            try:
                program.codes += [Code.of(tree) for tree in _conjuncts(lowering.condition(condition))]
            except PowerTooLarge as error:
                postponed.append(condition)
                trouble = error
        if not _shorten(program):
            return None, None
        if not postponed:
            break
        if trouble is not None and len(postponed) == len(waiting):
            raise trouble
        waiting = postponed
    return program, None if objective is None else lowering.integer(objective, "the objective")


def _conjuncts(tree: Tree) -> Iterator[Tree]:
    if tree.op == Op.AND:
        for arg in tree.args:
            yield from _conjuncts(arg)
    else:
        yield tree


def _shorten(program: Program) -> bool:
    """Propagate and list domains until neither changes anything; False where a constraint cannot hold."""
    while True:
        state = State(program)
        for number in range(len(program.codes)):
            state.schedule(number)
        if not state.propagate():
            return False
        domains = [_domain(state, v) for v in range(len(program.domains))]
        program.codes[:] = [code for number, code in enumerate(program.codes) if not state.entailed[number]]
        low, high = [domain[0] for domain in domains], [domain[-1] for domain in domains]
        for code in program.codes:
            if not _list_divisors(code, domains, low, high):
                return False
        again = any(
            isinstance(old, range) and not isinstance(new, range)
            for old, new in zip(program.domains, domains, strict=True)
        )
        program.domains[:] = domains
        if not again:
            return True


def _domain(state: State, v: int) -> Domain:
    if state.values[v] is None:
        return listed(range(state.low[v], state.high[v] + 1, state.steps[v]))
    return tuple(state.current(v))


def _list_divisors(code: Code, domains: list[Domain], low: list[int], high: list[int]) -> bool:
    """Where a range must divide a known number other than 0, list the divisors in it; False if there are none."""
    left, right = code.a[-1], code.b[-1]
    if code.ops[-1] != Op.DIVIDES or code.ops[left] != Op.VAR:
        return True
    v = code.a[left]
    domain = domains[v]
    number = forward(code, low, high)[right]
    if not isinstance(domain, range) or number[0] != number[1] or number[0] == 0:
        return True
    found = divisors(abs(number[0]))
    if found is None:
        return True
    values = tuple(x for x in (*(-d for d in reversed(found)), *found) if x in domain)
    if values:
        domains[v] = values
    return bool(values)
