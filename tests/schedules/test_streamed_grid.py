"""The streamed grid schedule: every tile variable in the emulator, where it is chosen and what it refuses."""

from __future__ import annotations

import pytest

from kernelgen.cells import load_cell
from kernelgen.hardware.profile import load_profile
from kernelgen.program.shape import Shape
from kernelgen.schedules import get
from kernelgen.verify.validate import validate_emulated

SEQ = 5

TILING = {
    "blocks": 4,
    "batch_tile": 8,
    "epilogue_rows": 8,
    "k_split": 2,
    "in_registers": 0,
    "stationary": 1,
    "kept": 0,
    "ring": 3,
    "num_stages": 2,
    "pause": 0,
}
OF_16 = {"batch_tile": 16, "epilogue_rows": 8}


def check(cell: str, shape: Shape, changed: dict[str, int], gpu: str = "h200", seeds: int = 2) -> None:
    """Emulate a tiling; raises where a fault is found or the result is off."""
    definition, profile = load_cell(cell), load_profile(gpu)
    tiling = get("streamed_grid").tiling(definition, shape, profile, TILING | changed)
    validation = validate_emulated(definition, shape, tiling, profile, range(seeds), seq=SEQ)
    assert validation.errors
    assert all(error <= validation.tolerance for error in validation.errors.values())


CASES = [
    pytest.param("lstm", Shape(5, SEQ, 1, 128, save="gates"), {"blocks": 8}, id="one piece stays"),
    pytest.param("lstm", Shape(9, SEQ, 1, 256), OF_16 | {"k_split": 4, "blocks": 16}, id="16 sequences"),
    pytest.param(
        "gru",
        Shape(3, SEQ, 1, 192, save="gates"),
        {"blocks": 8, "k_split": 3, "in_registers": 2, "kept": 1},
        id="in registers too",
    ),
    pytest.param(
        "slstm",
        Shape(3, SEQ, 1, 256, "float16", "states"),
        {"blocks": 8, "k_split": 4, "in_registers": 5, "stationary": 0, "kept": 3},
        id="in registers alone",
    ),
    pytest.param(
        "lstm",
        Shape(3, SEQ, 1, 320, save="gates"),
        {"blocks": 20, "in_registers": 3, "stationary": 2, "ring": 5, "pause": 100},
        id="parts of pairs",
    ),
    pytest.param("elman", Shape(3, SEQ, 1, 200), {"blocks": 9, "k_split": 3, "ring": 2}, id="an odd number of halves"),
    pytest.param(
        "gru", Shape(18, 4, 2, 100, save="states"), OF_16 | {"blocks": 5, "epilogue_rows": 16, "k_split": 3}, id="of 4s"
    ),
    pytest.param("lstm", Shape(7, SEQ, 1, 130), {"blocks": 9, "stationary": 3}, id="of 2s"),
    pytest.param("slstm", Shape(2, SEQ, 2, 133, save="gates"), {"blocks": 9, "in_registers": 1}, id="odd units"),
    pytest.param(
        "lstm",
        Shape(15, SEQ, 1, 192),
        OF_16 | {"blocks": 12, "epilogue_rows": 4, "k_split": 8, "num_stages": 4, "stationary": 0, "ring": 8},
        id="four sequences a warp that steps",
    ),
    pytest.param(
        "elman", Shape(33, 3, 1, 96), {"batch_tile": 32, "epilogue_rows": 32, "k_split": 3}, id="32 sequences"
    ),
    pytest.param(
        "gru", Shape(1, 1, 1, 128), {"blocks": 8, "in_registers": 1, "stationary": 0, "kept": 1}, id="one step"
    ),
    pytest.param("lstm", Shape(3, SEQ, 1, 128), {"blocks": 8, "stationary": 4}, id="nothing comes"),
]


@pytest.mark.emulated
@pytest.mark.parametrize(("cell", "shape", "changed"), CASES)
def test_every_tile_variable_is_right(cell: str, shape: Shape, changed: dict[str, int]) -> None:
    check(cell, shape, changed)


@pytest.mark.emulated
@pytest.mark.parametrize(("cell", "shape", "changed"), CASES[1::4])
def test_it_is_right_without_stmatrix(cell: str, shape: Shape, changed: dict[str, int]) -> None:
    check(cell, shape, changed, "a100-80gb", 1)


@pytest.mark.emulated
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_sequences_end_and_begin_anew(cell: str) -> None:
    shape = Shape(11, 6, 1, 192, save="gates", resets=True, lengths=True)
    check(cell, shape, {"blocks": 12, "k_split": 4, "in_registers": 1, "kept": 1} | OF_16)
