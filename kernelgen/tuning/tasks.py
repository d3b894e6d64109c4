"""Tuning several kernels: what a task is and comes to, and one after another in this process.

task_worker.py has the other TaskRunner, with a process for each task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from kernelgen.errors import TilesmithError
from kernelgen.tuning.kept_workers import KeptWorkers

if TYPE_CHECKING:
    from kernelgen.hardware.profile import Profile
    from kernelgen.program.shape import Shape
    from kernelgen.program.task import Direction
    from kernelgen.records.config import CellRecord, TunedConfig
    from kernelgen.records.trial import Objective
    from kernelgen.records.workload import Work
    from kernelgen.tuning.tune import Event, TuneResult
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
    task: Task, workers: Workers | None, on_event: Callable[[Event], None], compilers: int | None = None
) -> TuneResult:
    """Tune a task's kernel in this process. compilers: see tune. Raises what tune does."""
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

        return predicted(work, profile)

    def tune(self, tasks: Sequence[Task], on_end: OnEnd, on_begin: OnBegin = lambda task: None) -> bool:
        """See TaskRunner."""
        for task in tasks:
            on_begin(task)
            outcome: TaskResult | str
            try:
                outcome = write(task, search(task, self._workers, self._on_event))
            except TilesmithError as error:
                outcome = str(error)
            except KeyboardInterrupt:
                return True
            on_end(task, outcome)
            if not isinstance(outcome, str) and outcome.interrupted:
                return True
        return False
