"""Temporary folders that a killed process does not leave for ever: the next one that makes any removes them."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX = "tilesmith-"

YOUNG_SECONDS = 60.0
"""A folder younger than this may be one that its process has not locked yet."""

_LOCK = ".lock"


@contextlib.contextmanager
def temporary_folder(what: str) -> Iterator[Path]:
    """Make a folder of this user's alone, gone when the block ends. what: a word for its name. Raises OSError."""
    _sweep_once(tempfile.gettempdir())
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{what}-") as name:
        folder = Path(name)
        with (folder / _LOCK).open("w") as lock:
            with contextlib.suppress(OSError):  # a file system without locks: then it is never swept either
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield folder


@functools.cache
def _sweep_once(place: str) -> None:
    sweep(Path(place))


def sweep(place: Path) -> None:
    """Remove the folders below ``place`` that processes of this user left when they were killed.

    A living process holds a lock on a file in its folder, whatever container it runs in.
    """
    with contextlib.suppress(OSError):
        for folder in place.glob(f"{PREFIX}*"):
            if _abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _abandoned(folder: Path) -> bool:
    try:
        known = folder.lstat()
        if known.st_uid != os.geteuid() or time.time() - known.st_mtime < YOUNG_SECONDS or folder.is_symlink():
            return False
        with (folder / _LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:  # locked, not ours, or no folder of this kind
        return False
