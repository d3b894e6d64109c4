"""When warps poll: the ways that are tried, and what they save.

A poll that comes too early costs as long as it takes to ask again, and many that ask for words on their way hold these
up (docs/lab/grid_forward.md, sections 4 to 6, and grid_backward.md, 3). Clocks were measured on an H200, 2026-11-27 and
2026-11-28.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kernelgen.schedules.grid.traffic import beyond_an_exchange

AT_ONCE = -1
"""As a pause: a warp does not wait until its block has sent."""

FORWARD: Mapping[tuple[int, int, int], tuple[float, int]] = {
    (0, AT_ONCE, 0): (0.0, 0),
    (0, 0, 200): (1.0, 400),
    (1, 100, 0): (1.35, 540),
    (2, 100, 0): (1.35, 540),
}
"""Of step_warps, pause and owner_pause what is tried. How much that saves of the clocks that L2 takes beyond an
exchange, and how many at most."""

BACKWARD: Mapping[tuple[int, int], tuple[float, int]] = {
    (AT_ONCE, 0): (0.0, 0),
    (AT_ONCE, 200): (0.4, 160),
    (0, 200): (0.45, 160),
}
"""The same of pause and owner_pause. (0, 200) is faster at 1 x 768 alone."""

PACING = 40
"""Clocks that pauses cost."""


def saved_forward(loaded: int, step_warps: int, pause: int, owner_pause: int) -> float:
    """Clocks less of a step in which all blocks together load ``loaded`` bytes; less than none where that is little."""
    gain, most = FORWARD.get((step_warps, pause, owner_pause), (0.0, 0))
    return _saved(loaded, gain, most, PACING)


def saved_backward(loaded: int, pause: int, owner_pause: int) -> float:
    """The same of a step backward."""
    gain, most = BACKWARD.get((pause, owner_pause), (0.0, 0))
    return _saved(loaded, gain, most, gain * PACING)


def _saved(loaded: int, gain: float, most: int, cost: float) -> float:
    return min(gain * beyond_an_exchange(loaded) - cost, most) if gain else 0.0


def values_of(ways: Iterable[tuple[int, ...]], column: int) -> list[int]:
    """The values of one of the variables of FORWARD or BACKWARD."""
    return sorted({way[column] for way in ways})
