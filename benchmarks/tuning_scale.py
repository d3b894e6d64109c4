"""How tuning gets faster with GPUs: `tilesmith tune-all` of 12 kernels on 1, 2, 4, ... of them, from nothing each time.

    python benchmarks/tuning_scale.py [--workers 1,2,4] [--top 6] [--kill] [--kill-driver] [--json FILE]

Every run has a cache of its own, so everything is compiled, validated and measured anew. What counts is the time of the
whole command, in seconds, and its ratio to the first. The kernels are those of 12 recurrences of about equal size.
--kill adds a run on the most GPUs in the middle of which one GPU's worker is killed (SIGKILL), and says whether a trial
that was in the store before is missing or was measured again after. --kill-driver adds one in the middle of which the
command itself is killed, with all that it has started, and begun again with the same store: the same of it, and how
long the rest took.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from kernelgen.cells import load_cell
from kernelgen.program.shape import Shape
from kernelgen.records.config import CellRecord
from kernelgen.records.store import Store
from kernelgen.records.workload import Work, save_workload

STEPS = 256
LEFT_SECONDS = 60.0
"""In which what a command has started must have left after it was killed."""


def workload() -> list[Work]:
    """Four cells at three sizes."""
    return [
        Work(load_cell(cell), CellRecord.of(load_cell(cell), cell), Shape(16, STEPS, heads, dim), "forward", 1)
        for cell in ("lstm", "gru", "slstm", "elman")
        for heads, dim in ((24, 32), (12, 64), (6, 128))
    ]


Trials = dict[tuple[str, str], float]
"""Milliseconds of what was measured, by the source's hash and the shape."""
Kill = Callable[["subprocess.Popen[str]"], bool]
"""Kills something of a command; whether it was there."""


def measured(store: Path) -> Trials:
    """What a store has."""
    if not store.exists():
        return {}
    with Store(store, write=False) as opened:
        trials = opened.trials(status="measured")
    return {(each.source_hash, str(each.shape)): each.measurement.median_ms for each in trials if each.measurement}


def started_by(command: int) -> dict[int, bytes]:
    """The processes that a command has started, and those have: their command lines."""
    parents: dict[int, int] = {}
    lines: dict[int, bytes] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            lines[int(folder.name)] = (folder / "cmdline").read_bytes()
    found = {}
    for process, line in lines.items():
        above = parents[process]
        while above in parents and above != command:
            above = parents[above]
        if above == command:
            found[process] = line
    return found


def alive(process: int) -> bool:
    """Whether a process is there and not only waited for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill_worker(command: subprocess.Popen[str]) -> bool:
    """Kill a process that tries kernels on a GPU for a command; whether there was one."""
    workers = [process for process, line in started_by(command.pid).items() if b"gpu_worker:run" in line]
    if not workers:
        return False
    os.kill(workers[0], signal.SIGKILL)
    print(f"     killed the GPU worker {workers[0]}", flush=True)
    return True


def kill_driver(command: subprocess.Popen[str]) -> bool:
    """Kill a command alone, and wait until what it has started has noticed and is gone."""
    started = started_by(command.pid)
    command.kill()
    command.wait()
    until = time.monotonic() + LEFT_SECONDS
    while left := [process for process in started if alive(process)]:
        if time.monotonic() > until:
            raise click.ClickException(f"{LEFT_SECONDS:.0f} s after the command was killed, {left} are still there")
        time.sleep(0.05)
    print(f"     killed the command {command.pid}; {len(started)} processes of it have left", flush=True)
    return True


def kill_after(command: subprocess.Popen[str], store: Path, trials: int, kill: Kill) -> None:
    """Kill once so many kernels were measured."""
    while command.poll() is None:
        if len(measured(store)) >= trials and kill(command):
            return
        time.sleep(0.05)


def run(workers: int, top: int, folder: Path, kill: Kill | None = None) -> dict[str, object]:
    """Tune everything; seconds, and how many trials the store has at each status. kill: what is killed once the store
    has a third of the trials; a command that was killed is begun again, and the seconds are those of the rest."""
    save_workload(folder / "work.yaml", workload())
    command = [sys.executable, "-m", "kernelgen.commands", "tune-all", str(folder / "work.yaml"), "--json"]
    command += ["--workers", str(workers), "--top", str(top), "--budget", "600", "-o", str(folder / "kernels")]
    store_path = folder / "cache" / "trials.sqlite"
    own = {**os.environ, "TILESMITH_CACHE": str(folder / "cache")}
    began = time.monotonic()
    process = subprocess.Popen(command, env=own, stdout=subprocess.PIPE, text=True)
    until_killed, before = 0.0, Trials()
    if kill is not None:
        kill_after(process, store_path, 4 * top, kill)
        before = measured(store_path)
    if kill is kill_driver:
        until_killed = time.monotonic() - began
        process.communicate()
        began = time.monotonic()
        process = subprocess.Popen(command, env=own, stdout=subprocess.PIPE, text=True)
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
        "seconds_until_killed": until_killed,
        "lost": sum(which not in after for which in before),
        "again": sum(after.get(which, ms) != ms for which, ms in before.items()),
    }


@click.command(help=__doc__)
@click.option(
    "--workers", default="1,2,4", show_default=True, help="Numbers of GPUs; those that are not there are left out."
)
@click.option("--top", default=6, show_default=True, help="Candidates of each kernel.")
@click.option("--kill", is_flag=True, help="And once more on the most GPUs, with a GPU's worker killed.")
@click.option("--kill-driver", "driver", is_flag=True, help="And once more, with the command killed and begun again.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Where to write the figures.")
def main(workers: str, top: int, kill: bool, driver: bool, output: Path | None) -> None:
    """Measure and print."""
    from kernelgen.device.gpu import device, device_count

    there = device_count()
    print(f"{there} x {device(0).name}, {os.cpu_count()} processor cores, 12 kernels, the model's {top} best of each")
    print(f"{'GPUs':>4} {'seconds':>8} {'ratio':>6} {'measured':>8} {'failed':>6}   slowest winner against the first")
    found: list[dict[str, object]] = []
    counts = [count for count in map(int, workers.split(",")) if count <= there]
    runs: list[tuple[int, Kill | None]] = [(count, None) for count in counts]
    runs += [(max(counts), each) for each, asked in ((kill_worker, kill), (kill_driver, driver)) if asked and counts]
    for count, killer in runs:
        with tempfile.TemporaryDirectory() as folder:
            found.append(run(count, top, Path(folder), killer))
        first, last = found[0], found[-1]
        ratio = float(str(last["seconds"])) / float(str(first["seconds"]))
        before, now = first["kernels"], last["kernels"]
        assert isinstance(before, dict)
        assert isinstance(now, dict)
        worst = max(now[name] / before[name] for name in before)
        more = ""
        if killer is not None:
            more = f"   of {last['killed_after']} trials {last['lost']} are lost, {last['again']} measured again"
        if killer is kill_driver:
            more += f"; killed after {last['seconds_until_killed']:.1f} s, the seconds are the rest's"
        figures = f"{count:4} {last['seconds']:8.1f} {ratio:6.2f} {last['measured']:8} {last['failed']:6}"
        print(f"{figures}   {worst:.2f}{more}", flush=True)
    if output:
        output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
