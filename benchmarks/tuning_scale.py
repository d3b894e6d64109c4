"""How tuning gets faster with GPUs: `tilesmith tune-all` of 12 kernels on 1, 2, 4, ... of them, from nothing each time.

    python benchmarks/tuning_scale.py [--workers 1,2,4] [--top 6] [--kill] [--json FILE]

Every run has a cache of its own, so everything is compiled, validated and measured anew. What counts is the time of the
whole command, in seconds, and its ratio to the first. The kernels are those of 12 recurrences of about equal size.
--kill adds a run on the most GPUs in the middle of which one GPU's worker is killed (SIGKILL), and says whether a trial
that was in the store before is missing or changed after, or any kernel has fewer.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from kernelgen.cells import load_cell
from kernelgen.program.shape import Shape
from kernelgen.records.config import CellRecord
from kernelgen.records.store import Store
from kernelgen.records.workload import Work, save_workload

STEPS = 256


def workload() -> list[Work]:
    """Four cells at three sizes."""
    return [
        Work(load_cell(cell), CellRecord.of(load_cell(cell), cell), Shape(16, STEPS, heads, dim), "forward", 1)
        for cell in ("lstm", "gru", "slstm", "elman")
        for heads, dim in ((24, 32), (12, 64), (6, 128))
    ]


Trials = dict[tuple[str, str], float]
"""Milliseconds of what was measured, by the source's hash and the shape."""


def measured(store: Path) -> Trials:
    """What a store has."""
    if not store.exists():
        return {}
    with Store(store, write=False) as opened:
        trials = opened.trials(status="measured")
    return {(each.source_hash, str(each.shape)): each.measurement.median_ms for each in trials if each.measurement}


def gpu_worker(command: int) -> int | None:
    """A process that tries kernels on a GPU for a command; None where there is none."""
    parents: dict[int, int] = {}
    workers: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if b"gpu_worker:run" in (folder / "cmdline").read_bytes():
                workers.append(int(folder.name))
        except OSError:  # it has ended
            continue
    for worker in workers:
        above = parents[worker]
        while above in parents and above != command:
            above = parents[above]
        if above == command:
            return worker
    return None


def kill_one(command: subprocess.Popen[str], store: Path, after: int) -> Trials:
    """Kill a GPU's worker once so many kernels were measured; what the store had before."""
    while command.poll() is None:
        if len(known := measured(store)) >= after and (worker := gpu_worker(command.pid)) is not None:
            os.kill(worker, signal.SIGKILL)
            print(f"     killed the GPU worker {worker} after {len(known)} trials", flush=True)
            return known
        time.sleep(0.2)
    return {}


def run(workers: int, top: int, folder: Path, kill_after: int = 0) -> dict[str, object]:
    """Tune everything; seconds, and how many trials the store has at each status. kill_after: trials."""
    save_workload(folder / "work.yaml", workload())
    command = [sys.executable, "-m", "kernelgen.commands", "tune-all", str(folder / "work.yaml"), "--json"]
    command += ["--workers", str(workers), "--top", str(top), "--budget", "600", "-o", str(folder / "kernels")]
    began = time.monotonic()
    store_path = folder / "cache" / "trials.sqlite"
    process = subprocess.Popen(
        command, env={**os.environ, "TILESMITH_CACHE": str(folder / "cache")}, stdout=subprocess.PIPE, text=True
    )
    before = kill_one(process, store_path, kill_after) if kill_after else {}
    output, _ = process.communicate()
    seconds = time.monotonic() - began
    if process.returncode:
        raise click.ClickException(
            f"tune-all on {workers} GPUs ended with status {process.returncode}: {output[-2000:]}"
        )
    after = measured(store_path)
    with Store(store_path, write=False) as store:
        statuses = [trial.status for trial in store.trials()]
    tuned = {row["kernel"]: row["measured_ms"] for row in json.loads(output)}
    return {
        "workers": workers,
        "seconds": seconds,
        "measured": statuses.count("measured"),
        "failed": statuses.count("failed"),
        "kernels": tuned,
        "killed_after": len(before),
        "lost": sum(after.get(which) != ms for which, ms in before.items()),
    }


@click.command(help=__doc__)
@click.option(
    "--workers", default="1,2,4", show_default=True, help="Numbers of GPUs; those that are not there are left out."
)
@click.option("--top", default=6, show_default=True, help="Candidates of each kernel.")
@click.option("--kill", is_flag=True, help="And once more on the most GPUs, with a GPU's worker killed.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Where to write the figures.")
def main(workers: str, top: int, kill: bool, output: Path | None) -> None:
    """Measure and print."""
    from kernelgen.device.gpu import device, device_count

    there = device_count()
    print(f"{there} x {device(0).name}, {os.cpu_count()} processor cores, 12 kernels, the model's {top} best of each")
    print(f"{'GPUs':>4} {'seconds':>8} {'ratio':>6} {'measured':>8} {'failed':>6}   slowest winner against the first")
    found: list[dict[str, object]] = []
    counts = [count for count in map(int, workers.split(",")) if count <= there]
    for count, killed in [*((count, False) for count in counts), *([(max(counts), True)] if kill and counts else [])]:
        with tempfile.TemporaryDirectory() as folder:
            found.append(run(count, top, Path(folder), kill_after=4 * top if killed else 0))
        first, last = found[0], found[-1]
        ratio = float(str(last["seconds"])) / float(str(first["seconds"]))
        before, now = first["kernels"], last["kernels"]
        assert isinstance(before, dict)
        assert isinstance(now, dict)
        worst = max(now[name] / before[name] for name in before)
        lost = f"   of {last['killed_after']} trials before the kill {last['lost']} are lost" if killed else ""
        figures = f"{count:4} {last['seconds']:8.1f} {ratio:6.2f} {last['measured']:8} {last['failed']:6}"
        print(f"{figures}   {worst:.2f}{lost}", flush=True)
    if output:
        output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
