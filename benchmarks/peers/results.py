"""Records, and the file that keeps them: JSON, dated, written anew after every row."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

PASSES = ("forward", "training")
FOLDER = Path(__file__).parent.parent / "results"


@dataclass(frozen=True)
class Record:
    """One system at one row, in one pass; or why there is no time of it (reason).

    row: see rows.parse; seq: steps that were measured. system: see SYSTEMS in jobs.py. ms, p10_ms, p90_ms: of the GPU;
    eager_ms, host_ms, how: see timing.Timing. error: see steps.py. floor_ms: see kernelgen/tuning/floors.py.
    """

    row: str
    groups: tuple[str, ...]
    cell: str
    heads: int
    head_dim: int
    batch: int
    seq: int
    module: bool
    system: str
    dtype: str
    what: str
    ms: float | None = None
    p10_ms: float | None = None
    p90_ms: float | None = None
    eager_ms: float | None = None
    host_ms: float | None = None
    how: str = ""
    error: float | None = None
    floor_ms: float | None = None
    reason: str = ""

    @property
    def times_floor(self) -> float | None:
        """How many times as long as the floor."""
        return None if self.ms is None or not self.floor_ms else self.ms / self.floor_ms


@dataclass
class Results:
    """All records of a run. about: card, driver, versions, date and what was asked."""

    about: dict[str, Any]
    records: list[Record] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all. Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        content = {"about": self.about, "records": [asdict(record) for record in self.records]}
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        part.replace(path)

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read a file. Raises OSError, and ValueError for one of another form."""
        content = json.loads(path.read_text(encoding="utf-8"))
        try:
            records = [Record(**{**record, "groups": tuple(record["groups"])}) for record in content["records"]]
            return cls(content["about"], records)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} is no file of benchmarks/rnn.py: {error}") from error

    def find(self, system: str, what: str, dtype: str | None = None, group: str | None = None) -> Iterator[Record]:
        """The records that have a time."""
        for record in self.records:
            asked = record.system == system and record.what == what and dtype in (None, record.dtype)
            if asked and record.ms is not None and (group is None or group in record.groups):
                yield record


def dated(date: str, gpu: str, folder: Path = FOLDER) -> Path:
    """A file that is not there yet: YYYY-MM-DD-GPU.json, with a number where there is one of that day."""
    name = f"{date}-{re.sub('[^a-z0-9]+', '-', gpu.lower()).strip('-')}"
    tries: Iterable[str] = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(path for text in tries if not (path := folder / f"{text}.json").exists())
