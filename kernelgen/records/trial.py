"""Trial: everything known about one candidate kernel, as it is kept in the store."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from kernelgen.build.compile import Report
from kernelgen.program.shape import Shape
from kernelgen.program.tiling import Resources

Status = Literal["rejected", "compiled", "valid", "measured", "failed"]
Place = Literal["emulator", "gpu"]
Objective = Literal["time", "energy", "edp"]
"""What tuning makes small: time, energy, or their product (the energy-delay product)."""


Failure = Literal["refused", "timeout", "fault", "wrong"]
"""Why a trial failed: the compiler refused it; it hung; it, or the GPU, crashed; its results are not right."""

REFUSED = "the compiler refused it: "
IN_EMULATOR = "in the emulator: "
ON_GPU = "on the GPU: "
"""What the reason of a failed trial begins with: the stage that it failed in."""

TIMED_OUT = "took longer than its limit"
"""What a worker says of a job that it stopped."""

DIFFERS = (" differs ", " were never written", " are NaN")
"""Words of a reason that speaks of results rather than of the GPU."""


def timestamp() -> str:
    """Now, in UTC, as ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@functools.cache
def installed_version(package: str = "tilesmith") -> str:
    """A package's installed version; "unknown" where it runs from a checkout that was never installed."""
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


@dataclass(frozen=True)
class Validation:
    """How a kernel compared with the float64 reference.

    where: ran in the emulator or on a GPU. seeds: number of random inputs. batch, seq: B and T of those runs (in the
    emulator of the largest that runs a whole launch, less than the tuned shape). tolerance: the largest relative error
    allowed. errors: the largest found, ``||out - reference|| / ||reference||`` (in the emulator beyond what rounding to
    16 bits explains): forward of each state's history (by the state's name), of "last" and of "gates", backward of each
    gradient that the kernel writes.
    """

    where: Place
    seeds: int
    batch: int
    seq: int
    tolerance: float
    errors: dict[str, float]

    @property
    def worst(self) -> float:
        """The largest of the errors."""
        return max(self.errors.values())


@dataclass(frozen=True)
class Measurement:
    """Time of one launch at the tuned shape, in milliseconds: median, 10th and 90th percentile of ``runs`` runs.

    energy_mj: millijoules of a launch, the GPU's idle part included; None where only the time was measured.
    """

    median_ms: float
    p10_ms: float
    p90_ms: float
    runs: int
    energy_mj: float | None = None

    def cost(self, objective: Objective) -> float | None:
        """What is to be small: milliseconds, millijoules or their product; None where it was not measured."""
        if objective == "time":
            return self.median_ms
        if self.energy_mj is None:
            return None
        return self.energy_mj * (self.median_ms if objective == "edp" else 1.0)


@dataclass(frozen=True)
class Trial:
    """The record of one candidate.

    cell, fingerprint: the cell's name and the hash of its definition. gpu: the profile's name. arch: the target, such
    as "sm_90a". schedule, tiling: which kernel. predicted: what the schedule expected it to need, and
    model_us_per_step: how long the model expects one step to take. source_hash: as compile.Binary has it; empty where
    no source was made.

    status says how far it came: "rejected" before it ran, for ``reason``; "compiled"; "valid" (proved right, not
    measured); "measured" (proved right and measured); "failed" to compile, to run or to be right, for ``reason``.

    reported, compile_seconds, compiler: from the compiler. validation, measurement: once there are any.
    created: UTC, ISO 8601. tilesmith: the version that made it.
    """

    cell: str
    fingerprint: str
    shape: Shape
    gpu: str
    arch: str
    schedule: str
    tiling: dict[str, int]
    predicted: Resources
    model_us_per_step: float
    status: Status
    source_hash: str = ""
    reason: str = ""
    reported: Report | None = None
    compile_seconds: float | None = None
    compiler: str = ""
    validation: Validation | None = None
    measurement: Measurement | None = None
    created: str = field(default_factory=timestamp)
    tilesmith: str = field(default_factory=installed_version)

    def replace(self, **changes: Any) -> Trial:
        """The same candidate a stage further: a copy with some fields changed and a new time of creation."""
        return dataclasses.replace(self, **{"created": timestamp(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values."""
        record = dataclasses.asdict(self)
        if record["measurement"] is not None and record["measurement"]["energy_mj"] is None:
            del record["measurement"]["energy_mj"]  # as it was before there was energy
        return record

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Trial:
        """Read what to_dict wrote. Raises KeyError, TypeError or ShapeError for anything else."""
        values = dict(record)
        values["shape"] = Shape(**values["shape"])
        values["predicted"] = Resources(**values["predicted"])
        for name, kind in (("reported", Report), ("validation", Validation), ("measurement", Measurement)):
            if values.get(name) is not None:
                values[name] = kind(**values[name])
        return cls(**values)


def failure(trial: Trial) -> Failure:
    """Why a failed trial failed, from its reason, which is kept in words alone."""
    if trial.reason.startswith(REFUSED):
        return "refused"
    if TIMED_OUT in trial.reason:
        return "timeout"
    wrong = trial.reason.startswith((IN_EMULATOR, ON_GPU)) and any(word in trial.reason for word in DIFFERS)
    return "wrong" if wrong else "fault"
