"""Tuning several kernels: what a task is and comes to, and one after another in this process.

task_worker.py has the other TaskRunner, with a process for each task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from kernelgen.errors import LaunchError, TilesmithError
from kernelgen.tuning.ahead import FIRST, Ahead, Kernel
from kernelgen.tuning.kept_workers import KeptWorkers
from kernelgen.tuning.prepare import cores

if TYPE_CHECKING:
    from kernelgen.hardware.profile import Profile
    from kernelgen.program.shape import Shape
    from kernelgen.program.task import Direction
    from kernelgen.records.config import CellRecord, TunedConfig
    from kernelgen.records.trial import Objective
    from kernelgen.records.workload import Work
    from kernelgen.tuning.search import Event
    from kernelgen.tuning.tune import TuneResult
    from kernelgen.tuning.workers import Workers
    from kernelgen.tuning.workload import Prediction


@dataclass(frozen=True)
class Task:
    """A kernel to tune. name: for messages. path: of its YAML. budget, top, objective: as tune's."""

    name: str
    cell: CellRecord
    shape: Shape
    direction: Direction
    profile: Profile
    path: Path
    budget: float
    top: int | None
    objective: Objective = "time"


@dataclass(frozen=True)
class TaskResult:
    """What became of a task. config: as it was written. remarks: warnings that nobody has been told of yet.
    interrupted: by Ctrl-C."""

    config: TunedConfig
    remarks: tuple[str, ...]
    interrupted: bool


def begin_ahead(task: Task | None, ahead: Ahead, compilers: int | None = None) -> None:
    """Do what can be done for a task that comes next, while the GPU has another."""
    if task is None:
        return
    try:
        kernel = Kernel(task.cell.load("workload"), task.shape, task.profile, task.direction)
    except TilesmithError:  # whoever tunes it is told
        return
    ahead.begin(kernel, task.top or FIRST, compilers or cores())


OnBegin = Callable[[Task], None]
OnEnd = Callable[[Task, TaskResult | str], None]
"""Told of a task with what was found, or why nothing was."""


class TaskRunner(AbstractContextManager["TaskRunner"], Protocol):
    """Who tunes several kernels."""

    def predict(self, work: Sequence[Work], profile: Profile) -> list[Prediction]:
        """What workload.predicted does."""

    def tune(self, tasks: Sequence[Task], on_end: OnEnd, on_begin: OnBegin = ...) -> bool:
        """Tune the kernels; whether Ctrl-C came. on_begin and on_end are called in the calling thread."""


def search(
    task: Task,
    workers: Workers | None,
    on_event: Callable[[Event], None],
    compilers: int | None = None,
    ahead: Ahead | None = None,
) -> TuneResult:
    """Tune a task's kernel in this process. compilers, ahead: see tune. Raises what tune does."""
    from kernelgen.tuning.tune import tune

    return tune(
        task.cell.load("workload"),
        task.shape,
        task.profile,
        direction=task.direction,
        budget=task.budget,
        top=task.top,
        on_event=on_event,
        workers=workers or "",
        objective=task.objective,
        compilers=compilers,
        ahead=ahead,
    )


def write(task: Task, result: TuneResult, remarks: Sequence[str] = ()) -> TaskResult:
    """Write what a search has found. Raises ConfigError where it cannot be written."""
    from kernelgen.tuning.tune import save

    return TaskResult(save(result, task.path, task.cell), tuple(remarks), result.interrupted)


class OneByOne:
    """One kernel after another, in this process. workers: the GPUs, all for each; None for the emulator. on_event: told
    of each search's progress. Use as a context manager."""

    def __init__(self, workers: Workers | None, on_event: Callable[[Event], None]) -> None:
        self._workers, self._on_event = None if workers is None else KeptWorkers(workers), on_event
        self._ahead = Ahead()

    def __enter__(self) -> Self:
        """There is nothing to start."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the workers."""
        if self._workers is not None:
            self._workers.close()

    def predict(self, work: Sequence[Work], profile: Profile) -> list[Prediction]:
        """See TaskRunner."""
        from kernelgen.tuning.workload import predicted

        for evaluator in self._workers.evaluators(profile) if self._workers is not None else ():
            with suppress(LaunchError):  # the search says so
                evaluator.start()
        return predicted(work, profile, self._ahead)

    def tune(self, tasks: Sequence[Task], on_end: OnEnd, on_begin: OnBegin = lambda task: None) -> bool:
        """See TaskRunner."""
        for task, then in zip_longest(tasks, tasks[1:]):
            on_begin(task)
            outcome: TaskResult | str
            try:
                tell = partial(self._tell, then if self._workers is not None else None)
                outcome = write(task, search(task, self._workers, tell, None, self._ahead))
            except TilesmithError as error:
                outcome = str(error)
            except KeyboardInterrupt:
                return True
            on_end(task, outcome)
            if not isinstance(outcome, str) and outcome.interrupted:
                return True
        return False

    def _tell(self, then: Task | None, event: Event) -> None:
        self._on_event(event)
        if event.stage == "gpu":
            begin_ahead(then, self._ahead)
