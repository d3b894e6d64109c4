"""Measure what Triton costs: kernels of both languages on this GPU, in one run, each against float64.

    python benchmarks/languages.py                          # the rows of docs/triton.md
    python benchmarks/languages.py --size 12x64 --top 24 --json build/languages.json
    python benchmarks/languages.py --cell all --language triton --seq 64 --top 1    # whether every cell is right

Of each pass the model's --top best tilings are compiled (by all cores), validated at full size and measured; the table
has the fastest. forward saves h alone; training is a forward pass that saves gates, and the backward pass with the
gradients of R and b. Milliseconds: medians of the kernels alone, one after the other. The error is the largest of the
three passes. "failed" counts configurations that were compiled and then did not run, or that the compiler refused;
"spilled" those that were rejected because they need local memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import click

from kernelgen.build.compile import compile_program
from kernelgen.cells import cell_names, load_cell
from kernelgen.cells.language import Cell
from kernelgen.device import gpu
from kernelgen.errors import TilesmithError
from kernelgen.hardware.profile import Profile
from kernelgen.program.program import Program
from kernelgen.program.shape import Shape
from kernelgen.program.source import Language
from kernelgen.program.task import Direction
from kernelgen.program.tiling import Tiling
from kernelgen.schedules import get, schedule_names
from kernelgen.tuning.plan import plan
from kernelgen.verify import cases
from kernelgen.verify.cases import ValidationCase
from kernelgen.verify.gpu_worker import GpuJob, GpuWorker

SIZES = ("48x16", "24x32", "12x64", "6x128", "3x256")
LANGUAGES: tuple[Language, ...] = ("triton", "cuda")
PASSES: tuple[tuple[str, Direction, str], ...] = (
    ("forward", "forward", "hidden"),
    ("forward, gates", "forward", "gates"),
    ("backward", "backward", "gates"),
)


@dataclass(frozen=True)
class Best:
    """The fastest kernel of a pass: milliseconds, its largest error, its tiling, and how many were tried."""

    ms: float
    error: float
    schedule: str
    values: dict[str, int]
    model_us: float
    tried: int
    spilled: int
    failed: list[str]


Candidate = tuple[Tiling, Program, "Future[str]"]


def make_case(cell: str, shape: Shape, direction: Direction) -> ValidationCase:
    """In a process of the pool: the inputs of a pass, and what float64 makes of them."""
    return cases.make_case(load_cell(cell), shape, 0, direction=direction)


def compiled(program: Program) -> str:
    """In a process of the pool: compile into the cache; what went wrong, or nothing."""
    try:
        compile_program(program)
    except TilesmithError as error:
        return str(error)
    return ""


@click.command(help=__doc__)
@click.option("--cell", "names", multiple=True, default=("lstm",), show_default=True, help="cells, or all")
@click.option("--size", "sizes", multiple=True, default=SIZES, help="heads x units, such as 3x256")
@click.option("--language", "languages", multiple=True, type=click.Choice(LANGUAGES), default=LANGUAGES)
@click.option("--batch", default=16, show_default=True)
@click.option("--seq", default=1024, show_default=True)
@click.option("--top", default=12, show_default=True, help="tilings of each pass")
@click.option("--seconds", default=0.1, show_default=True, help="of measuring a tiling")
@click.option("--json", "output", type=click.Path(path_type=Path, dir_okay=False), help="Write every number there.")
def main(
    names: Sequence[str],
    sizes: Sequence[str],
    languages: Sequence[Language],
    batch: int,
    seq: int,
    top: int,
    seconds: float,
    output: Path | None,
) -> None:
    """Compile, validate, measure, print and write."""
    profile = gpu.device(0).profile()
    cells = [load_cell(name) for name in (cell_names() if "all" in names else names)]
    rows = [(cell, size) for cell in cells for size in sizes]
    found: dict[str, Best] = {}
    print(f"{profile.name}, bfloat16, B = {batch}, T = {seq}, ms")
    print(f"{'cell':16} size     language  forward training    error  tried spilled failed")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool, GpuWorker() as worker:
        expected = {
            (cell.name, size, name): pool.submit(make_case, cell.name, shaped(size, batch, seq, save), direction)
            for cell, size in rows
            for name, direction, save in PASSES
        }
        waiting = {
            (cell.name, size, language, name): candidates(
                pool,
                cell,
                shaped(size, batch, seq, save),
                profile,
                schedule_names(direction, language),
                direction,
                top,
            )
            for cell, size in rows
            for language in languages
            for name, direction, save in PASSES
        }
        worker.start()
        for cell, size in rows:
            for language in languages:
                row: list[Best | None] = []
                for name, *_ in PASSES:
                    worker.use([expected[cell.name, size, name].result()])
                    best = fastest(worker, waiting[cell.name, size, language, name], profile, seconds)
                    row.append(best)
                    if best:
                        found[f"{cell.name} {size} {language} {name}"] = best
                print(line(cell.name, size, language, row), flush=True)
                if output:
                    output.parent.mkdir(parents=True, exist_ok=True)
                    output.write_text(json.dumps({key: vars(best) for key, best in found.items()}, indent=1) + "\n")


def shaped(size: str, batch: int, seq: int, save: str) -> Shape:
    """The shape of a row."""
    heads, head_dim = map(int, size.split("x"))
    return Shape(batch, seq, heads, head_dim, "bfloat16", save)


def candidates(
    pool: ProcessPoolExecutor,
    cell: Cell,
    shape: Shape,
    profile: Profile,
    schedules: Sequence[str],
    direction: Direction,
    top: int,
) -> list[Candidate]:
    """The model's best tilings of some schedules, which are being compiled."""
    try:
        tilings = plan(cell, shape, profile, schedules=list(schedules), direction=direction)[:top]
    except TilesmithError:
        return []
    programs = [get(tiling.schedule).program(cell, shape, profile, tiling) for tiling in tilings]
    return [
        (tiling, program, pool.submit(compiled, program)) for tiling, program in zip(tilings, programs, strict=True)
    ]


def fastest(worker: GpuWorker, tried: Sequence[Candidate], profile: Profile, seconds: float) -> Best | None:
    """Run all; the fastest that is right."""
    best: tuple[float, float, Tiling] | None = None
    failed: list[str] = []
    spilled = 0
    for tiling, program, outcome in tried:
        named = f"{tiling.schedule} {'/'.join(map(str, tiling.values.values()))}"
        if reason := outcome.result():
            failed.append(f"{named}: {reason}")
            continue
        binaries = compile_program(program)
        if any(binary.report.local_memory for binary in binaries):
            spilled += 1
            continue
        try:
            done = worker.run(GpuJob(program, tuple(binary.cubin for binary in binaries), seconds), 60.0)
        except TilesmithError as problem:
            failed.append(f"{named}: {problem}")
            continue
        assert done.measurement is not None
        if best is None or done.measurement.median_ms < best[0]:
            best = done.measurement.median_ms, max(done.errors.values()), tiling
    for reason in failed:
        click.echo(f"  failed: {reason.splitlines()[0]}", err=True)
    if best is None:
        return None
    ms, error, tiling = best
    model = tiling.clocks_per_step / profile.clock_mhz
    return Best(ms, error, tiling.schedule, dict(tiling.values), model, len(tried), spilled, failed)


def line(cell: str, size: str, language: str, row: Sequence[Best | None]) -> str:
    """A row of the table."""
    forward, saving, backward = row
    there = [best for best in row if best]
    training = f"{saving.ms + backward.ms:8.3f}" if saving and backward else f"{'-':>8}"
    error = f"{max(best.error for best in there):8.1e}" if there else f"{'-':>8}"
    counts = [sum(numbers) for numbers in zip(*((b.tried, b.spilled, len(b.failed)) for b in there), strict=True)]
    tried, spilled, failed = counts or (0, 0, 0)
    shown = f"{forward.ms:8.3f}" if forward else f"{'-':>8}"
    return f"{cell:16} {size:8} {language:8} {shown} {training} {error} {tried:6} {spilled:7} {failed:6}"


if __name__ == "__main__":
    main()
