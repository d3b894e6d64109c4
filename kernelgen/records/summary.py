"""What a store knows, problem by problem: which trials stand, and the fastest of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from kernelgen.program.shape import Shape
from kernelgen.program.task import Direction
from kernelgen.records.store_schema import direction_of
from kernelgen.records.trial import Trial

VERDICTS = ("measured", "failed", "rejected")
"""Statuses that end a trial; of a kernel the last one counts."""

Key = tuple[str, str, Direction, str, Shape]
"""What trials of one problem share: cell, fingerprint, direction, GPU, shape."""


def key_of(trial: Trial) -> Key:
    """The problem of a trial."""
    return trial.cell, trial.fingerprint, direction_of(trial.schedule), trial.gpu, trial.shape


def standing(trials: Iterable[Trial]) -> list[Trial]:
    """Of each kernel the trial that counts, in the order in which the kernels were first tried.

    trials: oldest first. The last verdict counts if there is any, else the last "valid", else the last of all.
    """
    found: dict[tuple[object, ...], Trial] = {}
    for trial in trials:
        kernel = (key_of(trial), trial.source_hash or (trial.schedule, *sorted(trial.tiling.items())))
        before = found.get(kernel)
        if before is None or _weight(trial) >= _weight(before):
            found[kernel] = trial
    return list(found.values())


def _weight(trial: Trial) -> int:
    return 2 if trial.status in VERDICTS else 1 if trial.status == "valid" else 0


@dataclass(frozen=True)
class Summary:
    """One problem of a store.

    trials: every one, oldest first. stands: of each kernel the one that counts. best: the fastest measured of those,
    None where nothing was measured.
    """

    cell: str
    fingerprint: str
    direction: Direction
    gpu: str
    shape: Shape
    trials: tuple[Trial, ...]
    stands: tuple[Trial, ...]

    @property
    def best(self) -> Trial | None:
        """The fastest measured trial that stands."""
        measured = [(t.measurement.median_ms, t) for t in self.stands if t.status == "measured" and t.measurement]
        return min(measured, key=lambda pair: pair[0])[1] if measured else None

    @property
    def statuses(self) -> Counter[str]:
        """How many kernels stand at each status."""
        return Counter(trial.status for trial in self.stands)

    @property
    def name(self) -> str:
        """For people and for files: cell, size, dtype, direction, what is saved, and the GPU."""
        shape = self.shape
        parts = [self.cell, f"{shape.heads}x{shape.head_dim}", f"b{shape.batch}", f"t{shape.seq}", shape.dtype]
        parts += [self.direction, shape.save, *(["recompute"] if shape.recompute else []), *shape.features]
        parts += [*([f"inputs{shape.inputs}"] if shape.inputs else []), self.gpu]
        return "_".join(parts)


def summaries(trials: Iterable[Trial]) -> list[Summary]:
    """The problems that the trials (oldest first) are of, by cell, GPU, direction and size."""
    groups: dict[Key, list[Trial]] = defaultdict(list)
    for trial in trials:
        groups[key_of(trial)].append(trial)
    found = [Summary(*key, tuple(group), tuple(standing(group))) for key, group in groups.items()]
    return sorted(found, key=lambda each: (each.cell, each.gpu, each.direction, str(each.shape), each.name))
