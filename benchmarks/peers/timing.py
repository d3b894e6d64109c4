"""How long a step takes: replayed from a CUDA graph (the GPU alone), called from Python, and the host's part of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Outputs = Mapping[str, Tensor]
FLUSH_BYTES = 256 << 20
"""What is written before each run, so that it finds nothing in the L2 cache: more than any holds."""

LEAST, MOST = 5, 100
"""Runs that are timed."""
QUEUED = 10
"""Steps whose queueing is timed at once."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds. median, low, high: of the GPU (50, 10 and 90 %); how: "graph", or "eager" where a step cannot be
    captured, with why_eager. eager: median of steps called one by one; host: of the host's time for one."""

    median: float
    low: float
    high: float
    eager: float
    host: float
    how: str
    why_eager: str = ""


class Stepper:
    """A step that is captured in a CUDA graph where it can be. step: runs it and gives its outputs. why_eager: a reason
    not to try."""

    def __init__(self, step: Callable[[], Outputs], why_eager: str = "") -> None:
        self._step, self.why_eager = step, why_eager
        self._graph: torch.cuda.CUDAGraph | None = None
        self._outputs: Outputs = {}
        if not why_eager:
            self._graph, self._outputs, self.why_eager = _captured(step)

    def poisoned_run(self) -> Outputs:
        """The outputs of a run in the form that is timed; those of a graph are filled with NaN before it.

        Outside of a graph the memory of an earlier run's outputs is filled, which a new run's come to lie in.
        """
        outputs = self._outputs if self._graph is not None else self._step()
        for tensor in outputs.values():
            tensor.detach().fill_(float("nan"))
        if self._graph is None:
            del outputs
            return self._step()
        self._graph.replay()
        return outputs

    def time(self, seconds: float) -> Timing:
        """Measure, for about ``seconds`` in each way."""
        flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device="cuda")
        eager = _times(self._step, flush, seconds)
        device = eager if self._graph is None else _times(self._graph.replay, flush, seconds)
        low, median, high = percentiles(device)
        how = "eager" if self._graph is None else "graph"
        return Timing(
            median, low, high, statistics.median(eager), _host(self._step, median, seconds), how, self.why_eager
        )


def percentiles(times: list[float]) -> tuple[float, float, float]:
    """Those at 10, 50 and 90 %."""
    ordered = sorted(times)

    def at(share: float) -> float:
        return ordered[round(share * (len(ordered) - 1))]

    return at(0.1), statistics.median(ordered), at(0.9)


def _captured(step: Callable[[], Outputs]) -> tuple[torch.cuda.CUDAGraph | None, Outputs, str]:
    """The step as a graph, and its outputs; None, and why, where it cannot be captured."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            outputs = step()
    except Exception as error:
        torch.cuda.synchronize()  # raises where the GPU itself is at fault
        return None, {}, f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return graph, outputs, ""


def _times(run: Callable[[], object], flush: Tensor, seconds: float) -> list[float]:
    """Milliseconds of runs, one after another, each with an empty cache."""
    events = []
    run()
    torch.cuda.synchronize()
    start = time.perf_counter()
    while len(events) < LEAST or (len(events) < MOST and time.perf_counter() - start < seconds):
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        flush.zero_()
        before.record()
        run()
        after.record()
        events.append((before, after))
        if len(events) % LEAST == 0:
            torch.cuda.synchronize()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) for before, after in events]


def _host(step: Callable[[], object], device_ms: float, seconds: float) -> float:
    """Milliseconds of the host's time for a step: the best of rounds in which some are queued at once."""
    steps = max(1, min(QUEUED, int(1000 * seconds / max(device_ms, 1e-3) / 3)))
    best = float("inf")
    for _ in range(3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            step()
        best = min(best, (time.perf_counter() - start) / steps)
    torch.cuda.synchronize()
    return 1000 * best
