"""Which engine an optimisation is for, before either has begun: sums over many variables at once are CP-SAT's.

Where each variable adds its part to an objective, ours is a shortest path through a diagram that has a node for each
value the sums of the constraints may have together. Where these are too many it is left with branch and bound, which
knows no relaxation of sums; CP-SAT does.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

from constrint.domains import Domain, size
from constrint.program import Op, Program, Tree
from constrint.residual import Term, residual

MANY = 16
"""Sums over fewer variables are left to search."""
MOST_NODES = 500_000
"""A diagram of more nodes takes longer than CP-SAT does, as a rule."""


def sums_prevail(program: Program, objective: Tree) -> bool:
    """Whether the constraints hold sums of many variables, and the values of these, together and along the way, are
    more than a diagram could hold; and the objective is a sum, too."""
    if not _is_sum(objective):
        return False
    values, widest = 1, 0
    for code in program.codes:
        if len(code.variables) < MANY:
            continue
        term = residual(code, program.domains)
        reach = _values(term, program.domains)
        if reach:
            values *= reach
            widest = max(widest, len(term.args[0].args))
        if values * widest > MOST_NODES:
            return True
    return False


def _values(term: Term, domains: Sequence[Domain]) -> int:
    """How many values a sum of variables may have that a constraint compares; 0 for any other constraint."""
    if term.op not in (Op.LE, Op.EQ) or term.args[0].op != Op.ADD:
        return 0
    total = term.args[0]
    if len(total.args) < MANY or any(arg.op != Op.VAR for arg in total.args):
        return 0
    reach = step = 0
    for coef, arg in zip(total.coefs, total.args, strict=True):
        domain = domains[arg.start or 0]
        reach += abs(coef) * (domain[-1] - domain[0])
        steps = domain.step if isinstance(domain, range) else gcd(*(x - domain[0] for x in domain))
        step = gcd(step, coef * steps)
    return min(reach // max(step, 1) + 1, _combinations(total, domains))


def _combinations(total: Term, domains: Sequence[Domain]) -> int:
    """In how many ways half of a sum's variables can be chosen, which bounds its values in the middle."""
    found = 1
    for arg in total.args[: len(total.args) // 2]:
        found *= size(domains[arg.start or 0])
    return found


def _is_sum(tree: Tree) -> bool:
    """Whether a number adds up variables, each times a constant."""
    waiting, variables = [tree], 0
    while waiting:
        node = waiting.pop()
        if node.op == Op.VAR:
            variables += 1
        elif node.op in (Op.ADD, Op.SUB) or (node.op == Op.MUL and Op.CONST in (node.args[0].op, node.args[1].op)):
            waiting += node.args
        elif node.op != Op.CONST:
            return False
    return variables > 0
