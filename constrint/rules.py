"""What constraints over many variables say of them together, for propagation: the constraints themselves stay.

``different``: of variables that all differ, as many as an interval has numbers take all of these (Hall 1935), and the
others lie outside; where they are more, there is no solution. ``timetable``: where a task runs whenever it starts, its
demand is known, and the others that do not fit beside it start earlier or later. The core holds the same in C++.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from constrint.expr import Expr
from constrint.global_constraints import tasks
from constrint.lower import Lowering
from constrint.matching import groups
from constrint.program import Op, Program, Rule
from constrint.statement import Constraint

LARGEST = 1 << 40
"""Rules over larger constants are left out, so that no sum of two numbers overflows."""

Bounds = tuple[int, int]


def find_rules(program: Program, constraints: Sequence[Constraint], chosen: Iterable[int]) -> list[Rule]:
    """The rules of a program. chosen: the numbers of the constraints that count."""
    different = [Rule(members, (0,) * len(members), why) for members, why in groups(program.codes)]
    places = {name: v for v, name in enumerate(program.names)}
    lowering = Lowering(places, lambda v: (program.domains[v][0], program.domains[v][-1]))
    found = []
    for number in chosen:
        whole = constraints[number].whole
        if whole is None:
            continue
        rule = (_different if whole.op == "all_different" else _cumulative)(whole, lowering, 1 << number)
        if rule is not None and rule.constants_within(LARGEST):
            found.append(rule)
    return different + found


def _different(expr: Expr, lowering: Lowering, why: int) -> Rule | None:
    shifted = [_shifted(arg, lowering) for arg in expr.args]
    members = [each for each in shifted if each is not None]
    # Without offsets, the variables are found as pairwise unequal.
    if len(members) < 3 or len({v for v, _ in members}) < len(members) or not any(offset for _, offset in members):
        return None
    return Rule(tuple(v for v, _ in members), tuple(offset for _, offset in members), why)


def _cumulative(expr: Expr, lowering: Lowering, why: int) -> Rule | None:
    listed, most = tasks(expr)
    capacity = _constant(most, lowering)
    if capacity is None:
        return None
    found = []
    for start, duration, demand in listed:
        shifted, known = _shifted(start, lowering), [_constant(each, lowering) for each in (duration, demand)]
        # Of the tasks not known, the rule says nothing, and it holds of the others all the same: demands are not
        # negative.
        if shifted is not None and known[0] is not None and known[1] is not None and min(known[0], known[1]) > 0:
            found.append((*shifted, known[0], known[1]))
    if len(found) < 2 or any(_negative(demand, lowering) for _, _, demand in listed):
        return None
    variables, offsets, durations, demands = (tuple(column) for column in zip(*found, strict=True))
    return Rule(variables, offsets, why, durations, demands, capacity)


def _negative(expr: Expr, lowering: Lowering) -> bool:
    numerator, denominator = lowering.number(expr)
    return denominator is not None or lowering.interval(numerator)[0] < 0


def _constant(expr: Expr, lowering: Lowering) -> int | None:
    """A number that the expression says; one that only a variable's domain fixes would need its reasons."""
    numerator, denominator = lowering.number(expr)
    return numerator.value if numerator.op == Op.CONST and denominator is None else None


def _shifted(expr: Expr, lowering: Lowering) -> tuple[int, int] | None:
    """A variable plus a constant; None for anything else."""
    tree, denominator = lowering.number(expr)
    if denominator is not None:
        return None
    if tree.op == Op.VAR:
        return tree.value, 0
    if tree.op not in (Op.ADD, Op.SUB):
        return None
    left, right = tree.args
    if left.op == Op.VAR and right.op == Op.CONST:
        return left.value, right.value if tree.op == Op.ADD else -right.value
    if tree.op == Op.ADD and left.op == Op.CONST and right.op == Op.VAR:
        return right.value, left.value
    return None


def narrowed(rule: Rule, low: Sequence[int], high: Sequence[int]) -> list[Bounds] | None:
    """What a rule leaves of the bounds of its variables, in their order; None where it cannot hold."""
    bounds = [(low[v] + offset, high[v] + offset) for v, offset in zip(rule.variables, rule.offsets, strict=True)]
    found = timetable(bounds, rule.durations, rule.demands, rule.capacity) if rule.durations else different(bounds)
    if found is None:
        return None
    return [(least - offset, most - offset) for (least, most), offset in zip(found, rule.offsets, strict=True)]


def different(bounds: Sequence[Bounds]) -> list[Bounds] | None:
    """Of numbers that all differ, within bounds. One pass: what it narrows may narrow more."""
    found = list(bounds)
    by_end = sorted(range(len(bounds)), key=lambda i: bounds[i][1])
    for first in sorted({least for least, _ in bounds}):
        inside = 0
        for i in by_end:
            if bounds[i][0] < first:
                continue
            inside += 1
            last = bounds[i][1]
            if inside > last - first + 1:
                return None
            if inside < last - first + 1:
                continue
            for j, (least, most) in enumerate(bounds):
                if first <= least and most <= last:
                    continue
                if first <= least <= last:
                    found[j] = max(found[j][0], last + 1), found[j][1]
                if first <= most <= last:
                    found[j] = found[j][0], min(found[j][1], first - 1)
    return found


def timetable(
    bounds: Sequence[Bounds], durations: Sequence[int], demands: Sequence[int], capacity: int
) -> list[Bounds] | None:
    """Of the starts of tasks that share a resource, within bounds. Durations and demands are positive."""
    parts = [(most, least + length) for (least, most), length in zip(bounds, durations, strict=True)]
    moments = sorted({moment for begin, end in parts if begin < end for moment in (begin, end)})
    steps = []
    for begin, end in itertools.pairwise(moments):
        height = sum(
            demand for (first, last), demand in zip(parts, demands, strict=True) if first <= begin and end <= last
        )
        if height > capacity:
            return None
        if height:
            steps.append((begin, end, height))
    found = []
    for (least, most), (first, last), length, demand in zip(bounds, parts, durations, demands, strict=True):
        if demand > capacity:
            return None
        # Steps at which there is no room; within its own part its demand is counted already.
        full = [
            (begin, end)
            for begin, end, height in steps
            if height + demand > capacity and not (first <= begin and end <= last)
        ]
        for begin, end in full:
            if begin < least + length and least < end:
                least = end
        for begin, end in reversed(full):
            if begin < most + length and most < end:
                most = begin - length
        found.append((least, most))
    return found
