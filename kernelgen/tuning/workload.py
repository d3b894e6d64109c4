"""What of a program is worth tuning: its recurrences, one for each kernel that would serve them, longest first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kernelgen.errors import InfeasibleError
from kernelgen.tuning.ahead import Ahead, Kernel
from kernelgen.tuning.plan import microseconds_per_step

if TYPE_CHECKING:
    from kernelgen.hardware.profile import Profile
    from kernelgen.records.workload import Work


@dataclass(frozen=True)
class Job:
    """A kernel to tune: for ``work``, the one that takes most of the time that it would serve.

    name: for its file. runs: that it serves. By the model, on the GPU asked for: run_ms, of one run of ``work``;
    total_ms, of all that it serves; share, of the whole program's time. why_not: where no schedule has a kernel for it.
    """

    name: str
    work: Work
    runs: int
    run_ms: float
    total_ms: float
    share: float
    why_not: str = ""


Prediction = float | str
"""The model's milliseconds of all runs of a recurrence, or why no schedule has a kernel for it."""


def predicted(work: Iterable[Work], profile: Profile, ahead: Ahead | None = None) -> list[Prediction]:
    """What the model says of each. ahead: keeps the plans."""
    ahead = ahead or Ahead()
    found: list[Prediction] = []
    for each in work:
        try:
            found.append(_milliseconds(each, profile, ahead))
        except InfeasibleError as error:
            found.append(str(error))
    return found


def jobs(
    work: Iterable[Work],
    profile: Profile,
    predict: Callable[[Sequence[Work], Profile], list[Prediction]] = predicted,
) -> list[Job]:
    """The kernels of a program on a GPU, those that take longest first, what no kernel can do last.

    A kernel serves every number of steps, so recurrences that differ in it alone are one job. predict: does what
    ``predicted`` does, perhaps faster.
    """
    served: dict[tuple[object, ...], list[tuple[Work, Prediction]]] = defaultdict(list)
    every = list(work)
    for each, prediction in zip(every, predict(every, profile), strict=True):
        shape = each.shape
        served[
            each.cell.fingerprint,
            each.direction,
            shape.batch,
            shape.heads,
            shape.head_dim,
            shape.dtype,
            shape.recompute,
            shape.features,
            shape.inputs,
        ].append((each, prediction))
    costs: list[tuple[list[Work], list[float], str]] = []
    for members in served.values():
        why_not = next((prediction for _, prediction in members if isinstance(prediction, str)), "")
        times = [0.0 if why_not or isinstance(prediction, str) else prediction for _, prediction in members]
        costs.append(([each for each, _ in members], times, why_not))
    whole = sum(sum(times) for _, times, _ in costs)
    found = []
    for group, times, why_not in costs:
        total, longest = max(
            zip(times, group, strict=True), key=lambda pair: (pair[0], pair[1].runs * pair[1].shape.seq)
        )
        runs, served_ms = sum(each.runs for each in group), sum(times)
        share = served_ms / whole if whole else 0.0
        found.append(Job(_name(longest), longest, runs, total / longest.runs, served_ms, share, why_not))
    return sorted(found, key=lambda job: (bool(job.why_not), -job.total_ms, job.name))


def _milliseconds(work: Work, profile: Profile, ahead: Ahead) -> float:
    """The model's time of all runs."""
    best = ahead.plan(Kernel(work.cell, work.shape, profile, work.direction))[0]
    return work.runs * work.shape.seq * microseconds_per_step(best, profile) / 1000


def _name(work: Work) -> str:
    """A file's name, without its suffix: cell, heads x units, batch, dtype and direction, and a part of the cell's
    fingerprint, since cells of several files may share a name."""
    shape = work.shape
    parts = [work.cell.name, f"{shape.heads}x{shape.head_dim}", f"b{shape.batch}", shape.dtype, work.direction]
    parts += ["recompute"] if shape.recompute else []
    parts += [*shape.features, *([f"inputs{shape.inputs}"] if shape.inputs else [])]
    if work.record.definition is not None:
        parts.append(work.cell.fingerprint[:8])
    return "_".join(parts)
