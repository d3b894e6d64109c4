"""The GPU's part of a trial: prove a kernel right at full size, then measure it, in a worker process.

The parent makes a GpuWorker and gives it cases and kernels; ``run`` is what the worker calls. The worker keeps the
cases on the GPU from one kernel to the next and gets nothing else than programs, their cubins and numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from kernelgen.device.worker import Worker
from kernelgen.errors import LaunchError
from kernelgen.records.trial import Measurement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kernelgen.program.program import Program
    from kernelgen.verify.cases import ValidationCase

Stamped = tuple[Measurement, Measurement, "NDArray[Any]"]
"""Of a kernel: its time without stamps, with them, and its records."""

RUNNER = "kernelgen.verify.gpu_worker:run"

MEASURE_SECONDS = 0.3
"""What measuring a candidate takes, unless it is asked otherwise."""

CASE_SECONDS = 300.0
"""How long handing the cases to the worker may take."""


@dataclass(frozen=True)
class GpuJob:
    """A compiled program to try.

    cubins: of its calls, in order. measure_seconds: time to spend on measuring it with the first case; 0 to validate
    only. energy: whether to measure what energy it takes, too.
    """

    program: Program
    cubins: tuple[bytes, ...]
    measure_seconds: float = MEASURE_SECONDS
    energy: bool = False


@dataclass(frozen=True)
class StampJob:
    """A program of one kernel that leaves where the clocks of its steps went (emit/kernel.py: stamped).

    program, cubin: without that; stamped, stamped_cubin: with it. records: shape of the array of records.
    """

    program: Program
    stamped: Program
    cubin: bytes
    stamped_cubin: bytes
    records: tuple[int, ...]


@dataclass(frozen=True)
class Outcome:
    """A candidate that is right: its largest relative error by output over all cases, what was allowed, and its time if
    measured."""

    errors: dict[str, float]
    tolerance: float
    measurement: Measurement | None


@dataclass(frozen=True)
class _UseCases:
    """The message that replaces the worker's cases. device: index of the GPU."""

    cases: tuple[ValidationCase, ...]
    device: int


@dataclass(frozen=True)
class _Describe:
    """The message that asks which profile a GPU has. device: its index."""

    device: int


@dataclass(frozen=True)
class _Open:
    """The message that readies a GPU, whose driver and context take a while. device: its index."""

    device: int


class GpuWorker:
    """A GPU to try candidates on. Use as a context manager, or call close().

    cases: what every candidate is tried on; set with use(). runner: what the worker calls; another one serves for
    tests without a GPU.
    """

    def __init__(self, device: int = 0, runner: str = RUNNER) -> None:
        self._worker = Worker(runner, _Open(device))
        self._device = device
        self.name = f"the worker of GPU {device}"
        self.cases: tuple[ValidationCase, ...] = ()
        self._given_to = -1

    def start(self) -> None:
        """Start the worker now, while the parent has other work."""
        self._worker.start()

    def use(self, cases: Sequence[ValidationCase]) -> None:
        """Set the cases that every candidate is tried on."""
        self.cases = tuple(cases)
        self._given_to = -1

    def run(self, job: GpuJob, seconds: float) -> Outcome:
        """Validate the candidate on every case and measure it on the first.

        Raises JobFailed (worker.py) when it is wrong, faults, crashes or outlasts ``seconds``.
        """
        self._worker.start()
        if self._given_to != self._worker.started:
            self._worker.run(_UseCases(self.cases, self._device), CASE_SECONDS)
            self._given_to = self._worker.started
        outcome: Outcome = self._worker.run(job, seconds)
        return outcome

    def stamps(self, job: StampJob, seconds: float) -> Stamped:
        """Run a stamped kernel on the first case: its time without stamps, with them, and its records, uint32. Raises
        as run does."""
        if self._given_to != self._worker.started:
            self._worker.run(_UseCases(self.cases, self._device), CASE_SECONDS)
            self._given_to = self._worker.started
        found: Stamped = self._worker.run(job, seconds)
        return found

    def describe(self) -> str | None:
        """The name of the GPU's profile; None of a runner that has none. Raises JobFailed and LaunchError."""
        found: str | None = self._worker.run(_Describe(self._device), CASE_SECONDS)
        return found

    def stop(self) -> None:
        """End the worker, from another thread: a job that runs then fails."""
        self._worker.stop()

    def close(self) -> None:
        """End the worker."""
        self._worker.close()

    def __enter__(self) -> Self:
        """Return the worker itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the worker."""
        self.close()


class _CaseOnGpu:
    """A case with its arrays on the GPU."""

    def __init__(self, case: ValidationCase) -> None:
        from kernelgen.device import gpu

        self.case = case
        self.host: dict[str, Any] = {}
        self.buffers: dict[str, Any] = {}
        for name, array in case.inputs.items():
            if array is not None:
                self.buffers[name] = gpu.DeviceBuffer(array.nbytes)
                self.buffers[name].upload(array)

    def arguments(self, program: Program) -> dict[str, Any]:
        """Every argument of a program by name: addresses, 0 for null, and int32; what it writes is poisoned."""
        import numpy as np

        from kernelgen.device import gpu
        from kernelgen.verify.cases import POISON

        extents = program.extents(self.case.shape)
        self.host = self.case.poisoned(program.writes, extents)
        for name, array in self.host.items():
            if array is None:
                continue
            if name not in self.buffers or self.buffers[name].size != array.nbytes:
                if name in self.buffers:
                    self.buffers[name].close()
                self.buffers[name] = gpu.DeviceBuffer(array.nbytes)
            self.buffers[name].fill(POISON)
        given = self.case.values(self.host, program.names, extents)
        return {
            name: np.int32(value) if isinstance(value, int) else 0 if value is None else self.buffers[name].pointer
            for name, value in given.items()
        }

    def compare(self, case: ValidationCase) -> dict[str, float]:
        """Wait for the program, fetch what it wrote and compare it with what the case expects."""
        for name, array in self.host.items():
            if array is not None:
                self.buffers[name].download(array)
        return case.compare(self.host)

    def close(self) -> None:
        """Free the GPU's memory."""
        for buffer in self.buffers.values():
            buffer.close()


class _State:
    """What the worker keeps between jobs."""

    device = 0
    cases: tuple[_CaseOnGpu, ...] = ()


def run(job: _Open | _UseCases | _Describe | GpuJob | StampJob) -> Outcome | Stamped | str | None:
    """Do one job in the worker: take over cases, or try a candidate on them."""
    from kernelgen.device import gpu

    if isinstance(job, _Describe):
        return gpu.device(job.device).profile().name
    if isinstance(job, _Open):
        with gpu.current(job.device):
            return None
    if isinstance(job, _UseCases):
        for old in _State.cases:
            old.close()
        _State.device = job.device
        with gpu.current(job.device):
            _State.cases = tuple(_CaseOnGpu(case) for case in job.cases)
        return None
    with gpu.current(_State.device):
        try:
            return _try(job) if isinstance(job, GpuJob) else _stamp(job)
        except LaunchError as error:  # the context may be lost: have a fresh process for the next candidate
            raise gpu.DeviceFault(str(error)) from error


def _try(job: GpuJob) -> Outcome:
    """Validate on every case, then measure on the first. Raises ValidationError or LaunchError."""
    from kernelgen.device.energy import EnergyMeter
    from kernelgen.device.executor import Executable
    from kernelgen.device.launcher import stream_of
    from kernelgen.device.measure import measure

    program = job.program
    executable = Executable(program, job.cubins)
    executable.prepare(_State.device)
    errors: dict[str, float] = {}
    tolerance = 0.0
    for resident in _State.cases:
        arguments = resident.arguments(program)
        executable.at(resident.case.shape).run(stream_of(0), arguments)
        case = resident.case.allowing(program.names)
        tolerance = max(tolerance, case.tolerance)
        for name, error in resident.compare(case).items():
            errors[name] = max(error, errors.get(name, 0.0))
    if not job.measure_seconds:
        return Outcome(errors, tolerance, None)
    first = _State.cases[0]
    launches, arguments = executable.at(first.case.shape), first.arguments(program)
    more = {"millijoules": EnergyMeter(_State.device).millijoules} if job.energy else {}
    measured = measure(lambda stream: launches.run(stream, arguments), seconds=job.measure_seconds, **more)
    return Outcome(errors, tolerance, measured)


def _stamp(job: StampJob) -> Stamped:
    """Measure a kernel without stamps and with them on the first case, and fetch what the last run recorded. Raises
    LaunchError."""
    import numpy as np

    from kernelgen.device import gpu
    from kernelgen.device.executor import Executable
    from kernelgen.device.measure import measure
    from kernelgen.emit.kernel import STAMPS

    first = _State.cases[0]
    records = np.zeros(job.records, np.uint32)
    buffer = gpu.DeviceBuffer(records.nbytes)
    buffer.fill(0)
    times = []
    for program, cubin in ((job.program, job.cubin), (job.stamped, job.stamped_cubin)):
        executable = Executable(program, [cubin])
        executable.prepare(_State.device)
        run = partial(
            executable.at(first.case.shape).run, values={**first.arguments(job.program), STAMPS: buffer.pointer}
        )
        times.append(measure(run, seconds=MEASURE_SECONDS))
    buffer.download(records)
    buffer.close()
    return times[0], times[1], records
