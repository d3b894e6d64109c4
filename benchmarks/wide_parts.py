"""What the parts of a step of the wide schedule cost, on a GPU: clocks between marks, and steps with a part left out.

    python benchmarks/wide_parts.py                     all sizes; some 50 seconds
    python benchmarks/wide_parts.py --only 4x512:256    one
    python benchmarks/wide_parts.py --compile           without a GPU: whether all variants compile

A variant is the kernel with something in its headers replaced, in a copy of them; its results are wrong, and nobody
looks at them. Its time is measured without marks. Then, with marks (wide_parts/stamps.cuh: every mark of a step in one
binary), the clocks from mark to mark: medians over the steps and over the warps that leave records, and in brackets the
least and the greatest median of a warp.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import click
import numpy as np

from kernelgen.build.compile import Binary, compile_source
from kernelgen.cells import load_cell
from kernelgen.emit.kernel import stamped
from kernelgen.errors import TilesmithError
from kernelgen.hardware.profile import load_profile
from kernelgen.paths import cuda_headers
from kernelgen.program.shape import Shape
from kernelgen.schedules import get
from kernelgen.verify.cases import make_case
from kernelgen.verify.gpu_worker import GpuWorker, StampJob

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kernelgen.program.program import Program

SEQ = 128
BLOCKS, WARPS, MARKS = 8, 16, 32
"""The array of records: see wide_parts/stamps.cuh."""

TILINGS = {
    "4x512:256": "8/8/64/1/16/4/1",
    "1x768:64": "24/8/16/1/18/2/2",
    "1x512:512": "8/8/32/1/18/4/2",
    "4x256:256": "4/8/32/1/16/4/2",
}

Edit = tuple[str, str, str]
"""A header, a text that stands in it once, and what takes its place."""

FORWARD, TRANSFERS = "wide_forward.cuh", "wide_forward_transfers.cuh"
EDITS: Mapping[str, Edit] = {
    "no wait": (
        FORWARD,
        "GridBarrier::wait_alone(counter_of(turn), static_cast<unsigned>(blocks * warps) * (t + 1));",
        ";",
    ),
    "no h": (
        TRANSFERS,
        "const int before_end = minimum(count, k_tiles - begin);",
        "arrive_and_expect(barrier_of(turn, part), 0);\nif (t != -5) continue;\n"
        "const int before_end = minimum(count, k_tiles - begin);",
    ),
    "no product": (
        FORWARD,
        "matrix.template multiply<first, count, number == 0 && !keeps_own>(running, hidden);",
        "if (t == -5) matrix.template multiply<first, count, number == 0 && !keeps_own>(running, hidden);",
    ),
    "no Wx": (
        FORWARD,
        "if (number < steps) kernel.template load_inputs",
        "if (number < 1) kernel.template load_inputs",
    ),
    "no functions": (
        FORWARD,
        "step_element<Cell, Type, save>(gate, stepped, results[column], own, unit_group, "
        "own_of_rows[turn].runs(row, t));",
        "for (int s = 0; s < states; ++s) stepped[s] = 0.5f * stepped[s] + gate[0] + gate[1] + gate[2] + gate[3];\n"
        "for (int a = 0; a < arrays; ++a) results[column][a] = stepped[0];",
    ),
    "no results": (
        TRANSFERS,
        "for_each_vector<arrays, 1, idle>([&]",
        "if (t != -5) return;\nfor_each_vector<arrays, 1, idle>([&]",
    ),
    "no h out": (
        FORWARD,
        "if (t + 1 < steps) send_hidden(turn, t + 1);\n        TILESMITH",
        "if (t == -5) send_hidden(turn, t + 1);\n        TILESMITH",
    ),
    "no order": ("ptx/counters.cuh", "red.release.gpu", "red.relaxed.gpu"),
    "descriptors anew": (
        "ptx/lanes.cuh",
        "uniform(unsigned value) { return __shfl_sync(0xffffffffu, value, 0); }",
        "uniform(unsigned value) { return value; }",
    ),
    "no fence": ("ptx/warpgroups.cuh", 'asm volatile("fence.proxy.async.shared::cta;" ::: "memory");', ""),
}
VARIANTS: Sequence[tuple[str, ...]] = (
    (),
    ("no wait",),
    ("descriptors anew",),
    ("no order",),
    ("no fence",),
    ("no Wx",),
    ("no functions",),
    ("no results",),
    ("no product",),
    ("no wait", "no h"),
    ("no wait", "no h", "no fence"),
    ("no wait", "no h out"),
    ("no wait", "no h", "no h out", "no Wx", "no results", "no functions"),
    ("no wait", "no h", "no h out", "no Wx", "no results", "no functions", "no fence"),
    ("no wait", "no h out", "no Wx", "no results", "no functions", "no product"),
    ("no wait", "no h", "no h out", "no Wx", "no results", "no product"),
)
MARKED: Sequence[tuple[str, ...]] = (VARIANTS[0], ("no wait",), ("no wait", "no h"), VARIANTS[12], VARIANTS[14])
"""Those whose steps are looked into."""
FEW: Sequence[tuple[str, ...]] = (VARIANTS[0], ("no wait",), ("no order",))


def variant_headers(folder: Path, variant: Sequence[str]) -> Path:
    """A copy of the headers in which parts are left out, and stamps leave every mark."""
    headers = folder / ("_".join(variant) or "whole").replace(" ", "-")
    if headers.exists():
        return headers
    copy = Path(tempfile.mkdtemp(dir=folder)) / "cuda"
    shutil.copytree(cuda_headers(), copy)
    for part in variant:
        for name, old, new in (EDITS[part],):
            path = copy / name
            text = path.read_text()
            if text.count(old) != 1:
                raise click.ClickException(f"{part}: {old!r} stands {text.count(old)} times in {name}")
            path.write_text(text.replace(old, new))
    stamps = (Path(__file__).parent / "wide_parts" / "stamps.cuh").read_text()
    plain = "#pragma once\n#define TILESMITH_STAMPED(...)\n"
    (copy / "stamps.cuh").write_text(f"#ifdef TILESMITH_STAMPS\n{stamps}#else\n{plain}#endif\n")
    copy.rename(headers)
    return headers


def program_of(size: str, tiling: str, save: str) -> Program:
    """The recurrence of a size, heads x units : batch."""
    cell, profile, schedule = load_cell("lstm"), load_profile("h200"), get("wide")
    names = ("blocks", "units_per_warp", "batch_tile", "turns", "k_tiles_in_registers", "k_parts", "num_stages")
    values = dict(zip(names, map(int, tiling.split("/")), strict=True))
    shape = shape_of(size, save)
    return replace(schedule.program(cell, shape, profile, schedule.tiling(cell, shape, profile, values)), then=())


def compiled(folder: Path, size: str, tiling: str, variant: Sequence[str], save: str, marks: bool) -> Binary | str:
    """A variant's binary; or why there is none."""
    source = program_of(size, tiling, save).main.source
    try:
        headers = variant_headers(folder, variant)
        with patch("kernelgen.build.compile.cuda_headers", return_value=headers):
            return compile_source(stamped(source, 0) if marks else source, cache=None)
    except Exception as error:  # said, and the others go on
        return str(error)


def intervals(records: NDArray[Any], warps: int) -> list[tuple[float, float, float]]:
    """Clocks to each mark of a step from the one before it: the median, and the least and greatest of a warp."""
    words = records.reshape(BLOCKS, WARPS, SEQ, MARKS)[:, :warps].astype(np.int64)
    marks = int(np.argmin(words[0, 0, SEQ // 2] != 0))  # places behind the last mark are empty
    of_steps = words[:, :, :, :marks]
    before = np.concatenate([of_steps[:, :, :-1, -1:], of_steps[:, :, 1:, :-1]], axis=3)
    spans = ((of_steps[:, :, 1:] - before) & 0xFFFFFFFF)[:, :, 8:-8]
    medians = np.median(spans, axis=2)
    return [(float(np.median(each)), float(each.min()), float(each.max())) for each in np.moveaxis(medians, 2, 0)]


def mark_names(parts: int) -> list[str]:
    """What ends at each mark of a step."""
    of_parts = [f"{what} {part}" for part in range(parts) for what in ("h of part", "issue part")]
    return [
        "own part",
        "write",
        "wait, ask for h",
        "meet: h may come",
        *of_parts,
        "product",
        "meet: h read",
        "pointwise",
        "send h",
        "meet: results",
    ]


@click.command(help=__doc__)
@click.option("--only", "sizes", multiple=True, default=tuple(TILINGS), help="heads x units : batch")
@click.option("--tiling", default=None, help="another than that of the size")
@click.option("--compile", "compile_only", is_flag=True)
@click.option("--all", "everywhere", is_flag=True, help="all variants of every size")
@click.option("--few", is_flag=True, help="three variants of every size")
@click.option("--save", default="hidden", help="hidden or gates")
@click.option("--processes", default=14)
def main(
    sizes: Sequence[str], tiling: str | None, compile_only: bool, everywhere: bool, few: bool, save: str, processes: int
) -> None:
    """Compile all, then measure one after another."""
    jobs = []
    for size in sizes:
        variants = VARIANTS if everywhere else FEW if few else [*MARKED, *VARIANTS[2:5]]
        jobs += [(size, tiling or TILINGS[size], variant) for variant in dict.fromkeys(variants)]
    with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor(processes) as pool:
        folder = Path(name)
        for variant in dict.fromkeys(variant for _, _, variant in jobs):
            variant_headers(folder, variant)
        binaries = [[pool.submit(compiled, folder, *job, save, marks) for marks in (False, True)] for job in jobs]
        if compile_only:
            for (size, values, variant), pair in zip(jobs, binaries, strict=True):
                made = [each.result() for each in pair]
                told = [
                    each if isinstance(each, str) else f"{each.report.registers}, {each.report.spills}" for each in made
                ]
                click.echo(f"{size} {values} {', '.join(variant) or 'whole'}: registers, spills {'; '.join(told)}")
            return
        with GpuWorker() as worker:
            worker.start()
            now = ""
            for (size, values, variant), pair in zip(jobs, binaries, strict=True):
                if size != now:
                    worker.use([make_case(load_cell("lstm"), shape_of(size, save), 0)])
                    now = size
                    click.echo(f"LSTM {size} {values}, saves {save}, us a step")
                plain, marked = (each.result() for each in pair)
                name = ", ".join(variant) or "whole"
                if isinstance(plain, str) or isinstance(marked, str):
                    click.echo(f"  {name}: {plain if isinstance(plain, str) else marked}")
                else:
                    click.echo(measured(worker, (size, values, save), name, variant in MARKED, (plain, marked)))


def measured(
    worker: GpuWorker, what: tuple[str, str, str], name: str, looked_into: bool, pair: tuple[Binary, Binary]
) -> str:
    """What is told of a variant, without marks and with them."""
    plain, marked = pair
    size, values, save = what
    program = program_of(size, values, save)
    with_marks = replace(program, main=replace(program.main, source=stamped(program.main.source, 0)))
    job = StampJob(program, with_marks, plain.cubin, marked.cubin, (BLOCKS * WARPS * SEQ, MARKS))
    try:
        time, slower, records = worker.stamps(job, 30.0)
    except TilesmithError as error:  # said, and the others go on
        return f"  {name}: {error}"
    spans = intervals(records, program.main.launch.at(shape_of(size, save)).block // 32)
    line = (
        f"  {1e3 * time.median_ms / SEQ:6.3f}  {name}; {plain.report.registers} registers, {plain.report.spills} "
        f"spilled; with marks {1e3 * slower.median_ms / SEQ:.3f}, {marked.report.spills}, "
        f"{sum(span[0] for span in spans):,.0f} clocks"
    )
    if not looked_into:
        return line
    names = mark_names(int(values.split("/")[5]))
    told = [f"{n} {m:,.0f} ({a:,.0f}-{b:,.0f})" for n, (m, a, b) in zip(names, spans, strict=False)]
    return line + "\n          " + "; ".join(told)


def shape_of(size: str, save: str) -> Shape:
    """The shape of a size."""
    sizes, batch = size.split(":")
    heads, units = map(int, sizes.split("x"))
    return Shape(int(batch), SEQ, heads, units, "bfloat16", save)


if __name__ == "__main__":
    main()
