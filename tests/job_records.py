"""What measuring a benchmark's job might give, and a process that gives it, which imports this: it is light."""

from __future__ import annotations

import os
import time
from multiprocessing.connection import Connection
from pathlib import Path

from peers.jobs import Job
from peers.results import PASSES, Record


def made(job: Job, ms: float = 1.0) -> list[Record]:
    """What measuring a job might give."""
    values = {"p10_ms": 0.9 * ms, "p90_ms": 1.1 * ms, "eager_ms": ms, "host_ms": 0.1, "error": 1e-3, "floor_ms": 0.5}
    return [job.record(what, ms=ms, how="graph", **values) for what in PASSES]


def serve(connection: Connection, log: Path, path: Path | None) -> None:
    """In the place of the process that measures: do what the system's name says."""
    while True:
        job = connection.recv()
        if job.system == "dies":
            os._exit(3)
        if job.system == "hangs":
            time.sleep(600)
        connection.send("a fault of the GPU" if job.system == "faults" else made(job))
