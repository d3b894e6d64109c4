"""The compile cache: what its keys depend on, and that nothing which happens to its folder does harm."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from processes import drop_privileges, start, unprivileged_folder

from kernelgen.build import cache as caching
from kernelgen.build.cache import Cache, binary_key, headers_digest, source_hash, write_together
from kernelgen.program.source import Source

pytestmark = pytest.mark.unit

KEY = "ab" * 32
RECORD = {"entry": "kernel", "seconds": 0.25}
PAYLOAD = bytes(range(256)) * 40 + b"\n\n"


@pytest.fixture
def headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An include path of our own: a.cuh includes parts/b.cuh, which includes its neighbour c.cuh."""
    root = tmp_path / "include"
    (root / "parts").mkdir(parents=True)
    (root / "a.cuh").write_text('#pragma once\n  #  include "parts/b.cuh"\n')
    (root / "parts" / "b.cuh").write_text('#include "c.cuh"\n#include <a.cuh>\n')
    (root / "parts" / "c.cuh").write_text("struct C {};\n")
    (root / "other.cuh").write_text("struct Other {};\n")
    monkeypatch.setattr(caching, "cuda_headers", lambda: root)
    return root


def key(
    text: str = '#include "a.cuh"\n', entry: str = "k", arch: str = "sm_80", flags: str = "-O3", nvrtc: str = "1"
) -> str:
    return binary_key(Source(text, entry, arch), [flags], nvrtc)


def test_the_key_depends_on_everything_that_shapes_the_binary(headers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [
        key(),
        key(text='#include "a.cuh"\n\n'),
        key(entry="l"),
        key(arch="sm_90a"),
        key(flags="-O2"),
        key(nvrtc="2"),
    ]
    for name in ("a.cuh", "parts/b.cuh", "parts/c.cuh"):
        with (headers / name).open("a") as file:
            file.write("// changed\n")
        keys.append(key())
    monkeypatch.setattr(caching, "CACHE_SCHEMA", caching.CACHE_SCHEMA + 1)
    keys.append(key())
    assert len(set(keys)) == len(keys)


def test_the_key_depends_on_nothing_else(headers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    (headers / "other.cuh").write_text("struct Other { int changed; };\n")
    assert key() == before
    moved = tmp_path / "elsewhere"
    shutil.copytree(headers, moved)
    monkeypatch.setattr(caching, "cuda_headers", lambda: moved)
    assert key() == before


def test_a_header_that_moves_between_names_is_noticed(headers: Path) -> None:
    before = key()
    a, c = (headers / "a.cuh").read_text(), (headers / "parts" / "c.cuh").read_text()
    (headers / "a.cuh").write_text(a + c)
    (headers / "parts" / "c.cuh").write_text("")
    assert key() != before


def test_an_include_of_a_macro_takes_in_every_header(headers: Path) -> None:
    text = "#define FILE_NAME <other.cuh>\n#include FILE_NAME\n"
    before = headers_digest(text, headers)
    (headers / "other.cuh").write_text("struct Other { int changed; };\n")
    assert headers_digest(text, headers) != before


def test_a_header_is_read_again_when_it_has_changed_and_only_then(
    headers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path.name) or read_bytes(path))
    text = '#include "a.cuh"\n'
    headers_digest(text, headers)
    assert headers_digest(text, headers) == headers_digest(text, headers)
    assert len(read) == 9  # whatever was written a moment ago may be written again without its times telling

    monkeypatch.setattr(caching, "_SETTLED_SECONDS", -3600.0)
    before = headers_digest(text, headers)
    read.clear()
    assert headers_digest(text, headers) == before
    assert read == []
    (headers / "parts" / "c.cuh").write_text("struct Another {};\n")
    assert headers_digest(text, headers) != before
    assert read == ["c.cuh"]
    (headers / "parts" / "c.cuh").unlink()
    assert headers_digest(text, headers) != before


def test_headers_of_the_compiler_and_missing_ones_are_no_matter(headers: Path) -> None:
    assert headers_digest('#include <vector>\n#include "absent.cuh"\n', headers) == headers_digest("", headers)


def test_the_source_hash_leaves_the_compiler_out(headers: Path) -> None:
    source = Source('#include "a.cuh"\n', "k", "sm_80")
    before = source_hash(source)
    assert source_hash(Source(source.text, "k", "sm_80")) == before
    (headers / "parts" / "c.cuh").write_text("struct D {};\n")
    assert source_hash(source) != before


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "new" / "folder")
    assert cache.load(KEY) is None
    assert cache.save(KEY, RECORD, PAYLOAD)
    assert Cache(cache.root).load(KEY) == (RECORD, PAYLOAD)
    assert cache.load("cd" * 32) is None


def damaged(whole: bytes) -> dict[str, bytes]:
    middle = len(whole) // 2
    return {
        "one bit": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "truncated": whole[:middle],
        "longer": whole + b"x",
        "empty": b"",
        "zeros": bytes(len(whole)),
        "foreign": b"\x7fELF" + whole,
        "of another schema": whole.replace(b"tilesmith-cache 1 ", b"tilesmith-cache 0 ", 1),
    }


@pytest.mark.parametrize("how", sorted(damaged(b"x")))
def test_a_damaged_entry_is_a_miss_and_is_replaced(tmp_path: Path, how: str) -> None:
    cache = Cache(tmp_path)
    cache.save(KEY, RECORD, PAYLOAD)
    whole = cache.path(KEY).read_bytes()
    cache.path(KEY).write_bytes(damaged(whole)[how])
    assert cache.load(KEY) is None
    assert cache.save(KEY, RECORD, PAYLOAD)
    assert cache.load(KEY) == (RECORD, PAYLOAD)


def test_an_entry_under_another_name_is_not_believed(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.save(KEY, RECORD, PAYLOAD)
    other = KEY[:-1] + "0"
    shutil.copy(cache.path(KEY), cache.path(other))
    assert cache.load(other) is None


def test_a_read_only_cache_still_serves_and_complains_once(caplog: pytest.LogCaptureFixture) -> None:
    with unprivileged_folder() as folder, caplog.at_level(logging.WARNING):
        cache = Cache(folder / "cache")
        cache.save(KEY, RECORD, PAYLOAD)
        for place in (cache.root / KEY[:2], cache.root):
            place.chmod(0o555)
        drop_privileges()
        assert cache.load(KEY) == (RECORD, PAYLOAD)
        assert not cache.save(KEY, RECORD, b"new")
        assert not cache.save("cd" * 32, RECORD, b"new")
        assert cache.load(KEY) == (RECORD, PAYLOAD)
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert str(cache.root) in warnings[0]
    assert "TILESMITH_CACHE" in warnings[0]


def test_a_cache_that_cannot_be_read_is_a_miss(caplog: pytest.LogCaptureFixture) -> None:
    with unprivileged_folder() as folder, caplog.at_level(logging.WARNING):
        cache = Cache(folder / "cache")
        cache.save(KEY, RECORD, PAYLOAD)
        cache.root.chmod(0o000)
        drop_privileges()
        assert cache.load(KEY) is None
        assert not cache.save(KEY, RECORD, PAYLOAD)
    assert len(caplog.records) == 1


def test_a_file_where_the_folder_should_be_is_harmless(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = Cache(tmp_path / "file" / "cache")
    assert cache.load(KEY) is None
    assert not cache.save(KEY, RECORD, PAYLOAD)
    assert len(caplog.records) == 1


FULL = """
import resource, sys
from pathlib import Path
from kernelgen.build.cache import Cache
cache = Cache(Path(sys.argv[1]))
assert cache.save("ab" * 32, {}, b"small")
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
print(cache.save("cd" * 32, {}, bytes(100000)), cache.save("ab" * 32, {}, bytes(100000)))
print(cache.load("ab" * 32)[1].decode(), cache.load("cd" * 32))
"""


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the full disk: both make a write fail in the middle."""
    process = start(FULL, tmp_path)
    output, _ = process.communicate(timeout=60)
    assert output.splitlines() == ["False False", "small None"]
    assert Cache(tmp_path).load(KEY) == ({}, b"small")
    assert not list(tmp_path.rglob("*.tmp"))


WRITER = """
import sys
from pathlib import Path
from kernelgen.build.cache import Cache
cache = Cache(Path(sys.argv[1]))
print("ready", flush=True)
for turn in range(int(sys.argv[2])):
    assert cache.save("ab" * 32, {"turn": turn}, bytes([turn % 251]) * 200000)
    assert cache.load("ab" * 32) is not None
"""


def assert_whole(cache: Cache) -> None:
    entry = cache.load(KEY)
    assert entry is not None
    record, payload = entry
    assert payload == bytes([record["turn"] % 251]) * 200000


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.save(KEY, {"turn": 0}, bytes(200000))
    writers = [start(WRITER, tmp_path, 40) for _ in range(2)]
    while any(writer.poll() is None for writer in writers):
        assert_whole(cache)
    assert [writer.wait() for writer in writers] == [0, 0]
    for writer in writers:
        writer.communicate()
    assert_whole(cache)


def test_a_kill_in_the_middle_leaves_a_whole_entry(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.save(KEY, {"turn": 0}, bytes(200000))
    for delay in (0.003, 0.011, 0.026, 0.05):
        writer = start(WRITER, tmp_path, 1_000_000)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(delay)
        writer.kill()
        writer.communicate()
        assert writer.returncode == -signal.SIGKILL
        assert_whole(cache)


def test_what_a_killed_process_left_is_swept_away(tmp_path: Path) -> None:
    (tmp_path / "ab").mkdir()
    old, young = tmp_path / "ab" / ".x.1.tmp", tmp_path / "ab" / ".x.2.tmp"
    for file in (old, young):
        file.write_bytes(b"part")
    long_ago = time.time() - 2 * 3600
    os.utime(old, (long_ago, long_ago))
    Cache(tmp_path).save(KEY, RECORD, PAYLOAD)
    assert not old.exists()
    assert young.exists()


def test_files_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.write_bytes(b"old")
    with pytest.raises(OSError, match="absent"):
        write_together([(first, b"new"), (tmp_path / "absent" / "second", b"new")])
    assert first.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["first"]


def test_folders_are_private_and_what_another_may_have_written_is_not_believed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(tmp_path / "new" / "cache")
    cache.save(KEY, RECORD, PAYLOAD)
    for folder in (tmp_path / "new", cache.root, cache.path(KEY).parent):
        assert folder.stat().st_mode & 0o777 == 0o700
    cache.path(KEY).chmod(0o666)
    assert cache.load(KEY) is None
    (record,) = caplog.records
    assert "anybody may write to it" in record.getMessage()
    cache.save(KEY, RECORD, PAYLOAD)
    assert cache.load(KEY) == (RECORD, PAYLOAD)
    if os.geteuid() == 0:
        os.chown(cache.path(KEY), 12345, 12345)
        assert cache.load(KEY) is None
