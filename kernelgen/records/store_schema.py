"""The store's tables: which columns a trial has there, and how a store of an older schema becomes one of today's."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from typing import TYPE_CHECKING, Any

from kernelgen.records.renames import renamed
from kernelgen.records.trial import Trial

if TYPE_CHECKING:
    from kernelgen.program.task import Direction

SCHEMA = 4
"""Version of the tables, kept in the file's user_version. Schema 1 kept a shape as one text, schema 2 knew neither
resets nor lengths, schema 3 no inputs."""

APPLICATION_ID = 0x544C534D
"""Says in the file's header (application_id) that it is tilesmith's: "TLSM"."""

SHAPE_COLUMNS = ("batch", "seq", "heads", "head_dim", "dtype", "save", "recompute", "resets", "lengths", "inputs")
"""The columns that are a shape's fields, by their names."""

_COLUMNS = {
    "cell": "TEXT NOT NULL",
    "fingerprint": "TEXT NOT NULL",
    "gpu": "TEXT NOT NULL",
    "schedule": "TEXT NOT NULL",
    "direction": "TEXT NOT NULL",
    "batch": "INTEGER NOT NULL",
    "seq": "INTEGER NOT NULL",
    "heads": "INTEGER NOT NULL",
    "head_dim": "INTEGER NOT NULL",
    "dtype": "TEXT NOT NULL",
    "save": "TEXT NOT NULL",
    "recompute": "INTEGER NOT NULL",
    "resets": "INTEGER NOT NULL",
    "lengths": "INTEGER NOT NULL",
    "inputs": "INTEGER NOT NULL",
    "status": "TEXT NOT NULL",
    "source_hash": "TEXT NOT NULL",
    "compiler": "TEXT NOT NULL",
    "median_ms": "REAL",
    "record": "TEXT NOT NULL",
}
"""What is asked for, then the whole trial as JSON."""

INSERT = f"INSERT INTO trials ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"

_TABLES = (
    f"CREATE TABLE trials (id INTEGER PRIMARY KEY, {', '.join(' '.join(column) for column in _COLUMNS.items())})",
    f"CREATE INDEX by_source ON trials (source_hash, gpu, {', '.join(SHAPE_COLUMNS)})",
    "CREATE INDEX by_problem ON trials (cell, gpu, dtype, heads, head_dim, batch, direction, seq)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA}",
)


def create(database: sqlite3.Connection) -> None:
    """Make the tables in an empty file, within the caller's transaction."""
    for statement in _TABLES:
        database.execute(statement)


def migrate(database: sqlite3.Connection) -> None:
    """Make a store of an older schema one of today's, within the caller's transaction. Every trial stays, with its id.

    Raises ValueError, KeyError, TypeError or ShapeError for a record that is no trial.
    """
    database.execute("ALTER TABLE trials RENAME TO trials_before")
    database.execute("DROP INDEX IF EXISTS by_source")
    database.execute("DROP INDEX IF EXISTS by_problem")
    create(database)
    insert = INSERT.replace("(", "(id, ", 1).replace("VALUES (", "VALUES (?, ", 1)
    for number, text in database.execute("SELECT id, record FROM trials_before ORDER BY id"):
        trial = Trial.from_dict(json.loads(text))
        current = dataclasses.replace(trial, tiling=renamed(trial.schedule, trial.tiling))
        database.execute(insert, (number, *row(current)))
    database.execute("DROP TABLE trials_before")


def row(trial: Trial) -> tuple[Any, ...]:
    """The columns' values of a trial, in the order of INSERT."""
    own = {name: getattr(trial, name) for name in _COLUMNS if hasattr(trial, name)}
    shape = {name: getattr(trial.shape, name) for name in SHAPE_COLUMNS}
    made = {
        "direction": direction_of(trial.schedule),
        "median_ms": trial.measurement.median_ms if trial.measurement else None,
        "record": json.dumps(trial.to_dict()),
    }
    values = own | shape | made
    return tuple(values[name] for name in _COLUMNS)


def direction_of(schedule: str) -> Direction:
    """The direction of a schedule; by its name, for one that is not there any more."""
    from kernelgen import schedules
    from kernelgen.errors import ConfigError

    try:
        return schedules.get(schedule).direction
    except ConfigError:
        return "backward" if schedule.endswith("_backward") else "forward"
