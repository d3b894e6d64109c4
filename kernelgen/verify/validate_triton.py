"""Proving Triton kernels right in Triton's interpreter: all calls of a program, for its first heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kernelgen.program.arguments import STEP
from kernelgen.program.program import KernelCall
from kernelgen.verify.interpreter import interpret
from kernelgen.verify.validate_whole import validate_whole

if TYPE_CHECKING:
    from kernelgen.cells.language import Cell
    from kernelgen.program.program import Program
    from kernelgen.program.shape import Shape
    from kernelgen.records.trial import Validation

HEADS = 2
"""Heads to interpret at most: those of a large shape differ by an offset, and take as long each. Their number is a
constant of the source."""


def interpret_program(
    cell: Cell,
    shape: Shape,
    program: Program,
    seeds: Sequence[int],
    *,
    seq: int | None = None,
    on_seed: Callable[[int], None] | None = None,
) -> Validation:
    """As validate.validate_program, for Triton's kernels. seq: steps to run at most.

    Raises ValidationError, EmulationError, NotFiniteError.
    """
    few = replace(shape, heads=min(HEADS, shape.heads))
    return validate_whole(cell, few, program, seeds, _interpret, seq=seq, on_seed=on_seed)


def _interpret(program: Program, shape: Shape, values: Mapping[str, Any], seed: int) -> None:
    """Interpret all calls, whatever the seed."""
    for call, number in program.launches(shape.seq):
        assert isinstance(call, KernelCall)  # no schedule has Triton's kernels and a library's products
        given = {name: number if name == STEP else values[name] for name in call.source.arguments}
        interpret(call.source, call.launch.at(shape), given, constants={"HEADS": shape.heads})
