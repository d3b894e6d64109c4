"""What the entries of kernels have in common: the parameters of a pass, and what a tiling's prediction asserts."""

from __future__ import annotations

from collections.abc import Mapping

from kernelgen.cells.language import Cell
from kernelgen.emit.kernel import Parameter
from kernelgen.hardware.profile import Profile
from kernelgen.program.arguments import arguments_of
from kernelgen.program.shape import Shape
from kernelgen.program.task import Direction
from kernelgen.program.tiling import Tiling

_WORD = "unsigned short*"


def parameters_of(cell: Cell, shape: Shape, direction: Direction) -> tuple[Parameter, ...]:
    """Of an entry that fills the struct ForwardArguments or BackwardArguments of cuda/recurrence.cuh."""
    arguments = arguments_of(cell, shape, direction)
    kinds = {array.name: f"const {_WORD}" for array in arguments.inputs}
    kinds |= {array.name: "float*" if array.dtype == "float32" else _WORD for array in arguments.outputs}
    kinds |= dict.fromkeys(arguments.numbers, "int")
    return tuple(Parameter(kinds[name], name) for name in arguments.order)


def asserted(tiling: Tiling) -> Mapping[str, int]:
    """What a template's constants must be for a tiling's prediction to hold."""
    return {"threads": tiling.resources.threads, "shared_bytes": tiling.resources.shared_memory}


def stores(profile: Profile) -> str:
    """How lanes store results: stmatrix needs sm_90 (PTX ISA, "stmatrix")."""
    return "Stores::matrices" if int("".join(filter(str.isdigit, profile.arch))) >= 90 else "Stores::words"
