"""The on-disk cache of compiled kernels, and the hashes that name a source and its binary.

A cache may be lost, read-only, full or damaged at any moment without any harm but time: what cannot be read is a
miss, what cannot be written is compiled again next time, and the first such failure is logged once.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import logging
import os
import re
import stat
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernelgen.paths import cache_root, cuda_headers, private_folder

if TYPE_CHECKING:
    from kernelgen.program.program import Program
    from kernelgen.program.source import Source

CACHE_SCHEMA = 1
"""Raise it whenever an entry's contents or the meaning of a key changes."""

_log = logging.getLogger(__name__)
_MAGIC = b"tilesmith-cache"
_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]+(?:([\"<])([^\">\n]+)[\">]|(\w+))", re.MULTILINE)
_STALE_SECONDS = 3600.0
_SETTLED_SECONDS = 2.0
"""A file that changed later than so long ago may change again under the same times."""

_headers: dict[str, tuple[tuple[int, ...], tuple[str, list[tuple[str, str, str]]]]] = {}


def write_together(files: Sequence[tuple[Path, bytes]]) -> None:
    """Write files that are each either whole or not there: temporaries beside them, fsync, then renames in order.

    No file is replaced before all the bytes are on the disk, so a full disk leaves every file as it was; a kill
    between two renames leaves the first ones new. Whoever reads meanwhile sees old or new contents, never parts.
    Raises OSError; no temporary is left then.
    """
    staged: list[tuple[Path, Path]] = []
    try:
        for path, data in files:
            temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
            staged.append((temporary, path))
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for temporary, path in staged:
            temporary.replace(path)
    except BaseException:
        for temporary, _ in staged:
            temporary.unlink(missing_ok=True)
        raise
    for folder in {path.parent for path, _ in files}:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def headers_digest(text: str, root: Path) -> str:
    """Hash every header that ``text`` may include, directly or through another header (sha256, hexadecimal).

    root: the include path. A header is looked for beside the file that includes it, then in ``root``; branches that
    the preprocessor would skip count too. Names outside ``root`` (the compiler's own headers) come with the compiler
    and are covered by its version. An include of a macro cannot be followed, so it takes in every file of ``root``.
    """
    found: dict[str, str] = {}
    seen: set[str] = set()

    def visit(includes: Sequence[tuple[str, str, str]], folder: str) -> None:
        for quote, name, macro in includes:
            if macro:
                for file in sorted(file for file in root.rglob("*") if file.is_file()):
                    take(str(file))
            else:
                places = (folder, str(root)) if quote == '"' else (str(root),)
                any(take(_joined(place, name)) for place in places)

    def take(path: str) -> bool:
        """Whether there is such a header; it is then among those found."""
        if path in seen:
            return True
        if (header := _header(path)) is None:
            return False
        seen.add(path)
        digest, includes = header
        found[_relative(path, str(root))] = digest
        visit(includes, os.path.dirname(path))  # noqa: PTH120
        return True

    visit(_INCLUDE.findall(text), str(root))
    return _digest(sorted(found.items()))


@functools.cache
def _joined(place: str, name: str) -> str:
    return os.path.normpath(os.path.join(place, name))  # noqa: PTH118


@functools.cache
def _relative(path: str, root: str) -> str:
    return os.path.relpath(path, root)


def _header(path: str) -> tuple[str, list[tuple[str, str, str]]] | None:
    """The hash of a file and what it includes, from before where the file has not changed; None for no file.

    Strings and not Path: dozens of headers are looked at for every kernel.
    """
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    signature = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    known = _headers.get(path)
    if known is not None and known[0] == signature:
        return known[1]
    read_at = time.time()
    data = Path(path).read_bytes()
    header = (hashlib.sha256(data).hexdigest(), _INCLUDE.findall(data.decode("utf-8", errors="replace")))
    if read_at - max(status.st_mtime, status.st_ctime) > _SETTLED_SECONDS:
        _headers[path] = (signature, header)
    return header


def source_hash(source: Source) -> str:
    """Name a source by all that the compiler reads: text, headers, entry, architecture (sha256, hexadecimal).

    It does not depend on the machine, the folder of the headers or the compiler.
    """
    return _digest([source.text, headers_digest(source.text, cuda_headers()), source.entry, source.arch])


def program_hash(program: Program) -> str:
    """Name a program by the sources of its calls, and a library's products: of one call, that source's hash."""
    hashes = [source_hash(call.source) for call in program.calls] + [repr(product) for product in program.library]
    return hashes[0] if len(hashes) == 1 else _digest(hashes)


def binary_key(source: Source, flags: Sequence[str], compiler: str) -> str:
    """Name the binary that ``compiler``, started with ``flags``, makes of ``source`` (sha256, hexadecimal)."""
    return _digest([CACHE_SCHEMA, source_hash(source), list(flags), compiler])


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


class Cache:
    """A folder of entries, one file for each key, safe to share between threads and processes.

    root: the folder; by default ``cubin`` in the user's cache. Nothing is created before the first write, and no
    method raises when the folder cannot be used.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = cache_root() / "cubin" if root is None else root
        self._lock = threading.Lock()
        self._warned = False
        self._swept = False

    def path(self, key: str) -> Path:
        """The file that holds the entry of ``key``, whether or not it exists."""
        return self.root / key[:2] / key

    def load(self, key: str) -> tuple[dict[str, Any], bytes] | None:
        """Return the record and the bytes saved under ``key``; None where there are none or they are damaged."""
        try:
            with self.path(key).open("rb") as file:
                _check_owner(file.fileno())
                contents = file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self._warn("read", error)
            return None
        head, _, body = contents.partition(b"\n")
        if head != _head(key, body):
            _log.info("cache entry %s is damaged or of another version; it will be replaced", self.path(key))
            return None
        record, _, payload = body.partition(b"\n")
        return json.loads(record), payload

    def save(self, key: str, record: Mapping[str, Any], payload: bytes) -> bool:
        """Keep ``record`` (JSON values) and ``payload`` under ``key``, replacing what is there.

        Returns whether it was kept; a failure is logged once for this cache and otherwise harmless.
        """
        body = json.dumps(dict(record)).encode() + b"\n" + payload
        path = self.path(key)
        try:
            private_folder(path.parent)
            self._sweep()
            write_together([(path, _head(key, body) + b"\n" + body)])
        except OSError as error:
            self._warn("write to", error)
            return False
        return True

    def _sweep(self) -> None:
        """Remove temporaries that a killed process left behind, once."""
        with self._lock:
            if self._swept:
                return
            self._swept = True
        for file in self.root.glob("*/.*.tmp"):
            try:
                if time.time() - file.stat().st_mtime > _STALE_SECONDS:
                    file.unlink()
            except OSError:
                continue  # another process was faster, or it is not ours to remove

    def _warn(self, what: str, error: OSError) -> None:
        with self._lock:
            if self._warned:
                return
            self._warned = True
        _log.warning(
            "cannot %s the compile cache %s (%s); going on without it. Free space, make it writable, or set "
            "TILESMITH_CACHE to another folder.",
            what,
            self.root,
            error.strerror or error,
        )


def _check_owner(file: int) -> None:
    """Raise PermissionError for an open file that somebody else may have written: what it holds would be run."""
    status = os.fstat(file)
    if status.st_uid not in (os.geteuid(), 0) or status.st_mode & stat.S_IWOTH:
        raise PermissionError(errno.EPERM, "an entry is another user's, or anybody may write to it")


def _head(key: str, body: bytes) -> bytes:
    """The first line of an entry: the key keeps a file that was copied to another name from being believed."""
    return b"%s %d %s %s" % (_MAGIC, CACHE_SCHEMA, key.encode(), hashlib.sha256(body).hexdigest().encode())
