"""Proving a program right all of whose calls run one after another: Triton's kernels, or steps between a library's
products.

What is compared is all that it writes; the gradients of R and b with the float64 product and sum of the gates'
gradients that the recurrence itself made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kernelgen.errors import NotFiniteError
from kernelgen.records.trial import Validation
from kernelgen.verify.cases import ValidationCase, make_case
from kernelgen.verify.emulated_runs import Run, emulated_shape, emulated_steps, whole_run
from kernelgen.verify.validate_parameters import expected_gradients

if TYPE_CHECKING:
    from kernelgen.cells.language import Cell
    from kernelgen.program.program import Program
    from kernelgen.program.shape import Shape

Start = Callable[["Program", "Shape", Mapping[str, Any], int], None]
"""Runs a program at a shape: its arguments by name, and a seed for the order of threads."""


def validate_whole(
    cell: Cell,
    shape: Shape,
    program: Program,
    seeds: Sequence[int],
    start: Start,
    *,
    seq: int | None = None,
    on_seed: Callable[[int], None] | None = None,
) -> Validation:
    """As validate.validate_program; ``start`` runs the program. seq: steps to run at most.

    Raises ValidationError, NotFiniteError, and what ``start`` does.
    """
    launch, steps = program.main.launch.at, seq or emulated_steps(program)
    errors: dict[str, float] = {}
    tolerance = 0.0
    for seed in seeds:
        if on_seed is not None:
            on_seed(seed)
        run = whole_run(shape, launch, steps, seed)
        try:
            case = _run(cell, program, run, seed, start, errors)
        except NotFiniteError:
            if run.launched.seq <= shape.seq:
                raise
            continue  # a cell that grows, and more steps than were asked for
        tolerance = max(tolerance, case.tolerance)
    largest = emulated_shape(shape, launch, steps)
    return Validation("emulator", len(seeds), largest.batch, largest.seq, tolerance, errors)


def _run(cell: Cell, program: Program, run: Run, seed: int, start: Start, errors: dict[str, float]) -> ValidationCase:
    """Run all calls once and compare; keeps the larger errors."""
    extents = program.extents(run.shape)
    case = make_case(cell, run.shape, seed, direction=program.direction, optional=run.given)
    outputs = case.poisoned(program.writes, extents)
    start(program, run.shape, case.values(outputs, program.names, extents), seed)
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
