"""The C++ core, where it was built."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def load_core() -> Any:
    """The C++ core, or None where it was not built."""
    try:
        from constrint import _core_native
    except ImportError:
        return None
    from constrint import native  # noqa: F401  (it is needed with the core, and loads with it)

    return _core_native


def has_core() -> bool:
    """Whether the C++ core was built; without it the Python engine answers."""
    return load_core() is not None
