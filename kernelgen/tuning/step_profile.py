"""Where the time of a step goes: what a stamped kernel leaves (cuda/stamps.cuh), beside what the model says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelgen.errors import LaunchError, ValidationError
from kernelgen.schedules.shared.batch_tiled import BatchTiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kernelgen.cells.language import Cell
    from kernelgen.hardware.profile import Profile
    from kernelgen.program.program import Program
    from kernelgen.program.shape import Shape
    from kernelgen.program.tiling import Tiling
    from kernelgen.records.trial import Measurement

PHASES = ("exchange", "matrix", "sums", "pointwise", "transfers", "meeting")
"""The phases of cuda/stamps.cuh, in its order."""

ORDER: Mapping[str, Sequence[str]] = {
    "resident": ("matrix", "transfers", "sums", "pointwise", "meeting"),
    "cluster": ("exchange", "matrix", "sums", "pointwise", "meeting", "transfers"),
    "resident_backward": ("pointwise", "meeting", "matrix", "transfers"),
    "cluster_backward": ("exchange", "pointwise", "meeting", "matrix", "transfers"),
    "wide": ("exchange", "meeting", "matrix", "pointwise", "transfers"),
    "wide_backward": ("exchange", "pointwise", "meeting", "matrix", "transfers"),
}
"""Of the schedules whose templates have marks, in which order a step goes through the phases."""

WORDS = {
    "exchange": "waiting for h, or for sums of its gradient, from the other blocks",
    "matrix": "reading h, or the gates' gradients, and the product with R",
    "sums": "partial sums from warps that share units",
    "pointwise": "the pointwise step, and h, or the gates' gradients, to where they are read",
    "transfers": "inputs into registers, results out, copies asked for",
    "meeting": "waiting for the block's other warps and for inputs",
}

MODEL: Mapping[str, str] = {
    "matrix": "matrix",
    "reading": "matrix",
    "exchange": "sums",
    "chain": "pointwise",
    "special": "pointwise",
    "arithmetic": "pointwise",
    "staged": "pointwise",
    "transfer": "transfers",
}
"""The phase that a term of the model is of; that of the meeting depends on the schedule, the others are of none."""

BLOCKS = 8
"""Blocks of a grid that leave records, at most."""

RECORD = 12
"""Words of a record."""

READS = 16
"""Reads of the clock whose time a record has."""

SECONDS = 60.0
"""What a run on the GPU may take."""


@dataclass(frozen=True)
class StepProfile:
    """Clocks of a step: of each phase in the order in which they come, and what the model says of it.

    phases: the mean over steps and blocks, without what reading the clock takes. model: of the same phases; rest: of
    the model, what belongs to none of them. clock_mhz: the multiprocessors' rate while it ran. mark: clocks of reading
    the clock, which were taken off. steps, blocks: how many were looked at.
    """

    phases: Mapping[str, float]
    model: Mapping[str, float]
    rest: float
    clock_mhz: float
    mark: float
    steps: int
    blocks: int

    @property
    def clocks(self) -> float:
        """Of a whole step."""
        return sum(self.phases.values())

    @property
    def us(self) -> float:
        """Microseconds of a step."""
        return self.clocks / self.clock_mhz

    def agrees(self, us: float) -> float:
        """The ratio of the phases' sum to a step of ``us`` microseconds that the kernel takes without marks."""
        return self.us / us


def require_known(schedule: str) -> None:
    """Raise LaunchError for a schedule whose template has no marks."""
    if schedule not in ORDER:
        raise LaunchError(
            f"there are no marks in the kernels of the schedule {schedule}, so its steps cannot be profiled; there are "
            f"in those of {', '.join(ORDER)}"
        )


def record_words(blocks: int) -> tuple[int, int]:
    """The shape of the uint32 array that a stamped kernel needs, whose grid has so many blocks."""
    return min(blocks, BLOCKS), RECORD


def marks_of(records: NDArray[Any]) -> int:
    """How many marks a step has. Raises LaunchError where no step was recorded."""
    if not records[:, 0].all():
        raise LaunchError("the kernel recorded no step")
    return int(records[0, 1])


def read_records(records: Sequence[NDArray[Any]], schedule: str) -> StepProfile:
    """What the arrays of records say, one for each mark of a step in their order; the model is left empty. A phase
    takes from the mark before its own to that. Raises LaunchError where no step was recorded."""
    found = dict.fromkeys(PHASES, 0.0)
    last, rates, costs = 0.0, [], []
    for one in records:
        marks_of(one)
        words = one.astype(np.int64)
        cost = words[:, 4] / READS
        place = max(last, float(np.mean(words[:, 3] / words[:, 0] - cost)))  # a mark may come sooner in its own binary
        found[PHASES[int(words[0, 2])]] += place - last
        last = place
        elapsed, time = words[:, 6] + (words[:, 7] << 32), words[:, 8] + (words[:, 9] << 32)
        rates.append(float(np.median(1e3 * elapsed / np.maximum(time, 1))))
        costs.append(float(cost.mean()))
    return StepProfile(
        phases={name: found[name] for name in ORDER[schedule] if found[name] or name not in ("sums", "meeting")},
        model={},
        rest=0.0,
        clock_mhz=float(np.median(rates)),
        mark=float(np.mean(costs)),
        steps=int(records[0][:, 0].min()),
        blocks=len(records[0]),
    )


@dataclass(frozen=True)
class Profiled:
    """A kernel that was profiled. plain, stamped: the recurrence's time without marks, and with the one that slows it
    most. spills: bytes per thread that a mark made the compiler spill."""

    profile: StepProfile
    plain: Measurement
    stamped: Measurement
    spills: int


def profile_kernel(
    cell: Cell, shape: Shape, profile: Profile, tiling: Tiling, program: Program, device: int
) -> Profiled:
    """Run a recurrence on a GPU of this machine without marks, and with each in a binary of its own. program: the whole
    pass, which is validated first.

    Raises LaunchError for a schedule without marks, ValidationError where the kernel is not right, or hangs.
    """
    from kernelgen.build.compile import compile_program
    from kernelgen.device.worker import JobFailed
    from kernelgen.emit.kernel import stamped
    from kernelgen.verify.gpu_worker import GpuJob, GpuWorker, StampJob
    from kernelgen.verify.validate import gpu_cases

    require_known(tiling.schedule)
    alone = replace(program, then=())
    binaries = compile_program(program)
    grid = program.main.launch.at(shape).grid

    def marked(mark: int) -> tuple[StampJob, int]:
        """What runs with one mark, and the bytes that it spills."""
        other = replace(alone, main=replace(program.main, source=stamped(program.main.source, mark)))
        binary = compile_program(other)[0]
        records = record_words(grid[0] * grid[1])
        return StampJob(alone, other, binaries[0].cubin, binary.cubin, records), binary.report.spills

    with GpuWorker(device) as worker, ThreadPoolExecutor() as pool:
        worker.start()
        worker.use(gpu_cases(cell, shape, direction=program.direction)[:1])
        try:
            worker.run(GpuJob(program, tuple(each.cubin for each in binaries), measure_seconds=0), SECONDS)
            job, most = marked(0)
            plain, slowest, records = worker.stamps(job, SECONDS)
            every = [records]
            for job, spills in pool.map(marked, range(1, marks_of(records))):
                _, time, records = worker.stamps(job, SECONDS)
                every.append(records)
                most = max(most, spills)
                slowest = max(slowest, time, key=lambda each: each.median_ms)
        except JobFailed as error:
            raise ValidationError(f"the kernel cannot be profiled: on the GPU it {error}") from error
    phases, rest = model_phases(cell, shape, profile, tiling)
    return Profiled(replace(read_records(every, tiling.schedule), model=phases, rest=rest), plain, slowest, most)


def model_phases(cell: Cell, shape: Shape, profile: Profile, tiling: Tiling) -> tuple[dict[str, float], float]:
    """The model's clocks of each phase of a step, and what is of none: a fixed part, neighbours, waiting for inputs.

    The parts of a step overlap in the model as they do on a GPU; its terms are what each adds to a step.
    """
    from kernelgen.schedules import get

    schedule = get(tiling.schedule)
    assert isinstance(schedule, BatchTiled)
    found = dict.fromkeys(ORDER[tiling.schedule], 0.0)
    rest = 0.0
    for name, clocks in schedule.phases(cell, shape, profile, tiling):
        phase = MODEL.get(name, "")
        if name == "meeting":
            phase = "exchange" if "exchange" in found else "meeting"
        if phase not in found:
            rest += clocks
        else:
            found[phase] += clocks
    waiting = tiling.clocks_per_step - sum(found.values()) - rest
    return found, rest + max(0.0, waiting)
