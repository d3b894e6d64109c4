"""The C++ core, where it was built."""

from __future__ import annotations

import importlib
import warnings
from functools import cache
from typing import Any


@cache
def load_core() -> Any:
    """The C++ core; None where it was not built and, with a warning, where it was built from other sources."""
    try:
        core: Any = importlib.import_module("constrint._core_native")
    except ImportError:
        return None
    from constrint import native  # noqa: F401  (it is needed with the core, and loads with it)
    from constrint.program import Op

    if max(Op) != core.LAST_OP:
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
