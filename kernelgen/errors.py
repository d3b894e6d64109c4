"""The exceptions of tilesmith: one base class, one subclass for each stage.

Every message says what was asked, what failed (with numbers) and what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class TilesmithError(Exception):
    """Base of every error tilesmith raises on purpose. The command line prints it and exits with status 2."""


class ShapeError(TilesmithError):
    """A shape that makes no sense: a size that is no positive integer, or an unknown dtype."""


class CellError(TilesmithError):
    """A cell that cannot be found, loaded or expressed in the cell language."""


class NotFiniteError(CellError):
    """A cell whose float64 reference is NaN or infinite for random inputs: nothing a kernel could be compared with."""


class ProfileError(TilesmithError):
    """A GPU profile that cannot be found or read."""


class InfeasibleError(TilesmithError):
    """No tiling satisfies the limits; the message names the limits that clash."""


class CompileError(TilesmithError):
    """The compiler refused a source; ``log`` is what it printed."""

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log


class EmulationError(TilesmithError):
    """The emulator caught a fault: out of bounds, a race, a deadlock, a read of unwritten memory."""


class ValidationError(TilesmithError):
    """A kernel's result differs from the reference by more than the tolerance."""


class LaunchError(TilesmithError):
    """A kernel could not be loaded or launched."""


class ConfigError(TilesmithError):
    """A tuned configuration (YAML) that cannot be read or used."""


class StoreError(TilesmithError):
    """The store of trials or the compile cache cannot be written or read."""


def either(names: Sequence[str]) -> str:
    """Names as a choice: a, b or c."""
    return " or ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def near_names(asked: str, known: Iterable[str]) -> str:
    """Return a hint for a misspelt name: the nearest known names, or all of them where none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(asked.lower(), names, n=3, cutoff=0.5)
    if not near:
        return f"known: {', '.join(names)}"
    return f"did you mean {either(near)}?"
