"""Contradictions among differences, such as x < y < z < x.

Bounds alone would creep towards each other over the whole of both domains. Here every constraint x + c <= y (and each
side of x + c == y) is an edge of weight c from x to y; a cycle of positive weight says x < x. Bellman and Ford's
algorithm finds one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from constrint.program import Code, Op

Edge = tuple[int, int, int, int]
"""from, to, weight, and the number of the problem's constraint."""


def contradiction(codes: Sequence[Code]) -> int:
    """The constraints of a cycle of differences that cannot hold, as a sum of 1 << number; 0 where there is none."""
    edges = [edge for code in codes for edge in _edges(code)]
    height: dict[int, int] = {v: 0 for edge in edges for v in edge[:2]}
    into: dict[int, Edge] = {}
    raised = None
    for _ in height:
        raised = None
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
    if code.ops[-1] not in (Op.LE, Op.EQ):
        return
    left, right = _shifted(code, code.a[-1]), _shifted(code, code.b[-1])
    if left is None or right is None:
        return
    yield left[0], right[0], left[1] - right[1], code.source
    if code.ops[-1] == Op.EQ:
        yield right[0], left[0], right[1] - left[1], code.source


def _shifted(code: Code, node: int) -> tuple[int, int] | None:
    """The variable and the constant of a node that reads variable, variable + constant or variable - constant."""
    op, a, b = code.ops[node], code.a[node], code.b[node]
    if op == Op.VAR:
        return a, 0
    if op in (Op.ADD, Op.SUB) and code.ops[a] == Op.VAR and code.ops[b] == Op.CONST:
        return code.a[a], code.a[b] if op == Op.ADD else -code.a[b]
    if op == Op.ADD and code.ops[a] == Op.CONST and code.ops[b] == Op.VAR:
        return code.a[b], code.a[a]
    return None
