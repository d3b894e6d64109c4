"""Milliseconds of calls that follow each other on a GPU without waiting."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

WARM = 3
"""Calls before any that count."""


def milliseconds(call: Callable[[], object], *, calls: int, rounds: int) -> float:
    """Of one call: the median of ``rounds`` of so many."""
    for _ in range(WARM):
        call()
    return statistics.median(_round(call, calls) for _ in range(rounds))


def _round(call: Callable[[], object], calls: int) -> float:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    taken: float = begin.elapsed_time(end)
    return taken / calls
