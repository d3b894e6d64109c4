"""Fit a schedule's register model, and show how well it predicts.

    python benchmarks/registers.py sample --each 8 --out build/registers.jsonl   # compile a random sample of tilings
    python benchmarks/registers.py fit build/registers.jsonl                     # print coefficients for a model.yaml
    python benchmarks/registers.py table                                         # predicted against compiled

All three take --schedule, one of the schedules whose kernels these are.

No GPU is needed. `table` compiles the tilings that the model ranks best, which are the ones that tuning compiles.
"""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from sampling import drawn, non_negative

from kernelgen.build.compile import compile_source
from kernelgen.cells import load_cell
from kernelgen.errors import InfeasibleError
from kernelgen.hardware.profile import load_profile
from kernelgen.program.shape import DTYPES, Shape
from kernelgen.program.tiling import Tiling
from kernelgen.schedules import get
from kernelgen.schedules.shared.batch_tiled import BatchTiled
from kernelgen.schedules.shared.numbers import as_int
from kernelgen.schedules.shared.registers import CONSTANT, SCALE
from kernelgen.tuning.plan import plan, spread

CELLS = ("lstm", "gru", "elman", "slstm", "lstm_peephole")
GPUS = {"sm_80": "a100-80gb", "sm_89": "l4", "sm_90a": "h200", "sm_100a": "b200", "sm_120": "rtx5090"}
DIMENSIONS = (16, 32, 64, 96, 128)
ODD_DIMENSIONS = (20, 33, 48, 100)
LARGE_DIMENSIONS = (32, 64, 128, 192, 256, 384, 512)
ODD_LARGE_DIMENSIONS = (50, 129, 200, 330)
GRID_DIMENSIONS = (32, 96, 256, 512, 768, 1024, 1536, 2048)
ODD_GRID_DIMENSIONS = (50, 129, 700)
STREAMED_DIMENSIONS = (32, 96, 512, 2560, 4096)
ODD_STREAMED_DIMENSIONS = (129, 700)
WIDE_DIMENSIONS = (32, 64, 96, 128, 256, 512, 768)
HEADS = 12

SPILLED = 8
"""Bytes that the report counts for a register that was spilled: stored and loaded once."""

dtype_option = click.option("--dtype", type=click.Choice(DTYPES), default="bfloat16", show_default=True)


schedule_option = click.option(
    "--schedule",
    type=click.Choice(
        [f"{name}{suffix}" for name in ("resident", "cluster", "grid", "streaming") for suffix in ("", "_backward")]
        + ["streamed_grid", "wide", "wide_backward"]
    ),
    default="resident",
    show_default=True,
)


@click.group(help=__doc__)
def main() -> None:
    """The commands of this file."""


def _schedule(name: str) -> BatchTiled:
    schedule = get(name)
    assert isinstance(schedule, BatchTiled)
    return schedule


def _dimensions(schedule: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Units of a head that a schedule is sampled at, and odd ones."""
    if schedule.startswith("streamed_grid"):
        return STREAMED_DIMENSIONS, ODD_STREAMED_DIMENSIONS
    if schedule.startswith("wide"):
        return WIDE_DIMENSIONS, ()
    if schedule.startswith(("grid", "streaming")):
        return GRID_DIMENSIONS, ODD_GRID_DIMENSIONS
    return (LARGE_DIMENSIONS, ODD_LARGE_DIMENSIONS) if schedule.startswith("cluster") else (DIMENSIONS, ODD_DIMENSIONS)


def _heads(schedule: str) -> int:
    """Heads of the shapes: all blocks of a grid must fit on the GPU together."""
    return 1 if schedule.startswith(("grid", "stream", "wide")) else HEADS


def _batches(schedule: str) -> tuple[int, ...]:
    """Of the shapes that are sampled."""
    return (16, 128, 1024) if schedule.startswith(("streaming", "wide")) else (1, 16, 128)


def _variants(schedule: str) -> list[tuple[str, bool]]:
    """What is saved, and whether the gates are recomputed."""
    recompute = (False, True) if schedule == "resident_backward" else (False,)
    return [(save, again) for save in ("hidden", "gates") for again in recompute]


def _tilings(schedule: str, cell: str, shape: Shape, gpu: str) -> list[Tiling]:
    direction = get(schedule).direction
    return plan(load_cell(cell), shape, load_profile(gpu), schedules=[schedule], direction=direction)


def _compiled(cell: str, shape: Shape, gpu: str, tiling: Tiling) -> dict[str, object]:
    profile = load_profile(gpu)
    source = get(tiling.schedule).program(load_cell(cell), shape, profile, tiling).main.source
    report = compile_source(source).report
    return {
        "cell": cell,
        "head_dim": shape.head_dim,
        "save": shape.save,
        "recompute": shape.recompute,
        "dtype": shape.dtype,
        "gpu": gpu,
        "values": dict(tiling.values),
        "threads": tiling.resources.threads,
        "predicted": tiling.resources.registers,
        "registers": report.registers,
        "spills": report.spills,
    }


@main.command()
@click.option("--each", default=8, help="tilings per cell, head dimension and GPU")
@click.option("--seed", default=0)
@click.option("--arch", "archs", type=click.Choice(list(GPUS)), multiple=True, default=list(GPUS))
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/registers.jsonl"))
@schedule_option
@dtype_option
def sample(each: int, seed: int, archs: tuple[str, ...], out: Path, schedule: str, dtype: str) -> None:
    """Compile the tilings that the model ranks best, and random ones."""
    draw = random.Random(seed)
    jobs = []
    even, odd = _dimensions(schedule)
    for name in CELLS:
        for head_dim in even + odd:
            for gpu in (GPUS[arch] for arch in archs):
                for save, recompute in _variants(schedule):
                    shape = Shape(
                        draw.choice(_batches(schedule)), 1024, _heads(schedule), head_dim, dtype, save, recompute
                    )
                    try:
                        tilings = _tilings(schedule, name, shape, gpu)
                    except InfeasibleError:
                        continue
                    count = each if head_dim in even else max(1, each // 4)
                    jobs += [(name, shape, gpu, tiling) for tiling in drawn(tilings, count, draw)]
    draw.shuffle(jobs)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a") as file, ThreadPoolExecutor(2) as pool, click.progressbar(length=len(jobs)) as bar:
        for record in pool.map(lambda job: _compiled(*job), jobs):
            file.write(json.dumps(record) + "\n")
            file.flush()
            bar.update(1)


@main.command()
@click.argument("samples", type=click.Path(path_type=Path, exists=True))
@schedule_option
def fit(samples: Path, schedule: str) -> None:
    """Least squares on relative errors, coefficients kept non-negative, one set for each architecture."""
    records = [json.loads(line) for line in samples.read_text().splitlines()]
    arch_of = {gpu: arch for arch, gpu in GPUS.items()}
    names = [CONSTANT]
    rows, registers, archs = [], [], []
    template = _schedule(schedule)
    for record in records:
        limit = min(255, 65536 // record["threads"] // 8 * 8)
        if not record["spills"] and record["registers"] >= limit - 2:
            continue  # the compiler was squeezed: it shows the limit, not the need
        cell = load_cell(record["cell"])
        dtype = record.get("dtype", "bfloat16")
        shape = Shape(16, 1024, _heads(schedule), record["head_dim"], dtype, record["save"], record["recompute"])
        values = record["values"]
        counts = template.needs(cell, shape, values).counts
        names[1:] = counts
        rows.append([1.0, *(float(as_int(count)) for count in counts.values())])
        registers.append(record["registers"] + record["spills"] / SPILLED)
        archs.append(arch_of[record["gpu"]])
    matrix, target = np.array(rows), np.array(registers)
    pooled = non_negative(matrix / target[:, None], np.ones_like(target))
    for arch in GPUS:
        chosen = np.array([a == arch for a in archs])
        if not chosen.any():
            continue
        own, goal = matrix[chosen], target[chosen]
        # A pull towards the pooled fit, for counts that few samples of one architecture have.
        pull = np.diag(0.02 * np.abs(own / goal[:, None]).sum(axis=0) ** 0.5)
        coefficients = non_negative(
            np.vstack([own / goal[:, None], pull]), np.concatenate([np.ones_like(goal), pull @ pooled])
        )
        rounded = np.rint(coefficients * SCALE).astype(int)
        error = np.ceil(own @ rounded / SCALE) / goal - 1
        print(f"    {arch}: {{{', '.join(f'{name}: {value}' for name, value in zip(names, rounded, strict=True))}}}")
        print(f"    # {len(goal)} samples, within 15 %: {np.mean(np.abs(error) <= 0.15):.1%}, rms {error.std():.1%}")


@main.command()
@click.option("--top", default=6, help="tilings per cell, head dimension and GPU")
@click.option("--arch", "archs", type=click.Choice(list(GPUS)), multiple=True, default=list(GPUS))
@schedule_option
@dtype_option
def table(top: int, archs: tuple[str, ...], schedule: str, dtype: str) -> None:
    """Predicted against compiled: registers within 15 %, shared memory exact, spills."""
    console = Console()
    dimensions = _dimensions(schedule)[0]
    shown = Table("cell", *(f"D={d}" for d in dimensions), title="within 15 % of the compiler / tilings (worst)")
    within = total = spilled = 0
    for arch, gpu in ((arch, GPUS[arch]) for arch in archs):
        for name in CELLS:
            cells = []
            for head_dim in dimensions:
                shape = Shape(16, 1024, _heads(schedule), head_dim, dtype)
                tilings = spread(_tilings(schedule, name, shape, gpu))[:top]
                with ThreadPoolExecutor(2) as pool:
                    records = list(pool.map(lambda t: _compiled(name, shape, gpu, t), tilings))  # noqa: B023
                errors = [r["predicted"] / r["registers"] - 1 for r in records]  # type: ignore[operator]
                good = sum(abs(error) <= 0.15 for error in errors)
                spills = sum(bool(r["spills"]) for r in records)
                within, total, spilled = within + good, total + len(errors), spilled + spills
                worst = max(errors, key=abs)
                cells.append(f"{good}/{len(errors)} ({worst:+.0%})" + (f" {spills} spill" if spills else ""))
            shown.add_row(f"{name} {arch}", *cells)
    console.print(shown)
    console.print(
        f"{within} of {total} within 15 % ({within / total:.1%}); {spilled} spill; shared memory: exact in all "
        "(a kernel whose shared memory differs from the prediction does not compile)"
    )


if __name__ == "__main__":
    main()
