"""Tuning: from a cell, a shape and a GPU to the fastest kernel that is proved right.

Without a GPU the model ranks, the compiler's report decides what is usable, and the best is validated in the
emulator. With one, candidates are validated at full size and measured in a worker process, the model's best first,
so that a first valid kernel is there within seconds. Whatever happens (a hang, a crash, Ctrl-C, a full disk), what
was found so far is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kernelgen.build import triton
from kernelgen.build.compile import compiler_version
from kernelgen.device.worker import JobFailed
from kernelgen.errors import EmulationError, LaunchError, ProfileError, ValidationError
from kernelgen.records.trial import IN_EMULATOR, ON_GPU
from kernelgen.tuning.ahead import Ahead, Kernel
from kernelgen.tuning.gpus import named
from kernelgen.tuning.kept_workers import KeptWorkers
from kernelgen.tuning.prepare import PreparedTrial, Preparer, TrialLog, cores
from kernelgen.tuning.workers import LocalGpus, WorkerPool, Workers
from kernelgen.verify.gpu_worker import GpuJob

if TYPE_CHECKING:
    from kernelgen.cells.language import Cell
    from kernelgen.hardware.profile import Profile
    from kernelgen.program.shape import Shape
    from kernelgen.program.source import Language
    from kernelgen.program.task import Direction
    from kernelgen.program.tiling import Tiling
    from kernelgen.records.config import CellRecord, TunedConfig
    from kernelgen.records.store import Store
    from kernelgen.records.trial import Objective, Trial
    from kernelgen.tuning.workers import Cases, Evaluator
    from kernelgen.verify.gpu_worker import Outcome

TOP = 12
"""Candidates to compile without a GPU."""

TOP_ON_GPU = 48
"""Candidates to measure on a GPU, if the budget allows."""

BUDGET_SECONDS = 120.0
"""How long to go on by default. At least one kernel is brought to its end, however long that takes."""

JOB_SECONDS = 30.0
"""What one candidate may take on the GPU before it counts as hung."""

MOST_COMPILERS = 32
"""Threads that compile at once, however many cores there are: each takes some 100 MiB."""

MOST_WRONG = 4
"""Candidates in a row that may fail in the emulator. When all do, it is no tiling's fault, and the rest would too."""

Stage = Literal["plan", "compile", "emulate", "gpu", "first", "warning"]


@dataclass(frozen=True)
class Event:
    """Something to tell the person who waits.

    stage: "plan" (tilings found), "compile", "emulate", "gpu" (one candidate more went through), "first" (the first
    valid kernel is there), "warning". done, total: of that stage, where they are known.
    """

    stage: Stage
    message: str
    done: int = 0
    total: int = 0
    seconds: float = 0.0


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
        search = _Search(
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


@dataclass
class _Search:
    """The state of one tuning run."""

    cell: Cell
    shape: Shape
    direction: Direction
    profile: Profile
    tilings: Sequence[Tiling]
    trial_log: TrialLog
    tell: Callable[[Event], None]
    began: float
    budget: float
    again: bool
    objective: Objective
    compilers: int | None
    cases: Callable[[], Cases]
    prepared_trials: list[PreparedTrial] = field(default_factory=list)
    first_valid: float = 0.0
    interrupted: bool = False
    done: int = 0

    def emulated(self, top: int, seeds: Sequence[int]) -> PreparedTrial:
        """Compile the model's best, then validate in the emulator until one is right."""
        position = wrong = 0
        while position < len(self.tilings):
            batch = range(position, min(position + top, len(self.tilings)))
            position = batch.stop
            for count, prepared in enumerate(self._prepared(batch, on_gpu=False), 1):
                self.prepared_trials.append(prepared)
                self.tell(Event("compile", _line(prepared), count, len(batch)))
            for prepared in [a for a in self.prepared_trials if a.alive and a.rank > batch.start]:
                if self._emulate(prepared, seeds):
                    return prepared
                wrong += 1
                if wrong == MOST_WRONG:
                    raise self._nothing("validated in the emulator")
            if self._spent():
                break
        raise self._nothing("validated in the emulator")

    def _emulate(self, prepared: PreparedTrial, seeds: Sequence[int]) -> bool:
        """Validate one attempt in the emulator; whether it is right."""
        from kernelgen.verify.validate import validate_program

        if prepared.trial.status in ("valid", "measured"):
            self._found(prepared)
            return True
        try:
            validation = validate_program(
                self.cell,
                self.shape,
                self.profile,
                prepared.program,
                seeds,
                on_seed=lambda seed: self.tell(
                    Event("emulate", f"{prepared.tiling}, seed {seed}", seed - seeds[0], len(seeds))
                ),
            )
        except (EmulationError, ValidationError) as error:
            prepared.trial = prepared.trial.replace(status="failed", reason=f"{IN_EMULATOR}{error}")
            self.trial_log.keep(prepared.trial)
            self.tell(Event("warning", f"{prepared.tiling} is not right: {error}"))
            return False
        prepared.trial = prepared.trial.replace(status="valid", validation=validation)
        self.trial_log.keep(prepared.trial)
        self._found(prepared)
        self.tell(Event("emulate", f"{prepared.tiling} is right", len(seeds), len(seeds)))
        return True

    def measured(self, top: int, evaluators: Sequence[Evaluator]) -> PreparedTrial:
        """Validate and measure the model's best on GPUs, best first, until the budget is spent."""
        wanted = range(min(top, len(self.tilings)))
        with ThreadPoolExecutor(1) as background:
            cases = background.submit(self.cases)
            with WorkerPool(evaluators, cases, JOB_SECONDS, lambda text: self.tell(Event("warning", text))) as pool:
                running: dict[Future[None], PreparedTrial] = {}
                try:
                    for prepared in self._prepared(wanted, on_gpu=True):
                        self.prepared_trials.append(prepared)
                        if prepared.alive and not (prepared.remembered and self._cost(prepared) is not None):
                            cubins = tuple(binary.cubin for binary in prepared.binaries)
                            job = GpuJob(prepared.program, cubins, energy=self.objective != "time")
                            running[pool.submit(job, partial(self._record, prepared, cases))] = prepared
                        else:
                            self._judged(prepared, len(wanted))
                        self._collect(running, len(evaluators) - 1, len(wanted))
                        if self._spent() and self._best() is not None:
                            break
                    self._collect(running, 0, len(wanted))
                except KeyboardInterrupt:
                    self.interrupted = True
                    if self._best() is None:
                        raise
                except LaunchError as error:  # no worker starts any more
                    if self._best() is None:
                        raise
                    self.tell(Event("warning", f"stopped early: {error}"))
        best = self._best()
        if best is None:
            raise self._nothing("validated and measured")
        return best

    def _collect(self, running: dict[Future[None], PreparedTrial], most: int, total: int) -> None:
        """Take what the workers have done, and wait until at most so many candidates are with them."""
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED, timeout=None if len(running) > most else 0)
            if not done:
                return
            for future in [future for future in running if future in done]:  # in the order of the model
                future.result()
                self._judged(running.pop(future), total)

    def _judged(self, prepared: PreparedTrial, total: int) -> None:
        """Tell of a candidate that has come to its end."""
        self.done += 1
        if prepared.trial.status == "measured":
            self._found(prepared)
        self.tell(Event("gpu", _line(prepared), self.done, total))

    def _record(self, prepared: PreparedTrial, cases: Future[Cases], outcome: Outcome | JobFailed) -> None:
        """Keep what a worker found out about a candidate, whatever went wrong with it; called in the worker's thread,
        so that what was measured is in the store at once."""
        from kernelgen.records.trial import Validation

        if isinstance(outcome, JobFailed):
            prepared.trial = prepared.trial.replace(status="failed", reason=f"{ON_GPU}{outcome}")
            self.trial_log.keep(prepared.trial)
            return
        tried = cases.result()
        tolerance = max(case.tolerance for case in tried)
        prepared.trial = prepared.trial.replace(
            status="measured",
            measurement=outcome.measurement,
            validation=Validation("gpu", len(tried), self.shape.batch, self.shape.seq, tolerance, outcome.errors),
        )
        self.trial_log.keep(prepared.trial)

    def _prepared(self, positions: range, *, on_gpu: bool) -> Iterator[PreparedTrial]:
        """Compile tilings in parallel, and yield them in the order of the model as they are ready."""
        prepare = Preparer(self.cell, self.shape, self.profile, self.trial_log, on_gpu, self.again)
        pool = ThreadPoolExecutor(min(self.compilers or cores(), MOST_COMPILERS))
        try:
            for future in [pool.submit(prepare, position + 1, self.tilings[position]) for position in positions]:
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _best(self) -> PreparedTrial | None:
        """The measured attempt with the least of what is to be small, whose binary is at hand."""
        costs = [(self._cost(prepared), prepared) for prepared in self.prepared_trials if prepared.binaries]
        return min(
            ((cost, each) for cost, each in costs if cost is not None), key=lambda pair: pair[0], default=(0, None)
        )[1]

    def _cost(self, prepared: PreparedTrial) -> float | None:
        """What is to be small, as it was measured; None where it was not."""
        measurement = prepared.trial.measurement
        return None if measurement is None or prepared.trial.status != "measured" else measurement.cost(self.objective)

    def _found(self, prepared: PreparedTrial) -> None:
        if not self.first_valid:
            self.first_valid = time.monotonic() - self.began
            known = " (known from an earlier run)" if prepared.remembered else ""
            self.tell(
                Event("first", f"first valid kernel after {self.first_valid:.1f} s{known}", seconds=self.first_valid)
            )

    def _spent(self) -> bool:
        return time.monotonic() - self.began > self.budget

    def _nothing(self, what: str) -> ValidationError:
        """Say why no candidate was good enough: how many failed in which way, and the first reason."""
        bad = [prepared for prepared in self.prepared_trials if prepared.trial.reason]
        first = f" The model's best, {bad[0].tiling}: {bad[0].trial.reason}" if bad else ""
        return ValidationError(
            f"none of the {len(self.prepared_trials)} candidates tried for {self.cell.name}, {self.direction}, at "
            f"{self.shape} on {self.profile.name} could be {what}.{first} Give it more time with "
            "--budget, or more candidates with --top."
        )


def _line(prepared: PreparedTrial) -> str:
    """One trial in a line."""
    trial = prepared.trial
    if trial.measurement is not None:
        energy = trial.measurement.energy_mj
        more = "" if energy is None else f", {energy:.3f} mJ"
        return f"{prepared.tiling}: {trial.measurement.median_ms:.4f} ms{more}"
    return f"{prepared.tiling}: {trial.status}" + (f", {trial.reason}" if trial.reason else "")


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


def save(result: TuneResult, path: Path, spec: str | CellRecord | None = None) -> TunedConfig:
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
    return config.save(path, best.program, best.binaries)
