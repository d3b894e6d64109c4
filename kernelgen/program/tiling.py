"""A tiling: one solution of a schedule's Problem, and what it is predicted to need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Resources:
    """What one tiling is predicted to need.

    registers: per thread, as the compiler reports them. shared_memory: bytes of dynamic shared memory per block.
    threads: per block. blocks: in the grid. blocks_per_sm: that fit on one multiprocessor at a time.
    """

    registers: int
    shared_memory: int
    threads: int
    blocks: int
    blocks_per_sm: int


@dataclass(frozen=True)
class Tiling:
    """One solution of a schedule's Problem: the tile variables' values, what they need, what the model expects.

    clocks_per_step: the cost model's GPU clocks for one step of the recurrence.
    """

    schedule: str
    values: Mapping[str, int]
    resources: Resources
    clocks_per_step: float

    def __str__(self) -> str:
        return self.schedule + "(" + ", ".join(f"{name}={value}" for name, value in self.values.items()) + ")"
