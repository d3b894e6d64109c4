"""A process that measures jobs, so that a GPU fault, a crash or a hang ends a row and not the run."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from peers.jobs import Job, measure
from peers.results import Record


class Worker:
    """Started with the first job, and again after one that it did not survive. path: a folder that it imports from;
    log: what it prints."""

    def __init__(self, log: Path, path: Path | None = None) -> None:
        self._log, self._path = log, path
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None

    def records(self, job: Job, seconds: float) -> list[Record]:
        """A job's records; those of one that takes longer, or that ends the process, say so."""
        if self._connection is None:
            self._start()
        assert self._connection is not None
        try:
            self._connection.send(job)
            if not self._connection.poll(seconds):
                self.close()
                return job.refused(f"not done after {seconds:.0f} s")
            answer = self._connection.recv()
        except (EOFError, OSError):
            code = self._status()
            self.close()
            return job.refused(f"the process that measures ended (status {code}); see {self._log}")
        if isinstance(answer, str):  # the GPU is at fault, and with it the process
            self.close()
            return job.refused(answer)
        found: list[Record] = answer
        return found

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None

    def _status(self) -> int | None:
        """How the process ended."""
        if self._process is None:
            return None
        self._process.join(10)
        return self._process.exitcode

    def _start(self) -> None:
        spawned = multiprocessing.get_context("spawn")
        self._connection, other = spawned.Pipe()
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._process = spawned.Process(target=serve, args=(other, self._log, self._path), daemon=False)
        self._process.start()
        other.close()


def serve(connection: Connection, log: Path, path: Path | None) -> None:
    """What the process does: answer jobs until nobody asks any more."""
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if path is not None:
        sys.path.insert(0, str(path))
    with contextlib.suppress(EOFError, OSError):
        while True:
            job = connection.recv()
            try:
                answer: list[Record] | str = measure(job)
            except Exception as error:
                answer = f"{type(error).__name__}: {error}"
            connection.send(answer)
