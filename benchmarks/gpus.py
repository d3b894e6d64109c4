"""Compile what each schedule would run on each kind of GPU, and write what the compiler says as docs/gpus.md. Needs
NVRTC and no GPU.

    python benchmarks/gpus.py                # all of it, about 100 programs; what is in the cache is not compiled again
    python benchmarks/gpus.py --gpu t4       # one GPU, printed and not written
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click

from kernelgen.build.compile import Binary, compile_program, compiler_version
from kernelgen.cells import load_cell
from kernelgen.errors import CompileError, InfeasibleError
from kernelgen.hardware.profile import load_profile
from kernelgen.program.shape import Shape
from kernelgen.program.task import Direction
from kernelgen.schedules import get, schedule_names
from kernelgen.tuning.plan import plan, spread
from kernelgen.tuning.prepare import objection
from kernelgen.tuning.selection import TRIED

GPUS = ("t4", "a100-80gb", "a10", "l4", "h200", "b200", "b300", "rtx5090")
"""One of each architecture."""

DIRECTIONS: tuple[Direction, ...] = ("forward", "backward")

SHAPES = (
    ("lstm", Shape(16, 256, 4, 128, "float16", "gates")),
    ("lstm", Shape(8, 256, 1, 200, "float64", "gates")),
)
"""Cells and shapes: what all schedules run, and what every GPU does."""

PAGE = Path(__file__).parents[1] / "docs" / "gpus.md"

HEAD = """# What compiles for which GPU

Made by `benchmarks/gpus.py`, which needs no GPU: for each schedule the tiling that would be chosen, compiled with
{compiler}. A number is the registers of a thread of the recurrence's kernel, then, backward, of those that make the
gradients of R and b. **spills** says that one keeps some in memory. "-": the schedule does not run that there;
`tilesmith plan` says why.
"""


@dataclass(frozen=True)
class Row:
    """A schedule at a shape. cells: what is said of each GPU."""

    schedule: str
    cells: tuple[str, ...]


def chosen(schedule: str, cell: str, shape: Shape, gpu: str) -> tuple[Binary, ...] | None:
    """The binaries of the program that a call would get of a schedule: of the first of its tilings that compiles as
    predicted, else that does not spill, else the first. None where it has none. Raises CompileError."""
    definition, profile, which = load_cell(cell), load_profile(gpu), get(schedule)
    try:
        planned = plan(definition, shape, profile, schedules=[schedule], direction=which.direction, told=False)
    except InfeasibleError:
        return None
    found = []
    for tiling in spread(planned)[:TRIED]:
        binaries = compile_program(which.program(definition, shape, profile, tiling))
        if not objection(tiling.resources, binaries[0].report, profile, strict=True):
            return binaries
        found.append(binaries)
    return min(found, key=lambda each: each[0].report.local_memory > 0)


def said(binaries: Iterable[Binary] | None) -> str:
    """What a table says of them."""
    if binaries is None:
        return "-"
    reports = [binary.report for binary in binaries]
    spilt = " **spills**" if any(report.local_memory for report in reports) else ""
    return ", ".join(str(report.registers) for report in reports) + spilt


def rows(gpus: Iterable[str], cell: str, shape: Shape, pool: ThreadPoolExecutor) -> Iterator[Row]:
    """A row for each schedule of both directions."""

    def one(schedule: str, gpu: str) -> str:
        try:
            return said(chosen(schedule, cell, shape, gpu))
        except CompileError as error:
            return f"**{error}**"

    names = [name for direction in DIRECTIONS for name in schedule_names(direction)]
    asked = {(name, gpu): pool.submit(one, name, gpu) for name in names for gpu in gpus}
    for name in names:
        row = Row(name, tuple(asked[name, gpu].result() for gpu in gpus))
        if any(cell != "-" for cell in row.cells):
            yield row


def page(gpus: tuple[str, ...]) -> str:
    """The whole page."""
    parts = [HEAD.format(compiler=compiler_version())]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for cell, shape in SHAPES:
            parts.append(f"## {cell}, {shape}\n")
            heads = [f"{gpu} ({load_profile(gpu).arch})" for gpu in gpus]
            parts.append(f"| schedule | {' | '.join(heads)} |\n|---|{'---|' * len(gpus)}")
            parts[-1] += "".join(
                f"\n| {row.schedule} | {' | '.join(row.cells)} |" for row in rows(gpus, cell, shape, pool)
            )
            parts[-1] += "\n"
    return "\n".join(parts)


@click.command(help=__doc__)
@click.option("--gpu", "gpus", type=click.Choice(GPUS), multiple=True, help="print the table of these alone")
def main(gpus: tuple[str, ...]) -> None:
    """Write the page, or print a part of it."""
    if gpus:
        click.echo(page(gpus))
    else:
        PAGE.write_text(page(GPUS), encoding="utf-8")
        click.echo(f"{PAGE} written")


if __name__ == "__main__":
    main()
