"""Where the time of a step goes: what a stamped kernel leaves (cuda/stamps.cuh), beside what the model says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

RECORD = 8
"""Words of a record."""

SECONDS = 60.0
"""What a run on the GPU may take."""

EDGE = 8
"""Steps at either end that do not count: rings fill, and run empty."""


@dataclass(frozen=True)
class StepProfile:
    """Clocks of a step: of each phase in the order in which they come, and what the model says of it.

    phases: the median over steps, of the mean over blocks, without what the marks take. model: of the same phases;
    rest: of the model, what belongs to none of them. clock_mhz: the multiprocessors' rate while it ran. mark: clocks of
    a mark, which were taken off. steps, blocks: how many were looked at.
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


def record_words(blocks: int, seq: int) -> tuple[int, int, int]:
    """The shape of the uint32 array that a stamped kernel needs, whose grid has so many blocks."""
    return min(blocks, BLOCKS), 1 + seq, RECORD


def read_records(records: NDArray[Any], schedule: str) -> StepProfile:
    """What an array of records says; the model is left empty. Raises LaunchError where no step was recorded."""
    words = records.astype(np.int64)
    headers, steps = words[:, 0], words[:, 1:]
    count = int(headers[:, 0].min())
    if count < 1:
        raise LaunchError("the kernel recorded no step")
    edge = EDGE if count > 4 * EDGE else 0
    kept = steps[:, edge : count - edge]
    clocks = np.array(kept[:, :, 1:7], np.uint32).view(np.int32).astype(np.float64)  # a mark may cost more than it saw
    of_step = np.median(clocks.mean(axis=0), axis=0)
    elapsed = headers[:, 2] + (headers[:, 3] << 32)
    time = headers[:, 4] + (headers[:, 5] << 32)
    rate = float(np.median(1e3 * elapsed / np.maximum(time, 1)))
    found = dict(zip(PHASES, map(float, of_step), strict=True))
    return StepProfile(
        phases={name: found[name] for name in ORDER[schedule] if found[name] or name not in ("sums", "meeting")},
        model={},
        rest=0.0,
        clock_mhz=rate,
        mark=float(headers[:, 1].mean()),
        steps=kept.shape[1],
        blocks=len(words),
    )


@dataclass(frozen=True)
class Profiled:
    """A kernel that was profiled. plain, stamped: the recurrence's time without marks, and with them. spills: bytes per
    thread that the marks made the compiler spill."""

    profile: StepProfile
    plain: Measurement
    stamped: Measurement
    spills: int


def profile_kernel(
    cell: Cell, shape: Shape, profile: Profile, tiling: Tiling, program: Program, device: int
) -> Profiled:
    """Run a recurrence on a GPU of this machine without marks and with them. program: the whole pass, which is
    validated first.

    Raises LaunchError for a schedule without marks, ValidationError where the kernel is not right, or hangs.
    """
    from kernelgen.build.compile import compile_program
    from kernelgen.device.worker import JobFailed
    from kernelgen.emit.kernel import stamped
    from kernelgen.verify.gpu_worker import GpuJob, GpuWorker, StampJob
    from kernelgen.verify.validate import gpu_cases

    require_known(tiling.schedule)
    alone = replace(program, then=())
    marked = replace(alone, main=replace(program.main, source=stamped(program.main.source)))
    grid = program.main.launch.at(shape).grid
    with GpuWorker(device) as worker:
        worker.start()
        binaries, marked_binaries = compile_program(program), compile_program(marked)
        worker.use(gpu_cases(cell, shape, direction=program.direction)[:1])
        try:
            worker.run(GpuJob(program, tuple(each.cubin for each in binaries), measure_seconds=0), SECONDS)
            shape_of_records = record_words(grid[0] * grid[1], shape.seq)
            job = StampJob(alone, marked, binaries[0].cubin, marked_binaries[0].cubin, shape_of_records)
            plain, time, records = worker.stamps(job, SECONDS)
        except JobFailed as error:
            raise ValidationError(f"the kernel cannot be profiled: on the GPU it {error}") from error
    phases, rest = model_phases(cell, shape, profile, tiling)
    found = replace(read_records(records, tiling.schedule), model=phases, rest=rest)
    return Profiled(found, plain, time, marked_binaries[0].report.spills)


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
