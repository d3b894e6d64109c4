"""Jobs: which systems are measured at which rows, in which order, and how one is measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from peers.results import PASSES, Record
from peers.rows import Row

if TYPE_CHECKING:
    from peers.steps import Step
    from peers.timing import Stepper

OURS = "tilesmith"
TORCH_NN = "cuDNN"
ONE_HEAD = "cuDNN, one head of the same D"
COMPILED = "torch.compile'd loop"
FLASHRNN = "FlashRNN"
SYSTEMS = (OURS, TORCH_NN, ONE_HEAD, COMPILED, FLASHRNN)

TORCH_NN_CELLS = ("lstm", "gru", "elman")
FLASHRNN_CELLS = ("lstm", "slstm", "elman")
"""Of its gru R and b have another order of gates."""
COMPILED_ROWS = ("lstm:12x64:16", "lstm:3x256:16", "lstm:1x512:16", "lstm:1x1024:16")
COMPILED_SEQ = 64
DTYPE = "bfloat16"
PEER_DTYPES = ("float16", "bfloat16")


@dataclass(frozen=True)
class Job:
    """One system at one row; seconds: of measuring each pass in each way."""

    row: Row
    system: str
    dtype: str
    seconds: float

    def record(self, what: str, **values: Any) -> Record:
        """What there is to say of it."""
        row = self.row
        sizes = {name: getattr(row, name) for name in ("groups", "cell", "heads", "head_dim", "batch", "module")}
        return Record(row=row.text, seq=self.steps, system=self.system, dtype=self.dtype, what=what, **sizes, **values)

    def refused(self, reason: str) -> list[Record]:
        """Records that say why there is no time."""
        return [self.record(what, reason=" ".join(reason.split())) for what in PASSES]

    @property
    def steps(self) -> int:
        """Steps that are measured."""
        return min(self.row.seq, COMPILED_SEQ) if self.system == COMPILED else self.row.seq

    @property
    def shape(self) -> Row:
        """The row that is measured: cuDNN knows no heads, and a compiled loop is short."""
        heads = 1 if self.system == ONE_HEAD else self.row.heads
        return replace(self.row, heads=heads, seq=self.steps)

    @property
    def same(self) -> tuple[object, ...]:
        """Equal for jobs that measure the same thing."""
        named = TORCH_NN if self.system == ONE_HEAD else self.system
        return (named, self.dtype, replace(self.shape, groups=(), module=self.row.module or named == TORCH_NN))


def jobs(rows: Sequence[Row], systems: Iterable[str], seconds: float) -> list[Job]:
    """In the order in which they are worth their time: all rows of ours beside cuDNN's, then compiled loops, then
    FlashRNN."""
    wanted = set(systems)
    found = []
    for row in rows:
        named = TORCH_NN if row.heads == 1 else ONE_HEAD
        found.append(Job(row, OURS, DTYPE, seconds))
        found += [Job(row, named, dtype, seconds) for dtype in PEER_DTYPES if row.cell in TORCH_NN_CELLS]
    loops = [row for row in rows if row.text.rsplit(":", 1)[0] in COMPILED_ROWS and row.seq % 8 == 0]
    found += [Job(row, COMPILED, DTYPE, seconds) for row in {r.text.rsplit(":", 1)[0]: r for r in loops}.values()]
    found += [Job(row, FLASHRNN, DTYPE, seconds) for row in rows if not row.module and row.cell in FLASHRNN_CELLS]
    return [job for job in found if job.system in wanted]


def measure(job: Job) -> list[Record]:
    """Both passes of a job, on the first GPU. What fails is a record too, unless the GPU faults."""
    import torch

    records = []
    try:
        step = _step(job)
    except Exception as error:
        torch.cuda.synchronize()
        return job.refused(_said(error))
    for what in PASSES:
        try:
            records.append(_measured(job, step, what))
        except Exception as error:
            torch.cuda.synchronize()  # raises where the GPU is at fault: then this process is of no more use
            records.append(job.record(what, reason=_said(error)))
    del step
    torch.cuda.empty_cache()
    return records


def _measured(job: Job, step: Step, what: str) -> Record:
    from kernelgen.cells import load_cell
    from kernelgen.device import gpu
    from kernelgen.tuning.floors import floor_ms
    from peers.kernels import ready
    from peers.timing import Stepper

    if job.system == OURS:
        ready(job.row, job.dtype, what)
    training = what == "training"
    stepper = Stepper(step.training, step.why_eager) if training else Stepper(step.forward)
    error = _error(step, stepper, training=training)
    timing = stepper.time(job.seconds)
    floor = floor_ms(load_cell(job.row.cell), job.shape, gpu.device(0).profile(), what)
    return job.record(
        what,
        ms=timing.median,
        p10_ms=timing.low,
        p90_ms=timing.high,
        eager_ms=timing.eager,
        host_ms=timing.host,
        how=timing.how if not timing.why_eager else f"{timing.how} ({timing.why_eager})",
        error=error,
        floor_ms=floor,
    )


def _error(step: Step, stepper: Stepper, *, training: bool) -> float:
    if not training:
        return step.error(stepper.poisoned_run(), training=False)
    step.sample()
    try:
        return step.error(stepper.poisoned_run(), training=True)
    finally:
        step.restore()


def _step(job: Job) -> Step:
    from peers import steps

    make = {
        OURS: steps.ours,
        TORCH_NN: steps.torch_nn,
        ONE_HEAD: steps.torch_nn,
        COMPILED: steps.compiled_loop,
        FLASHRNN: steps.flash_rnn,
    }
    made: Step = make[job.system](job.shape, job.dtype)
    return made


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
