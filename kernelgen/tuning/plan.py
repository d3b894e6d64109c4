"""Plan: every feasible tiling of a cell at a shape on a GPU, ranked by the model."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kernelgen.errors import InfeasibleError
from kernelgen.schedules import all_schedules, get
from kernelgen.schedules.base import stated_problem
from kernelgen.tuning.advice import advice

if TYPE_CHECKING:
    from constrint import Constraint, Problem
    from kernelgen.cells.language import Cell
    from kernelgen.hardware.profile import Profile
    from kernelgen.program.shape import Shape
    from kernelgen.program.source import Language
    from kernelgen.program.task import Direction
    from kernelgen.program.tiling import Tiling


def plan(
    cell: Cell,
    shape: Shape,
    profile: Profile,
    *,
    top: int | None = None,
    schedules: Iterable[str] | None = None,
    direction: Direction = "forward",
    language: Language | None = "cuda",
    told: bool = True,
) -> list[Tiling]:
    """The tilings that fit, fastest first by the model; ties in the order of their variables.

    top: how many to return; all where it is None. schedules: names to consider; where it is None, all of the direction
    whose kernels are in that language, or in any where that is None.
    told: whether the error says why, which can take seconds.
    Raises InfeasibleError where no schedule has a tiling: it names, for each, the limits that clash, with numbers.
    """
    considered = all_schedules(direction, language) if schedules is None else tuple(get(name) for name in schedules)
    tilings: list[Tiling] = []
    reasons: list[str | tuple[str, Problem]] = []  # in words, or the schedule and what has no solution
    for schedule in considered:
        try:
            problem = stated_problem(schedule, cell, shape, profile)
        except InfeasibleError as error:
            reasons.append(str(error))
            continue
        found = [schedule.tiling(cell, shape, profile, values) for values in problem.solutions()]
        tilings += found
        if not found:
            reasons.append((schedule.name, problem))
    nothing = f"no tiling of {cell.name} at {shape} fits {profile.name}."
    if not tilings and not told:
        raise InfeasibleError(nothing)
    if not tilings:
        # Why limits clash is found out only where it is told: that can take far longer than that they do.
        words = [each if isinstance(each, str) else f"{each[0]} schedule: {clash(each[1])}" for each in reasons]
        raise InfeasibleError(_listed([nothing, *_alike(words), advice(cell, shape, profile, considered)]))
    # Of equals, the one that needs less: fewer registers, less shared memory.
    tilings.sort(key=lambda t: (t.clocks_per_step, t.resources.registers, t.resources.shared_memory))
    return tilings if top is None else tilings[:top]


def _alike(reasons: Sequence[str]) -> list[str]:
    """Reasons of schedules, those that differ in the schedule's name alone as one."""
    names: dict[tuple[str, str], list[str]] = {}
    for reason in reasons:
        name = re.search(r"\b(\w+)(?= schedule\b)", reason)
        before, after = (reason[: name.start()], reason[name.end() :]) if name else (reason, "")
        names.setdefault((before, after), []).append(name[0] if name else "")
    return [
        f"{before}{first}{after}" + (f" So it is with {', '.join(others)}." if others else "")
        for (before, after), (first, *others) in names.items()
    ]


def _listed(parts: Sequence[str]) -> str:
    """What does not fit, why, and what would: on a line each where there are several reasons."""
    nothing, *reasons, ways = parts
    apart, end = ("\n  ", "\n") if len(reasons) > 1 else (" ", " ")
    return apart.join([nothing, *reasons]) + (end + ways if ways else "")


def microseconds_per_step(tiling: Tiling, profile: Profile) -> float:
    """The model's time for one step, at the GPU's boost clock."""
    return tiling.clocks_per_step / profile.clock_mhz


ALIKE = 1.05
"""Of tilings that differ in one variable, and in the model's clocks by less than this factor, one tells much of the
other: as far off as the model may be, it is so for both."""


def spread(tilings: Iterable[Tiling]) -> list[Tiling]:
    """The same tilings, given fastest first, in an order worth trying: for each that is alike and comes before it, a
    tiling counts as slower by twice that much, so that longer rings than needed do not keep other ideas back."""
    seen: dict[tuple[object, ...], list[float]] = defaultdict(list)
    ranks: list[tuple[float, Tiling]] = []
    for tiling in tilings:
        values, clocks = tuple(tiling.values.items()), tiling.clocks_per_step
        keys = [(tiling.schedule, *values[:i], *values[i + 1 :]) for i in range(len(values))]
        alike = sum(clocks < ALIKE * other for key in keys for other in seen[key])
        ranks.append((clocks * ALIKE ** (2 * alike), tiling))
        for key in keys:
            seen[key].append(clocks)
    return [tiling for _, tiling in sorted(ranks, key=lambda pair: pair[0])]


def clash(problem: Problem) -> str:
    """Why a problem has no solution: its minimal conflict, each limit with the least that the others leave it."""
    core = problem.explain()
    described = [_shortfall(problem, core, constraint) for constraint in core]
    return "these limits clash: " + "; ".join(described) + "."


def _shortfall(problem: Problem, core: list[Constraint], limit: Constraint) -> str:
    """A limit in words and, where it is `expression <= number`, the least its expression can be under the others."""
    condition = limit.condition
    if condition.op != "<=" or condition.args[1].op != "const":
        return limit.label
    others = problem.subproblem(c for c in core if c is not limit)
    least = others.best(minimize=condition.args[0]).objective
    return limit.label if least is None else f"{limit.label} (the others leave at least {least:,})"
