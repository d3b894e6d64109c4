"""What ran: every pass of this process with how often, as a workload to tune and in words."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import torch

from kernelgen.cells.language import Cell
from kernelgen.errors import ConfigError, InfeasibleError
from kernelgen.program.shape import Shape
from kernelgen.program.task import Direction

if TYPE_CHECKING:
    from kernelgen.hardware.profile import Profile
    from kernelgen.program.program import Program
    from kernelgen.records.workload import Work

Result = TypeVar("Result")

Key: TypeAlias = tuple[str, str, Shape | None, Direction, torch.device]
"""What passes are told apart by: what the cell was asked for by, its fingerprint, the shape (None for what no kernel
computes in), the direction and the device."""


@dataclass
class Ran:
    """A pass of this process. program: None where the reference runs. runs: how often it ran."""

    cell: Cell
    program: Program | None
    runs: int = 0


_ran: dict[Key, Ran] = {}
"""Every pass that has been found out, in the order of the first runs."""


class Pass(Generic[Result]):
    """A pass for tensors of one form, which counts its runs. kernel: kernels.Forward or Backward, None where the
    reference runs."""

    def __init__(
        self,
        spec: str,
        cell: Cell,
        shape: Shape | None,
        direction: Direction,
        device: torch.device,
        run: Callable[..., Result],
        kernel: Any = None,
    ) -> None:
        key = (spec, cell.fingerprint, shape, direction, device)
        self._ran = _ran.setdefault(key, Ran(cell, None if kernel is None else kernel.program))
        self._run = run
        self.kernel = kernel

    def __call__(self, *tensors: Any) -> Result:
        """Run it."""
        self._ran.runs += 1
        return self._run(*tensors)

    def count(self) -> None:
        """Count a run of the kernel, which the caller has started."""
        self._ran.runs += 1


@dataclass(repr=False)
class Recording:
    """What ran while it was open: see ``recording``."""

    _before: dict[Key, int] = field(default_factory=dict)
    _after: dict[Key, int] | None = None

    def __repr__(self) -> str:
        runs = [number for _, _, number in self._runs()]
        return f"Recording(passes={len(runs)}, runs={sum(runs)}, loops={self.loops})"

    def _runs(self) -> Iterator[tuple[Key, Ran, int]]:
        for key, ran in list(_ran.items()):
            until = ran.runs if self._after is None else self._after.get(key, 0)
            if until > self._before.get(key, 0):
                yield key, ran, until - self._before.get(key, 0)

    @property
    def loops(self) -> int:
        """How many passes PyTorch ran for want of a kernel, most as loops, each as often as it ran."""
        return sum(runs for _, ran, runs in self._runs() if ran.program is None)

    @property
    def work(self) -> tuple[Work, ...]:
        """Every recurrence that a kernel could run, with its runs, in the order of the first; whether one did does not
        matter, so that a program may be recorded on a CPU and tuned for a GPU."""
        from kernelgen.records.config import CellRecord
        from kernelgen.records.workload import Work

        found: dict[tuple[str, Shape, Direction], Work] = {}
        for (spec, fingerprint, shape, direction, _), ran, runs in self._runs():
            if shape is not None:
                known = found.get((fingerprint, shape, direction))
                record = CellRecord.of(ran.cell, spec) if known is None else known.record
                runs += 0 if known is None else known.runs
                found[fingerprint, shape, direction] = Work(ran.cell, record, shape, direction, runs)
        return tuple(found.values())

    def save(self, path: str | Path) -> None:
        """Write a workload file for ``tilesmith tune-all``. A cell that was made in Python, which another process does
        not find, is left out with a warning. Raises ConfigError where nothing is left, or the file cannot be
        written."""
        from kernelgen.records.workload import require_found_again, save_workload

        kept = []
        for each in self.work:
            try:
                require_found_again(each)
                kept.append(each)
            except ConfigError as error:
                warnings.warn(f"left out of {path}: {error}", RuntimeWarning, stacklevel=2)
        if not kept:
            raise ConfigError(f"nothing to write to {path}: no recurrence ran that a kernel could be tuned for")
        save_workload(Path(path), kept)

    def explain(self) -> str:
        """For each pass in words: how often it ran, by what, and why by nothing else, with the model's times."""
        lines = [line for key, ran, runs in self._runs() for line in _explained(key, ran, runs)]
        return "\n".join(lines) if lines else "no recurrence ran"


@contextmanager
def recording() -> Iterator[Recording]:
    """Note every recurrence that runs meanwhile, in any thread; forward and backward passes each for themselves.

    with kernelgen.torch.recording() as recorded: train_one_epoch()
    recorded.save("work.yaml")      # tilesmith tune-all work.yaml -o kernels
    print(recorded.explain())
    """
    found = Recording({key: ran.runs for key, ran in _ran.items()})
    try:
        yield found
    finally:
        found._after = {key: ran.runs for key, ran in _ran.items()}


def explain() -> str:
    """What every recurrence of this process ran by: see Recording.explain."""
    return Recording().explain()


def _explained(key: Key, ran: Ran, runs: int) -> Iterator[str]:
    """The lines of one pass."""
    _, _, shape, direction, device = key
    what = "a dtype that kernels do not have" if shape is None else str(shape)
    yield f"{direction} {ran.cell.name} at {what} on {device}: {runs:,} run{'s' * (runs != 1)}"
    if ran.program is None or shape is None:
        yield "  PyTorch ran it: there is no kernel for it here"
        return
    if device.type == "cuda":
        from kernelgen.device import gpu

        yield from _choices(ran, shape, direction, gpu.device(device.index or 0).profile())


def _choices(ran: Ran, shape: Shape, direction: Direction, profile: Profile) -> Iterator[str]:
    """What was chosen, and the best of every other schedule or why there is none, by the model."""
    from kernelgen.schedules import schedule_names
    from kernelgen.tuning.plan import microseconds_per_step, plan
    from kernelgen.tuning.selection import candidates

    found = candidates(ran.cell, shape, profile, direction)
    chosen = next((each for each in found if each.program.main == ran.program.main), None) if ran.program else None
    if chosen is not None:
        origin = "" if chosen.tuned is None else f", tuned: {chosen.tuned}"
        origin = origin if chosen.trial is None else ", the fastest that was measured here"
        took = shape.seq * microseconds_per_step(chosen.tiling, profile) / 1000
        yield f"  {chosen.tiling} ran: {took:.3f} ms by the model{origin}"
    for name in schedule_names(direction):
        if chosen is not None and name == chosen.tiling.schedule:
            continue
        try:
            best = plan(ran.cell, shape, profile, top=1, schedules=[name], direction=direction)[0]
            yield f"  {name}: {shape.seq * microseconds_per_step(best, profile) / 1000:.3f} ms by the model"
        except InfeasibleError as error:
            yield f"  {name}: {_reason(str(error))}"


def _reason(message: str) -> str:
    """A planner's message without what the lines around it say already."""
    _, _, reason = message.partition(" fits ")
    return reason.partition(". ")[2] or message
