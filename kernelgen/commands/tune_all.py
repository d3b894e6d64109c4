"""tilesmith tune-all: a kernel for each recurrence of a program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from kernelgen.commands.console import print_json, print_table, progress_bar, remark, working
from kernelgen.commands.options import Seconds, Whole, json_option, objective_option, workers_option

if TYPE_CHECKING:
    from kernelgen.commands.console import Bar
    from kernelgen.records.config import TunedConfig
    from kernelgen.records.trial import Objective
    from kernelgen.records.workload import Work
    from kernelgen.tuning.search import Event
    from kernelgen.tuning.tasks import Task, TaskResult, TaskRunner
    from kernelgen.tuning.workers import Workers
    from kernelgen.tuning.workload import Job


@click.command(
    help="""Tune every kernel that a program runs, those that take longest first.

WORKLOAD.yaml is what kernelgen.torch.recording() saves: the cells, shapes and directions of a program, and how often
each ran. A kernel for each is written into a folder, from which PyTorch takes them once TILESMITH_CONFIGS names it.
With several GPUs as many kernels are tuned at once.
What cannot be tuned is said, and the others go on. Ctrl-C ends the search and keeps what was found; the same command
goes on from there.

\b
Examples:
  tilesmith tune-all work.yaml -o kernels
  tilesmith tune-all work.yaml --gpu h200 --budget 20 -o kernels
  tilesmith tune-all work.yaml --gpu h200 --list
"""
)
@click.argument("workload", metavar="WORKLOAD.yaml", type=click.Path(path_type=Path))
@click.option(
    "--gpu",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="A GPU's name (`tilesmith gpus`), a profile file, or auto: the one in this machine.",
)
@click.option(
    "--budget",
    type=Seconds(min=0),
    default=30,
    show_default=True,
    metavar="SECONDS",
    help="For each kernel, begin no new candidate after that many seconds.",
)
@click.option("--top", type=Whole(min=1), metavar="K", help="Try the model's K best of each (default: 12; GPU: 48).")
@objective_option
@workers_option
@click.option("--list", "listing", is_flag=True, help="Only list what would be tuned, with the model's times.")
@click.option("--output", "-o", metavar="FOLDER", default="kernels", show_default=True, help="Where to write.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    workload: Path,
    gpu: str,
    budget: float,
    top: int | None,
    objective: str,
    workers: str,
    listing: bool,
    output: str,
    as_json: bool,
) -> None:
    """Tune a workload."""
    from kernelgen.commands import INTERRUPTED
    from kernelgen.commands.tune import show_event
    from kernelgen.tuning.gpus import named
    from kernelgen.tuning.tasks import Task
    from kernelgen.tuning.tune import require_energy, resolve_gpu

    profile, devices = resolve_gpu(gpu)
    if listing:
        from kernelgen.records.workload import load_workload
        from kernelgen.tuning.workload import jobs

        with working(f"planning the kernels of {workload}"):
            found = jobs(load_workload(workload), profile)
        _tell(found, {}, as_json)
        return
    gpus, aim = named(workers, devices, profile.name), cast("Objective", objective)
    if aim != "time":
        require_energy(aim, gpus)
    with progress_bar() as bar, _started(gpus, workload, partial(show_event, bar)) as (runner, work):
        from kernelgen.records.config_files import check_output
        from kernelgen.tuning.workload import jobs

        found = jobs(work, profile, runner.predict)
        paths = {job.name: Path(output) / f"{job.name}.yaml" for job in found}
        for path in paths.values():
            check_output(path)
        able = [job for job in found if not job.why_not]
        progress = _Progress(bar, able)
        tasks = [
            Task(
                name=job.name,
                cell=job.work.record,
                shape=job.work.shape,
                direction=job.work.direction,
                profile=profile,
                path=paths[job.name],
                budget=budget,
                top=top,
                objective=aim,
            )
            for job in able
        ]
        interrupted = runner.tune(tasks, progress.ended, progress.begun)
    _tell(found, progress.outcomes, as_json)
    if interrupted:
        remark("interrupted: the same command goes on from here")
        ctx.exit(INTERRUPTED)
    if len(able) < len(found) or any(isinstance(outcome, str) for outcome in progress.outcomes.values()):
        ctx.exit(1)
    remark(f"export TILESMITH_CONFIGS={Path(output).absolute()}   # and PyTorch uses them")


@contextmanager
def _started(
    gpus: Workers | None, workload: Path, on_event: Callable[[Event], None]
) -> Iterator[tuple[TaskRunner, Sequence[Work]]]:
    """Who tunes a workload, and what is in it: with several GPUs, processes start while it is read."""
    from kernelgen.tuning.task_worker import TaskProcesses
    from kernelgen.tuning.tasks import OneByOne

    with ExitStack() as stack:
        processes: TaskProcesses | None = None
        if gpus is not None and gpus.count > 1:
            processes = stack.enter_context(TaskProcesses(gpus.count, gpus))

        from kernelgen.records.workload import load_workload

        work = load_workload(workload)
        if processes is not None and len(work) > 1:
            processes.keep(len(work))
            yield processes, work
            return
        if processes is not None:
            processes.keep(0)
        yield stack.enter_context(OneByOne(gpus, on_event)), work


class _Progress:
    """What the bar shows of kernels that are tuned. outcomes: what was written, or why nothing was, by name."""

    def __init__(self, bar: Bar, jobs: list[Job]) -> None:
        self.outcomes: dict[str, TunedConfig | str] = {}
        self._bar = bar
        self._jobs = {job.name: (place, job) for place, job in enumerate(jobs, 1)}

    def begun(self, task: Task) -> None:
        """Tell which kernel it is."""
        place, job = self._jobs[task.name]
        self._bar.remark(f"kernel {place} of {len(self._jobs)}: {task.name}, {job.share:.0%} of the time by the model")

    def ended(self, task: Task, outcome: TaskResult | str) -> None:
        """Keep what became of it, and tell."""
        if isinstance(outcome, str):
            self.outcomes[task.name] = outcome
            self._bar.remark(f"{task.name}: {outcome}")
        else:
            for text in outcome.remarks:
                self._bar.remark(f"warning: {task.name}: {text}")
            self.outcomes[task.name] = outcome.config
            time = outcome.config.measured
            self._bar.remark(f"{task.name}: {time.median_ms:.4f} ms" if time else f"{task.name}: tuned")
        self._bar.show("tuning", len(self.outcomes), len(self._jobs))


def _tell(jobs: list[Job], outcomes: dict[str, TunedConfig | str], as_json: bool) -> None:
    """Print the jobs in their order, with what became of each; milliseconds are those of one run of ``seq`` steps, the
    share is of all runs together, by the model."""
    rows = []
    for job in jobs:
        outcome = outcomes.get(job.name, job.why_not or "not tuned")
        row: dict[str, object] = {
            "kernel": job.name,
            "runs": job.runs,
            "seq": job.work.shape.seq,
            "share": round(job.share, 4),
            "model_ms": job.run_ms,
        }
        if isinstance(outcome, str):
            row["status"] = outcome
        else:
            row |= {
                "status": "tuned",
                "schedule": outcome.schedule,
                "tiling": dict(outcome.tiling),
                "model_ms": outcome.model.total_ms,
                "measured_ms": outcome.measured.median_ms if outcome.measured else None,
            }
        rows.append(row)
    if as_json:
        print_json(rows)
        return
    columns = ("kernel", "runs", "seq", "share", "schedule", "model ms", "measured ms", "status")
    print_table(columns, [_cells(row) for row in rows], right=columns[1:4] + columns[5:7])


def _cells(row: dict[str, object]) -> tuple[str, ...]:
    """A row of the table."""
    measured, status = row.get("measured_ms"), str(row["status"]).splitlines()[0]
    return (
        str(row["kernel"]),
        f"{row['runs']:,}",
        str(row["seq"]),
        f"{row['share']:.1%}",
        str(row.get("schedule", "")),
        f"{row['model_ms']:.4f}",
        "" if measured is None else f"{measured:.4f}",
        status if len(status) <= 80 else status[:77] + "...",
    )
