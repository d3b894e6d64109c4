"""Nsight Compute's counters of a tuned kernel, for machines that have `ncu`."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from kernelgen.errors import LaunchError

METRICS = (
    "sm__cycles_elapsed.max",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "lts__throughput.avg.pct_of_peak_sustained_elapsed",
    "smsp__issue_active.avg.pct_of_peak_sustained_active",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "l1tex__data_bank_conflicts_pipe_lsu.sum",
    "launch__registers_per_thread",
)
"""How busy the multiprocessors, device memory and L2 are; how often a scheduler issues; conflicts in shared memory."""

SECONDS = 300.0


def count(file: Path, metrics: Sequence[str] = METRICS) -> list[tuple[str, str, str]]:
    """Name, value and unit of each counter, of the first launch of a configuration's kernel while it is validated.

    Raises LaunchError where ncu fails: often it may not read counters, which its message then says.
    """
    command = ["ncu", "--csv", "--target-processes", "all", "--kernel-name", "regex:tilesmith_", "--launch-count", "1"]
    command += ["--metrics", ",".join(metrics)]
    command += [sys.executable, "-m", "kernelgen.commands", "validate", str(file), "--seeds", "1"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"Nsight Compute gave no counters: {error}") from error
    lines = done.stdout.splitlines()
    begin = next((place for place, line in enumerate(lines) if line.startswith('"ID"')), None)
    if begin is None:
        told = [line for line in (*lines, *done.stderr.splitlines()) if line.startswith("==ERROR==")]
        reason = told[0].removeprefix("==ERROR==").strip() if told else f"it ended with status {done.returncode}"
        raise LaunchError(f"Nsight Compute gave no counters: {reason}")
    rows = csv.DictReader(io.StringIO("\n".join(line for line in lines[begin:] if line.startswith('"'))))
    return [(row["Metric Name"], row["Metric Value"], row["Metric Unit"]) for row in rows]
