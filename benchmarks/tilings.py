"""Time many different tilings of one schedule, each validated at full size against float64.

    python benchmarks/tilings.py --schedule cluster --size 3x256 --size 1x512
    python benchmarks/tilings.py --schedule cluster --size 4x192 --with cluster=4 --with batch_tile=4 --by prefetch
    python benchmarks/tilings.py --schedule cluster_backward --save gates --size 3x256
    python benchmarks/tilings.py --schedule grid --size 1x768 --with blocks=48 --by k_split --by k_tiles_in_registers

Of the tilings that differ in the variables of --by that the schedule has, one each is tried, the model's best; --with
keeps those with a value. Or those of --tiling are tried, values in the order of the variables, also such as the Problem
does not offer:

    python benchmarks/tilings.py --schedule cluster --size 3x256 --tiling 8/8/4/1/8/2/8/1/0

Rows go to --out as they come (JSON lines, as `cost_model.py sample` writes them and `fit` reads them).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import click

from kernelgen.build.compile import Binary, compile_source
from kernelgen.cells import load_cell
from kernelgen.device import gpu
from kernelgen.errors import TilesmithError
from kernelgen.program.program import Program
from kernelgen.program.shape import Shape
from kernelgen.program.tiling import Tiling
from kernelgen.schedules import get
from kernelgen.tuning.plan import plan
from kernelgen.tuning.step_profile import profile_kernel
from kernelgen.verify.cases import make_case
from kernelgen.verify.gpu_worker import GpuJob, GpuWorker

BY = ("cluster", "clusters", "blocks", "units_per_warp", "tiles_per_warp", "batch_tile", "k_split")


@click.command(help=__doc__)
@click.option("--schedule", required=True)
@click.option("--cell", "name", default="lstm")
@click.option("--size", "sizes", multiple=True, required=True, help="heads x units, such as 3x256")
@click.option("--batch", default=16)
@click.option("--seq", default=1024)
@click.option("--dtype", default="bfloat16")
@click.option("--save", default="hidden")
@click.option("--with", "wanted", multiple=True, help="variable=value")
@click.option("--tiling", "named", multiple=True, help="value/value/...")
@click.option("--by", "by", multiple=True, default=BY, show_default=True)
@click.option("--top", default=20, help="tilings a size")
@click.option("--seconds", default=0.1, help="of measuring a tiling")
@click.option("--profile", "profiled", is_flag=True, help="the clocks of a step's phases too, where kernels have marks")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/tilings.jsonl"))
def main(
    schedule: str,
    name: str,
    sizes: Sequence[str],
    batch: int,
    seq: int,
    dtype: str,
    save: str,
    wanted: Sequence[str],
    named: Sequence[str],
    by: Sequence[str],
    top: int,
    seconds: float,
    profiled: bool,
    out: Path,
) -> None:
    """Compile, validate, measure, print and write."""
    cell, profile, chosen = load_cell(name), gpu.device(0).profile(), get(schedule)
    keep = {key: int(value) for key, value in (text.split("=") for text in wanted)}
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a") as file, GpuWorker() as worker, ThreadPoolExecutor(8) as pool:
        worker.start()
        for size in sizes:
            heads, head_dim = map(int, size.split("x"))
            shape = Shape(batch, seq, heads, head_dim, dtype, save)
            try:
                planned = plan(cell, shape, profile, schedules=[schedule], direction=chosen.direction)
                build = partial(chosen.tiling, cell, shape, profile)
                tilings = those_named(planned, named, build) if named else different(planned, by, keep)[:top]
            except TilesmithError as error:
                click.echo(f"{size}: {error}", err=True)
                continue
            # The recurrence alone: what follows it takes the same whatever the tiling.
            programs = [replace(chosen.program(cell, shape, profile, tiling), then=()) for tiling in tilings]
            binaries = pool.map(compile_source, [program.main.source for program in programs])
            if not tilings:
                continue
            worker.use([make_case(cell, shape, 0, direction=chosen.direction)])
            click.echo(f"{cell.name} {shape}, saves {save}: {', '.join(tilings[0].values)} | model, measured us a step")
            for tiling, program, binary in zip(tilings, programs, binaries, strict=True):
                outcome = tried(worker, program, binary, seconds)
                record = {
                    "gpu": profile.name,
                    "cell": name,
                    "direction": chosen.direction,
                    "shape": asdict(shape),
                    "schedule": schedule,
                    "values": dict(tiling.values),
                    "registers": binary.report.registers,
                    "spills": binary.report.spills,
                    "model_us": tiling.clocks_per_step / profile.clock_mhz,
                }
                values = "/".join(map(str, tiling.values.values()))
                line = f"{values:28} {binary.report.registers:3} registers | {record['model_us']:.3f}"
                if isinstance(outcome, str):
                    click.echo(f"{line} {outcome}")
                    continue
                ms, error = outcome
                click.echo(f"{line} {1000 * ms / seq:.3f}  {ms:.3f} ms, error {error:.1e}")
                file.write(json.dumps(record | {"ms": ms, "error": error}) + "\n")
                file.flush()
                if profiled:
                    whole = chosen.program(cell, shape, profile, tiling)
                    found = profile_kernel(cell, shape, profile, tiling, whole, 0).profile
                    phases = ", ".join(f"{phase} {clocks:,.0f}" for phase, clocks in found.phases.items())
                    click.echo(f"    clocks: {phases}; {found.clocks:,.0f} at {found.clock_mhz:,.0f} MHz")


def different(tilings: Sequence[Tiling], by: Sequence[str], keep: dict[str, int]) -> list[Tiling]:
    """The first of those that are alike in all variables of ``by``, of the tilings with the values of ``keep``."""
    found: dict[tuple[int, ...], Tiling] = {}
    for tiling in tilings:
        if all(tiling.values[key] == value for key, value in keep.items()):
            found.setdefault(tuple(tiling.values.get(key, 0) for key in by), tiling)
    return list(found.values())


def those_named(
    tilings: Sequence[Tiling], named: Sequence[str], build: Callable[[dict[str, int]], Tiling]
) -> list[Tiling]:
    """Those whose values are named, in the order of the names; says which are not offered."""
    variables = tuple(tilings[0].values)
    found = {"/".join(map(str, tiling.values.values())): tiling for tiling in tilings}
    for name in named:
        if name not in found:
            click.echo(f"{name}: not offered", err=True)
            found[name] = build(dict(zip(variables, map(int, name.split("/")), strict=True)))
    return [found[name] for name in named]


def tried(worker: GpuWorker, program: Program, binary: Binary, seconds: float) -> tuple[float, float] | str:
    """Milliseconds of a launch and the largest relative error of an output; or what went wrong."""
    if binary.report.local_memory:
        return f"needs {binary.report.local_memory} bytes of local memory"
    try:
        outcome = worker.run(GpuJob(program, (binary.cubin,), seconds), 60.0)
    except TilesmithError as error:
        return str(error)
    assert outcome.measurement is not None
    return outcome.measurement.median_ms, max(outcome.errors.values())


if __name__ == "__main__":
    main()
