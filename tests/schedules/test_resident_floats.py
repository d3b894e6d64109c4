"""The resident schedule in TF32 and float32: every cell and tile variable on the CPU, what is chosen, and registers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from drawn import TWINS, check_emulated

from kernelgen.build.compile import compile_source
from kernelgen.cells import cell_names, load_cell
from kernelgen.hardware.profile import load_profile
from kernelgen.program.shape import FEATURES, Shape
from kernelgen.program.task import Direction
from kernelgen.schedules import get
from kernelgen.schedules.shared.stationary import row_bytes
from kernelgen.tuning.plan import plan, spread

GPU, A100 = "h200", "a100-80gb"
SEQ = 7
BOTH = dict.fromkeys(FEATURES, True)
FLOATS = ("tf32", "float32")
FORWARD = {
    "units_per_warp": 8,
    "batch_tile": 8,
    "k_split": 1,
    "k_tiles_in_registers": 1,
    "accumulators": 1,
    "num_stages": 3,
}
BACKWARD = {"batch_tile": 8, "k_tiles_in_registers": 1, "accumulators": 1, "num_stages": 3}
PAIRS = {"batch_tile": 4, "accumulators": 2}
WIDE = {"units_per_warp": 16}
KEPT, LEFT = {"keeps_rests": 1}, {"keeps_rests": 0}


def check(schedule: str, cell: str, shape: Shape, values: dict[str, int] | None, gpu: str = GPU) -> None:
    check_emulated(schedule, cell, shape, values, gpu, seeds=1)


@pytest.mark.emulated
@pytest.mark.parametrize("schedule", ["resident", "resident_backward"])
@pytest.mark.parametrize("cell", sorted(set(cell_names()) - set(TWINS)))
def test_every_cell_is_right(schedule: str, cell: str) -> None:
    check(schedule, cell, Shape(5, SEQ, 1, 20, "float32", "gates"), None)


@pytest.mark.emulated
@pytest.mark.parametrize(
    ("cell", "shape", "changed"),
    [
        pytest.param("lstm", Shape(5, SEQ, 1, 64, "tf32"), {"k_split": 2, "accumulators": 2}, id="K split"),
        pytest.param("slstm", Shape(4, SEQ, 1, 48, "float32"), {"k_split": 2} | LEFT, id="K split unevenly"),
        pytest.param(
            "gru", Shape(5, SEQ, 1, 32, "float32"), {"k_tiles_in_registers": 0} | LEFT, id="R in shared memory"
        ),
        pytest.param("gru", Shape(5, SEQ, 2, 64, "tf32", "gates"), WIDE | {"accumulators": 4}, id="16 units"),
        pytest.param(
            "lstm", Shape(25, SEQ, 1, 16, "float32"), WIDE | {"batch_tile": 24} | KEPT, id="three column tiles"
        ),
        pytest.param("lstm", Shape(9, SEQ, 1, 34, "float32", "gates"), {"batch_tile": 4} | KEPT, id="of 2s"),
        pytest.param("slstm", Shape(2, SEQ, 1, 33, "tf32", "gates"), WIDE, id="odd head dimension"),
        pytest.param("gru", Shape(1, 1, 2, 7, "float32"), {"batch_tile": 4} | LEFT, id="one sequence of one step"),
        pytest.param("elman", Shape(3, 2, 1, 32, "tf32"), {"num_stages": 12}, id="more stages than steps"),
        pytest.param(
            "slstm", Shape(3, SEQ, 1, 80, "float32", "gates"), PAIRS | WIDE | KEPT, id="five k-tiles, read in pairs"
        ),
        pytest.param("lstm", Shape(3, SEQ, 1, 80, "tf32"), PAIRS | {"k_tiles_in_registers": 3}, id="pairs of TF32"),
        pytest.param(
            "elman", Shape(2, SEQ, 1, 96, "float32"), PAIRS | {"k_split": 2} | LEFT, id="pairs of a part of K"
        ),
        pytest.param("lstm", Shape(9, 20, 1, 34, "float32", "gates", **BOTH), {"batch_tile": 8} | LEFT, id="own ends"),
        pytest.param("slstm", Shape(5, 20, 1, 33, "tf32", "states", **BOTH), PAIRS, id="own ends, odd"),
        pytest.param(
            "gru",
            Shape(7, SEQ, 1, 33, "float32", inputs=21),
            {"k_split": 2, "input_k_tiles_in_registers": 1, "overlap_input": 1} | KEPT,
            id="input multiplied, odd",
        ),
        pytest.param(
            "lstm",
            Shape(7, SEQ, 1, 32, "tf32", "gates", inputs=36),
            {"input_k_tiles_in_registers": 2, "overlap_input": 0},
            id="input multiplied behind",
        ),
    ],
)
@pytest.mark.parametrize("gpu", [GPU, A100])
def test_every_tile_variable_is_right(cell: str, shape: Shape, changed: dict[str, int], gpu: str) -> None:
    if gpu == A100 and shape.head_dim % 16 == 0:
        pytest.skip("stored alike")
    check("resident", cell, shape, FORWARD | changed, gpu)


AGAIN = {"recompute_k_tiles_in_registers": 1}


@pytest.mark.emulated
@pytest.mark.parametrize(
    ("cell", "shape", "changed"),
    [
        pytest.param("lstm", Shape(3, SEQ, 2, 48, "tf32", "gates"), PAIRS, id="pairs"),
        pytest.param("gru", Shape(5, SEQ, 1, 36, "float32", "gates"), PAIRS | KEPT, id="sums of R's gradient, of 4s"),
        pytest.param("gru", Shape(18, SEQ, 1, 33, "tf32", "states"), {"batch_tile": 16}, id="two column tiles, odd"),
        pytest.param("slstm", Shape(9, SEQ, 1, 50, "float32", recompute=True), AGAIN | LEFT, id="gates recomputed"),
        pytest.param("gru", Shape(5, SEQ, 1, 30, "tf32", recompute=True), PAIRS | AGAIN, id="recomputed, pairs"),
        pytest.param("lstm", Shape(9, 20, 1, 34, "float32", "gates", **BOTH), KEPT, id="own ends"),
        pytest.param(
            "gru", Shape(5, 20, 1, 33, "float32", "hidden", recompute=True, **BOTH), AGAIN | PAIRS | LEFT, id="all"
        ),
        pytest.param("elman", Shape(3, 1, 2, 17, "tf32"), {}, id="one step"),
    ],
)
def test_every_tile_variable_is_right_backward(cell: str, shape: Shape, changed: dict[str, int]) -> None:
    check("resident_backward", cell, shape, BACKWARD | changed)


@pytest.mark.unit
@pytest.mark.parametrize("rows", [4, 8, 16])
@pytest.mark.parametrize("units", range(8, 264, 8))
def test_lanes_read_rows_from_different_banks(rows: int, units: int) -> None:
    """8 units of 4 rows, or of every second of 8: 32 words."""
    words = row_bytes(units, rows, "float32") // 4
    assert words >= units
    between = 1 if rows == 4 else 2
    assert len({(between * j * words + g) % 32 for j in range(4) for g in range(8)}) == 32


@pytest.mark.unit
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_heads_that_fit_are_resident(dtype: str, direction: Direction) -> None:
    for cell in ("lstm", "gru", "slstm"):
        for gpu in (GPU, A100):
            shape = Shape(16, 1024, 12, 64, dtype, "gates")
            best = plan(load_cell(cell), shape, load_profile(gpu), top=1, direction=direction)[0]
            assert best.schedule.startswith("resident"), f"{cell} on {gpu}: {best}"


@pytest.mark.compiled
@pytest.mark.parametrize("gpu", [GPU, A100])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("schedule", ["resident", "resident_backward"])
def test_the_models_choices_compile_into_registers(schedule: str, dtype: str, gpu: str) -> None:
    """But for a word or two, of the first choices that differ one at least: what is predicted at the limit of 255 may
    be above it, and a kernel that spills is passed over. The other GPU has each size in one dtype, in turn."""
    chosen, profile = get(schedule), load_profile(gpu)
    sizes = (("lstm", 32), ("lstm", 64), ("gru", 64), ("slstm", 48))
    for name, head_dim in sizes if gpu == GPU else sizes[FLOATS.index(dtype) :: 2]:
        cell, shape = load_cell(name), Shape(16, 1024, 12, head_dim, dtype, "gates")
        spilled = {}
        for tiling in spread(plan(cell, shape, profile, schedules=[schedule], direction=chosen.direction))[:2]:
            report = compile_source(chosen.program(cell, shape, profile, tiling).main.source).report
            spilled[str(tiling)] = report.local_memory
            if report.local_memory <= 16:
                break
        assert min(spilled.values()) <= 16, f"{name} {head_dim}: {spilled}"


@pytest.mark.compiled
def test_rests_are_made_beside_the_products() -> None:
    """All of them at once would take as many registers as R itself."""
    cell, profile, shape = load_cell("gru"), load_profile(GPU), Shape(16, 1024, 12, 64, "float32")
    values = FORWARD | PAIRS | WIDE | {"k_tiles_in_registers": 4, "num_stages": 12}
    registers = []
    for kept in (LEFT, KEPT):
        resident = get("resident")
        tiling = resident.tiling(cell, replace(shape), profile, values | {"k_tiles_in_registers": 3} | kept)
        registers.append(compile_source(resident.program(cell, shape, profile, tiling).main.source).report.registers)
    assert registers[0] <= registers[1] - 40
