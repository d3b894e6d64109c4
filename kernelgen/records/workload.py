"""Workload: which recurrences a program runs and how often, as a YAML file that people may read and edit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic

from kernelgen.build.cache import write_together
from kernelgen.errors import ConfigError, ShapeError
from kernelgen.program.shape import Shape
from kernelgen.program.task import Direction
from kernelgen.records.config import CellRecord
from kernelgen.records.config_text import dump, explain, parse, reason

if TYPE_CHECKING:
    from kernelgen.cells.language import Cell

FORMAT = "tilesmith-workload"

_HEADER = """\
# The recurrences that a program ran, by tilesmith: how often each, and at what size.
# Tune a kernel for each:  tilesmith tune-all {name} -o kernels/
"""


@dataclass(frozen=True)
class Work:
    """One recurrence of a program: ``runs`` times a pass of ``cell``, which ``record`` describes, at ``shape``."""

    cell: Cell
    record: CellRecord
    shape: Shape
    direction: Direction
    runs: int


class _WorkRecord(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)

    cell: CellRecord
    direction: Direction
    shape: Shape
    runs: Annotated[int, pydantic.Field(ge=1)]


class _Workload(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)

    format: Literal["tilesmith-workload"] = "tilesmith-workload"
    schema_version: Literal[1] = 1
    work: tuple[_WorkRecord, ...]


def save_workload(path: Path, work: Sequence[Work]) -> None:
    """Write a workload; folders are made as needed.

    Raises ConfigError where a cell is neither in the library nor in a file, or where the file cannot be written.
    """
    for each in work:
        require_found_again(each)
    records = [
        _WorkRecord(cell=each.record, direction=each.direction, shape=each.shape, runs=each.runs) for each in work
    ]
    fields = _Workload(work=tuple(records)).model_dump(mode="json")
    for written in fields["work"]:
        written["cell"] = {key: value for key, value in written["cell"].items() if value is not None}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_together([(path, (_HEADER.format(name=path.name) + dump(fields)).encode())])
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {reason(error)}") from error


def require_found_again(work: Work) -> None:
    """Raise ConfigError for a cell that is neither in the library nor in a file, where another process looks for it."""
    from kernelgen.cells import cell_names, load_cell

    cell = work.cell
    if work.record.definition is not None:
        return
    if cell.name not in cell_names() or load_cell(cell.name).fingerprint != cell.fingerprint:
        raise ConfigError(
            f"the cell {cell.name!r} was made in Python, where another process does not find it; put it into a file "
            'and name it as cell="path/to/file.py:NAME"'
        )


def load_workload(path: Path) -> tuple[Work, ...]:
    """Read a workload. The text of a user's cell is run as Python.

    Raises ConfigError: unreadable, not YAML, no workload, fields that are missing, unknown or wrong (one line each), a
    cell that cannot be built or has changed.
    """
    fields: Any = parse(path)
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise ConfigError(
            f"{path} is YAML, but no workload (which says 'format: {FORMAT}'). Make one in Python: "
            f"with kernelgen.torch.recording() as recorded: ...; recorded.save({str(path)!r})"
        )
    try:
        workload = _Workload.model_validate_json(json.dumps(fields, default=str))
    except pydantic.ValidationError as error:
        raise ConfigError(f"{path} is no valid workload:\n" + "\n".join(explain(error))) from error
    except (ShapeError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no valid workload: {error}") from error
    return tuple(
        Work(record.cell.load("workload"), record.cell, record.shape, record.direction, record.runs)
        for record in workload.work
    )
