"""What the benchmarks that need a GPU decide before they touch one."""

from __future__ import annotations

import pytest
from scripts import load_benchmark

from kernelgen.cells import load_cell
from kernelgen.hardware import load_profile

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("cell", ["lstm", "gru", "lstm_niaf"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_the_sanitizer_gets_kernels_of_every_kind(cell: str, direction: str) -> None:
    sanitizer, profile = load_benchmark("sanitizer"), load_profile("h200")
    found = {}
    for shape in sanitizer.SHAPES[direction]:
        sources = list(sanitizer._sources(load_cell(cell), shape, profile, direction))
        found[shape] = [tiling.values["batch_tile"] for tiling, _ in sources]
    assert all(tiles or (shape.recompute and shape.head_dim == 33) for shape, tiles in found.items()), found
    assert any(4 in tiles and max(tiles) >= 8 for tiles in found.values())
