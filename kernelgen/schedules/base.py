"""What a schedule is: the contract between a way of running a recurrence and everything after it.

A schedule states its tile variables and constraints (a constrint Problem), its cost, its launch and the template it
instantiates; compiling, emulating, validating, measuring and exporting are common to all and know a schedule only
through this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from kernelgen.errors import InfeasibleError
from kernelgen.program.dtypes import dtype_info
from kernelgen.program.shape import INPUT_PRODUCT

if TYPE_CHECKING:
    from constrint import Problem
    from kernelgen.cells.language import Cell
    from kernelgen.hardware.profile import Profile
    from kernelgen.program.program import Program
    from kernelgen.program.shape import Shape
    from kernelgen.program.task import Direction
    from kernelgen.program.tiling import Tiling


class Schedule(Protocol):
    """One way of running a recurrence on a GPU."""

    name: str
    direction: Direction
    dtypes: tuple[str, ...]
    """Those that its templates take (program/shape.py: DTYPES). Others never reach the methods below."""
    honours: tuple[str, ...]
    """What its templates know of what a shape may ask for (Shape.asked): what sequences may have of their own, and the
    product of the input; likewise."""

    def refuses(self, cell: Cell, shape: Shape, profile: Profile) -> str:
        """Why it does not run this at all, whatever the tiling, as a sentence; empty where it may."""
        ...

    def problem(self, cell: Cell, shape: Shape, profile: Profile) -> Problem:
        """State the tile variables and the constraints of running ``cell`` at ``shape`` on ``profile``.

        Raises InfeasibleError, with the words of ``refuses``, where it does not.
        """
        ...

    def tiling(self, cell: Cell, shape: Shape, profile: Profile, values: Mapping[str, int]) -> Tiling:
        """Attach predicted resources and model cost to one solution of the problem."""
        ...

    def program(self, cell: Cell, shape: Shape, profile: Profile, tiling: Tiling) -> Program:
        """What runs for a tiling: its calls are right at any batch and seq."""
        ...


_ASKED = {INPUT_PRODUCT: "product of its input"}
"""What a shape asks for in words, where its name does not say it."""


def refusal(schedule: Schedule, cell: Cell, shape: Shape, profile: Profile) -> str:
    """Why a schedule does not run this, as a sentence: the dtype, resets, lengths or the product of the input, or a
    reason of its own; empty where it may."""
    if lacking := [name for name in shape.asked if name not in schedule.honours]:
        return f"the {schedule.name} schedule knows no {' and no '.join(_ASKED.get(name, name) for name in lacking)}."
    if shape.inputs and not cell.input_gates:
        return f"no gate of {cell.name} has an input, so nothing multiplies the {shape.inputs} inputs."
    if shape.dtype in schedule.dtypes:
        return schedule.refuses(cell, shape, profile)
    names, sizes = ", ".join(schedule.dtypes), {dtype_info(name).itemsize for name in schedule.dtypes}
    taken = f"{8 * sizes.pop()}-bit types only ({names})" if len(sizes) == 1 else f"{names} only"
    return f"the {schedule.name} schedule takes {taken}, not {shape.dtype}."


def stated_problem(schedule: Schedule, cell: Cell, shape: Shape, profile: Profile) -> Problem:
    """The problem of a schedule. Raises InfeasibleError, with the words of ``refusal``, where it has none."""
    if reason := refusal(schedule, cell, shape, profile):
        raise InfeasibleError(reason)
    return schedule.problem(cell, shape, profile)
