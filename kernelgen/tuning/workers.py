"""Where candidates are tried: a worker for each GPU, which takes the next candidate when it is free.

The search proposes and the workers evaluate: ``submit`` hands a compiled candidate over and returns at once, and
``record`` is told what became of it, in the worker's thread, before anything else happens. A worker is a process with a
time limit for each candidate (device/worker.py); one that is killed is begun again, and its candidate tried once more.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from kernelgen.device.worker import JobFailed
from kernelgen.errors import LaunchError

if TYPE_CHECKING:
    from kernelgen.hardware.profile import Profile
    from kernelgen.verify.cases import ValidationCase
    from kernelgen.verify.gpu_worker import GpuJob, Outcome

Cases = tuple["ValidationCase", ...]
Record = Callable[["Outcome | JobFailed"], None]


class Evaluator(Protocol):
    """A GPU to try candidates on: GpuWorker, or one on another machine."""

    name: str
    cases: Cases

    def start(self) -> None:
        """Start it now, to be ready when the first candidate comes."""

    def use(self, cases: Sequence[ValidationCase]) -> None:
        """Set the cases that every candidate is tried on."""

    def run(self, job: GpuJob, seconds: float) -> Outcome:
        """Try a candidate. Raises JobFailed, and LaunchError where it cannot be started."""
        ...

    def stop(self) -> None:
        """End it, from another thread: what it runs fails."""

    def close(self) -> None:
        """End it, from the thread that runs candidates."""


class Workers(Protocol):
    """What --workers names: which GPUs evaluate."""

    @property
    def count(self) -> int:
        """How many."""
        ...

    def evaluators(self, profile: Profile) -> Sequence[Evaluator]:
        """New ones, not started, of GPUs that have the profile. Raises LaunchError."""
        ...

    def share(self, place: int, places: int) -> Workers:
        """The part of them that the one at ``place`` of so many has to itself; none is in two parts."""
        ...


@dataclass(frozen=True)
class LocalGpus:
    """GPUs of this machine, by their index. runner: see GpuWorker."""

    devices: tuple[int, ...]
    runner: str = ""

    @property
    def count(self) -> int:
        """How many."""
        return len(self.devices)

    def evaluators(self, profile: Profile) -> Sequence[Evaluator]:
        """A process for each GPU."""
        from kernelgen.verify import gpu_worker

        more = {"runner": self.runner} if self.runner else {}
        return [gpu_worker.GpuWorker(device, **more) for device in self.devices]

    def share(self, place: int, places: int) -> LocalGpus:
        """Every places-th of them."""
        return LocalGpus(self.devices[place::places], self.runner)


@dataclass
class _Work:
    """A candidate to try. tried_on: the worker that was lost over it."""

    job: GpuJob
    record: Record
    future: Future[None]
    tried_on: Evaluator | None = None


@dataclass
class WorkerPool:
    """Evaluators, each with a thread that takes candidates. Use as a context manager.

    cases: what every candidate is tried on. seconds: that one may take. tell: of what goes wrong with a worker.
    """

    evaluators: Sequence[Evaluator]
    cases: Future[Cases]
    seconds: float
    tell: Callable[[str], None] = lambda message: None
    _waiting: deque[_Work] = field(default_factory=deque)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _threads: list[threading.Thread] = field(default_factory=list)
    _alive: set[int] = field(default_factory=set)
    _stopping: bool = False
    _error: LaunchError | None = None

    def submit(self, job: GpuJob, record: Record) -> Future[None]:
        """Hand a candidate over. ``record`` is called once with what became of it: before the future is done, in the
        worker's thread. The future raises LaunchError where no worker is left, and whatever ``cases`` or ``record``
        raise. That a worker is killed is no verdict, nor that it crashes where there is another: the candidate is tried
        once more.
        """
        work = _Work(job, record, Future())
        with self._changed:
            if self._error is not None and not self._alive:
                work.future.set_exception(self._error)
            else:
                self._waiting.append(work)
                self._changed.notify_all()
        return work.future

    def stop(self) -> None:
        """End all workers; what they were trying is forgotten, its futures are cancelled."""
        with self._changed:
            self._stopping = True
            for work in self._waiting:
                work.future.cancel()
            self._waiting.clear()
            self._changed.notify_all()
        for evaluator in self.evaluators:
            evaluator.stop()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        """Start every worker."""
        for place, evaluator in enumerate(self.evaluators):
            self._alive.add(place)
            thread = threading.Thread(target=self._serve, args=(place, evaluator), daemon=True)
            self._threads.append(thread)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End every worker."""
        self.stop()

    def _serve(self, place: int, evaluator: Evaluator) -> None:
        """One worker's thread: candidate after candidate, until the pool stops or the worker starts no more."""
        try:
            evaluator.start()  # while the reference is computed and the first kernels compile
            while (work := self._next(place, evaluator)) is not None:
                self._try(evaluator, work)
        except Exception as error:
            self._lost(place, evaluator, error if isinstance(error, LaunchError) else LaunchError(repr(error)))
        finally:
            evaluator.close()

    def _next(self, place: int, evaluator: Evaluator) -> _Work | None:
        """The first candidate that this worker may try; None when the pool stops. Waits."""
        with self._changed:
            while not self._stopping:
                for work in self._waiting:
                    if work.tried_on is not evaluator or self._alive == {place}:
                        self._waiting.remove(work)
                        return work
                self._changed.wait()
        return None

    def _try(self, evaluator: Evaluator, work: _Work) -> None:
        """Try a candidate and say what became of it. Raises LaunchError, with the candidate waiting again."""
        outcome: Outcome | JobFailed
        try:
            cases = self.cases.result()
            if not evaluator.cases:
                evaluator.use(cases)
            outcome = evaluator.run(work.job, self.seconds)
        except LaunchError:
            with self._changed:
                self._waiting.appendleft(work)
            raise
        except JobFailed as error:
            if self._stopping:
                work.future.cancel()
                return
            if error.reason in ("crash", "killed") and self._again(evaluator, work, error):
                return
            outcome = error
        except BaseException as error:
            work.future.set_exception(error)
            return
        try:
            work.record(outcome)
        except BaseException as error:
            work.future.set_exception(error)
            return
        work.future.set_result(None)

    def _again(self, evaluator: Evaluator, work: _Work, error: JobFailed) -> bool:
        """Let a candidate be tried once more, by another worker if there is one; False where that was done, and where
        it may be the candidate that crashes the only worker."""
        with self._changed:
            alone = len(self._alive) < 2
            if work.tried_on is not None or (alone and error.reason != "killed"):
                return False
            work.tried_on = evaluator
            self._waiting.appendleft(work)
            self._changed.notify_all()
        who = "it" if alone else "another worker"
        self.tell(f"{evaluator.name}: {error}; {who} tries this kernel once more")
        return True

    def _lost(self, place: int, evaluator: Evaluator, error: LaunchError) -> None:
        """A worker starts no more: the others go on, and without any all that waits fails."""
        with self._changed:
            if self._stopping:
                return
            self._alive.discard(place)
            self._error = error
            waiting = [] if self._alive else list(self._waiting)
            if not self._alive:
                self._waiting.clear()
            self._changed.notify_all()
        for work in waiting:
            work.future.set_exception(error)
        if self._alive:
            self.tell(f"{evaluator.name} is lost, the others go on: {error}")
