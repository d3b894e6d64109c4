"""tilesmith tune-all: a kernel for each recurrence of a program."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from kernelgen.commands.console import print_json, print_table, progress_bar, remark
from kernelgen.commands.options import Seconds, Whole, json_option, objective_option, workers_option

if TYPE_CHECKING:
    from kernelgen.commands.console import Bar
    from kernelgen.hardware.profile import Profile
    from kernelgen.records.config import TunedConfig
    from kernelgen.records.trial import Objective
    from kernelgen.tuning.task_worker import Task, TaskProcesses, TaskResult
    from kernelgen.tuning.workers import Workers
    from kernelgen.tuning.workload import Job

Written = dict[str, "TunedConfig | str"]
"""What was written, or why nothing was, by the kernel's name."""


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
    from kernelgen.records.config import check_output
    from kernelgen.records.workload import load_workload
    from kernelgen.tuning.gpus import named
    from kernelgen.tuning.task_worker import TaskProcesses
    from kernelgen.tuning.tune import require_energy, resolve_gpu
    from kernelgen.tuning.workload import jobs

    work = load_workload(workload)
    profile, devices = resolve_gpu(gpu)
    if listing:
        _tell(jobs(work, profile), {}, as_json)
        return
    gpus, aim = named(workers, devices, profile.name), cast("Objective", objective)
    if aim != "time":
        require_energy(aim, gpus)
    folder = Path(output)
    written: Written = {}

    def wanted(found: list[Job]) -> list[Job]:
        """Those that can be tuned, once it is sure that the result can be written."""
        for job in found:
            check_output(folder / f"{job.name}.yaml")
        written.update({job.name: job.why_not for job in found if job.why_not})
        return [job for job in found if not job.why_not]

    count = min(gpus.count, len(work)) if gpus is not None else 1
    with progress_bar() as bar:
        if gpus is not None and count > 1:
            with TaskProcesses(count) as processes:
                found = jobs(work, profile, processes.predict)
                interrupted = _together(processes, wanted(found), profile, gpus, folder, budget, top, aim, written, bar)
        else:
            found = jobs(work, profile)
            interrupted = _one_by_one(wanted(found), profile, gpus, folder, budget, top, aim, written, bar)
    _tell(found, written, as_json)
    if interrupted:
        remark("interrupted: the same command goes on from here")
        ctx.exit(INTERRUPTED)
    if any(isinstance(each, str) for each in written.values()):
        ctx.exit(1)
    remark(f"export TILESMITH_CONFIGS={folder.absolute()}   # and PyTorch uses them")


def _one_by_one(
    jobs: list[Job],
    profile: Profile,
    gpus: Workers | None,
    folder: Path,
    budget: float,
    top: int | None,
    objective: Objective,
    written: Written,
    bar: Bar,
) -> bool:
    """Tune the kernels in this process, into ``written``; whether Ctrl-C came."""
    from kernelgen.commands.tune import show_event
    from kernelgen.errors import TilesmithError
    from kernelgen.tuning.tune import save, tune

    for place, job in enumerate(jobs, 1):
        bar.remark(f"kernel {place} of {len(jobs)}: {job.name}, {job.share:.0%} of the time by the model")
        try:
            result = tune(
                job.work.cell,
                job.work.shape,
                profile,
                direction=job.work.direction,
                budget=budget,
                top=top,
                on_event=partial(show_event, bar),
                started=time.monotonic(),
                workers=gpus or "",
                objective=objective,
            )
            written[job.name] = save(result, folder / f"{job.name}.yaml", job.work.record)
            if result.interrupted:
                return True
        except TilesmithError as error:
            written[job.name] = str(error)
            bar.remark(f"{job.name}: {error}")
        except KeyboardInterrupt:
            return True
    return False


def _together(
    processes: TaskProcesses,
    jobs: list[Job],
    profile: Profile,
    gpus: Workers,
    folder: Path,
    budget: float,
    top: int | None,
    objective: Objective,
    written: Written,
    bar: Bar,
) -> bool:
    """Tune as many kernels at once as there are GPUs, each in a process of its own; whether Ctrl-C came."""
    from kernelgen.tuning.task_worker import Task

    tasks = [
        Task(
            job.name,
            job.work.record,
            job.work.shape,
            job.work.direction,
            profile,
            folder / f"{job.name}.yaml",
            budget,
            top,
            objective,
        )
        for job in jobs
    ]
    bar.remark(f"{len(tasks)} kernels on {gpus.count} GPUs, {min(len(tasks), gpus.count)} at a time")

    def ended(task: Task, outcome: TaskResult | str) -> None:
        if isinstance(outcome, str):
            written[task.name] = outcome
            bar.remark(f"{task.name}: {outcome}")
        else:
            for remark in outcome.remarks:
                bar.remark(f"warning: {task.name}: {remark}")
            written[task.name] = outcome.config
            time_ = outcome.config.measured
            bar.remark(f"{task.name}: {time_.median_ms:.4f} ms" if time_ else f"{task.name}: tuned")
        bar.show("tuning", len(written), len(jobs))

    return bool(tasks) and processes.tune(tasks, gpus, ended)


def _tell(jobs: list[Job], written: dict[str, TunedConfig | str], as_json: bool) -> None:
    """Print the jobs in their order, with what became of each; milliseconds are those of one run of ``seq`` steps, the
    share is of all runs together, by the model."""
    rows = []
    for job in jobs:
        outcome = written.get(job.name, job.why_not or "not tuned")
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
