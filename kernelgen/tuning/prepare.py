"""PreparedTrial: one tiling on its way from source to verdict, and the log that keeps every trial."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from kernelgen.errors import CompileError, StoreError
from kernelgen.records.trial import REFUSED, Trial
from kernelgen.tuning.plan import microseconds_per_step

if TYPE_CHECKING:
    from kernelgen.build.compile import Binary, Report
    from kernelgen.cells.language import Cell
    from kernelgen.hardware.profile import Profile
    from kernelgen.program.program import Program
    from kernelgen.program.shape import Shape
    from kernelgen.program.tiling import Resources, Tiling
    from kernelgen.records.store import Store
    from kernelgen.schedules.base import Schedule


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass
class PreparedTrial:
    """A tiling being tried. rank: its place by the model, from 1. trial: how far it came.

    binaries: of the program's calls, none until it is compiled. remembered: whether the trial is an earlier run's.
    """

    rank: int
    tiling: Tiling
    schedule: Schedule
    shape: Shape
    program: Program
    trial: Trial
    binaries: tuple[Binary, ...] = ()
    remembered: bool = False

    @property
    def alive(self) -> bool:
        """Whether nothing speaks against it so far."""
        return bool(self.binaries) and self.trial.status in ("compiled", "valid", "measured")


class TrialLog:
    """Every trial of one tuning run: in memory, and in the store for as long as it can be written.

    store: None for memory alone. warn: told once when the store cannot be used; the run goes on.
    """

    def __init__(self, store: Store | Literal["default"] | None, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._warned = False
        self._store = self._open() if store == "default" else store

    def keep(self, trial: Trial) -> None:
        """Write a trial to the store, if there is one."""
        if self._store is None:
            return
        try:
            self._store.add(trial)
        except StoreError as error:
            self._tell(error)

    def known(self, source_hash: str, gpu: str, shape: Shape, compiler: str) -> Trial | None:
        """What an earlier run found out about a kernel."""
        if self._store is None:
            return None
        try:
            return self._store.find(source_hash, gpu, shape, compiler=compiler)
        except StoreError as error:
            self._tell(error)
            return None

    def _open(self) -> Store | None:
        """The user's store; none where it cannot be opened."""
        from kernelgen.records.store import Store

        try:
            return Store()
        except StoreError as error:
            self._tell(error)
            return None

    def _tell(self, error: StoreError) -> None:
        if not self._warned:
            self._warned = True
            self._warn(str(error))


@dataclass
class Preparer:
    """Prepares trials of tilings: source, binary, and the compiler's report against the prediction. Thread-safe.

    again: whether to try what the store already knows once more. on_gpu: whether the kernels will run on one; then
    only what was measured counts as known, and a missed prediction is no objection.
    """

    cell: Cell
    shape: Shape
    profile: Profile
    trial_log: TrialLog
    on_gpu: bool
    again: bool = False

    def __call__(self, rank: int, tiling: Tiling) -> PreparedTrial:
        """Generate and compile one tiling. A refusal by the compiler is a failed trial, not an error."""
        from kernelgen import schedules
        from kernelgen.build.cache import program_hash
        from kernelgen.build.compile import compile_program, compiler_version

        schedule = schedules.get(tiling.schedule)
        program = schedule.program(self.cell, self.shape, self.profile, tiling)
        trial = Trial(
            cell=self.cell.name,
            fingerprint=self.cell.fingerprint,
            shape=self.shape,
            gpu=self.profile.name,
            arch=program.main.source.arch,
            schedule=tiling.schedule,
            tiling=dict(tiling.values),
            predicted=tiling.resources,
            model_us_per_step=microseconds_per_step(tiling, self.profile),
            status="compiled",
            source_hash=program_hash(program),
        )
        prepared = PreparedTrial(rank, tiling, schedule, self.shape, program, trial)
        compiler = compiler_version(program.main.source.language)
        earlier = self.trial_log.known(trial.source_hash, self.profile.name, self.shape, compiler)
        known = None if self.again or earlier is None else self._standing(earlier)
        try:
            prepared.binaries = compile_program(program)
            binary = prepared.binaries[0]
        except CompileError as error:
            prepared.trial = trial.replace(status="failed", reason=f"{REFUSED}{error}")
            self.trial_log.keep(prepared.trial)
            return prepared
        reason = objection(tiling.resources, binary.report, self.profile, strict=not self.on_gpu)
        if known is not None and not reason:
            # What the model says may have changed since; what was found out has not.
            prepared.trial = replace(
                known, predicted=trial.predicted, model_us_per_step=trial.model_us_per_step, reported=binary.report
            )
            prepared.remembered = True
            return prepared
        prepared.trial = trial.replace(reported=binary.report, compile_seconds=binary.seconds, compiler=binary.compiler)
        if reason:
            prepared.trial = prepared.trial.replace(status="rejected", reason=reason)
        if earlier is None or earlier.status != prepared.trial.status:  # nothing new otherwise
            self.trial_log.keep(prepared.trial)
        return prepared

    def _standing(self, earlier: Trial) -> Trial | None:
        """An earlier trial if its verdict stands for this run too.

        A failure's does not: its cause may have been elsewhere. Whether to reject is judged again from the report. On
        a GPU the emulator's word does not count: the kernel is measured anyway.
        """
        verdicts = ("measured",) if self.on_gpu else ("measured", "valid")
        return earlier if earlier.status in verdicts else None


def objection(predicted: Resources, reported: Report, profile: Profile, *, strict: bool) -> str:
    """Why a compiled kernel should not be used, in words; empty where nothing speaks against it.

    A kernel that spills, or keeps arrays in local memory, is never used. strict: nor is one whose resources miss the
    prediction so that fewer blocks run together than the model counted on (on a GPU the measurement decides that).
    """
    if reported.spills:
        return (
            f"spills {reported.spill_stores} bytes (stores) and {reported.spill_loads} bytes (loads) of registers per "
            f"thread; {predicted.registers} registers were predicted"
        )
    if reported.local_memory:
        return f"keeps arrays of {reported.stack} bytes per thread in local memory instead of registers"
    if not strict:
        return ""
    if reported.static_shared_memory:
        total = predicted.shared_memory + reported.static_shared_memory
        return f"needs {total:,} bytes of shared memory, not the predicted {predicted.shared_memory:,}"
    share = -(-predicted.blocks // profile.multiprocessors)
    together = profile.occupancy(predicted.threads, reported.registers, predicted.shared_memory)
    if min(together, share) < min(predicted.blocks_per_sm, share):
        return (
            f"uses {reported.registers} registers, not the predicted {predicted.registers}: {together} blocks run on a "
            f"multiprocessor, where the model counted on {min(predicted.blocks_per_sm, share)}"
        )
    return ""
