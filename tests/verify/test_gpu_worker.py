"""What the worker does with a candidate, on a GPU of host memory whose kernels the emulator runs."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kernelgen.cells import load_cell
from kernelgen.device import executor, gpu, launcher, measure
from kernelgen.emit.kernel import STAMPS, stamped
from kernelgen.errors import ValidationError
from kernelgen.hardware.profile import load_profile
from kernelgen.program.dtypes import numpy_dtype
from kernelgen.program.launch import Launch, LaunchRule
from kernelgen.program.shape import Shape
from kernelgen.program.source import Source
from kernelgen.program.task import Direction
from kernelgen.records.trial import Measurement
from kernelgen.schedules import get
from kernelgen.tuning.plan import plan
from kernelgen.verify import gpu_worker
from kernelgen.verify.cases import ValidationCase
from kernelgen.verify.emulator import emulate
from kernelgen.verify.gpu_worker import GpuJob, Outcome, StampJob, _UseCases
from kernelgen.verify.validate import gpu_cases

pytestmark = pytest.mark.emulated

SHAPE = Shape(3, 4, 1, 16, "float16", "gates")
PROFILE = load_profile("h200")


class HostGpu:
    """Buffers by address, and the program that is loaded; where idle is set, it ends without doing anything."""

    def __init__(self) -> None:
        self.buffers: dict[int, Any] = {}
        self.sources: dict[str, Source] = {}
        self.launches = 0
        self.fills = 0
        self.idle = False

    def buffer(self, size: int) -> Any:
        memory = np.zeros(size, np.uint8)
        made = SimpleNamespace(
            pointer=int(memory.ctypes.data),
            size=size,
            memory=memory,
            fill=lambda byte: memory.fill(byte),
            upload=lambda array: memory.__setitem__(slice(None), np.frombuffer(array.tobytes(), np.uint8)),
            download=lambda array: array.view(np.uint8).reshape(-1).__setitem__(slice(None), memory),
            close=lambda: self.buffers.pop(int(memory.ctypes.data)),
        )
        self.buffers[made.pointer] = made
        return made

    def kernel(self, cubin: bytes, entry: str, arch: str, rule: LaunchRule) -> Any:
        """In the place of DeviceKernel; its source is known by the cubin, or where that is empty by the entry."""
        return SimpleNamespace(
            prepare=lambda index: None,
            require_room=lambda launch, shape: None,
            start=functools.partial(self.start, self.sources[cubin.decode() or entry]),
        )

    def fill(self, pointer: int, byte: int, size: int, stream: object) -> None:
        """In the place of gpu.fill."""
        assert size == self.buffers[pointer].size
        self.fills += 1

    def start(self, source: Source, stream: object, launch: Launch, *values: Any) -> None:
        """Run the kernel as the driver would: by the order of its arguments."""
        self.launches += 1
        if self.idle:
            return
        arguments: dict[str, Any] = {}
        for name, value in zip(source.arguments, values, strict=True):
            if isinstance(value, np.int32):
                arguments[name] = value
            else:
                memory = self.buffers[value].memory if value else None
                kind = "float32" if name.endswith("_partial") else "int32" if name in ("mail", STAMPS) else SHAPE.dtype
                arguments[name] = None if memory is None else memory.view(numpy_dtype(kind))
        outputs = [name for name in source.writes if arguments[name] is not None]
        emulate(source, launch, arguments, outputs=outputs)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostGpu]:
    """Put it in the place of GPU 0."""
    made = HostGpu()
    monkeypatch.setattr(gpu, "DeviceBuffer", made.buffer)
    monkeypatch.setattr(gpu, "fill", made.fill)
    monkeypatch.setattr(gpu, "current", lambda index: contextlib.nullcontext())
    monkeypatch.setattr(executor, "DeviceKernel", made.kernel)
    monkeypatch.setattr(executor, "launch_config", lambda launch: launch)
    monkeypatch.setattr(launcher, "stream_of", lambda handle: handle)
    monkeypatch.setattr(measure, "measure", lambda start, seconds: start(0) or Measurement(1.0, 1.0, 1.0, 1))
    yield made
    gpu_worker._State.cases = ()


def kernel(
    host: HostGpu, name: str, direction: Direction, shape: Shape = SHAPE, schedule: str = ""
) -> tuple[tuple[ValidationCase, ValidationCase], GpuJob]:
    """A cell's program, loaded, with the cases that it is tried on."""
    cell = load_cell(name)
    schedules = [schedule] if schedule else None
    tiling = plan(cell, shape, PROFILE, top=1, direction=direction, schedules=schedules)[0]
    program = get(tiling.schedule).program(cell, shape, PROFILE, tiling)
    host.sources = {call.source.entry: call.source for call in program.calls}
    return gpu_cases(cell, shape, direction=direction), GpuJob(program, tuple(b"" for _ in program.calls))


@pytest.mark.parametrize(
    ("name", "direction", "batch", "outputs"),
    [
        ("lstm", "forward", 3, {"h", "c", "last", "gates"}),
        ("lstm", "backward", 3, {"d_wx", "d_r", "d_b", "d_initial"}),
        (
            "gru",
            "backward",
            9,
            {"d_wx", "d_r", "d_b", "d_r_partial", "d_b_partial", "d_initial"},
        ),  # partial sums of several blocks
    ],
)
def test_a_right_kernel_is_proved_and_measured(
    host: HostGpu, name: str, direction: Direction, batch: int, outputs: set[str]
) -> None:
    cases, job = kernel(host, name, direction, replace(SHAPE, batch=batch))
    if direction == "backward":
        assert job.program.extents(cases[0].shape) == {"P": 3 if batch == 9 else 1, "Q": 1}
    assert gpu_worker.run(_UseCases(cases, 0)) is None
    outcome = gpu_worker.run(job)
    assert isinstance(outcome, Outcome)
    assert set(outcome.errors) == outputs
    assert 0 <= max(outcome.errors.values()) <= outcome.tolerance == cases[0].tolerance
    assert outcome.measurement == Measurement(1.0, 1.0, 1.0, 1)
    assert host.launches == 3 * len(job.program.calls)
    assert gpu_worker.run(replace(job, measure_seconds=0)) == Outcome(outcome.errors, outcome.tolerance, None)
    gpu_worker.run(_UseCases((), 0))
    assert host.buffers == {}


def test_a_kernel_finds_its_mail_poisoned_in_every_run(host: HostGpu) -> None:
    cases, job = kernel(host, "elman", "forward", schedule="grid")
    gpu_worker.run(_UseCases(cases, 0))
    outcome = gpu_worker.run(job)
    assert outcome is not None
    assert max(outcome.errors.values()) <= cases[0].tolerance
    assert (host.launches, host.fills) == (3, 3)


def test_a_stamped_kernel_leaves_records(host: HostGpu) -> None:
    cases, job = kernel(host, "elman", "forward", schedule="resident")
    gpu_worker.run(_UseCases(cases, 0))
    program = job.program
    source = stamped(program.main.source, 0)
    host.sources["stamped"] = source
    marked = replace(program, main=replace(program.main, source=source))
    found = gpu_worker.run(StampJob(program, marked, b"", b"stamped", (1, 12)))
    assert isinstance(found, tuple)
    *times, records = found
    assert times == [Measurement(1.0, 1.0, 1.0, 1)] * 2
    assert records[0, 0] == SHAPE.seq
    assert records[0, 1] >= 3
    gpu_worker.run(_UseCases((), 0))
    assert host.buffers == {}


def test_a_wrong_backward_kernel_is_refused(host: HostGpu) -> None:
    cases, job = kernel(host, "elman", "backward")
    gpu_worker.run(_UseCases(cases, 0))
    host.idle = True
    with pytest.raises(ValidationError, match="192 of 192 elements of d_wx were never written"):
        gpu_worker.run(job)
    host.idle = False
    _, other = kernel(host, "elman_relu", "backward")  # takes the same arrays
    with pytest.raises(ValidationError, match="d_wx differs from the reference"):
        gpu_worker.run(other)
