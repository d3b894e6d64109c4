"""Other processes and other users, for tests of what happens when things go wrong."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOBODY = 65534


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start another Python that runs ``code`` and finds all modules that this one does; its output is piped as text."""
    command = [sys.executable, "-c", code, *(str(argument) for argument in arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


@contextlib.contextmanager
def unprivileged_folder() -> Iterator[Path]:
    """A folder outside pytest's own, which other users cannot enter; the end undoes drop_privileges and chmod."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    root = os.geteuid() == 0
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        for place in [folder, *folder.rglob("*")]:
            place.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)


def drop_privileges() -> None:
    """Be nobody from here on, if we were root, whom no permission stops."""
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
