"""How tuning gets faster with GPUs: `tilesmith tune-all` of 12 kernels on 1, 2, 4, ... of them, from nothing each time.

    python benchmarks/tuning_scale.py [--workers 1,2,4] [--top 6] [--json FILE]

Every run has a cache of its own, so everything is compiled, validated and measured anew. What counts is the time of the
whole command, in seconds, and its ratio to the first. The kernels are those of 12 recurrences of about equal size.
"""

from __future__ import annotations

import json
import os
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


def run(workers: int, top: int, folder: Path) -> dict[str, object]:
    """Tune everything; seconds, and how many trials the store has at each status."""
    save_workload(folder / "work.yaml", workload())
    command = [sys.executable, "-m", "kernelgen.commands", "tune-all", str(folder / "work.yaml"), "--json"]
    command += ["--workers", str(workers), "--top", str(top), "--budget", "600", "-o", str(folder / "kernels")]
    began = time.monotonic()
    done = subprocess.run(
        command,
        env={**os.environ, "TILESMITH_CACHE": str(folder / "cache")},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - began
    if done.returncode:
        raise click.ClickException(
            f"tune-all on {workers} GPUs ended with status {done.returncode}: {done.stdout[-2000:]}"
        )
    with Store(folder / "cache" / "trials.sqlite", write=False) as store:
        statuses = [trial.status for trial in store.trials()]
    tuned = {row["kernel"]: row["measured_ms"] for row in json.loads(done.stdout)}
    return {
        "workers": workers,
        "seconds": seconds,
        "measured": statuses.count("measured"),
        "failed": statuses.count("failed"),
        "kernels": tuned,
    }


@click.command(help=__doc__)
@click.option(
    "--workers", default="1,2,4", show_default=True, help="Numbers of GPUs; those that are not there are left out."
)
@click.option("--top", default=6, show_default=True, help="Candidates of each kernel.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Where to write the figures.")
def main(workers: str, top: int, output: Path | None) -> None:
    """Measure and print."""
    from kernelgen.device.gpu import device, device_count

    there = device_count()
    print(f"{there} x {device(0).name}, {os.cpu_count()} processor cores, 12 kernels, the model's {top} best of each")
    print(f"{'GPUs':>4} {'seconds':>8} {'ratio':>6} {'measured':>8} {'failed':>6}   slowest winner against the first")
    found: list[dict[str, object]] = []
    for count in map(int, workers.split(",")):
        if count > there:
            print(f"{count:4} are not there")
            continue
        with tempfile.TemporaryDirectory() as folder:
            found.append(run(count, top, Path(folder)))
        first, last = found[0], found[-1]
        ratio = float(str(last["seconds"])) / float(str(first["seconds"]))
        before, now = first["kernels"], last["kernels"]
        assert isinstance(before, dict)
        assert isinstance(now, dict)
        worst = max(now[name] / before[name] for name in before)
        print(
            f"{count:4} {last['seconds']:8.1f} {ratio:6.2f} {last['measured']:8} {last['failed']:6}   {worst:.2f}",
            flush=True,
        )
    if output:
        output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
