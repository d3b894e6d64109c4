"""Runners for a worker process: what a GPU may do to it, without one."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kernelgen.build.cache import program_hash
from kernelgen.errors import ValidationError
from kernelgen.probing.gpu_worker import Job
from kernelgen.records.trial import Measurement
from kernelgen.verify.gpu_worker import GpuJob, Outcome, _Describe, _Open

if TYPE_CHECKING:
    import pytest

PLAYED_TOLERANCE = 4e-3
"""What a worker that only pretends says that errors may be."""


class Fault(Exception):
    """An error after which the process is of no more use."""

    fatal = True


def obey(job: tuple[str, object]) -> object:
    """Do what the job says."""
    what, value = job
    if what == "return":
        return value
    if what == "pid":
        return os.getpid()
    if what == "print":
        print(value, flush=True)
        os.write(1, b"and from C\n")
        return "printed"
    if what == "raise":
        raise ValueError(value)
    if what == "wrong":
        raise ValidationError(str(value))
    if what == "fault":
        raise Fault(value)
    if what == "hang":
        time.sleep(3600)
    if what == "exit":
        os._exit(7)
    if what == "abort":
        os.write(2, b"something terrible\n")
        os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError(what)


def pretend(job: object) -> Outcome | None:
    """Pretend to be a GPU: the script in $SCRIPT says, a line a candidate, what happens to it.

    A number is its time in milliseconds; hang, crash, wrong and fault mean what they say. How many candidates were
    tried is kept in a file, since processes come and go.
    """
    if isinstance(job, _Open):
        return None
    script = Path(os.environ["SCRIPT"])
    counter = script.with_suffix(".count")
    if not isinstance(job, GpuJob):
        script.with_suffix(".cases").open("a").write("cases\n")
        return None
    tried = int(counter.read_text()) if counter.exists() else 0
    counter.write_text(str(tried + 1))
    words = script.read_text().split()
    word = words[min(tried, len(words) - 1)]
    if word == "crash":
        os._exit(9)
    if word == "interrupt":
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(3600)
    if word in ("hang", "fault", "wrong"):
        obey((word, "an illegal memory access" if word == "fault" else "h differs"))
    energy = 1 / float(word) if job.energy else None  # the slowest takes least
    time_ = Measurement(float(word), float(word) * 0.99, float(word) * 1.01, 20, energy)
    return Outcome({"h": 1e-4, "last": 1e-4}, PLAYED_TOLERANCE, time_)


def paced(job: object) -> Outcome | str | None:
    """Pretend to be a GPU that takes $PACE seconds for a candidate: what begins and what ends is a line each of
    $PACED/began and $PACED/ended, of this process's number and the candidate's name. A file $PACED/hold holds all."""
    folder = Path(os.environ["PACED"])
    if isinstance(job, _Describe):
        return os.environ.get("PACED_GPU")
    if not isinstance(job, GpuJob):
        return None
    name = program_hash(job.program)
    _note(folder / "began", f"{os.getpid()} {name}")
    time.sleep(float(os.environ["PACE"]))
    while (folder / "hold").exists():
        time.sleep(0.01)
    _note(folder / "ended", f"{os.getpid()} {name}")
    ms = 0.1 + int(name[:4], 16) / 65536
    return Outcome({"h": 1e-4, "last": 1e-4}, PLAYED_TOLERANCE, Measurement(ms, ms, ms, 20))


def _note(file: Path, line: str) -> None:
    with file.open("a") as opened:
        opened.write(f"{line}\n")


def write_script(monkeypatch: pytest.MonkeyPatch, folder: Path, words: str) -> Path:
    """Tell ``pretend`` what happens to the candidates, one after another; the script's path."""
    script = folder / "script"
    script.write_text(words)
    monkeypatch.setenv("SCRIPT", str(script))
    return script


def measure(job: Job) -> list[float]:
    """Pretend to measure: 1,000 clocks an operation or 7 clusters; what $FAILS names fails, Ctrl-C comes at $STOPS."""
    bench = job.microbenchmark
    if bench.latency == os.environ.get("STOPS"):
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(3600)
    if f"{bench.latency} {bench.at}" == os.environ.get("FAILS"):
        raise Fault("an illegal memory access")
    return [7.0] if job.count else [1000.4, 990.0, 1000.6]
