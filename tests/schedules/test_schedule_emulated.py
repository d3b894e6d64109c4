"""Every schedule and every cell of the library on the CPU: the generated kernels against the float64 reference."""

from __future__ import annotations

import pytest
from drawn import drawn_tiling

from kernelgen.cells import cell_names, load_cell
from kernelgen.hardware.profile import load_profile
from kernelgen.program.shape import Shape
from kernelgen.program.tiling import Tiling
from kernelgen.schedules import get, schedule_names
from kernelgen.tuning.plan import plan
from kernelgen.verify.validate import validate_emulated

pytestmark = pytest.mark.emulated

GPU, WITHOUT_STMATRIX = "h200", "a100-80gb"
SEQ = 7


def emulate(cell: str, shape: Shape, tiling: Tiling, seeds: range = range(2), gpu: str = GPU) -> None:
    """Emulate a tiling; raises where a fault is found or the result is off."""
    validation = validate_emulated(load_cell(cell), shape, tiling, load_profile(gpu), seeds, seq=SEQ)
    assert validation.errors
    assert all(error <= validation.tolerance for error in validation.errors.values())


@pytest.mark.parametrize("cell", cell_names())
@pytest.mark.parametrize("schedule", schedule_names())
def test_the_models_choice_is_right(schedule: str, cell: str) -> None:
    shape = Shape(3, SEQ, 2, 32, "bfloat16", "gates")
    best = plan(load_cell(cell), shape, load_profile(GPU), top=1, schedules=[schedule])[0]
    emulate(cell, shape, best, range(2))


@pytest.mark.parametrize("cell", cell_names())
@pytest.mark.parametrize("schedule", schedule_names())
def test_a_tiling_drawn_from_the_problem_is_right(schedule: str, cell: str) -> None:
    shape = Shape(3, SEQ, 2, 32, "float16", "gates")
    emulate(cell, shape, drawn_tiling(schedule, cell, shape, GPU), range(2))


RESIDENT = {
    "units_per_warp": 8,
    "batch_tile": 8,
    "k_split": 1,
    "k_tiles_in_registers": 1,
    "accumulators": 1,
    "num_stages": 3,
}


WIDE = {"units_per_warp": 16, "accumulators": 4, "k_tiles_in_registers": 2}
PAIRS = {"batch_tile": 4, "units_per_warp": 16, "accumulators": 2}


@pytest.mark.parametrize(
    ("cell", "shape", "changed"),
    [
        pytest.param("lstm", Shape(5, SEQ, 1, 64), {"k_split": 2}, id="K split"),
        pytest.param("slstm", Shape(4, SEQ, 1, 96), {"k_split": 2, "accumulators": 2}, id="K split unevenly"),
        pytest.param("lstm", Shape(5, SEQ, 1, 64), {"k_tiles_in_registers": 0}, id="R in shared memory"),
        pytest.param("gru", Shape(5, SEQ, 1, 64), WIDE, id="16 units"),
        pytest.param("gru", Shape(18, SEQ, 1, 32), {"batch_tile": 16, "num_stages": 2}, id="two column tiles"),
        pytest.param("lstm", Shape(25, SEQ, 1, 16), {"batch_tile": 24, "units_per_warp": 16}, id="three column tiles"),
        pytest.param("elman", Shape(9, SEQ, 1, 20, save="states"), {}, id="head dimension of 4s"),
        pytest.param("lstm", Shape(9, SEQ, 1, 34, save="gates"), {"batch_tile": 4}, id="head dimension of 2s"),
        pytest.param("slstm", Shape(2, SEQ, 1, 33, save="gates"), {"units_per_warp": 16}, id="odd head dimension"),
        pytest.param("gru", Shape(1, 1, 2, 7), {"batch_tile": 4}, id="one sequence of one step, 7 units"),
        pytest.param("elman", Shape(3, 2, 1, 32), {"num_stages": 12}, id="more stages than steps"),
        pytest.param("lstm", Shape(3, SEQ, 1, 96, save="gates"), PAIRS, id="three k-tiles, read in pairs"),
        pytest.param("elman", Shape(2, SEQ, 1, 192), PAIRS | {"k_split": 2}, id="pairs of a part of K"),
        pytest.param("gru", Shape(2, SEQ, 1, 64), PAIRS | {"accumulators": 4}, id="pairs, two accumulators each"),
    ],
)
@pytest.mark.parametrize("gpu", [GPU, WITHOUT_STMATRIX])
def test_every_tile_variable_is_right(cell: str, shape: Shape, changed: dict[str, int], gpu: str) -> None:
    tiling = get("resident").tiling(load_cell(cell), shape, load_profile(gpu), RESIDENT | changed)
    emulate(cell, shape, tiling, gpu=gpu)
