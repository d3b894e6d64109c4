"""Tuning: from a cell, a shape and a GPU to the fastest kernel that is proved right.

Without a GPU the model ranks, the compiler's report decides what is usable, and the best is validated in the
emulator. With one, candidates are validated at full size and measured in a worker process, the model's best first,
so that a first valid kernel is there within seconds. Whatever happens (a hang, a crash, Ctrl-C, a full disk), what
was found so far is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kernelgen.build import triton
from kernelgen.build.compile import compiler_version
from kernelgen.errors import EmulationError, LaunchError, ProfileError
from kernelgen.tuning.ahead import Ahead, Kernel
from kernelgen.tuning.gpus import named
from kernelgen.tuning.kept_workers import KeptWorkers
from kernelgen.tuning.prepare import PreparedTrial, TrialLog
from kernelgen.tuning.search import Event, Search
from kernelgen.tuning.workers import LocalGpus, Workers

if TYPE_CHECKING:
    from kernelgen.cells.language import Cell
    from kernelgen.hardware.profile import Profile
    from kernelgen.program.shape import Shape
    from kernelgen.program.source import Language
    from kernelgen.program.task import Direction
    from kernelgen.records.config import CellRecord, TunedConfig
    from kernelgen.records.store import Store
    from kernelgen.records.trial import Objective, Trial
    from kernelgen.tuning.workers import Evaluator

TOP = 12
"""Candidates to compile without a GPU."""

TOP_ON_GPU = 48
"""Candidates to measure on a GPU, if the budget allows."""

BUDGET_SECONDS = 120.0
"""How long to go on by default. At least one kernel is brought to its end, however long that takes."""


@dataclass(frozen=True)
class TuneResult:
    """What tuning found.

    direction: of the pass. best: the chosen, with its source and binary. prepared_trials: all that were tried, in the
    order of the model. feasible: how many tilings fit. first_valid: seconds from the start to the first valid kernel.
    seconds: of the whole run. interrupted: whether Ctrl-C ended it.
    """

    cell: Cell
    shape: Shape
    direction: Direction
    profile: Profile
    best: PreparedTrial
    prepared_trials: tuple[PreparedTrial, ...]
    feasible: int
    on_gpu: bool
    first_valid: float
    seconds: float
    interrupted: bool

    @property
    def trials(self) -> tuple[Trial, ...]:
        """The trials of all that were tried."""
        return tuple(prepared.trial for prepared in self.prepared_trials)


def resolve_gpu(gpu: str | Profile = "auto") -> tuple[Profile, tuple[int, ...]]:
    """The profile to tune for, and the indices of the GPUs in this machine that have it.

    gpu: a Profile, a name, a file, or "auto" for the first GPU of this machine. Raises ProfileError for an unknown
    name, and for "auto" where there is no GPU.
    """
    from kernelgen.device import gpu as driver
    from kernelgen.hardware.profile import load_profile, profile_names

    reason = driver.why_no_gpu()
    if gpu == "auto":
        if reason:
            raise ProfileError(
                f"--gpu auto found no GPU: {reason}. Name the one to tune for, such as --gpu h200; "
                f"there are profiles of {', '.join(profile_names())}"
            )
        profile = driver.device(0).profile()
    else:
        profile = load_profile(gpu) if isinstance(gpu, str) else gpu
    count = 0 if reason else driver.device_count()
    return profile, tuple(index for index in range(count) if driver.device(index).profile().name == profile.name)


def tune(
    cell: Cell,
    shape: Shape,
    gpu: str | Profile = "auto",
    *,
    direction: Direction = "forward",
    language: Language | None = "cuda",
    budget: float = BUDGET_SECONDS,
    top: int | None = None,
    seeds: int = 2,
    store: Store | Literal["default"] | None = "default",
    again: bool = False,
    on_event: Callable[[Event], None] | None = None,
    started: float | None = None,
    workers: str | Workers = "",
    objective: Objective = "time",
    compilers: int | None = None,
    ahead: Ahead | None = None,
) -> TuneResult:
    """Find the fastest valid kernel of ``cell`` at ``shape``.

    gpu: see resolve_gpu. direction: of the pass; backward, a shape that saves "hidden" means that gradients come from
    outside for h alone, else for every state. language: of the kernels; None for any. budget: seconds after which no
    new candidate is begun. top: how many of the model's best to try. seeds: random inputs that the emulator validates
    with. store: where trials are kept and known ones looked up; None for nowhere. again: try what the store knows once
    more. on_event: told of progress. started: time.monotonic() from which to count the time to the first valid kernel.
    workers: which GPUs try candidates: as --workers has it, or Workers; by default all that have the profile.
    objective: what of a kernel is to be small; other than time it is measured on this machine's GPUs alone.
    compilers: threads that compile; by default one for each core of this machine.
    ahead: what was done for this kernel before.

    Raises InfeasibleError where nothing fits, ValidationError where no candidate is right, and KeyboardInterrupt
    only while nothing valid has been found.
    """
    began = time.monotonic() if started is None else started
    tell = on_event or (lambda event: None)
    profile, devices = resolve_gpu(gpu)
    gpus = named(workers, devices, profile.name) if isinstance(workers, str) else workers
    if objective != "time":
        require_energy(objective, gpus)
    if gpus is None and language != "triton":
        _require_host_compiler()
    if language == "triton":
        compiler_version("triton")
    elif language is None and not triton.installed():
        language = "cuda"
        tell(Event("warning", f"Triton is not installed, so its schedules are left out. {triton.INSTALL}"))
    from kernelgen.tuning.plan import spread

    kernel, ahead = Kernel(cell, shape, profile, direction, language), ahead or Ahead()
    with _started(gpus, profile) as evaluators:  # while the tilings are found
        tilings = spread(ahead.tilings(kernel))
        found = f"{len(tilings):,} {direction} tilings of {cell.name} fit {profile.name}"
        tell(Event("plan", found, len(tilings), len(tilings)))
        search = Search(
            cell,
            shape,
            direction,
            profile,
            tilings,
            TrialLog(store, lambda message: tell(Event("warning", message))),
            tell,
            began,
            budget,
            again,
            objective,
            compilers,
            partial(ahead.cases, kernel),
        )
        best = (
            search.measured(top or TOP_ON_GPU, evaluators) if evaluators else search.emulated(top or TOP, range(seeds))
        )
    return TuneResult(
        cell=cell,
        shape=shape,
        direction=direction,
        profile=profile,
        best=best,
        prepared_trials=tuple(sorted(search.prepared_trials, key=lambda prepared: prepared.rank)),
        feasible=len(tilings),
        on_gpu=gpus is not None,
        first_valid=search.first_valid,
        seconds=time.monotonic() - began,
        interrupted=search.interrupted,
    )


@contextmanager
def _started(gpus: Workers | None, profile: Profile) -> Iterator[Sequence[Evaluator]]:
    """Workers that get ready, one for each GPU; they are closed in the end. Raises LaunchError."""
    evaluators = gpus.evaluators(profile) if gpus is not None else ()
    try:
        for evaluator in evaluators:
            with suppress(LaunchError):  # the pool tries again, and says so
                evaluator.start()
        yield evaluators
    finally:
        for evaluator in evaluators:
            evaluator.close()


def require_energy(objective: Objective, gpus: Workers | None) -> None:
    """Raise LaunchError, which names the objective, where energy cannot be measured."""
    if gpus is None:
        raise LaunchError(f"--objective {objective} is measured on the GPU that is tuned for, and there is none here")
    gpus = gpus.workers if isinstance(gpus, KeptWorkers) else gpus
    if not isinstance(gpus, LocalGpus):
        raise LaunchError(f"--objective {objective} is measured on GPUs of this machine, not of a Ray cluster")
    if gpus.runner:
        return
    from kernelgen.device.energy import EnergyMeter

    try:
        for device in gpus.devices:
            EnergyMeter(device)
    except LaunchError as error:
        raise LaunchError(f"--objective {objective} cannot be measured: {error}") from error


def _require_host_compiler() -> None:
    """Refuse to start what cannot be validated: the emulator needs a C++ compiler.

    Raises LaunchError where there is none.
    """
    from kernelgen.verify.host_compiler import require_compiler

    try:
        require_compiler()
    except EmulationError as error:
        raise LaunchError(f"there is neither a GPU nor a C++ compiler to validate a kernel with: {error}") from error


def save(result: TuneResult, path: str | Path, spec: str | CellRecord | None = None) -> TunedConfig:
    """Write the chosen kernel: ``path`` (.yaml), with its source and its binary beside it.

    spec: what the cell was loaded from, as load_cell takes it, or its record; needed to find a cell from a user's file
    again.
    Raises ConfigError where it cannot be written.
    """
    from kernelgen.records.config import CellRecord, TunedConfig

    best = result.best
    config = TunedConfig.of(
        best.trial,
        cell=spec if isinstance(spec, CellRecord) else CellRecord.of(result.cell, spec),
        tiling=best.tiling,
        program=best.program,
        binaries=best.binaries,
    )
    return config.save(Path(path), best.program, best.binaries)
