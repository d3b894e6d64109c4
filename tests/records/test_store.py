"""The store of trials: what it answers, and that nothing which happens to it loses a trial."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from processes import drop_privileges, start, unprivileged_folder
from trials import FULL, PLAIN, SHAPE

from kernelgen.errors import StoreError
from kernelgen.program.shape import Shape
from kernelgen.records.store import Store
from kernelgen.records.store_schema import APPLICATION_ID, SCHEMA
from kernelgen.records.trial import Measurement, Trial

pytestmark = pytest.mark.unit


def measured(source: str, median: float) -> Trial:
    return FULL.replace(source_hash=source, measurement=Measurement(median, median, median, 10))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "trials.sqlite")


def test_a_trial_comes_back_as_it_was(store: Store) -> None:
    for trial in (PLAIN, FULL):
        assert Trial.from_dict(json.loads(json.dumps(trial.to_dict()))) == trial
        store.add(trial)
    assert store.trials() == [PLAIN, FULL]
    assert not store.read_only
    assert Store(store.path).trials() == [PLAIN, FULL]
    assert FULL.validation is not None
    assert FULL.validation.worst == 3e-4


def test_trials_are_found_by_any_property(store: Store) -> None:
    others = [
        PLAIN.replace(cell="gru"),
        PLAIN.replace(fingerprint="f2"),
        PLAIN.replace(shape=Shape(16, 1024, 12, 64, save="gates")),
        PLAIN.replace(gpu="a100"),
        PLAIN.replace(schedule="cluster"),
        PLAIN.replace(status="failed", reason="hung"),
        PLAIN.replace(source_hash="s2"),
        PLAIN.replace(compiler="NVRTC 13.0"),
    ]
    for trial in (PLAIN, *others):
        store.add(trial)
    assert store.trials(cell="gru") == [others[0]]
    assert store.trials(fingerprint="f2") == [others[1]]
    assert store.trials(shape=Shape(16, 1024, 12, 64, save="gates")) == [others[2]]
    assert store.trials(gpu="a100") == [others[3]]
    assert store.trials(schedule="cluster") == [others[4]]
    assert store.trials(status="failed") == [others[5]]
    assert store.trials(source_hash="s2") == [others[6]]
    assert store.trials(compiler="NVRTC 13.0") == [others[7]]
    assert store.trials(cell="gru", gpu="a100") == []
    assert len(store.trials(cell="lstm", gpu="h200")) == 7


def test_find_tells_how_far_a_kernel_came(store: Store) -> None:
    assert store.find("s1", "h200", SHAPE) is None
    steps = [PLAIN, PLAIN.replace(status="valid"), FULL]
    for trial in steps:
        store.add(trial)
        assert store.find("s1", "h200", SHAPE) == trial
    for trial in steps[:2]:  # a later run without a GPU unlearns nothing
        store.add(trial)
        assert store.find("s1", "h200", SHAPE) == FULL
    failed = FULL.replace(status="failed", reason="wrong with another seed", measurement=None)
    store.add(failed)
    assert store.find("s1", "h200", SHAPE) == failed
    assert store.find("s1", "a100", SHAPE) is None
    assert store.find("s1", "h200", Shape(32, 1024, 12, 64)) is None
    assert store.find("s1", "h200", SHAPE, compiler="NVRTC 13.5") == failed
    assert store.find("s1", "h200", SHAPE, compiler="NVRTC 14.0") is None


def test_best_is_the_fastest_that_still_stands(store: Store) -> None:
    def best() -> Trial | None:
        return store.best(cell="lstm", shape=SHAPE, gpu="h200")

    assert best() is None
    store.add(PLAIN)
    assert best() is None
    fast, slow = measured("fast", 0.3), measured("slow", 0.4)
    for trial in (slow, fast, measured("other", 0.1).replace(gpu="a100"), measured("gru", 0.1).replace(cell="gru")):
        store.add(trial)
    assert best() == fast
    again = measured("fast", 0.5)
    store.add(again)
    assert best() == slow
    store.add(slow.replace(status="failed", reason="race", measurement=None))
    assert best() == again
    assert store.best(cell="lstm", shape=SHAPE, gpu="h200", fingerprint="f2") is None
    assert store.best(cell="lstm", shape=SHAPE, gpu="h200", schedule="cluster") is None


def test_the_default_place_is_the_user_s_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILESMITH_CACHE", str(tmp_path / "cache"))
    with Store() as store:
        store.add(PLAIN)
    assert store.path == tmp_path / "cache" / "trials.sqlite"
    assert Store(store.path).trials() == [PLAIN]


def test_a_closed_store_says_so(store: Store) -> None:
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.trials()
    with pytest.raises(StoreError, match="closed"):
        store.add(PLAIN)


@pytest.mark.parametrize("contents", [b"not a database at all, but long enough to look at" * 50, b"\0" * 8192])
def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "trials.sqlite"
    path.write_bytes(contents)
    with pytest.raises(StoreError, match="Move it away"):
        Store(path)
    assert path.read_bytes() == contents


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "trials.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE trials (id INTEGER)")
    database.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        Store(path)
    assert path.read_bytes() == before


def test_a_newer_schema_is_left_alone(store: Store) -> None:
    store.close()
    with sqlite3.connect(store.path) as database:
        database.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    database.close()
    with pytest.raises(StoreError, match=f"schema {SCHEMA + 1}.*Update tilesmith"):
        Store(store.path)


def test_damage_in_the_middle_is_reported(store: Store) -> None:
    for _ in range(200):
        store.add(FULL)
    store.close()
    data = bytearray(store.path.read_bytes())
    data[4096 * 4 :] = os.urandom(len(data) - 4096 * 4)
    store.path.write_bytes(data)
    with pytest.raises(StoreError, match="damaged"):
        Store(store.path).trials()


def test_a_record_that_is_no_trial_is_reported(store: Store) -> None:
    store.add(PLAIN)
    store.close()
    with sqlite3.connect(store.path) as database:
        database.execute("""UPDATE trials SET record = '{"shape": {}}'""")
    database.close()
    with pytest.raises(StoreError, match="no trial"):
        Store(store.path).trials()


def test_the_file_says_whose_it_is(store: Store) -> None:
    with sqlite3.connect(store.path) as database:
        assert database.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()


def test_what_is_read_only_can_be_read() -> None:
    with unprivileged_folder() as folder:
        path = folder / "store" / "trials.sqlite"
        with Store(path) as store:
            store.add(PLAIN)
        path.chmod(0o444)
        path.parent.chmod(0o555)
        drop_privileges()
        with Store(path) as store:
            assert store.read_only
            assert store.trials() == [PLAIN]
            with pytest.raises(StoreError, match=r"cannot write to the store.*read-only"):
                store.add(FULL)
            assert store.trials() == [PLAIN]


def test_a_read_only_file_in_a_writable_folder_can_be_read() -> None:
    with unprivileged_folder() as folder:
        folder.chmod(0o777)
        path = folder / "trials.sqlite"
        with Store(path) as store:
            store.add(PLAIN)
        path.chmod(0o444)
        drop_privileges()
        with Store(path) as store:
            assert store.trials() == [PLAIN]
            with pytest.raises(StoreError, match="read-only"):
                store.add(FULL)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user, whom only root can become")
def test_a_reader_without_permission_sees_what_another_user_is_writing() -> None:
    with unprivileged_folder() as folder:
        path = folder / "trials.sqlite"
        with Store(path) as writer:
            writer.add(PLAIN)
            drop_privileges()
            reader = Store(path)
            assert reader.read_only
            assert reader.trials() == [PLAIN]
            os.seteuid(0)
            writer.add(FULL)
            assert reader.trials() == [PLAIN, FULL]
            reader.close()


def test_without_a_file_and_permission_to_make_one_it_is_empty() -> None:
    with unprivileged_folder() as folder:
        folder.chmod(0o555)
        drop_privileges()
        store = Store(folder / "new" / "trials.sqlite")
        assert store.read_only
        assert store.trials() == []
        assert store.find("s1", "h200", SHAPE) is None
        with pytest.raises(StoreError, match="Permission denied"):
            store.add(PLAIN)


def test_a_folder_in_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Is a directory"):
        Store(tmp_path)


class Interrupted:
    """A connection on which Ctrl-C arrives just before a trial is committed."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if statement == "COMMIT":
            raise KeyboardInterrupt
        return self._database.execute(statement, *values)


def test_an_interrupt_leaves_no_lock_behind(store: Store) -> None:
    database = store._database
    assert database is not None
    store._database = Interrupted(database)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        store.add(PLAIN)
    store._database = database
    with Store(store.path) as other:
        other.add(FULL)
    store.add(PLAIN)
    assert store.trials() == [FULL, PLAIN]


WRITER = """
import sys
from pathlib import Path
from kernelgen.records.store import Store
from trials import FULL
with Store(Path(sys.argv[1])) as store:
    for number in range(int(sys.argv[2])):
        store.add(FULL.replace(source_hash=f"{sys.argv[3]}-{number}"))
        print(number, flush=True)
"""


def test_several_processes_write_at_once_into_a_new_store(tmp_path: Path) -> None:
    path = tmp_path / "new" / "trials.sqlite"
    writers = [start(WRITER, path, 25, name) for name in "abcd"]
    for writer in writers:
        writer.communicate(timeout=120)
    assert [writer.returncode for writer in writers] == [0] * 4
    hashes = [trial.source_hash for trial in Store(path).trials()]
    assert sorted(hashes) == sorted(f"{name}-{number}" for name in "abcd" for number in range(25))


def test_a_kill_in_the_middle_loses_nothing_that_was_added(tmp_path: Path) -> None:
    path = tmp_path / "trials.sqlite"
    total = 0
    for turn, delay in enumerate((0.002, 0.017, 0.04)):
        writer = start(WRITER, path, 1_000_000, turn)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "0\n"
        time.sleep(delay)
        writer.kill()
        output, _ = writer.communicate()
        assert writer.returncode == -signal.SIGKILL
        acknowledged = 1 + len([line for line in output.splitlines(keepends=True) if line.endswith("\n")])
        with Store(path) as store:
            kept = store.trials()[total:]
            total += len(kept)
        # One more may be on the disk: added, and killed before saying so.
        assert [trial.source_hash for trial in kept] == [f"{turn}-{number}" for number in range(len(kept))]
        assert acknowledged <= len(kept) <= acknowledged + 1
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


FULL_DISK = """
import resource, sys
from pathlib import Path
from kernelgen.errors import StoreError
from kernelgen.records.store import Store
from trials import FULL
store = Store(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
added = 0
try:
    while added < 10_000:
        store.add(FULL)
        added += 1
except StoreError as error:
    print(added, len(store.trials()))
    print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    store.add(FULL)
"""


def test_a_full_disk_keeps_what_was_added_and_recovers(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the full disk: both make SQLite's write fail in the middle."""
    path = tmp_path / "trials.sqlite"
    process = start(FULL_DISK, path)
    output, _ = process.communicate(timeout=120)
    counts, message = output.split("\n", 1)
    added, readable = map(int, counts.split())
    assert added == readable > 10
    assert "cannot write to the store" in message
    assert "Free some space" in message
    assert process.returncode == 0
    assert len(Store(path).trials()) == added + 1


def test_a_full_database_is_reported_in_words(store: Store) -> None:
    """SQLite's own limit on pages gives the very error of a full disk."""
    store.add(PLAIN)
    assert store._database is not None
    (pages,) = store._database.execute("PRAGMA page_count").fetchone()
    store._database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match=r"the disk is full\. Free some space"):  # noqa: PT012
        for _ in range(100):
            store.add(FULL)
    before = store.trials()
    store._database.execute("PRAGMA max_page_count = 100000")
    store.add(FULL)
    assert store.trials() == [*before, FULL]
