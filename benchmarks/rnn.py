"""tilesmith beside cuDNN, a torch.compile'd loop and FlashRNN: one run, side by side, on this GPU.

    python benchmarks/rnn.py                                          # all rows that fit into --budget, 8 minutes
    python benchmarks/rnn.py --rows table --flashrnn ~/flashrnn       # with FlashRNN from a checkout
    python benchmarks/rnn.py --row lstm:3x256:16 --row module:lstm:512:32 --tune 10
    python benchmarks/rnn.py --rows all --quick                       # whether everything runs

Forward passes run without gradients; training is forward and backward with the gradients of Wx, R and b (of a module
those of its input and parameters). Each pass is captured in a CUDA graph, its outputs are filled with NaN, it is
replayed and compared with float64 (benchmarks/peers/steps.py); then replays are timed, with an empty L2 cache, and the
same step called from Python. tilesmith runs the model's first choice in bfloat16 unless --tune tunes it first. cuDNN
runs through torch.nn in float16 and bfloat16, its input product included; it knows no heads, so where a row has
several it runs ONE head of the same D, which is that much less work. The compiled loop takes 64 steps. "x floor" is
how many times as long as the floor of kernelgen/tuning/floors.py.

What fails is written down with its reason, and the run goes on. Results are written after every row, to
benchmarks/results/YYYY-MM-DD-GPU.json where whole groups are measured, else to build/rnn.json;
benchmarks/plot_rnn.py draws them.
"""

from __future__ import annotations

import datetime
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import click
from peers.jobs import FLASHRNN, SYSTEMS, Job, jobs
from peers.kernels import prepare, tune
from peers.report import refusals, table
from peers.results import PASSES, Record, Results, dated
from peers.rows import GROUPS, Row, selected
from peers.worker import Worker
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kernelgen.device import gpu
from kernelgen.errors import TilesmithError
from kernelgen.hardware.profile import Profile

BUDGET = 480.0
SECONDS, QUICK_SECONDS = 0.15, 0.03
PARTIAL = Path("build/rnn.json")
LOG = Path("build/rnn.log")
UNBUILT = 2
"""After so many rows without a single time, FlashRNN is left alone."""


@click.command(help=__doc__)
@click.option("--rows", "groups", type=click.Choice([*GROUPS, "all"]), multiple=True, help="groups of rows")
@click.option("--row", "texts", multiple=True, help="CELL:HEADSxDIM:BATCH[:STEPS] or module:CELL:UNITS:BATCH[:STEPS]")
@click.option("--system", "systems", type=click.Choice(SYSTEMS), multiple=True, default=SYSTEMS, help="all by default")
@click.option("--quick", is_flag=True, help="two rows of each group, 64 steps, few repetitions")
@click.option("--budget", default=BUDGET, show_default=True, help="seconds; what they do not suffice for is said")
@click.option("--job-seconds", default=90.0, show_default=True, help="what one system may take for one row")
@click.option("--tune", "tuning", default=0.0, help="seconds of tuning for each kernel, beyond the budget")
@click.option("--flashrnn", type=click.Path(path_type=Path, exists=True, file_okay=False), help="a checkout of it")
@click.option("--out", type=click.Path(path_type=Path), help="the file of results")
def main(
    groups: tuple[str, ...],
    texts: tuple[str, ...],
    systems: tuple[str, ...],
    quick: bool,
    budget: float,
    job_seconds: float,
    tuning: float,
    flashrnn: Path | None,
    out: Path | None,
) -> None:
    """Measure, print and write."""
    console = Console()
    try:
        rows = selected(groups or (() if texts else ("all",)), texts, quick=quick)
        device = gpu.device(0)
        profile = device.profile()
    except (ValueError, TilesmithError) as error:
        raise click.ClickException(str(error)) from error
    wanted = [name for name in systems if name != FLASHRNN or flashrnn is not None]
    about = _about(device.name) | {"quick": quick, "tuned_seconds": tuning, "budget_seconds": budget}
    path = out or (PARTIAL if texts or quick else dated(about["date"], profile.name))
    results = Results(about)
    began = time.monotonic()
    with _progress(console) as progress:
        if tuning:
            _tune(rows, tuning, results, progress)
            began = time.monotonic()
        _prepare(rows, profile, progress)
        todo = jobs(rows, wanted, QUICK_SECONDS if quick else SECONDS)
        _measure(todo, results, path, began + budget, job_seconds, flashrnn, progress)
    about["seconds"] = round(time.monotonic() - began, 1)
    results.write(path)
    title = f"{about['gpu']}, driver {about['driver']}, PyTorch {about['torch']}, {about['date']}; milliseconds"
    Console(width=240).print(table(results, title))
    for line in refusals(results):
        console.print(line, markup=False, highlight=False)
    if FLASHRNN in systems and flashrnn is None:
        console.print("FlashRNN was not measured: --flashrnn names no checkout")
    console.print(f"{path}: {len(results.records)} records in {about['seconds']:.0f} s")


def _measure(
    todo: list[Job],
    results: Results,
    path: Path,
    until: float,
    job_seconds: float,
    flashrnn: Path | None,
    progress: Progress,
) -> None:
    """Every job in turn; what measures the same thing as an earlier one takes its time from it."""
    worker, flash = Worker(LOG), Worker(LOG, flashrnn)
    known: dict[tuple[object, ...], list[Record]] = {}
    bar = progress.add_task("measure", total=len(todo))
    try:
        for job in todo:
            progress.update(bar, description=f"{job.row.text} {job.system} {job.dtype}")
            if job.system == FLASHRNN:  # which comes last; two processes would share the GPU's memory
                worker.close()
            left = until - time.monotonic()
            if job.same in known:
                records = [job.record(r.what, **_measured(r)) for r in known[job.same]]
            elif left <= 0:
                records = job.refused("the time budget was spent")
            elif job.system == FLASHRNN and _unbuilt(results):
                records = job.refused("left out, since it ran at none of the rows before")
            else:
                chosen = flash if job.system == FLASHRNN else worker
                records = chosen.records(job, min(job_seconds, left + 10))
                known[job.same] = records
            results.records += records
            results.write(path)
            progress.advance(bar)
    except KeyboardInterrupt:
        progress.console.print("interrupted; what was measured is kept")
    finally:
        worker.close()
        flash.close()


def _unbuilt(results: Results) -> bool:
    tried = [record for record in results.records if record.system == FLASHRNN]
    return len(tried) >= UNBUILT * len(PASSES) and all(record.ms is None for record in tried)


def _measured(record: Record) -> dict[str, Any]:
    names = ("ms", "p10_ms", "p90_ms", "eager_ms", "host_ms", "how", "error", "floor_ms", "reason")
    return {name: getattr(record, name) for name in names}


def _prepare(rows: list[Row], profile: Profile, progress: Progress) -> None:
    bar = progress.add_task("compile all kernels", total=None)
    for done, total in prepare(rows, "bfloat16", profile, PASSES):
        progress.update(bar, completed=done, total=total)


def _tune(rows: list[Row], seconds: float, results: Results, progress: Progress) -> None:
    bar = progress.add_task("tune", total=len(rows))
    untuned = results.about.setdefault("untuned", {})
    for row in rows:
        progress.update(bar, description=f"tune {row.text}")
        try:
            tune(row, "bfloat16", seconds)
        except TilesmithError as error:
            untuned[row.text] = str(error)
        progress.advance(bar)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:48}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )


def _about(name: str) -> dict[str, Any]:
    import torch

    return {
        "gpu": name,
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "torch": torch.__version__,
        "tilesmith": _version(),
        "date": datetime.date.today().isoformat(),
    }


def _version() -> str:
    try:
        return metadata.version("tilesmith")
    except metadata.PackageNotFoundError:
        return "of a checkout"


def _driver() -> str:
    try:
        return Path("/sys/module/nvidia/version").read_text().strip()
    except OSError:
        return "unknown"


if __name__ == "__main__":
    main()
