"""Proving kernels right: their outputs against the float64 reference, in the emulator or on a GPU.

Outputs are poisoned beforehand, so that an element nobody writes is found; NaN never passes. See cases.py for how
outputs compare, and emulated_runs.py for what is emulated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kernelgen.errors import NotFiniteError, TilesmithError, ValidationError
from kernelgen.records.trial import Validation
from kernelgen.verify.emulated_runs import Run, emulated_shape, emulated_steps, lone_run, whole_run

if TYPE_CHECKING:
    from kernelgen.cells.language import Cell
    from kernelgen.hardware.profile import Profile
    from kernelgen.program.program import Program
    from kernelgen.program.shape import Shape
    from kernelgen.program.task import Direction
    from kernelgen.program.tiling import Tiling
    from kernelgen.verify.cases import ValidationCase
    from kernelgen.verify.emulator import Argument
    from kernelgen.verify.gpu_worker import GpuJob, Outcome

RAGGED_SEQ = 3
"""Steps of the second case on a GPU, whose batch fills no tile."""

GPU_SECONDS = 60.0
"""What validating one kernel on a GPU may take before it counts as hung: reading back the outputs included."""


def validate_emulated(
    cell: Cell,
    shape: Shape,
    tiling: Tiling,
    profile: Profile,
    seeds: Sequence[int] = (0, 1),
    *,
    seq: int | None = None,
    on_seed: Callable[[int], None] | None = None,
) -> Validation:
    """Run a tiling's kernel in the emulator, once for each seed, and compare with the reference.

    A seed draws the inputs and the order of the threads, the steps and which inputs are null; see whole_run and, with
    the first seed, lone_run. seq: steps that whole_run runs at most; by default what emulated_steps says. on_seed: told
    each seed before it runs.

    Raises ValidationError where the results differ, EmulationError for a fault that the emulator caught, and
    NotFiniteError where the reference is NaN or infinite. A Triton kernel runs in Triton's interpreter, with all that
    follows it.
    """
    from kernelgen import schedules

    program = schedules.get(tiling.schedule).program(cell, shape, profile, tiling)
    if program.main.source.language == "triton":
        from kernelgen.verify.validate_triton import interpret_program

        return interpret_program(cell, shape, program, seeds, seq=seq, on_seed=on_seed)
    if program.library:
        return _emulate_whole(cell, shape, program, seeds, seq=seq, on_seed=on_seed)
    return emulate_main(cell, shape, program, seeds, seq=seq, on_seed=on_seed)


def validate_program(
    cell: Cell,
    shape: Shape,
    profile: Profile,
    program: Program,
    seeds: Sequence[int] = (0, 1),
    *,
    on_seed: Callable[[int], None] | None = None,
) -> Validation:
    """Run all of a program in the emulator: the recurrence as validate_emulated does, then, backward, what makes the
    gradients of R and b for ``profile`` from its outputs (see validate_parameters.py).

    Raises what validate_emulated does. Batch and seq of the result are those of the recurrence.
    """
    from kernelgen.verify.validate_parameters import emulate_parameters

    if program.main.source.language == "triton":
        from kernelgen.verify.validate_triton import interpret_program

        return interpret_program(cell, shape, program, seeds, on_seed=on_seed)
    if program.library:
        return _emulate_whole(cell, shape, program, seeds, on_seed=on_seed)
    main = emulate_main(cell, shape, program, seeds, on_seed=on_seed)
    if program.direction == "forward":
        return main
    inputless = "d_inputless" in program.main.source.arguments
    follow = emulate_parameters(cell, shape, profile, seeds, inputless=inputless)
    return replace(main, tolerance=max(main.tolerance, follow.tolerance), errors=main.errors | follow.errors)


def _emulate_whole(
    cell: Cell,
    shape: Shape,
    program: Program,
    seeds: Sequence[int],
    *,
    seq: int | None = None,
    on_seed: Callable[[int], None] | None = None,
) -> Validation:
    """As validate_program, for kernels between a library's products."""
    from kernelgen.verify.emulator import emulate_program
    from kernelgen.verify.validate_whole import validate_whole

    def start(program: Program, shape: Shape, values: Mapping[str, Any], seed: int) -> None:
        emulate_program(program, shape, values, seed=seed)

    _some(seeds)
    return validate_whole(cell, shape, program, seeds, start, seq=seq, on_seed=on_seed)


def emulate_main(
    cell: Cell,
    shape: Shape,
    program: Program,
    seeds: Sequence[int],
    *,
    seq: int | None = None,
    on_seed: Callable[[int], None] | None = None,
) -> Validation:
    """As validate_emulated, for a program's first call, the recurrence; validate_parameters.py proves what follows."""
    _some(seeds)
    errors: dict[str, float] = {}
    tolerance = 0.0
    launch, steps = program.main.launch.at, seq or emulated_steps(program)
    largest = emulated_shape(shape, launch, steps)
    for seed in seeds:
        if on_seed is not None:
            on_seed(seed)
        runs = [whole_run(shape, launch, steps, seed)]
        if seed == seeds[0] and (lone := lone_run(shape, launch, seed)) is not None:
            runs.append(lone)
        for run in runs:
            try:
                with _named(f"seed {seed}{run}"):
                    case = _emulate(cell, program, run, seed, errors)
            except NotFiniteError:
                if run.launched.seq <= shape.seq:
                    raise
                continue  # a cell that grows, and more steps than were asked for
            tolerance = max(tolerance, case.tolerance)
    return Validation("emulator", len(seeds), largest.batch, largest.seq, tolerance, errors)


def _emulate(cell: Cell, program: Program, run: Run, seed: int, errors: dict[str, float]) -> ValidationCase:
    """Emulate one run of the recurrence and compare; keeps the larger errors."""
    from kernelgen.verify.cases import make_case
    from kernelgen.verify.emulator import emulate

    source, launch = program.main.source, run.launch
    extents = program.extents(run.launched)
    case = make_case(cell, run.shape, seed, direction=program.direction, optional=run.given)
    outputs = case.poisoned(source.writes, extents if run.blocks is None else None)
    table = case.table
    arrays = {
        name: run.among_heads(table[name], array)
        for name, array in (case.inputs | outputs).items()
        if array is not None
    }
    arguments: dict[str, Argument] = dict(case.values(outputs, source.arguments))
    arguments |= {"batch": run.launched.batch, "seq": run.launched.seq}
    for name, array in arrays.items():
        if name in arguments:
            arguments[name] = run.argument(table[name], array, extents)
    written = [name for name, array in outputs.items() if array is not None]
    emulate(source, launch, arguments, outputs=written, blocks=run.blocks, seed=seed)
    made = {
        name: run.of_head(table[name], arrays[name]) if array is not None else None for name, array in outputs.items()
    }
    case.require_numbers(made)
    case = make_case(
        cell,
        run.shape,
        seed,
        direction=program.direction,
        optional=run.given,
        follow=made,
    ).allowing(source.arguments)
    _worse(errors, case.compare(made))
    return case


def gpu_cases(
    cell: Cell, shape: Shape, seed: int = 0, direction: Direction = "forward"
) -> tuple[ValidationCase, ValidationCase]:
    """What a kernel is tried on: the full shape with all inputs, and a short one with a ragged batch and null for the
    inputs that may be."""
    from kernelgen.verify.cases import make_case

    ragged = max(1, min(shape.batch - 1, 3))
    steps = min(RAGGED_SEQ, shape.seq)
    small = make_case(cell, shape, seed + 1, direction=direction, batch=ragged, seq=steps, optional=False)
    return make_case(cell, shape, seed, direction=direction), small


def validate_gpu(
    cell: Cell,
    shape: Shape,
    program: Program,
    cubins: Sequence[bytes],
    seeds: Sequence[int] = (0,),
    *,
    device: int = 0,
    seconds: float = GPU_SECONDS,
    on_seed: Callable[[int], None] | None = None,
) -> Validation:
    """Run a compiled program on a GPU at full size, once for each seed, and compare with the reference.

    cubins: of the program's calls, in order. It runs in a worker process for at most ``seconds`` a seed. Raises
    LaunchError where there is no GPU, ValidationError where the results differ or a kernel hangs, crashes or faults.
    """
    from kernelgen.device import gpu
    from kernelgen.verify.gpu_worker import GpuJob, GpuWorker

    _some(seeds)
    gpu.require_driver()
    errors: dict[str, float] = {}
    tolerance = 0.0
    with GpuWorker(device) as worker:
        worker.start()
        for seed in seeds:
            if on_seed is not None:
                on_seed(seed)
            cases = gpu_cases(cell, shape, seed, program.direction)
            worker.use(cases)
            job = GpuJob(program, tuple(cubins), measure_seconds=0)
            outcome = _outcome(worker.run, job, seconds)
            _worse(errors, outcome.errors)
            tolerance = max(tolerance, outcome.tolerance)
    return Validation("gpu", len(seeds), shape.batch, shape.seq, tolerance, errors)


def _outcome(run: Callable[[GpuJob, float], Outcome], job: GpuJob, seconds: float) -> Outcome:
    """Run a candidate; what the worker tells becomes a ValidationError."""
    from kernelgen.device.worker import JobFailed

    try:
        return run(job, seconds)
    except JobFailed as error:
        raise ValidationError(f"the kernel is not right on this GPU: {error}") from error


def _worse(errors: dict[str, float], more: dict[str, float]) -> None:
    """Keep the larger error of each output."""
    for name, error in more.items():
        errors[name] = max(error, errors.get(name, 0.0))


def _some(seeds: Sequence[int]) -> None:
    if not seeds:
        raise ValidationError("validating needs at least one seed")


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Say in an error for what it happened."""
    try:
        yield
    except TilesmithError as error:
        if what in str(error):
            raise
        raise type(error)(f"{what}: {error}") from error
