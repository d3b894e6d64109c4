"""Trials for tests: what a store may hold of one problem."""

from __future__ import annotations

from typing import Any

from kernelgen.build.compile import Report
from kernelgen.program.shape import Shape
from kernelgen.program.tiling import Resources
from kernelgen.records.trial import Measurement, Status, Trial, Validation

SHAPE = Shape(16, 1024, 12, 64)


def trial(number: int, status: Status = "measured", ms: float = 0.3, **changes: Any) -> Trial:
    """Trial ``number`` of a problem, made at that second of a day."""
    judged, measured = status in ("valid", "measured"), status == "measured"
    made = Trial(
        cell="lstm",
        fingerprint="f1",
        shape=SHAPE,
        gpu="h200",
        arch="sm_90a",
        schedule="resident",
        tiling={"units_per_warp": 8, "batch_tile": 8 * number},
        predicted=Resources(registers=120, shared_memory=4096, threads=256, blocks=24, blocks_per_sm=2),
        model_us_per_step=0.31,
        status=status,
        source_hash=f"s{number}",
        reason="" if status not in ("failed", "rejected") else 'spills 8 bytes, "so"\nto say',
        reported=Report(118, 0, 0, 0, 0, 2),
        compile_seconds=0.25,
        compiler="NVRTC 13.5",
        validation=Validation("gpu", 3, 16, 1024, 1e-3, {"h": 3e-4, "last": 1e-4}) if judged else None,
        measurement=Measurement(ms, 0.9 * ms, 1.1 * ms, 100) if measured else None,
        created=f"2026-11-27T10:{number // 60:02d}:{number % 60:02d}+00:00",
        tilesmith="0.1.0",
    )
    return made.replace(**{"created": made.created, **changes})


FULL = trial(1)
"""A trial in which everything is known."""

PLAIN = trial(1, "compiled", reported=None, compile_seconds=None, compiler="")
"""The same before anything is known but its source."""
