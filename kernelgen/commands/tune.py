"""tilesmith tune: the whole line, from a cell to a tuned kernel on the disk."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from kernelgen.commands.console import Bar, counted, print_table, progress_bar, remark
from kernelgen.commands.options import (
    CELL_HELP,
    Seconds,
    Whole,
    direction_option,
    directions,
    language_option,
    languages,
    make_shape,
    objective_option,
    shape_options,
    workers_option,
)

if TYPE_CHECKING:
    from kernelgen.program.task import Direction
    from kernelgen.records.trial import Objective
    from kernelgen.tuning.prepare import PreparedTrial
    from kernelgen.tuning.search import Event
    from kernelgen.tuning.tune import TuneResult


@click.command(
    help=f"""Find the fastest valid kernel of a cell, and write it down.

{CELL_HELP}

With the GPU in this machine, or several, candidates are validated at full size against a float64 reference and
measured, the model's best first. Without it they are ranked by the model, compiled, checked against what was predicted,
and the best is validated in the emulator. Writes FILE.yaml with the source (.cu) and the binary (.cubin) beside it.
Every trial is kept; a second run goes on where this one ended. Ctrl-C ends the search and writes the best so far.

For training, --direction both tunes the forward kernel that saves gates, into FILE.yaml, and then the backward kernel
that reads them, into FILE_backward.yaml, each with the whole budget. With --recompute no gates are saved.

With --language triton the candidates are Triton kernels; without a GPU the best is validated in Triton's interpreter.

\b
Examples:
  tilesmith tune lstm --batch 16 --seq 1024 --heads 12 --head-dim 64 -o lstm.yaml
  tilesmith tune lstm --gpu h200 --batch 16 --seq 1024 --heads 12 --head-dim 64 -o build/lstm.yaml
  tilesmith tune lstm --batch 16 --seq 1024 --heads 12 --head-dim 64 --direction both -o lstm.yaml
  tilesmith tune lstm --batch 16 --seq 1024 --heads 12 --head-dim 64 --workers 4 -o lstm.yaml
  tilesmith tune cells/mine.py:MINE --gpu l4 --batch 8 --seq 256 --head-dim 128 --budget 300
"""
)
@click.argument("cell", metavar="CELL")
@shape_options
@direction_option("forward", "backward", "both")
@click.option(
    "--budget",
    type=Seconds(min=0),
    metavar="SECONDS",
    help="Begin no new candidate after that many seconds (default: 120).",
)
@language_option
@click.option("--top", type=Whole(min=1), metavar="K", help="Try the model's K best (default: 12; GPU: 48).")
@click.option("--seeds", type=Whole(min=1), default=2, show_default=True, metavar="N", help="Random inputs to emulate.")
@objective_option
@workers_option
@click.option("--again", is_flag=True, help="Measure again what the store of trials knows already.")
@click.option(
    "--output", "-o", metavar="FILE.yaml", help="Where to write (default: CELL.yaml or CELL_backward.yaml here)."
)
@click.pass_context
def command(
    ctx: click.Context,
    /,
    cell: str,
    gpu: str,
    direction: str,
    language: str,
    budget: float | None,
    top: int | None,
    seeds: int,
    again: bool,
    objective: str,
    workers: str,
    output: str | None,
    **options: Any,
) -> None:
    """Tune a cell and write the result."""
    shape = make_shape(options, direction)
    from kernelgen.cells import load_cell
    from kernelgen.commands import INTERRUPTED, STARTED
    from kernelgen.records.config_files import check_output
    from kernelgen.tuning.tune import BUDGET_SECONDS, save, tune

    loaded = load_cell(cell)
    paths = {each: _path(output, loaded.name, each, direction) for each in directions(direction)}
    for path in paths.values():
        check_output(path)
    started = STARTED
    for each, path in paths.items():
        with progress_bar() as bar, _nothing_yet(ctx, path):
            bar.show("planning", 0, 0)
            result = tune(
                loaded,
                replace(shape, recompute=shape.recompute and each == "backward"),
                gpu,
                direction=each,
                language=languages(language),
                budget=BUDGET_SECONDS if budget is None else budget,
                top=top,
                seeds=seeds,
                again=again,
                on_event=partial(show_event, bar),
                started=started,
                workers=workers,
                objective=cast("Objective", objective),
            )
            written = save(result, path, spec=cell)
        _table(result)
        _summary(result, path, written.beside)
        if result.interrupted:
            remark("interrupted: this is the best so far; the same command goes on from here")
            ctx.exit(INTERRUPTED)
        started = time.monotonic()


@contextmanager
def _nothing_yet(ctx: click.Context, path: Path) -> Iterator[None]:
    """Say what is kept where Ctrl-C comes before there is a kernel to write."""
    from kernelgen.commands import INTERRUPTED

    try:
        yield
    except KeyboardInterrupt:
        remark(
            f"\ninterrupted before a kernel was found right, so {path} was not written; what was compiled is kept, and "
            "the same command goes on from here"
        )
        ctx.exit(INTERRUPTED)


def _path(output: str | None, name: str, direction: Direction, asked: str) -> Path:
    """Where the kernel of a direction is written; asked: what --direction said."""
    path = Path(output or f"{name}.yaml")
    beside = direction == "backward" and (asked == "both" or output is None)
    return path.with_name(f"{path.stem}_backward{path.suffix}") if beside else path


_STAGES = {"compile": "compiling", "emulate": "emulating", "gpu": "validating and measuring"}


def show_event(bar: Bar, event: Event) -> None:
    """Pass an event on to the bar."""
    if event.stage in _STAGES:
        bar.show(_STAGES[event.stage], event.done, event.total)
    elif event.stage == "warning":
        bar.remark(f"warning: {event.message}")
    else:
        bar.remark(event.message)


def _table(result: TuneResult) -> None:
    """Print the candidates: the measured ones by their time, then the others by the model."""
    prepared_trials = sorted(
        result.prepared_trials, key=lambda a: (_measured_ms(a) is None, _measured_ms(a) or 0.0, a.rank)
    )
    variables = list(dict.fromkeys(name for prepared in prepared_trials for name in prepared.tiling.values))
    numbers = ("registers", "predicted", "shared memory", "spills", "us/step", "error", "measured ms")
    rows = []
    for prepared in prepared_trials:
        trial = prepared.trial
        report, validation, time = trial.reported, trial.validation, trial.measurement
        rows.append(
            (
                "->" if prepared is result.best else "",
                str(prepared.rank),
                prepared.tiling.schedule,
                *(str(prepared.tiling.values.get(name, "")) for name in variables),
                str(report.registers) if report else "",
                str(trial.predicted.registers),
                f"{trial.predicted.shared_memory + (report.static_shared_memory if report else 0):,}",
                str(report.spills) if report else "",
                f"{trial.model_us_per_step:.3f}",
                f"{validation.worst:.1e}" if validation else "",
                f"{time.median_ms:.4f}" if time else "",
                trial.status if not trial.reason else f"{trial.status}: {_short(trial.reason)}",
            )
        )
    columns = ("", "#", "schedule", *variables, *numbers, "status")
    print_table(columns, rows, right=("#", *variables, *numbers), together=variables)


def _summary(result: TuneResult, path: Path, beside: Sequence[str]) -> None:
    """Say what was chosen, how right and how fast it is, and what to do with it."""
    best = result.best.trial
    assert best.validation is not None
    errors = ", ".join(f"{name} {error:.1e}" for name, error in best.validation.errors.items())
    tried = f"{len(result.prepared_trials)} of {result.feasible:,} tilings tried in {result.seconds:.1f} s"
    click.echo(f"{result.best.tiling} on {result.profile.name}, {result.direction}, {result.shape}; {tried}")
    where = "on the GPU" if best.validation.where == "gpu" else "in the emulator"
    size = f"B={best.validation.batch} T={best.validation.seq}, {counted(best.validation.seeds, 'input')}"
    click.echo(
        f"validated {where} against float64 ({size}): relative error {errors}; allowed {best.validation.tolerance:.1e}"
    )
    model_ms = best.model_us_per_step * result.shape.seq / 1000
    if best.measurement is not None:
        time = best.measurement
        spread = f"10 % to 90 %: {time.p10_ms:.4f} to {time.p90_ms:.4f}, {time.runs} runs"
        whole = " of the recurrence alone" if result.direction == "backward" else ""
        if time.energy_mj is not None:
            click.echo(
                f"energy {time.energy_mj:.3f} mJ a launch, product with time {time.energy_mj * time.median_ms:.4f}"
            )
        click.echo(f"measured {time.median_ms:.4f} ms ({spread}); the model said {model_ms:.3f} ms{whole}")
    else:
        click.echo(f"not measured, since that GPU is not here; the model says {model_ms:.3f} ms")
    click.echo(f"wrote {path}, {', '.join(beside)}")


def _measured_ms(prepared: PreparedTrial) -> float | None:
    return prepared.trial.measurement.median_ms if prepared.trial.measurement else None


def _short(reason: str) -> str:
    """The beginning of a reason, for a table."""
    line = reason.splitlines()[0]
    return line if len(line) <= 60 else line[:57] + "..."
