"""The search among tilings: which are compiled, validated and measured, and which is the best.

Whatever happens to a candidate (a hang, a crash, a wrong result) is its trial's, and the search goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

from kernelgen.device.worker import JobFailed
from kernelgen.errors import EmulationError, LaunchError, ValidationError
from kernelgen.records.trial import IN_EMULATOR, ON_GPU
from kernelgen.tuning.prepare import PreparedTrial, Preparer, TrialLog, cores
from kernelgen.tuning.workers import WorkerPool
from kernelgen.verify.gpu_worker import GpuJob

if TYPE_CHECKING:
    from kernelgen.cells.language import Cell
    from kernelgen.hardware.profile import Profile
    from kernelgen.program.shape import Shape
    from kernelgen.program.task import Direction
    from kernelgen.program.tiling import Tiling
    from kernelgen.records.trial import Objective
    from kernelgen.tuning.workers import Cases, Evaluator
    from kernelgen.verify.gpu_worker import Outcome

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


@dataclass
class Search:
    """The state of one tuning run.

    tilings: those to try, the most promising first. tell: told of progress. began: time.monotonic() at the start.
    budget: seconds after which no new candidate is begun. again: try what the store knows once more. compilers: threads
    that compile; None for one a core. cases: makes the inputs with their reference.
    """

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
        tried, shape = len(cases.result()), self.shape
        prepared.trial = prepared.trial.replace(
            status="measured",
            measurement=outcome.measurement,
            validation=Validation("gpu", tried, shape.batch, shape.seq, outcome.tolerance, outcome.errors),
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
