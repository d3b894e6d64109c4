"""The kernels that a row's passes run through kernelgen.torch, all compiled before anything is timed."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peers.rows import Row

if TYPE_CHECKING:
    from kernelgen.cells.language import Cell
    from kernelgen.hardware.profile import Profile
    from kernelgen.program.shape import Shape
    from kernelgen.program.task import Direction

MOST_PROCESSES = 16


@dataclass(frozen=True)
class Task:
    """A kernel to find. what: the pass that runs it, "forward" (without gradients) or "training"."""

    what: str
    cell: Cell
    shape: Shape
    direction: Direction


def of_row(row: Row, dtype: str, what: str) -> list[Task]:
    """What rnn(returns="hidden") asks for in a pass of a row."""
    import torch

    from kernelgen.cells import load_cell
    from kernelgen.torch import kernels
    from kernelgen.torch.precision import precision_of

    cell, kind = load_cell(row.cell), getattr(torch, dtype)
    precision = precision_of(kind, kind, kind)
    keep = "nothing" if what == "forward" else "gates"
    sizes = (row.batch, row.seq, len(cell.input_gates), row.heads, row.head_dim)
    forward = kernels.forward_shape(cell, sizes, precision, known=1, keep=keep, features=())
    tasks = [Task(what, cell, forward, "forward")]
    if what == "training":
        states = (1, row.batch, row.seq, row.heads, row.head_dim)
        backward = kernels.backward_shape(cell, states, precision, recompute=False, features=())
        tasks.append(Task(what, cell, backward, "backward"))
    return tasks


def prepare(rows: Sequence[Row], dtype: str, profile: Profile, passes: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Compile the kernels of all rows, in as many processes as there are processors: the binaries stay in the cache on
    disk. Yields how many of how many are done; what fails does so again, and is told, when it is asked for."""
    tasks = [(row, dtype, what) for row in rows for what in passes]
    spawned = multiprocessing.get_context("spawn")
    workers = min(MOST_PROCESSES, os.cpu_count() or 1, len(tasks)) or 1
    with ProcessPoolExecutor(workers, mp_context=spawned) as pool:
        futures = [pool.submit(_prepare, *task, profile) for task in tasks]
        for done, _ in enumerate(as_completed(futures), 1):
            yield done, len(tasks)


def _prepare(row: Row, dtype: str, what: str, profile: Profile) -> None:
    from kernelgen.errors import TilesmithError
    from kernelgen.tuning.selection import compiled

    for task in of_row(row, dtype, what):
        try:
            compiled(task.cell, task.shape, profile, task.direction)
        except TilesmithError:
            continue


def ready(row: Row, dtype: str, what: str) -> None:
    """Load the kernels of a pass, on the first GPU. Raises InfeasibleError for one that would run as a PyTorch loop."""
    from kernelgen.torch.passes import engine_of

    engine = engine_of("cuda")
    assert engine is not None
    for task in of_row(row, dtype, what):
        engine.kernel(task.cell, task.shape, task.direction, 0)


def tune(row: Row, dtype: str, seconds: float) -> None:
    """Tune the kernels of a row, so many seconds each; the store keeps what was measured. Raises TilesmithError."""
    from kernelgen.tuning.tune import tune as search

    for task in [*of_row(row, dtype, "forward"), *of_row(row, dtype, "training")]:
        search(task.cell, task.shape, "auto", direction=task.direction, budget=seconds)
