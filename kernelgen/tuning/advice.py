"""What to do where nothing fits: the nearest sizes, the other schedules, dtypes and GPUs with which something does.

Each of them was tried."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from kernelgen.errors import InfeasibleError, ProfileError, either
from kernelgen.program.shape import DTYPES
from kernelgen.schedules import all_schedules, language_of
from kernelgen.schedules.base import stated_problem

if TYPE_CHECKING:
    from constrint import Problem
    from kernelgen.cells.language import Cell
    from kernelgen.hardware.profile import Profile
    from kernelgen.program.shape import Shape
    from kernelgen.schedules.base import Schedule

SECONDS = 1.0
"""What looking for one solution may take; what is not found until then is not advised."""

SHOWN = 4
"""GPUs to name."""


def advice(cell: Cell, shape: Shape, profile: Profile, schedules: Sequence[Schedule]) -> str:
    """A sentence that says with which head dimension, batch, schedule, dtype or GPU the cell has a tiling; empty where
    none helps."""
    ways = []
    stated = _stated(cell, shape, profile, schedules)
    if stated:
        # A few units more, zeros, are little: who can have that needs no smaller head.
        dims = _padded(cell, shape, profile, schedules) or _smaller(cell, shape, profile, schedules)
        if dims:
            ways.append(f"with a head dimension of {dims[0]}")
        batch = _batch(cell, shape, profile, schedules)
        if batch:
            ways.append(f"in batches of {batch:,}")
    others = [schedule.name for schedule in _others(schedules) if _fits(cell, shape, profile, [schedule])]
    if others:
        ways.append(f"with the {either(others)} schedule")
    if not stated:
        dtypes = [dtype for dtype in DTYPES if _fits(cell, replace(shape, dtype=dtype), profile, schedules)]
        if dtypes:
            ways.append(f"in {either(dtypes)}")
        if not (others or dtypes) and _in_triton(cell, shape, profile, schedules):
            ways.append("in Triton (--language triton)")
    gpus = _gpus(cell, shape, schedules)
    if gpus:
        more = f" and {len(gpus) - SHOWN} others" if len(gpus) > SHOWN else ""
        ways.append(f"on {', '.join(gpus[:SHOWN])}{more}")
    return f"It fits {', or '.join(ways)}." if ways else ""


def _fits(cell: Cell, shape: Shape, profile: Profile, schedules: Iterable[Schedule]) -> bool:
    """Whether any of the schedules has a tiling."""
    return any(
        problem.solve(time_limit=SECONDS).status == "feasible" for problem in _stated(cell, shape, profile, schedules)
    )


def _in_triton(cell: Cell, shape: Shape, profile: Profile, schedules: Sequence[Schedule]) -> bool:
    """Whether a schedule in Triton has a tiling, where none of these is in Triton."""
    kinds = {(schedule.direction, language_of(schedule)) for schedule in schedules}
    directions = {direction for direction, _ in kinds}
    if any(language == "triton" for _, language in kinds):
        return False
    return _fits(cell, shape, profile, [each for one in directions for each in all_schedules(one, "triton")])


def _others(schedules: Sequence[Schedule]) -> list[Schedule]:
    """The schedules of the same pass, in the same languages, that are not among these."""
    kinds = {(schedule.direction, language_of(schedule)) for schedule in schedules}
    found = [schedule for kind in sorted(kinds) for schedule in all_schedules(*kind)]
    return [schedule for schedule in found if schedule not in schedules]


def _stated(cell: Cell, shape: Shape, profile: Profile, schedules: Iterable[Schedule]) -> list[Problem]:
    """The problems of the schedules that the GPU has the instructions for."""
    problems = []
    for schedule in schedules:
        try:
            problems.append(stated_problem(schedule, cell, shape, profile))
        except InfeasibleError:
            continue
    return problems


def _padded(cell: Cell, shape: Shape, profile: Profile, schedules: Sequence[Schedule]) -> list[int]:
    """The next head dimension with which something fits because its rows can be read in wider vectors."""
    larger = dict.fromkeys(-(-shape.head_dim // width) * width for width in (2, 4, 8) if shape.head_dim % width)
    return [dim for dim in larger if _fits(cell, replace(shape, head_dim=dim), profile, schedules)][:1]


def _smaller(cell: Cell, shape: Shape, profile: Profile, schedules: Sequence[Schedule]) -> list[int]:
    """The largest smaller head dimension, of the multiples of 8, with which something fits."""
    low, high = 0, -(-shape.head_dim // 8)  # in eights: low fits, or is 0; high does not
    while high - low > 1:
        middle = (low + high) // 2
        if _fits(cell, replace(shape, head_dim=8 * middle), profile, schedules):
            low = middle
        else:
            high = middle
    return [8 * low] if low else []


def _batch(cell: Cell, shape: Shape, profile: Profile, schedules: Sequence[Schedule]) -> int:
    """A smaller batch, a power of two, with which something fits; 0 where there is none."""
    batch = 1 << (shape.batch.bit_length() - 1)
    while batch > 1 << 16:
        if batch < shape.batch and _fits(cell, replace(shape, batch=batch), profile, schedules):
            return batch
        batch //= 2
    return 0


def _gpus(cell: Cell, shape: Shape, schedules: Sequence[Schedule]) -> list[str]:
    """The names of the GPUs that tilesmith knows on which something fits."""
    from kernelgen.hardware.profile import load_profile, profile_names

    try:
        return [name for name in profile_names() if _fits(cell, shape, load_profile(name), schedules)]
    except ProfileError:
        return []
