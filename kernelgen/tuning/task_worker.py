"""Tuning several kernels at once: each in a process of its own, with a part of the GPUs to itself.

To plan, to compute a reference and to compile takes about as long as to measure, and Python does one thing at a time;
so where there are several GPUs, every task has a process. It keeps its trials in the store as it makes them, and one
that is killed is begun again elsewhere, where it goes on from the store.
"""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from kernelgen.device.worker import JobFailed, Worker
from kernelgen.errors import LaunchError, TilesmithError
from kernelgen.tuning.kept_workers import KeptWorkers
from kernelgen.tuning.prepare import cores
from kernelgen.tuning.tasks import OnBegin, OnEnd, Task, TaskResult, search, write

if TYPE_CHECKING:
    from kernelgen.hardware.profile import Profile
    from kernelgen.program.shape import Shape
    from kernelgen.program.task import Direction
    from kernelgen.records.config import CellRecord
    from kernelgen.records.workload import Work
    from kernelgen.tuning.tune import Event
    from kernelgen.tuning.workers import Workers
    from kernelgen.tuning.workload import Prediction

TASK = "kernelgen.tuning.task_worker:run_task"

_News = queue.SimpleQueue[tuple[Task, TaskResult | str | None]]
"""Tasks that have come to their end, and how; None: that have begun."""

LAST_SECONDS = 60.0
"""After Ctrl-C: what tasks may take to write down the best that they have."""


@dataclass(frozen=True)
class _Job:
    """A task for a process, the GPUs that it may use, and how many threads may compile."""

    task: Task
    workers: Workers
    compilers: int


@dataclass(frozen=True)
class _Predict:
    """Recurrences of which a process is to say what the model does, and GPUs that it may get ready meanwhile."""

    work: tuple[tuple[CellRecord, Shape, Direction, int], ...]
    profile: Profile
    workers: Workers


_kept: dict[Workers, KeptWorkers] = {}
"""Of a task's process: the GPUs that it has used, ready for its next task."""


def _keep(workers: Workers) -> KeptWorkers:
    """Workers that stay from one task of this process to the next."""
    return _kept.setdefault(workers, KeptWorkers(workers))


def run_task(job: _Job | _Predict) -> TaskResult | list[Prediction]:
    """Tune in this process, and write the result; or predict."""
    if isinstance(job, _Predict):
        from kernelgen.records.workload import Work
        from kernelgen.tuning.workload import predicted

        for evaluator in _keep(job.workers).evaluators(job.profile):
            evaluator.start()
        work = [Work(record.load("workload"), record, shape, way, runs) for record, shape, way, runs in job.work]
        return predicted(work, job.profile)
    remarks: list[str] = []

    def tell(event: Event) -> None:
        if event.stage == "warning":
            remarks.append(event.message)

    def interrupt(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # once: what follows writes down the best so far
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        result = search(job.task, _keep(job.workers), tell, job.compilers)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return write(job.task, result, remarks)
    except KeyboardInterrupt:
        raise TilesmithError("interrupted before the first valid kernel") from None
    finally:
        signal.signal(signal.SIGINT, before)


class TaskProcesses:
    """So many processes for tasks, which are kept from one thing to the next. Use as a context manager.

    workers: the GPUs, shared among the tasks that run at once; with fewer tasks than GPUs each has several.
    """

    def __init__(self, count: int, workers: Workers) -> None:
        self._processes = [Worker(TASK) for _ in range(count)]
        self._workers = workers

    def __enter__(self) -> Self:
        """Start them."""
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End them, whatever they do."""
        for process in self._processes:
            process.stop()

    def predict(self, work: Sequence[Work], profile: Profile) -> list[Prediction]:
        """What workload.predicted does, a part by each process. Raises JobFailed and LaunchError."""
        count = len(self._processes)

        def part(place: int) -> list[Prediction]:
            share = self._workers.share(place, count)
            mine = tuple((each.record, each.shape, each.direction, each.runs) for each in work[place::count])
            found: list[Prediction] = self._processes[place].run(_Predict(mine, profile, share), None) if mine else []
            return found

        with ThreadPoolExecutor(count) as pool:
            parts = list(pool.map(part, range(count)))
        return [parts[number % count][number // count] for number in range(len(work))]

    def tune(self, tasks: Sequence[Task], on_end: OnEnd, on_begin: OnBegin = lambda task: None) -> bool:
        """See TaskRunner: as many at once as there are processes. Ctrl-C lets those that run write down the best that
        they have. A task whose process was killed begins twice."""
        processes = self._processes[: min(self._workers.count, len(tasks))]
        return _tune(processes, tasks, self._workers, on_end, on_begin)


def _tune(
    processes: Sequence[Worker], tasks: Sequence[Task], workers: Workers, on_end: OnEnd, on_begin: OnBegin
) -> bool:
    """See TaskProcesses.tune."""
    places = len(processes)
    todo: queue.SimpleQueue[tuple[Task, int]] = queue.SimpleQueue()
    for task in tasks:
        todo.put((task, 0))
    news: _News = queue.SimpleQueue()

    def hear() -> int:
        """Wait for something to tell; how many tasks have come to their end by it."""
        task, outcome = news.get()
        if outcome is None:
            on_begin(task)
            return 0
        on_end(task, outcome)
        return 1

    stopping = threading.Event()
    threads = [
        threading.Thread(
            target=_serve,
            args=(process, workers.share(place, places), max(1, cores() // places), todo, news, stopping),
            daemon=True,
        )
        for place, process in enumerate(processes)
    ]
    interrupted = False
    left = len(tasks)
    try:
        for thread in threads:
            thread.start()
        while left:
            left -= hear()
    except KeyboardInterrupt:
        interrupted = True
        stopping.set()
        for process in processes:
            process.signal(signal.SIGINT)
        for thread in threads:
            thread.join(LAST_SECONDS)
        while not news.empty():
            hear()
    finally:
        stopping.set()
        for process in processes:
            process.stop()
    return interrupted


def _serve(
    process: Worker,
    workers: Workers,
    compilers: int,
    todo: queue.SimpleQueue[tuple[Task, int]],
    news: _News,
    stopping: threading.Event,
) -> None:
    """One process's thread: task after task, until none is left. A process that is killed loses nothing that is in the
    store: its task is begun once more, by whoever is free."""
    while not stopping.is_set():
        try:
            task, lost = todo.get(block=False)
        except queue.Empty:
            break
        news.put((task, None))
        outcome: TaskResult | str
        try:
            outcome = process.run(_Job(task, workers, compilers), None)
        except JobFailed as error:
            if error.reason in ("crash", "killed") and not lost and not stopping.is_set():
                todo.put((task, lost + 1))
                continue
            outcome = str(error)
        except (LaunchError, OSError) as error:
            outcome = str(error)
        news.put((task, outcome))
    process.close()
