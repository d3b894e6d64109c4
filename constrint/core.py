"""The C++ core, where it was built."""

from __future__ import annotations

import hashlib
import importlib
import warnings
from functools import cache
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent / "_core"
"""What the core is built from. A checkout has it; an installed package does not."""


def sources_digest(folder: Path) -> str:
    """Names the sources of a core, their names and contents (sha256, hexadecimal); setup.py builds it into the core."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".cpp", ".hpp"))
    parts = [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@cache
def load_core() -> Any:
    """The C++ core; None where it was not built and, with a warning, where it was built from other sources."""
    try:
        core: Any = importlib.import_module("constrint._core_native")
    except ImportError:
        return None
    from constrint import native  # noqa: F401  (it is needed with the core, and loads with it)
    from constrint.program import Op

    if max(Op) != core.LAST_OP or (SOURCES.is_dir() and getattr(core, "SOURCES", "") != sources_digest(SOURCES)):
        warnings.warn(
            "constrint's C++ core was built from other sources than these and is not used: the Python engine answers, "
            "slower. Build it anew: python setup.py build_ext --inplace, or pip install .",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return core


def has_core() -> bool:
    """Whether the C++ core was built; without it the Python engine answers."""
    return load_core() is not None
