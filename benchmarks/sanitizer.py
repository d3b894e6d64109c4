"""Run NVIDIA's compute-sanitizer over the kernels of every cell. Needs a GPU and the CUDA toolkit's compute-sanitizer.

    python benchmarks/sanitizer.py                   # memcheck, racecheck, initcheck, synccheck
    python benchmarks/sanitizer.py --tool racecheck

Each tool runs this file once more with --inside; that run validates kernels at small shapes and exits with status 0
if their results are right. The sanitizer turns any finding into its own exit status.
"""

from __future__ import annotations

import subprocess
import sys

import click
from rich.console import Console
from rich.table import Table

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
FINDING = 86
"""The exit status the sanitizer is asked to give when it finds something."""


@click.command(help=__doc__)
@click.option("--tool", "tools", type=click.Choice(TOOLS), multiple=True, default=TOOLS)
@click.option("--inside", is_flag=True, hidden=True)
def main(tools: tuple[str, ...], inside: bool) -> None:
    """Run the tools, or be run by one."""
    if inside:
        print(_validate(), "kernels are right")
        return
    console, shown = Console(), Table("tool", "result", "said")
    failed = False
    for tool in tools:
        command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", str(FINDING)]
        command += [sys.executable, __file__, "--inside"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = [line for line in (result.stdout + result.stderr).splitlines() if "SUMMARY" in line or "right" in line]
        verdict = "clean" if result.returncode == 0 else "FOUND" if result.returncode == FINDING else "failed"
        failed |= result.returncode != 0
        shown.add_row(tool, verdict, " ".join(lines) or result.stderr[-800:])
        if result.returncode:
            console.print(result.stdout[:3000])
    console.print(shown)
    raise SystemExit(int(failed))


def _validate() -> int:
    """Run one tiling of each kind for every cell in this process, and compare with the reference."""
    from kernelgen import gpu
    from kernelgen.bench import Candidate, _Cases, run
    from kernelgen.cells import cell_names, load_cell
    from kernelgen.compile import compile_source
    from kernelgen.hardware import Profile
    from kernelgen.plan import plan, spread
    from kernelgen.schedules import get
    from kernelgen.shape import Shape
    from kernelgen.validate import gpu_cases

    profile: Profile = gpu.device(0).profile()
    count = 0
    for cell in map(load_cell, cell_names()):
        for shape in (Shape(5, 19, 2, 64, "bfloat16", "gates"), Shape(9, 6, 1, 33, "float16", "states")):
            tilings = spread(plan(cell, shape, profile))
            dense = next(t for t in tilings if t.values["batch_tile"] >= 8)
            split = next(t for t in tilings if t.values["k_split"] > 1)
            loading = next(t for t in tilings if t.values["register_groups"] == 0)
            for tiling in (tilings[0], dense, split, loading):
                schedule = get(tiling.schedule)
                binary = compile_source(schedule.source(cell, shape, profile, tiling))
                cases = gpu_cases(cell, shape)
                run(_Cases(cases, 0))
                launches = tuple(schedule.launch(case.shape, tiling) for case in cases)
                run(Candidate(binary.cubin, binary.entry, binary.arch, launches, measure_seconds=0))
                count += 1
    return count


if __name__ == "__main__":
    main()
