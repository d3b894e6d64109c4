"""Contradictions among differences, such as x < y < z < x.

Bounds alone would creep towards each other over the whole of both domains. Here every constraint g x + c <= g y (and
each side of g x + c == g y) is an edge of weight c / g, rounded up, from x to y; a cycle of positive weight says x < x.
Bellman and Ford's algorithm finds one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from constrint.limits import check_time
from constrint.program import Code, Op

Edge = tuple[int, int, int, int]
"""from, to, weight, and the number of the problem's constraint."""
CONSTANT = -1
"""Stands for the constant among the variables of a sum."""


def contradiction(codes: Sequence[Code], deadline: float | None = None) -> int:
    """The constraints of a cycle of differences that cannot hold, as a sum of 1 << number; 0 where there is none.

    Raises TimeLimit at ``deadline``."""
    edges = [edge for code in codes for edge in _edges(code)]
    height: dict[int, int] = {v: 0 for edge in edges for v in edge[:2]}
    into: dict[int, Edge] = {}
    raised = None
    for _ in height:
        raised = None
        check_time(deadline)
        for edge in edges:
            start, end, weight, _ = edge
            if height[start] + weight > height[end]:
                height[end] = height[start] + weight
                into[end] = edge
                raised = end
        if raised is None:
            return 0
    if raised is None:
        return 0
    # Still rising after as many rounds as there are variables: the way back leads into a cycle.
    for _ in height:
        raised = into[raised][0]
    conflict, v = 0, raised
    while True:
        conflict |= 1 << into[v][3]
        v = into[v][0]
        if v == raised:
            return conflict


def _edges(code: Code) -> Iterator[Edge]:
    if code.ops[-1] not in (Op.LE, Op.EQ) or len(code.variables) != 2:
        return
    total: dict[int, int] = {}
    if not (_add(code, code.a[-1], 1, total) and _add(code, code.b[-1], -1, total)):
        return
    # g x - g y + constant <= 0, in which y is at least x + constant / g.
    constant = total.pop(CONSTANT, 0)
    x, y = sorted(code.variables, key=lambda v: total.get(v, 0), reverse=True)
    factor = total.get(x, 0)
    if factor <= 0 or total.get(y, 0) != -factor:
        return
    yield x, y, -(-constant // factor), code.source
    if code.ops[-1] == Op.EQ:
        yield y, x, -(constant // factor), code.source


def _add(code: Code, node: int, factor: int, total: dict[int, int]) -> bool:
    """Add a node, times a factor, to a sum: coefficients by variable. False where the node is not linear."""
    op, a, b = code.ops[node], code.a[node], code.b[node]
    if op in (Op.VAR, Op.CONST):
        v = a if op == Op.VAR else CONSTANT
        total[v] = total.get(v, 0) + (factor if op == Op.VAR else factor * a)
        return True
    if op in (Op.ADD, Op.SUB):
        return _add(code, a, factor, total) and _add(code, b, factor if op == Op.ADD else -factor, total)
    if op == Op.MUL and Op.CONST in (code.ops[a], code.ops[b]):
        number, other = (a, b) if code.ops[a] == Op.CONST else (b, a)
        return _add(code, other, factor * code.a[number], total)
    return False
