"""Where the files that are not Python lie: the CUDA headers, the GPU profiles, the user's cache."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _resource(name: str) -> Path:
    """Find a resource folder: inside the package (a wheel), or beside it (a checkout, an editable install)."""
    for folder in (_PACKAGE / name, _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"tilesmith is incomplete: no folder {name!r} in {_PACKAGE} or beside it")


def cuda_headers() -> Path:
    """The folder of the device headers, for the compiler's include path."""
    return _resource("cuda")


def profiles() -> Path:
    """The folder of the GPU profiles that come with tilesmith."""
    return _resource("profiles")


def cache_root() -> Path:
    """The user's cache: ``$TILESMITH_CACHE``, else ``$XDG_CACHE_HOME/tilesmith``, else ``~/.cache/tilesmith``.

    Nothing is created here; whoever writes creates what it needs.
    """
    explicit = os.environ.get("TILESMITH_CACHE")
    if explicit:
        return Path(explicit)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tilesmith"


def private_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing, for this user alone. Raises OSError."""
    if not path.is_dir():
        if path.parent != path:
            private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
