"""The sequences of a batch in parts, one thread each: NumPy computes without Python's lock."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

PART = 1 << 13
"""Elements of a step below which a thread of its own costs more than it saves."""


def in_parts(run: Callable[[slice], None], batch: int, elements: int) -> None:
    """Call ``run`` with slices that cover B sequences, at the same time where that pays. elements: of one sequence's
    step. What one of them raises is raised."""
    count = min(len(os.sched_getaffinity(0)), batch, batch * elements // PART)
    if count < 2:
        run(slice(0, batch))
        return
    ends = [batch * part // count for part in range(count + 1)]
    with ThreadPoolExecutor(count) as pool:
        for _ in pool.map(run, map(slice, ends[:-1], ends[1:])):
            pass
