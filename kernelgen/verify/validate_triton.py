"""Proving Triton kernels right in Triton's interpreter: all calls of a program, for its first heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kernelgen.errors import NotFiniteError
from kernelgen.program.arguments import STEP
from kernelgen.program.program import launches
from kernelgen.records.trial import Validation
from kernelgen.verify.cases import ValidationCase, make_case
from kernelgen.verify.emulated_runs import Run, emulated_shape, emulated_steps, whole_run
from kernelgen.verify.interpreter import interpret
from kernelgen.verify.validate_parameters import expected_gradients

if TYPE_CHECKING:
    from kernelgen.cells.language import Cell
    from kernelgen.program.program import Program
    from kernelgen.program.shape import Shape

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

    The gradients of R and b are compared with the float64 product and sum of the gates' gradients that the recurrence
    itself made. Raises ValidationError, EmulationError, NotFiniteError.
    """
    few = replace(shape, heads=min(HEADS, shape.heads))
    launch, steps = program.main.launch.at, seq or emulated_steps(program)
    errors: dict[str, float] = {}
    tolerance = 0.0
    for seed in seeds:
        if on_seed is not None:
            on_seed(seed)
        run = whole_run(few, launch, steps, seed)
        try:
            case = _interpret(cell, program, run, seed, errors)
        except NotFiniteError:
            if run.launched.seq <= shape.seq:
                raise
            continue  # a cell that grows, and more steps than were asked for
        tolerance = max(tolerance, case.tolerance)
    largest = emulated_shape(few, launch, steps)
    return Validation("emulator", len(seeds), largest.batch, largest.seq, tolerance, errors)


def _interpret(cell: Cell, program: Program, run: Run, seed: int, errors: dict[str, float]) -> ValidationCase:
    """Interpret one run of all calls and compare; keeps the larger errors."""
    extents = program.extents(run.shape)
    case = make_case(cell, run.shape, seed, direction=program.direction, optional=run.given)
    written = dict.fromkeys(name for call in program.calls for name in call.source.writes)
    outputs = case.poisoned(written, extents)
    values: dict[str, Any] = dict(case.values(outputs, program.names, extents))
    for call in program.calls:
        given = {name: values[name] for name in call.source.arguments}
        for number in range(launches(call, program.direction, run.shape.seq)):
            given |= {STEP: number} if STEP in given else {}
            interpret(call.source, call.launch.at(run.shape), given, constants={"HEADS": run.shape.heads})
    case.require_numbers(outputs)
    followed = make_case(cell, run.shape, seed, direction=program.direction, optional=run.given, follow=outputs)
    summed: dict[str, Any] = {name: outputs.pop(name) for name in ("d_r", "d_b") if name in outputs}
    found = followed.compare(outputs)
    if summed:
        d_r, d_b = expected_gradients(cell, run.shape, case.inputs | outputs)
        sums = replace(followed, expected={"d_r": d_r, "d_b": d_b}, doubt=(0.0, 0.0))
        found |= sums.compare(summed)
    for name, error in found.items():
        errors[name] = max(error, errors.get(name, 0.0))
    return followed
