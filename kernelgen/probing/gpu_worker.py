"""The GPU's part of a probe, in a worker process: run a microbenchmark often enough, or count the clusters that fit.

``run`` is what the worker calls; a kernel that hangs or faults takes the worker along and nothing else.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from kernelgen.errors import LaunchError
from kernelgen.probing.microbenchmark import ENTRY, POISONED, Microbenchmark

RUNNER = "kernelgen.probing.gpu_worker:run"

RUNS = 11
"""Timed runs of a microbenchmark."""

WARM_SECONDS = 0.05
"""How long it runs before that: the GPU's clocks rise, and pages are there."""

POISON_BYTE = 0xFF


@dataclass(frozen=True)
class Job:
    """A compiled microbenchmark for GPU ``device``: to run, or to count, of its clusters, those that run at a time."""

    microbenchmark: Microbenchmark
    cubin: bytes
    arch: str
    device: int = 0
    count: bool = False


def run(job: Job) -> list[float]:
    """Do one job in the worker: clocks of an operation, a figure for each run; or a number of clusters alone."""
    from kernelgen.device import gpu

    with gpu.current(job.device):
        try:
            return _count(job) if job.count else _time(job)
        except LaunchError as error:  # the context may be lost: have a fresh process for what comes next
            raise gpu.DeviceFault(str(error)) from error


def _count(job: Job) -> list[float]:
    from kernelgen.device.launcher import DeviceKernel

    launch = job.microbenchmark.launch
    kernel = DeviceKernel(job.cubin, ENTRY, job.arch, launch)
    kernel.prepare(job.device)
    fit = kernel.clusters_that_fit(launch)
    if fit < 1:
        raise LaunchError(f"no cluster of {launch.cluster} blocks with {launch.shared_memory:,} bytes each fits")
    return [float(fit)]


def _time(job: Job) -> list[float]:
    import numpy as np

    from kernelgen.device import gpu
    from kernelgen.device.launcher import DeviceKernel, launch_config, stream_of

    bench = job.microbenchmark
    source = bench.source(job.arch)
    kernel = DeviceKernel(job.cubin, source.entry, job.arch, bench.launch)
    kernel.prepare(job.device)
    config, stream = launch_config(bench.launch), stream_of(0)
    elapsed = np.zeros(bench.blocks, np.uint64)
    clocks = gpu.DeviceBuffer(elapsed.nbytes)
    buffers = {name: gpu.DeviceBuffer(bench.bytes_of(name, bench.rounds)) for name in bench.buffers}
    for buffer in buffers.values():
        buffer.fill(0)
    values = {"clocks": clocks.pointer, "rounds": np.int32(bench.rounds)}
    values |= {name: buffer.pointer for name, buffer in buffers.items()}

    def once() -> float:
        for name in POISONED & buffers.keys():
            buffers[name].fill(POISON_BYTE)
        kernel.start(stream, config, *(values[name] for name in source.arguments))
        clocks.download(elapsed)
        return bench.clocks(int(elapsed.max()), bench.rounds)

    try:
        until = time.monotonic() + WARM_SECONDS
        once()
        while time.monotonic() < until:
            once()
        return [once() for _ in range(RUNS)]
    finally:
        for buffer in (clocks, *buffers.values()):
            buffer.close()
