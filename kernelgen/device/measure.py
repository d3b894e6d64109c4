"""Measuring a kernel on the GPU: CUDA graphs of a few launches, timed with events, in many samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from kernelgen.device import gpu
from kernelgen.device.energy import energy_of
from kernelgen.errors import LaunchError
from kernelgen.records.trial import Measurement

SAMPLE_MS = 1.0
"""What one sample should take at least: 2,000 times the resolution of an event, 0.5 us (CUDA driver API)."""

BATCH_MS = 10.0
"""Of launches between two looks at the counter of energy."""

MOST_LAUNCHES = 64
"""Launches in one graph at most."""

RUNS = (10, 200)
"""The fewest and the most samples."""


def summarise(samples: Sequence[float]) -> Measurement:
    """Reduce samples in milliseconds per launch to a Measurement. Raises ValueError for none or a non-finite one."""
    if not samples or not all(math.isfinite(sample) for sample in samples):
        raise ValueError("a measurement needs finite samples")
    ordered = sorted(samples)
    return Measurement(
        _percentile(ordered, 0.5), _percentile(ordered, 0.1), _percentile(ordered, 0.9), runs=len(ordered)
    )


def _percentile(ordered: Sequence[float], fraction: float) -> float:
    """Interpolate linearly between the two nearest ranks."""
    place = fraction * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def measure(
    start: Callable[[Any], None], *, seconds: float = 0.3, millijoules: Callable[[], int] | None = None
) -> Measurement:
    """Time ``start(stream)``, which launches the kernel once on a cuda-core stream of the current GPU.

    Warms up, captures as many launches in a CUDA graph as make a sample long enough to time, and replays it for
    about ``seconds``. The host's part of a launch is therefore not in the figure. millijoules: the GPU's counter of
    energy, where that is to be measured too. Raises LaunchError when the GPU or the capture fails.
    """
    driver = gpu.require_driver()
    from kernelgen.device.launcher import stream_of

    handle = gpu.checked(driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING), "creating a stream")
    events = [gpu.checked(driver.cuEventCreate(0), "creating an event") for _ in range(2)]
    graph = None
    try:
        stream = stream_of(int(handle))

        def timed(work: Callable[[], None]) -> float:
            gpu.checked(driver.cuEventRecord(events[0], handle), "recording an event")
            work()
            gpu.checked(driver.cuEventRecord(events[1], handle), "recording an event")
            gpu.checked(driver.cuEventSynchronize(events[1]), "running the kernel")
            return float(gpu.checked(driver.cuEventElapsedTime(*events), "reading the clock"))

        start(stream)  # the first launch loads the code
        once = min(timed(lambda: start(stream)) for _ in range(2))
        launches = max(1, min(MOST_LAUNCHES, math.ceil(SAMPLE_MS / max(once, 1e-3))))
        graph = _capture(driver, handle, lambda: start(stream), launches)

        def replay() -> None:
            gpu.checked(driver.cuGraphLaunch(graph, handle), "launching a graph")

        warm = min(timed(replay) for _ in range(3))
        runs = int(min(RUNS[1], max(RUNS[0], seconds * 1e3 / max(warm, 1e-3))))
        found = summarise([timed(replay) / launches for _ in range(runs)])
        if millijoules is None:
            return found

        def some() -> int:
            rounds = max(1, round(BATCH_MS / max(warm, 1e-3)))

            def many() -> None:
                for _ in range(rounds):
                    replay()

            timed(many)
            return rounds * launches

        return replace(found, energy_mj=energy_of(some, millijoules))
    finally:
        if graph is not None:
            driver.cuGraphExecDestroy(graph)
        for event in events:
            driver.cuEventDestroy(event)
        stream_of.cache_clear()  # the driver may give the same handle to another stream
        driver.cuStreamDestroy(handle)


def _capture(driver: Any, handle: Any, launch: Callable[[], None], launches: int) -> Any:
    """Capture ``launches`` launches, one after another, as an executable graph."""
    mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    gpu.checked(driver.cuStreamBeginCapture(handle, mode), "capturing a graph")
    try:
        for _ in range(launches):
            launch()
    except BaseException:
        driver.cuStreamEndCapture(handle)
        raise
    captured = gpu.checked(driver.cuStreamEndCapture(handle), "capturing a graph")
    try:
        graph = gpu.checked(driver.cuGraphInstantiate(captured, 0), "preparing a graph")
    finally:
        driver.cuGraphDestroy(captured)
    if graph is None:
        raise LaunchError("the driver captured no graph")
    return graph
