"""Measure random tilings on a GPU, fit the cost model to them, and compare it with what was measured since.

    python benchmarks/cost_model.py sample --out build/cost.jsonl   # on a GPU: compile and time random tilings
    python benchmarks/cost_model.py fit build/cost.jsonl            # weights for a schedule's model.yaml, and how good
    python benchmarks/cost_model.py compare                         # today's model with every trial in the store

`fit` and `compare` say, for each cell, shape and pass, how far the model is off and its regret: how much slower the
model's favourite is than the fastest that was measured. Kernels run on random numbers, not validated: `tilesmith tune`
does that.
"""

from __future__ import annotations

import json
import math
import os
import random
import sys
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from sampling import drawn

from kernelgen.build.compile import Binary, compile_source
from kernelgen.cells import cell_names, load_cell
from kernelgen.cells.language import Cell
from kernelgen.device import gpu
from kernelgen.device.executor import Launches
from kernelgen.device.launcher import DeviceKernel, launch_config
from kernelgen.device.measure import measure
from kernelgen.errors import TilesmithError
from kernelgen.hardware.profile import Profile, load_profile
from kernelgen.program.arguments import ITEMSIZE
from kernelgen.program.program import Program
from kernelgen.program.shape import SIXTEEN_BITS, Shape
from kernelgen.program.task import Direction
from kernelgen.program.tiling import Tiling
from kernelgen.records.store import Store
from kernelgen.records.trial import Trial
from kernelgen.schedules import get
from kernelgen.schedules.shared.batch_tiled import BatchTiled
from kernelgen.schedules.shared.cost import Weights, clocks_per_step
from kernelgen.schedules.shared.limits import Waves, place
from kernelgen.schedules.shared.model import load_model
from kernelgen.tuning.plan import plan

CELLS = ("lstm", "gru", "slstm", "elman")
HEADS = {16: 48, 32: 24, 64: 12, 96: 8, 128: 6}
BATCHES = (1, 16, 128)
PASSES: tuple[tuple[Direction, str, bool], ...] = (
    ("forward", "hidden", False),
    ("forward", "gates", False),
    ("backward", "hidden", False),
    ("backward", "hidden", True),
)
"""Direction, what is saved, whether the gates are recomputed."""
SEQ = 1024
Group = tuple[str, str, str, str, int]
"""GPU, cell, pass, heads x D and batch: what is compared with each other."""
NEAR = 0.25
"""How much slower than the fastest the model's favourite may be, to count as near."""
RANDOM = 1 << 22
"""Different random numbers of an array; longer ones repeat them."""


@click.group(help=__doc__)
def main() -> None:
    """The commands of this file."""


# ---- sample ----


@main.command()
@click.option("--each", default=4, help="tilings per cell, shape and pass")
@click.option("--seconds", default=0.02, help="of measuring a tiling")
@click.option("--cell", "cells", multiple=True, default=CELLS)
@click.option("--head-dim", "head_dims", type=int, multiple=True, default=tuple(HEADS))
@click.option("--seed", default=0)
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/cost.jsonl"))
def sample(each: int, seconds: float, cells: tuple[str, ...], head_dims: tuple[int, ...], seed: int, out: Path) -> None:
    """Compile and time the tilings that the model ranks best, and random ones."""
    profile = gpu.device(0).profile()
    drawn_for = [
        (name, direction, Shape(batch, SEQ, HEADS.get(dim, 768 // dim or 1), dim, "bfloat16", save, recompute))
        for name in cells
        for dim in head_dims
        for batch in BATCHES
        for direction, save, recompute in PASSES
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        out.open("a") as file,
        ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool,
        gpu.current(0),
        click.progressbar(length=len(drawn_for)) as bar,
    ):
        found = pool.map(partial(_compiled, profile=profile, each=each, seed=seed), drawn_for)
        for (name, direction, shape), compiled in zip(drawn_for, found, strict=True):
            bar.update(1)
            buffers: dict[str, Any] = {}
            for tiling, program, binary in compiled:
                try:
                    ms = _time(program, load_cell(name), shape, binary, buffers, seconds)
                except TilesmithError as error:
                    click.echo(f"{name} {shape} {tiling}: {error}", err=True)
                    continue
                record = {
                    "gpu": profile.name,
                    "cell": name,
                    "direction": direction,
                    "shape": asdict(shape),
                    "schedule": tiling.schedule,
                    "values": dict(tiling.values),
                    "registers": binary.report.registers,
                    "spills": binary.report.spills,
                    "ms": ms,
                }
                file.write(json.dumps(record) + "\n")
                file.flush()


def _compiled(
    what: tuple[str, Direction, Shape], profile: Profile, each: int, seed: int
) -> list[tuple[Tiling, Program, Binary]]:
    """In a process of a pool: kernels of some tilings of a shape; none where nothing fits or one cannot be compiled."""
    name, direction, shape = what
    cell = load_cell(name)
    try:
        tilings = plan(cell, shape, profile, direction=direction, told=False)
        chosen = {str(tiling): tiling for tiling in drawn(tilings, each, random.Random(f"{seed} {what}"))}.values()
        programs = [get(tiling.schedule).program(cell, shape, profile, tiling) for tiling in chosen]
        return [(t, p, compile_source(p.main.source)) for t, p in zip(chosen, programs, strict=True)]
    except TilesmithError as error:
        click.echo(f"{name} {shape}: {error}", err=True)
        return []


def _time(program: Program, cell: Cell, shape: Shape, binary: Binary, buffers: dict[str, Any], seconds: float) -> float:
    """Milliseconds of the recurrence alone. buffers: arrays by name, made here where they are missing or too small."""
    call, arguments = program.main, program.arguments(cell, shape)
    arrays = {array.name: array for array in (*arguments.inputs, *arguments.outputs, *arguments.workspaces)}
    values: dict[str, Any] = {}
    for name in call.source.arguments:
        if name in arguments.numbers:
            values[name] = np.int32(arguments.numbers[name])
            continue
        array = arrays[name]
        size = int(np.prod(array.shape)) * ITEMSIZE[array.dtype]
        if size and (name not in buffers or buffers[name].size < size):
            buffers[name] = gpu.DeviceBuffer(size)
            if name not in call.source.writes:
                buffers[name].upload(_numbers(size))
        values[name] = buffers[name].pointer if size else 0
    kernel = DeviceKernel(binary.cubin, binary.entry, binary.arch, call.launch)
    kernel.prepare(0)
    step = (kernel, launch_config(call.launch.at(shape)), call.source.arguments)
    launches = Launches((step,), program.poisoned(shape))
    return measure(lambda stream: launches.run(stream, values), seconds=seconds).median_ms


def _numbers(size: int) -> Any:
    """``size`` bytes of random bfloat16 in (-1, 1), repeated where they are many."""
    floats = np.random.default_rng(0).uniform(-1, 1, RANDOM).astype(np.float32)
    return np.resize((floats.view(np.uint32) >> 16).astype(np.uint16), size // 2)


# ---- fit ----


@main.command()
@click.argument("samples", type=click.Path(path_type=Path, exists=True))
@click.option("--schedule", "schedules", multiple=True, default=("resident", "resident_backward"), show_default=True)
@click.option("--steps", default=4000, show_default=True, help="of the search")
@click.option("--floats", is_flag=True, help="fit to samples of more than 16 bits, which have weights of their own")
def fit(samples: Path, schedules: tuple[str, ...], steps: int, floats: bool) -> None:
    """Weights with the smallest relative errors, one set for each schedule."""
    records = [json.loads(line) for line in samples.read_text().splitlines()]
    for name in schedules:
        chosen = [record for record in records if record["schedule"] == name and not record["spills"]]
        chosen = [record for record in chosen if (record["shape"]["dtype"] in SIXTEEN_BITS) != floats]
        today = _weights(name, floats)
        works = [_work(record) for record in chosen]
        measured = np.array([1000 * record["ms"] / record["shape"]["seq"] for record in chosen])
        groups = list(map(_group, chosen))
        weights = _fitted(works, measured, groups, today, steps)
        print(f"{name}: {len(chosen)} samples")
        print("\n".join(f"    {field.name}: {getattr(weights, field.name):.2f}" for field in fields(weights)))
        for what, candidate in (("today", today), ("fitted", weights)):
            predicted = np.array([_us(work, candidate) for work in works])
            off = predicted / measured - 1
            print(
                f"{what}: half within {np.median(np.abs(off)):.1%}, nine in ten between "
                f"{np.quantile(off, 0.05):+.0%} and {np.quantile(off, 0.95):+.0%}"
            )
            _show(zip(groups, predicted, measured, strict=True), what)


def _template(name: str) -> BatchTiled:
    """A schedule, whose counts of work are what is fitted."""
    schedule = get(name)
    assert isinstance(schedule, BatchTiled)
    return schedule


def _weights(name: str, floats: bool) -> Weights:
    """Those of a schedule's model.yaml."""
    schedule = _template(name)
    return load_model(schedule.package, schedule.direction).weights("float32" if floats else "bfloat16")


def _work(record: dict[str, Any]) -> tuple[Any, Any, Waves]:
    """The work of a step, the GPU, and the waves of a multiprocessor."""
    cell, shape, profile = load_cell(record["cell"]), Shape(**record["shape"]), load_profile(record["gpu"])
    template, values = _template(record["schedule"]), record["values"]
    needs = template.needs(cell, shape, values)
    cluster = template.cluster_of(values)
    blocks = shape.heads * -(-shape.batch // values["batch_tile"]) * template.blocks_per_head(values)
    _, waves = place(profile, blocks, 32 * needs.warps, record["registers"], needs.shared_memory, cluster)
    return template.work(cell, shape, profile, values), profile, waves


def _us(work: tuple[Any, Any, Waves], weights: Weights) -> float:
    """The model's microseconds a step."""
    step, profile, waves = work
    clocks = sum(count * clocks_per_step(step, profile, together - 1, weights) for together, count in waves)
    return float(clocks / profile.clock_mhz)


def _fitted(
    works: list[tuple[Any, Any, Waves]], measured: Any, groups: list[Group], start: Weights, steps: int
) -> Weights:
    """Weights by a random search from those of today: a step changes up to three by factors, and stays if it helps.
    What counts is the relative error, and the regret of what the model would choose."""
    draw, names = random.Random(0), [field.name for field in fields(start)]
    members: dict[Group, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    places = [np.array(indices) for indices in members.values()]

    def loss(weights: Weights) -> float:
        predicted = np.array([_us(work, weights) for work in works])
        off = np.log(predicted / measured)
        regret = np.mean([measured[at[predicted[at].argmin()]] / measured[at].min() - 1 for at in places])
        return float(np.mean(np.abs(off)) + 0.3 * np.mean(off**2) + 0.5 * regret)

    best, least = start, loss(start)
    with click.progressbar(range(steps), label="fitting", file=sys.stderr) as bar:
        for step in bar:
            width = 0.3 * 0.25 ** (step / steps)
            changed = {
                name: max(0.0, (getattr(best, name) + 0.01) * math.exp(draw.gauss(0, width)) - 0.01)
                for name in draw.sample(names, draw.choice((1, 1, 2, 3)))
            }
            candidate = replace(best, **changed)
            if (found := loss(candidate)) < least:
                best, least = candidate, found
    return best


# ---- compare ----


def _group(record: dict[str, Any]) -> Group:
    """What a sample is compared within."""
    shape = Shape(**record["shape"])
    what = record["direction"] if record["direction"] == "forward" else "recompute" if shape.recompute else "backward"
    return record["gpu"], record["cell"], f"{what} {shape.save}", f"{shape.heads} x {shape.head_dim}", shape.batch


def model_us(trial: Trial) -> float:
    """What the model says today of a trial's tiling, in microseconds a step."""
    profile = load_profile(trial.gpu)
    tiling = get(trial.schedule).tiling(load_cell(trial.cell), trial.shape, profile, trial.tiling)
    return tiling.clocks_per_step / profile.clock_mhz


@main.command()
def compare() -> None:
    """Today's model with every trial that the store has measured on a GPU."""
    found: list[tuple[Group, float, float]] = []
    with Store() as store:
        for trial in store.trials(status="measured"):
            assert trial.measurement is not None
            if trial.cell not in cell_names():
                continue  # a cell of somebody's own: its definition is not at hand
            measured = 1000 * trial.measurement.median_ms / trial.shape.seq
            record = {
                "gpu": trial.gpu,
                "cell": trial.cell,
                "direction": get(trial.schedule).direction,
                "shape": asdict(trial.shape),
            }
            found.append((_group(record), model_us(trial), measured))
    if not found:
        raise SystemExit("the store has no measured trial yet: run `tilesmith tune` on a machine with a GPU first")
    _show(found, "the store")


def _show(found: Iterable[tuple[Group, float, float]], title: str) -> None:
    """A row for each group of (group, the model's us, measured us)."""
    groups: dict[Group, list[tuple[float, float]]] = defaultdict(list)
    for group, model_us, measured_us in found:
        groups[group].append((model_us, measured_us))
    columns = ("GPU", "cell", "pass", "heads x D", "B", "tilings", "fastest us/step", "model off by", "worst", "regret")
    shown, regrets = Table(*columns, title=title), []
    for (gpu_name, cell, what, sizes, batch), pairs in sorted(groups.items()):
        model, measured = np.array(pairs).T
        off = model / measured - 1
        regrets.append(measured[model.argmin()] / measured.min() - 1)
        figures = (f"{np.median(off):+.0%}", f"{off[np.abs(off).argmax()]:+.0%}", f"{regrets[-1]:.0%}")
        row = (gpu_name, cell, what, sizes, str(batch), str(len(pairs)), f"{measured.min():.3f}", *figures)
        shown.add_row(*row)
    console = Console(width=130)
    console.print(shown)
    near = sum(regret <= NEAR for regret in regrets)
    console.print(
        f"regret: {np.mean(regrets):.1%} on average, {np.max(regrets):.0%} at most; "
        f"within {NEAR:.0%} in {near} of {len(regrets)} groups"
    )


if __name__ == "__main__":
    main()
