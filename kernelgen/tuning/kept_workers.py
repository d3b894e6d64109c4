"""Workers that serve one kernel after another: to start a process, with Python and a GPU's context, takes seconds."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kernelgen.device.worker import JobFailed

if TYPE_CHECKING:
    from kernelgen.hardware.profile import Profile
    from kernelgen.tuning.workers import Cases, Evaluator, Workers
    from kernelgen.verify.cases import ValidationCase
    from kernelgen.verify.gpu_worker import GpuJob, Outcome


class KeptWorkers:
    """Workers whose evaluators stay when a search closes them, for the next one. close() ends them.

    workers: whose they are.
    """

    def __init__(self, workers: Workers) -> None:
        self.workers = workers
        self._kept: dict[str, list[_Kept]] = {}

    @property
    def count(self) -> int:
        """How many."""
        return self.workers.count

    def evaluators(self, profile: Profile) -> Sequence[Evaluator]:
        """Those of the last search with this profile, without its cases; new ones in place of those that were stopped.
        Raises LaunchError."""
        kept = self._kept.get(profile.name, [])
        if not kept or any(each.stopped for each in kept):
            new = [_Kept(evaluator) for evaluator in self.workers.evaluators(profile)]
            kept = [old if not old.stopped else other for old, other in zip(kept, new, strict=True)] if kept else new
            self._kept[profile.name] = kept
        for each in kept:
            each.cases = ()
        return kept

    def share(self, place: int, places: int) -> Workers:
        """A part of them; not kept."""
        return self.workers.share(place, places)

    def close(self) -> None:
        """End all."""
        for each in (each for kept in self._kept.values() for each in kept):
            each.evaluator.stop()
            each.evaluator.close()
        self._kept.clear()


class _Kept:
    """An evaluator that outlives a search. stopped: it was stopped over a candidate, and is of no more use."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self.name = evaluator.name
        self.cases: Cases = ()
        self.stopped = False
        self._stopping = False
        self._busy = False
        self._lock = threading.Lock()

    def start(self) -> None:
        """See Evaluator."""
        self._stopping = False
        self.evaluator.start()

    def use(self, cases: Sequence[ValidationCase]) -> None:
        """See Evaluator."""
        self.cases = tuple(cases)
        self.evaluator.use(cases)

    def run(self, job: GpuJob, seconds: float) -> Outcome:
        """See Evaluator."""
        with self._lock:
            if self._stopping:
                raise JobFailed(f"{self.name} was stopped", "crash")
            self._busy = True
        try:
            return self.evaluator.run(job, seconds)
        finally:
            with self._lock:
                self._busy = False

    def stop(self) -> None:
        """End what it runs, if anything."""
        with self._lock:
            self._stopping = True
            if self._busy:
                self.stopped = True
                self.evaluator.stop()

    def close(self) -> None:
        """Stay, unless it was stopped."""
        if self.stopped:
            self.evaluator.close()
