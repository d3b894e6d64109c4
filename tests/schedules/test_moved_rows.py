"""The kernel that writes rows in another order, in the emulator, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kernelgen.errors import LaunchError
from kernelgen.hardware.profile import load_profile
from kernelgen.schedules.shared.moved_rows import MovedRows, kernel
from kernelgen.verify.emulator import emulate

SIZES = {"l": 2, "s": 3, "k": 2, "b": 3, "t": 5, "g": 4, "n": 2}


def of(source: str, to: str, row_bytes: int, *, reverses: bool = False, apart: bool = False, **sizes: int) -> MovedRows:
    return MovedRows({axis: (SIZES | sizes)[axis] for axis in to}, source, to, row_bytes, reverses, apart)


@pytest.mark.emulated
@pytest.mark.parametrize(
    "moved",
    [
        of("tb", "bt", 48),
        of("btk", "tbk", 16, reverses=True),
        of("btk", "tbk", 16, reverses=True, k=1),
        of("kbtg", "btgk", 12, reverses=True, apart=True),
        of("btgk", "btkg", 6, reverses=True),
        of("kg", "gk", 530, apart=True),  # more than a block copies
        of("k", "k", 34, apart=True),
        of("lsbk", "slkb", 10),
        of("gk", "nkg", 16),
    ],
    ids=lambda moved: f"{moved.source}-{moved.to}",
)
def test_rows_are_where_they_belong(moved: MovedRows) -> None:
    rng = np.random.default_rng(0)
    axes, sizes = moved.source, moved.sizes
    rows = rng.integers(0, 256, (*(sizes[axis] for axis in axes), moved.row_bytes), dtype=np.uint8)
    wanted = np.empty((*(sizes[axis] for axis in moved.to), moved.row_bytes), np.uint8)
    for place in np.ndindex(*wanted.shape[:-1]):
        there = dict(zip(moved.to, place, strict=True))
        if moved.reverses and there["k"]:
            there["t"] = sizes["t"] - 1 - there["t"]
        wanted[place] = rows[tuple(there[axis] for axis in axes)]
    source, launch, numbers = kernel(moved, load_profile("h200"))
    given: dict[str, Any] = {"from": rows, "second": None}
    if moved.apart:
        given = {"from": rows[0].copy(), "second": rows[1].copy()}
    found = np.empty_like(wanted)
    emulate(source, launch, {**given, "to": found, **numbers}, outputs=source.writes)
    assert np.array_equal(found, wanted)
    assert moved.changes == (moved.apart or not np.array_equal(rows.reshape(-1), wanted.reshape(-1)))


@pytest.mark.unit
def test_which_copies_change_nothing() -> None:
    assert not of("btk", "btk", 8, reverses=True, k=1).changes
    assert of("btk", "btk", 8, reverses=True, k=2).changes
    assert not of("kg", "gk", 8, apart=True, k=1).changes
    assert not of("tbk", "btk", 8, reverses=True, k=1, b=1).changes
    assert not of("kg", "gk", 8, g=0).changes


@pytest.mark.unit
def test_more_rows_than_are_counted_are_refused() -> None:
    with pytest.raises(LaunchError, match=r"2,147,483,648 rows .* smaller batch"):
        kernel(of("tb", "bt", 16, t=2**16, b=2**15), load_profile("h200"))
