"""Tuning several kernels at once: each in a process of its own, with a part of the GPUs to itself.

To plan, to compute a reference and to compile takes about as long as to measure, and Python does one thing at a time;
so where there are several GPUs, every task has a process. It keeps its trials in the store as it makes them, and one
that is killed is begun again elsewhere, where it goes on from the store.
"""

from __future__ import annotations

import queue
import signal
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from kernelgen.device.worker import JobFailed, Worker
from kernelgen.errors import LaunchError, TilesmithError
from kernelgen.tuning.ahead import Ahead
from kernelgen.tuning.kept_workers import KeptWorkers
from kernelgen.tuning.prepare import cores
from kernelgen.tuning.tasks import OnBegin, OnEnd, Task, TaskResult, begin_ahead, search, write

if TYPE_CHECKING:
    from kernelgen.hardware.profile import Profile
    from kernelgen.program.shape import Shape
    from kernelgen.program.task import Direction
    from kernelgen.records.config import CellRecord
    from kernelgen.records.workload import Work
    from kernelgen.tuning.search import Event
    from kernelgen.tuning.workers import Workers
    from kernelgen.tuning.workload import Prediction

TASK = "kernelgen.tuning.task_process:run_task"

_News = queue.SimpleQueue[tuple[Task, TaskResult | str | None]]
"""Tasks that have come to their end, and how; None: that have begun."""

LAST_SECONDS = 60.0
"""After Ctrl-C: what tasks may take to write down the best that they have."""


@dataclass(frozen=True)
class _Job:
    """A task for a process, the GPUs that it may use, how many threads may compile, and what task is likely next."""

    task: Task
    workers: Workers
    compilers: int
    then: Task | None = None


@dataclass(frozen=True)
class _Predict:
    """Recurrences of which a process is to say what the model does, and GPUs that it may get ready meanwhile."""

    work: tuple[tuple[CellRecord, Shape, Direction, int], ...]
    profile: Profile
    workers: Workers


_kept: dict[Workers, KeptWorkers] = {}
"""Of a task's process: the GPUs that it has used, ready for its next task."""


_ahead = Ahead()
"""What a task's process has done ahead of its tasks."""


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
        return predicted(work, job.profile, _ahead)
    remarks: list[str] = []

    def tell(event: Event) -> None:
        if event.stage == "warning":
            remarks.append(event.message)
        if event.stage == "gpu":
            begin_ahead(job.then, _ahead, job.compilers)

    def interrupt(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # once: what follows writes down the best so far
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        result = search(job.task, _keep(job.workers), tell, job.compilers, _ahead)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return write(job.task, result, remarks)
    except KeyboardInterrupt:
        raise TilesmithError("interrupted before the first valid kernel") from None
    finally:
        signal.signal(signal.SIGINT, before)


class _Deal:
    """Tasks, of which every place has its own, those that its process planned. Thread-safe."""

    def __init__(self, tasks: Sequence[Task], owners: Sequence[int], places: int) -> None:
        self._own: list[deque[tuple[Task, int]]] = [deque() for _ in range(places)]
        self._lock = threading.Lock()
        for task, owner in zip(tasks, owners, strict=True):
            self._own[owner].append((task, 0))

    def take(self, place: int) -> tuple[Task, int, Task | None] | None:
        """The next of a place's own, how often it was lost, and what comes after; with none left, the last of whoever
        has most. None where nobody has any."""
        with self._lock:
            own = self._own[place]
            most = max(self._own, key=len)
            if not most:
                return None
            task, lost = own.popleft() if own else most.pop()
            return task, lost, own[0][0] if own else None

    def lost(self, place: int, task: Task, times: int) -> None:
        """The process of a place was lost over a task: whoever is free first begins it once more."""
        with self._lock:
            self._own[place].appendleft((task, times))


class TaskProcesses:
    """So many processes for tasks, which are kept from one thing to the next. Use as a context manager.

    workers: the GPUs, shared among the tasks that run at once; with fewer tasks than GPUs each has several.
    """

    def __init__(self, count: int, workers: Workers) -> None:
        self._processes = [Worker(TASK) for _ in range(count)]
        self._workers = workers
        self._planned: list[tuple[CellRecord, Shape, Direction]] = []
        """What was predicted, each by the process of its number modulo how many there are."""

    def __enter__(self) -> Self:
        """Start them."""
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End them, whatever they do."""
        for process in self._processes:
            process.stop()

    def keep(self, count: int) -> None:
        """End all but so many: there is less to do than there are GPUs."""
        for process in self._processes[count:]:
            process.stop()
        del self._processes[count:]

    def predict(self, work: Sequence[Work], profile: Profile) -> list[Prediction]:
        """What workload.predicted does, a part by each process. Raises JobFailed and LaunchError."""
        count = len(self._processes)
        self._planned = [(each.record, each.shape, each.direction) for each in work]

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
        owners = [self._owner(number, task) % max(1, len(processes)) for number, task in enumerate(tasks)]
        return _tune(processes, tasks, owners, self._workers, on_end, on_begin)

    def _owner(self, number: int, task: Task) -> int:
        """The process that planned a task; any where none did."""
        meant = task.cell, task.shape, task.direction
        return (self._planned.index(meant) if meant in self._planned else number) % len(self._processes)


def _tune(
    processes: Sequence[Worker],
    tasks: Sequence[Task],
    owners: Sequence[int],
    workers: Workers,
    on_end: OnEnd,
    on_begin: OnBegin,
) -> bool:
    """See TaskProcesses.tune. owners: of each task, the place of the process that planned it."""
    places = len(processes)
    todo = _Deal(tasks, owners, places)
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
            args=(process, place, workers.share(place, places), max(1, cores() // places), todo, news, stopping),
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
    place: int,
    workers: Workers,
    compilers: int,
    todo: _Deal,
    news: _News,
    stopping: threading.Event,
) -> None:
    """One process's thread: task after task, until none is left. A process that is killed loses nothing that is in the
    store: its task is begun once more, by whoever is free."""
    while not stopping.is_set() and (dealt := todo.take(place)) is not None:
        task, lost, then = dealt
        news.put((task, None))
        outcome: TaskResult | str
        try:
            outcome = process.run(_Job(task, workers, compilers, then), None)
        except JobFailed as error:
            if error.reason in ("crash", "killed") and not lost and not stopping.is_set():
                todo.lost(place, task, lost + 1)
                continue
            outcome = str(error)
        except (LaunchError, OSError) as error:
            outcome = str(error)
        news.put((task, outcome))
    process.close()
