"""The store: every trial ever made, in one SQLite file that several processes may write at once."""

from __future__ import annotations

import contextlib
import errno
import heapq
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernelgen.errors import ShapeError, StoreError
from kernelgen.paths import cache_root, private_folder
from kernelgen.program.shape import FEATURES, INPUT_PRODUCT
from kernelgen.records.store_schema import APPLICATION_ID, INSERT, SCHEMA, SHAPE_COLUMNS, create, migrate, row
from kernelgen.records.trial import Trial

if TYPE_CHECKING:
    from kernelgen.program.shape import Shape
    from kernelgen.program.task import Direction
    from kernelgen.records.trial import Status

BUSY_SECONDS = 30.0
"""How long to wait for a file that another process has locked."""

_QUIET_SECONDS = 0.3
"""A wait longer than this is told."""

_log = logging.getLogger(__name__)
_VERDICTS = "('measured', 'failed', 'rejected')"
_STANDS = (
    "NOT EXISTS (SELECT 1 FROM trials AS later WHERE later.source_hash = t.source_hash AND later.gpu = t.gpu AND "
    + " AND ".join(f"later.{name} = t.{name}" for name in SHAPE_COLUMNS)
    + f" AND later.id > t.id AND later.status IN {_VERDICTS})"
)


class Store:
    """Trials are only ever added; what was learned last about a kernel counts.

    path: the SQLite file; by default ``trials.sqlite`` in the user's cache. It and its folder are made when needed,
    unless write is false: then the store is only read, and waits for nobody who writes. A file or folder that cannot be
    written can still be read (``read_only`` tells), and a missing one in such a place is an empty store. A trial is on
    the disk when ``add`` returns. Opening a store of an older tilesmith gives it today's tables, all or nothing; where
    it is only read, it stays as it is. Safe to share between threads; another process opens its own. Use it as a
    context manager, or call ``close``.

    Raises StoreError for a file that is damaged, of another program or of a newer tilesmith.
    """

    def __init__(self, path: Path | None = None, *, write: bool = True) -> None:
        self.path = cache_root() / "trials.sqlite" if path is None else path
        self._lock = threading.RLock()
        self._obstacle = "" if write else "it was opened for reading only"
        self._closed = False
        self._database: sqlite3.Connection | None = None
        with self._explained("open"):
            try:
                if write:
                    self._database = self._open_for_writing()
            except (OSError, sqlite3.OperationalError) as error:
                if not _is_obstacle(error):
                    raise
                self._obstacle = _reason(error)
            if self._obstacle:
                self._database = self._open_for_reading()

    @property
    def read_only(self) -> bool:
        """Whether trials can be read but not added."""
        return bool(self._obstacle)

    def add(self, trial: Trial) -> None:
        """Keep a trial; it survives a kill or a power cut from here on.

        Raises StoreError when it could not be kept (no permission, no space, damage): the trial is then not in the
        store, earlier ones are untouched, and adding may be tried again.
        """
        values = row(trial)
        with self._transaction() as database:
            database.execute(INSERT, values)

    def merge(self, sources: Iterable[Sequence[Trial]]) -> int:
        """Add the trials of other stores, each oldest first, that are not here yet, all or none; how many there were.

        Trials of all stores are then in the order of their time, those of one store in their own order, so that what
        was learned last about a kernel counts. Raises StoreError as add does.
        """
        with self._transaction() as database:
            before = [json.loads(record) for (record,) in database.execute("SELECT record FROM trials ORDER BY id")]
            mine = [Trial.from_dict(record) for record in before]
            known = set(map(_identity, mine))
            merged, new = mine, 0
            for source in sources:
                fresh = []
                for trial in source:
                    if (identity := _identity(trial)) not in known:
                        known.add(identity)
                        fresh.append(trial)
                new += len(fresh)
                merged = _in_order(merged, fresh)
            if merged[: len(mine)] != mine:
                database.execute("DELETE FROM trials")
                mine = []
            database.executemany(INSERT, [row(trial) for trial in merged[len(mine) :]])
        return new

    def trials(
        self,
        *,
        cell: str | None = None,
        fingerprint: str | None = None,
        shape: Shape | None = None,
        gpu: str | None = None,
        schedule: str | None = None,
        direction: Direction | None = None,
        status: Status | None = None,
        source_hash: str | None = None,
        compiler: str | None = None,
    ) -> list[Trial]:
        """Every trial that has all the given properties, oldest first. Raises StoreError."""
        where, values = _conditions(
            cell=cell,
            fingerprint=fingerprint,
            shape=shape,
            gpu=gpu,
            schedule=schedule,
            direction=direction,
            status=status,
            source_hash=source_hash,
            compiler=compiler,
        )
        return self._read(f"SELECT record FROM trials WHERE {where} ORDER BY id", values)

    def find(self, source_hash: str, gpu: str, shape: Shape, *, compiler: str | None = None) -> Trial | None:
        """What is known about one kernel, so that nothing is done twice: the furthest that it came.

        The last verdict ("measured", "failed" or "rejected") if there is any, else the last "valid", else the last
        "compiled". compiler: consider only trials made with that compiler. Raises StoreError.
        """
        where, values = _conditions(source_hash=source_hash, gpu=gpu, shape=shape, compiler=compiler)
        order = f"CASE WHEN status IN {_VERDICTS} THEN 0 WHEN status = 'valid' THEN 1 ELSE 2 END, id DESC"
        found = self._read(f"SELECT record FROM trials WHERE {where} ORDER BY {order} LIMIT 1", values)
        return found[0] if found else None

    def best(
        self, *, cell: str, shape: Shape, gpu: str, fingerprint: str | None = None, schedule: str | None = None
    ) -> Trial | None:
        """The fastest measured trial of a problem; None where nothing was measured.

        A kernel counts with its last verdict: measured again, the new time; failed since, not at all. Raises
        StoreError.
        """
        where, values = _conditions(
            cell=cell, shape=shape, gpu=gpu, fingerprint=fingerprint, schedule=schedule, status="measured"
        )
        found = self._read(
            f"SELECT record FROM trials AS t WHERE {where} AND {_STANDS} ORDER BY median_ms, id DESC LIMIT 1", values
        )
        return found[0] if found else None

    def fastest(self, *, cell: str, fingerprint: str, shape: Shape, gpu: str, direction: Direction) -> list[Trial]:
        """The measured trials of a cell at the sizes of ``shape``, with any seq and save, by their time for a step.

        Those that save what ``shape`` does come first; the others' times are of another kernel. A kernel counts with
        its last verdict, as in best. Raises StoreError.
        """
        sizes = {
            name: getattr(shape, name) for name in ("batch", "heads", "head_dim", "dtype", *FEATURES, INPUT_PRODUCT)
        }
        where, values = _conditions(
            cell=cell, fingerprint=fingerprint, gpu=gpu, direction=direction, status="measured", **sizes
        )
        order = "save <> ?, median_ms / seq, id"
        return self._read(
            f"SELECT record FROM trials AS t WHERE {where} AND {_STANDS} ORDER BY {order}", [*values, shape.save]
        )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A block that writes all or nothing. Raises StoreError."""
        if self._obstacle:
            raise StoreError(
                f"cannot write to the store {self.path}: {self._obstacle}. Results stay in memory only; make it "
                "writable, or set TILESMITH_CACHE to another folder."
            )
        with self._explained("write to"), self._lock:
            database = self._connection()
            try:
                _patiently(database, "BEGIN IMMEDIATE")
                yield database
                _patiently(database, "COMMIT")
            except BaseException:
                if database.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        database.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the file. A closed store can be neither read nor written."""
        with self._lock:
            if self._database is not None:
                self._database.close()
            self._database = None
            self._closed = True

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connection(self) -> sqlite3.Connection:
        if self._database is None:
            raise StoreError(f"the store {self.path} was closed")
        return self._database

    def _read(self, query: str, values: list[Any]) -> list[Trial]:
        if self._database is None and not self._closed:
            return []  # no file, and none can be made
        with self._explained("read"), self._lock:
            records = _patiently(self._connection(), query, values)
            return [Trial.from_dict(json.loads(record)) for (record,) in records]

    def _open_for_writing(self) -> sqlite3.Connection:
        """Open or create. Raises OSError or sqlite3.OperationalError where it cannot be written."""
        private_folder(self.path.parent)
        database = self._connect("rwc")
        try:
            if self._check(database) != SCHEMA:
                _patiently(database, "PRAGMA journal_mode = WAL")
                _patiently(database, "BEGIN IMMEDIATE")
                version = self._check(database)  # another process may have been faster
                if version != SCHEMA:
                    (create if version == 0 else migrate)(database)
                _patiently(database, "COMMIT")
            database.execute("PRAGMA synchronous = FULL")
            # Takes the lock that a write needs and gives it back: a read-only file shows here and not hours later.
            _patiently(database, "BEGIN IMMEDIATE")
            database.execute("UPDATE trials SET id = id WHERE 0")
            database.execute("ROLLBACK")
        except BaseException:
            database.close()
            raise
        return database

    def _open_for_reading(self) -> sqlite3.Connection | None:
        """Open what cannot be written; None where there is nothing."""
        if self.path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with contextlib.suppress(PermissionError):
            if not self.path.exists():
                return None
        # SQLite wants to make files beside the database even to read it. Where it cannot, and no journal waits to be
        # merged, the file is all there is and may be read as it stands.
        journal = self.path.with_name(self.path.name + "-wal")
        modes = ["ro"] if journal.exists() and journal.stat().st_size else ["ro", "ro&immutable=1"]
        for mode in modes:
            database = self._connect(mode)
            try:
                version = self._check(database)
                if version:
                    return database if version == SCHEMA else _migrated_copy(database)
            except sqlite3.OperationalError:
                if mode == modes[-1]:
                    raise
            except BaseException:
                database.close()
                raise
            database.close()
        return None

    def _connect(self, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=0,  # _patiently waits, and says so
            isolation_level=None,
            check_same_thread=False,
        )

    def _check(self, database: sqlite3.Connection) -> int:
        """Return the schema version, 0 for a new file. Raises StoreError for a file that is not ours to use."""
        (version,) = _patiently(database, "PRAGMA user_version")[0]
        (application,) = _patiently(database, "PRAGMA application_id")[0]
        (tables,) = _patiently(database, "SELECT count(*) FROM sqlite_master")[0]
        if application != APPLICATION_ID and (tables or version or application):
            raise StoreError(
                f"{self.path} is a database of another program, not a store of trials; nothing was changed. "
                "Move it away, or set TILESMITH_CACHE to another folder."
            )
        if version > SCHEMA:
            raise StoreError(
                f"the store {self.path} was written by a newer tilesmith (schema {version}; this one knows {SCHEMA}). "
                "Update tilesmith, or set TILESMITH_CACHE to another folder."
            )
        return int(version)

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turn what SQLite or the file system raises into a StoreError in words."""
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"cannot {what} the store {self.path}: {_reason(error)}. {_advice(error)}") from error
        except (ValueError, KeyError, TypeError, ShapeError) as error:
            raise StoreError(
                f"cannot {what} the store {self.path}: it holds a record that is no trial ({error}). {_MOVE}"
            ) from error


def _identity(trial: Trial) -> str:
    """The same for two trials only where they are the same in everything."""
    return json.dumps(trial.to_dict(), sort_keys=True)


def _in_order(one: Sequence[Trial], other: Sequence[Trial]) -> list[Trial]:
    """Two lists of trials as one, by their time; a clock that was set back changes the order within neither."""

    def timed(trials: Sequence[Trial]) -> Iterator[tuple[str, Trial]]:
        latest = ""
        for trial in trials:
            latest = max(latest, trial.created)
            yield latest, trial

    return [trial for _, trial in heapq.merge(timed(one), timed(other), key=lambda pair: pair[0])]


_OBSTACLES = (
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
)
_MOVE = "Move it away; a new one will be made."


def _migrated_copy(database: sqlite3.Connection) -> sqlite3.Connection:
    """A store of an older schema that is only read: in memory, as one of today's. Closes the file."""
    copy = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    with contextlib.closing(database):
        database.backup(copy)
    if copy.execute("PRAGMA user_version").fetchone() != (SCHEMA,):  # nobody has migrated the file meanwhile
        copy.execute("BEGIN")
        migrate(copy)
        copy.execute("COMMIT")
    return copy


def _conditions(**wanted: Any) -> tuple[str, list[Any]]:
    """SQL for "every given column has this value"; the names are this file's own. A shape is several columns."""
    shape = wanted.pop("shape", None)
    if shape is not None:
        wanted |= {name: getattr(shape, name) for name in SHAPE_COLUMNS}
    given = {name: value for name, value in wanted.items() if value is not None}
    return " AND ".join(f"{name} = ?" for name in given) or "1", list(given.values())


def _patiently(database: sqlite3.Connection, statement: str, values: Sequence[Any] = ()) -> list[Any]:
    """Execute a statement, and wait where another process has locked the file; a wait that one notices is told."""
    start, told = time.monotonic(), False
    while True:
        try:
            return database.execute(statement, values).fetchall()
        except sqlite3.OperationalError as error:
            waited = time.monotonic() - start
            if _code(error) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or waited > BUSY_SECONDS:
                raise
            if waited > _QUIET_SECONDS and not told:
                told = True
                _log.warning(
                    "another process has locked the store of trials; waiting for it, at most %.0f seconds. Ctrl-C "
                    "ends this, and TILESMITH_CACHE names another folder.",
                    BUSY_SECONDS,
                )
            time.sleep(0.02)


def _code(error: BaseException) -> int:
    """SQLite's primary result code; -1 where there is none."""
    code = getattr(error, "sqlite_errorcode", None)
    return -1 if code is None else int(code) & 0xFF


def _is_obstacle(error: Exception) -> bool:
    """Whether an error means "cannot be written here", so that reading may still work."""
    return isinstance(error, OSError) or _code(error) in _OBSTACLES


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return {
        sqlite3.SQLITE_FULL: "the disk is full",
        sqlite3.SQLITE_READONLY: "it is read-only",
        sqlite3.SQLITE_CANTOPEN: "the file or its folder is not accessible",
        sqlite3.SQLITE_NOTADB: "it is not an SQLite database",
        sqlite3.SQLITE_CORRUPT: "it is damaged",
        sqlite3.SQLITE_BUSY: f"another process has kept it locked for {BUSY_SECONDS:.0f} seconds",
    }.get(_code(error), str(error))


def _advice(error: Exception) -> str:
    code = _code(error)
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return _MOVE
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return "Free some space and try again; earlier trials are kept."
    if code == sqlite3.SQLITE_BUSY:
        return "Wait for the other process, or set TILESMITH_CACHE to another folder."
    return "Make it accessible, or set TILESMITH_CACHE to another folder."
