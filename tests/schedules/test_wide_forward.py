"""The wide schedule's forward pass in the emulator: every tile variable, among them where a block keeps its own h."""

from __future__ import annotations

import pytest

from kernelgen.cells import load_cell
from kernelgen.hardware.profile import load_profile
from kernelgen.program.shape import Shape
from kernelgen.schedules import get
from kernelgen.verify.validate import validate_emulated

pytestmark = pytest.mark.emulated

H200 = load_profile("h200")
WIDE = {"blocks": 4, "units_per_warp": 8, "batch_tile": 16, "turns": 1} | {
    "k_tiles_in_registers": 2, "k_parts": 4, "num_stages": 1
}  # fmt: skip


@pytest.mark.parametrize(
    ("cell", "shape", "changed"),
    [
        pytest.param("lstm", Shape(20, 6, 1, 128), {}, id="a block keeps its own h"),
        pytest.param("lstm", Shape(18, 5, 1, 128, save="gates"), {}, id="results lie where it would be"),
        pytest.param(
            "gru", Shape(33, 6, 2, 96, "float16"), {"blocks": 3, "batch_tile": 32, "k_parts": 2}, id="two heads"
        ),
        pytest.param(
            "lstm",
            Shape(9, 4, 1, 256, save="gates"),
            {"blocks": 8, "k_parts": 2},
            id="results where all others' h comes",
        ),
        pytest.param("lstm", Shape(9, 7, 1, 128), {"k_parts": 1, "num_stages": 2}, id="one part of K, two stages"),
        pytest.param("slstm", Shape(20, 6, 1, 192, save="states"), {"blocks": 3, "k_parts": 2}, id="two warpgroups"),
        pytest.param("lstm", Shape(7, 6, 1, 64), {"blocks": 1, "k_tiles_in_registers": 0}, id="a block has the head"),
        pytest.param(
            "lstm",
            Shape(20, 6, 1, 128),
            {"units_per_warp": 16, "blocks": 2, "k_tiles_in_registers": 8},
            id="16 units a warp",
        ),
        pytest.param(
            "lstm", Shape(40, 6, 1, 64), {"blocks": 2, "batch_tile": 32, "turns": 2, "num_stages": 2}, id="turns"
        ),
        pytest.param(
            "lstm",
            Shape(40, 5, 1, 64, save="gates"),
            {"blocks": 2, "batch_tile": 32, "turns": 2, "num_stages": 2, "k_parts": 1},
            id="turns of one part",
        ),
        pytest.param("lstm", Shape(20, 9, 1, 128, resets=True, lengths=True), {}, id="sequences of their own"),
    ],
)
def test_every_tile_variable_is_right(cell: str, shape: Shape, changed: dict[str, int]) -> None:
    tiling = get("wide").tiling(load_cell(cell), shape, H200, WIDE | changed)
    validation = validate_emulated(load_cell(cell), shape, tiling, H200, range(2), seq=shape.seq)
    assert validation.errors
    assert all(error <= validation.tolerance for error in validation.errors.values())
