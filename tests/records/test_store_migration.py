"""A store of an older schema becomes one of today's, whole or not at all, and no trial is lost."""

from __future__ import annotations

import json
import signal
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from processes import drop_privileges, start, unprivileged_folder
from trials import FULL, PLAIN, SHAPE

from kernelgen.errors import StoreError
from kernelgen.program.shape import FEATURES, INPUT_PRODUCT, Shape
from kernelgen.records import store as store_module
from kernelgen.records import store_schema
from kernelgen.records.store import Store
from kernelgen.records.store_schema import SCHEMA
from kernelgen.records.trial import Trial

pytestmark = pytest.mark.unit

SCHEMA_1 = """
    CREATE TABLE trials (
        id INTEGER PRIMARY KEY, cell TEXT NOT NULL, fingerprint TEXT NOT NULL, shape TEXT NOT NULL, gpu TEXT NOT NULL,
        schedule TEXT NOT NULL, status TEXT NOT NULL, source_hash TEXT NOT NULL, compiler TEXT NOT NULL,
        median_ms REAL, record TEXT NOT NULL);
    CREATE INDEX by_source ON trials (source_hash, gpu, shape);
    CREATE INDEX by_problem ON trials (cell, gpu, shape);
    PRAGMA application_id = 1414288205;
    PRAGMA user_version = 1;
"""

RECOMPUTING = Shape(16, 1024, 12, 64, save="states", recompute=True)
TRIALS = [
    PLAIN,
    FULL,
    FULL.replace(source_hash="s2", status="failed", reason="wrong with another seed", measurement=None),
    PLAIN.replace(source_hash="s3", status="rejected", reason="spills"),
    FULL.replace(source_hash="s4", shape=Shape(16, 512, 12, 64, save="gates")),
    FULL.replace(source_hash="s5", shape=Shape(16, 1024, 12, 64, dtype="float16")),
    FULL.replace(source_hash="s6", schedule="resident_backward", shape=RECOMPUTING),
    FULL.replace(source_hash="s7", schedule="gone_backward", cell="gru", gpu="a100"),
    PLAIN.replace(source_hash="s2", status="valid"),
]


def old_shape(shape: Shape) -> str:
    """The text by which schema 1 found a shape."""
    flag = ',"recompute"' if shape.recompute else ""
    return f'[{shape.batch},{shape.seq},{shape.heads},{shape.head_dim},"{shape.dtype}","{shape.save}"{flag}]'


def make_old(path: Path, trials: list[Trial]) -> None:
    """A store of schema 1, as it was written then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode = WAL")
    database.executescript(SCHEMA_1)
    for number, trial in enumerate(trials):
        values = (
            trial.cell,
            trial.fingerprint,
            old_shape(trial.shape),
            trial.gpu,
            trial.schedule,
            trial.status,
            trial.source_hash,
            trial.compiler,
            trial.measurement.median_ms if trial.measurement else None,
            json.dumps(trial.to_dict()),
        )
        database.execute(
            "INSERT INTO trials (id, cell, fingerprint, shape, gpu, schedule, status, source_hash, compiler, "
            "median_ms, record) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (2 * number + 1, *values),
        )
    database.commit()
    database.close()


UNKNOWN: dict[int, tuple[str, ...]] = {2: (*FEATURES, INPUT_PRODUCT), 3: (INPUT_PRODUCT,)}
"""What a shape did not have in an older schema."""


def make_schema(version: int, path: Path, trials: list[Trial]) -> None:
    """A store of schema 2 or 3, as it was written then."""
    unknown = UNKNOWN[version]
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path)
    kept = [place for place, name in enumerate(store_schema._COLUMNS) if name not in unknown]
    names = [name for name in store_schema._COLUMNS if name not in unknown]
    columns = ", ".join(f"{name} {store_schema._COLUMNS[name]}" for name in names)
    database.executescript(
        f"CREATE TABLE trials (id INTEGER PRIMARY KEY, {columns});"
        "CREATE INDEX by_source ON trials (source_hash, gpu);"
        "CREATE INDEX by_problem ON trials (cell, gpu, dtype, heads, head_dim, batch, direction, seq);"
        f"PRAGMA application_id = {store_schema.APPLICATION_ID}; PRAGMA user_version = {version};"
    )
    insert = f"INSERT INTO trials ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    for trial in trials:
        record = trial.to_dict()
        for name in unknown:
            del record["shape"][name]
        values = [store_schema.row(trial)[place] for place in kept]
        database.execute(insert, [*values[:-1], json.dumps(record)])
    database.commit()
    database.close()


def contents(path: Path) -> list[Any]:
    """Everything in a database: its version, its tables and indexes, and its rows."""
    database = sqlite3.connect(path)
    tables = database.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
    rows = database.execute("SELECT * FROM trials ORDER BY id").fetchall()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    database.close()
    return [version, tables, rows]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "trials.sqlite"
    make_old(path, TRIALS)
    return path


def check_everything_is_found(store: Store) -> None:
    assert store.trials() == TRIALS
    assert store.trials(status="failed") == [TRIALS[2]]
    assert store.trials(direction="backward") == [TRIALS[6], TRIALS[7]]
    assert store.trials(shape=SHAPE, gpu="h200") == [TRIALS[0], TRIALS[1], TRIALS[2], TRIALS[3], TRIALS[8]]
    assert store.trials(shape=RECOMPUTING) == [TRIALS[6]]
    assert store.find("s1", "h200", SHAPE) == FULL
    assert store.find("s2", "h200", SHAPE) == TRIALS[2]
    assert store.best(cell="lstm", shape=SHAPE, gpu="h200") == FULL
    assert store.fastest(cell="lstm", fingerprint="f1", shape=SHAPE, gpu="h200", direction="forward") == [
        FULL,
        TRIALS[4],
    ]


@pytest.mark.parametrize(("version", "asked"), [(2, {"lengths": True}), (2, {"inputs": 64}), (3, {"inputs": 64})])
def test_kernels_with_what_an_older_store_did_not_know_are_told_apart(
    tmp_path: Path, version: int, asked: dict[str, Any]
) -> None:
    path = tmp_path / "trials.sqlite"
    make_schema(version, path, TRIALS)
    with Store(path) as store:
        check_everything_is_found(store)
        other = FULL.replace(source_hash="s8", shape=replace(SHAPE, **asked))
        store.add(other)
        check_fastest = {"cell": "lstm", "fingerprint": "f1", "gpu": "h200", "direction": "forward"}
        assert store.fastest(shape=other.shape, **check_fastest) == [other]
        assert other not in store.fastest(shape=SHAPE, **check_fastest)
        assert store.trials(shape=other.shape) == [other]


def test_every_trial_of_an_old_store_is_found_and_equal(old: Path) -> None:
    with Store(old) as store:
        assert not store.read_only
        check_everything_is_found(store)
        store.add(PLAIN)
        assert store.trials() == [*TRIALS, PLAIN]
    version, tables, rows = contents(old)
    assert version == SCHEMA
    assert [name for _, name, _ in tables] == ["by_problem", "by_source", "trials"]
    assert [row[0] for row in rows] == [*range(1, 2 * len(TRIALS), 2), 2 * len(TRIALS)]  # as they were numbered
    with Store(old) as store:
        assert store.trials() == [*TRIALS, PLAIN]


def test_a_record_from_before_a_field_existed_keeps_the_field_s_meaning(old: Path) -> None:
    with sqlite3.connect(old) as database:
        (text,) = database.execute("SELECT record FROM trials WHERE source_hash = 's4'").fetchone()
        record = json.loads(text)
        del record["shape"]["recompute"]
        database.execute("UPDATE trials SET record = ? WHERE source_hash = 's4'", (json.dumps(record),))
    database.close()
    with Store(old) as store:
        assert store.trials(shape=TRIALS[4].shape) == [TRIALS[4]]


def test_a_store_that_is_only_read_stays_as_it_is(old: Path) -> None:
    before = contents(old)
    with Store(old, write=False) as store:
        check_everything_is_found(store)
    assert contents(old) == before


def test_an_old_store_that_cannot_be_written_can_be_read() -> None:
    with unprivileged_folder() as folder:
        path = folder / "store" / "trials.sqlite"
        make_old(path, TRIALS)
        path.chmod(0o444)
        path.parent.chmod(0o555)
        drop_privileges()
        with Store(path) as store:
            assert store.read_only
            check_everything_is_found(store)


class Stopped:
    """A connection on which something happens at one of its statements."""

    def __init__(self, database: sqlite3.Connection, at: str, what: Callable[[], None]) -> None:
        self._database, self._at, self._what = database, at, what

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if statement.startswith(self._at):
            self._what()
        return self._database.execute(statement, *values)


STATEMENTS = ("ALTER", "CREATE INDEX", "INSERT", "DROP TABLE", "COMMIT")


@pytest.mark.parametrize("at", STATEMENTS)
def test_an_interrupted_migration_leaves_the_old_store(old: Path, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(old)

    def interrupt() -> None:
        raise KeyboardInterrupt

    connect = Store._connect
    monkeypatch.setattr(Store, "_connect", lambda store, mode: Stopped(connect(store, mode), at, interrupt))
    with pytest.raises(KeyboardInterrupt):
        Store(old)
    assert contents(old) == before
    monkeypatch.undo()
    with Store(old) as store:
        check_everything_is_found(store)


KILLED = """
import os, signal, sys
from pathlib import Path
from kernelgen.records.store import Store
from test_store_migration import Stopped
connect = Store._connect
kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
Store._connect = lambda store, mode: Stopped(connect(store, mode), "COMMIT", kill)
Store(Path(sys.argv[1]))
"""


def test_a_killed_migration_leaves_the_old_store(old: Path) -> None:
    before = contents(old)
    process = start(KILLED, old)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert contents(old) == before
    with Store(old) as store:
        check_everything_is_found(store)


def test_a_record_that_is_no_trial_stops_the_migration(old: Path) -> None:
    with sqlite3.connect(old) as database:
        database.execute("""UPDATE trials SET record = '{"shape": {}}' WHERE id = 5""")
    database.close()
    before = contents(old)
    for write in (True, False):
        with pytest.raises(StoreError, match=r"holds a record that is no trial.*Move it away"):
            Store(old, write=write)
    assert contents(old) == before


def test_a_second_process_waits_and_does_not_migrate_again(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second opens the store while the first is in the middle, and finds it done."""
    migrations: list[int] = []
    opened: list[list[Trial]] = []

    def open_second() -> None:
        with Store(old) as store:
            opened.append(store.trials())

    second = threading.Thread(target=open_second)
    begun = threading.Event()
    patiently, migrate = store_module._patiently, store_module.migrate

    def watched(database: sqlite3.Connection, statement: str, *values: Any) -> list[Any]:
        if threading.current_thread() is second and statement == "BEGIN IMMEDIATE":
            begun.set()  # it has seen the old version
        return patiently(database, statement, *values)

    def slow(database: sqlite3.Connection) -> None:
        migrations.append(threading.get_ident())
        second.start()
        assert begun.wait(60)
        migrate(database)

    monkeypatch.setattr(store_module, "_patiently", watched)
    monkeypatch.setattr(store_module, "migrate", slow)
    with Store(old) as store:
        second.join(60)
        check_everything_is_found(store)
    assert migrations == [threading.get_ident()]
    assert opened == [TRIALS]


OPENER = """
import sys
from pathlib import Path
from kernelgen.records.store import Store
from trials import PLAIN
with Store(Path(sys.argv[1])) as store:
    store.add(PLAIN.replace(source_hash=sys.argv[2]))
"""


def test_processes_that_open_an_old_store_at_once_lose_nothing(old: Path) -> None:
    openers = [start(OPENER, old, name) for name in "abc"]
    for opener in openers:
        opener.communicate(timeout=120)
    assert [opener.returncode for opener in openers] == [0] * 3
    with Store(old) as store:
        assert store.trials()[: len(TRIALS)] == TRIALS
        assert sorted(trial.source_hash for trial in store.trials()[len(TRIALS) :]) == ["a", "b", "c"]


def test_every_question_is_answered_by_an_index(tmp_path: Path) -> None:
    with Store(tmp_path / "trials.sqlite") as store:
        database, asked = store._database, []
        assert database is not None
        database.set_trace_callback(asked.append)
        store.trials(cell="lstm", gpu="h200", shape=SHAPE)
        store.find("s1", "h200", SHAPE)
        store.best(cell="lstm", shape=SHAPE, gpu="h200")
        store.fastest(cell="lstm", fingerprint="f1", shape=SHAPE, gpu="h200", direction="forward")
        database.set_trace_callback(None)
        assert len(asked) == 4
        for question in asked:
            steps = [step for *_, step in database.execute("EXPLAIN QUERY PLAN " + question)]
            assert any(step.startswith("SEARCH") for step in steps)
            assert not [step for step in steps if step.startswith("SCAN")]
