"""Every schedule and every cell of the library on the CPU: the generated kernels against the float64 reference."""

from __future__ import annotations

import numpy as np
import pytest
from drawn import cases, drawn_tiling, model_cases

from kernelgen.cells import load_cell
from kernelgen.hardware.profile import load_profile
from kernelgen.program.dtypes import numpy_dtype
from kernelgen.program.shape import SIXTEEN_BITS, Shape
from kernelgen.program.tiling import Tiling
from kernelgen.schedules import get, schedule_names
from kernelgen.tuning.plan import plan
from kernelgen.verify.emulator import emulate as emulate_kernel
from kernelgen.verify.inputs import random_inputs
from kernelgen.verify.validate import validate_emulated

pytestmark = pytest.mark.emulated

GPU, WITHOUT_STMATRIX = "h200", "a100-80gb"
SEQ = 7


def emulate(cell: str, shape: Shape, tiling: Tiling, seeds: range = range(2), gpu: str = GPU) -> None:
    """Emulate a tiling; raises where a fault is found or the result is off."""
    validation = validate_emulated(load_cell(cell), shape, tiling, load_profile(gpu), seeds, seq=SEQ)
    assert validation.errors
    assert all(error <= validation.tolerance for error in validation.errors.values())


@pytest.mark.parametrize(("schedule", "cell"), model_cases())
def test_the_models_choice_is_right(schedule: str, cell: str) -> None:
    shape = Shape(3, SEQ, 2, 32, "bfloat16", "gates")
    best = plan(load_cell(cell), shape, load_profile(GPU), top=1, schedules=[schedule])[0]
    emulate(cell, shape, best, range(2))


@pytest.mark.parametrize(("schedule", "cell"), cases())
def test_a_tiling_drawn_from_the_problem_is_right(schedule: str, cell: str) -> None:
    shape = Shape(3, SEQ, 2, 32, "float16", "gates")
    emulate(cell, shape, drawn_tiling(schedule, cell, shape, GPU), range(2))


WIDER = [(name, dtype) for name in schedule_names() for dtype in get(name).dtypes if dtype not in SIXTEEN_BITS]
"""Schedules with the other dtypes that each takes."""


@pytest.mark.parametrize(("schedule", "dtype"), WIDER)
def test_every_dtype_that_a_schedule_takes_is_right(schedule: str, dtype: str) -> None:
    shape = Shape(3, SEQ, 1, 32, dtype, "gates")
    best = plan(load_cell("slstm"), shape, load_profile(GPU), top=1, schedules=[schedule])[0]
    emulate("slstm", shape, best, range(1))
    emulate("lstm", shape, drawn_tiling(schedule, "lstm", shape, GPU), range(1))


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


TILINGS = [
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
]

STORED_ALIKE = {
    "K split",
    "K split unevenly",
    "more stages than steps",
    "pairs of a part of K",
    "pairs, two accumulators each",
}
"""Tilings whose lanes hold and store what those of another do: that other alone is tried without stmatrix."""


@pytest.mark.parametrize(
    ("cell", "shape", "changed", "gpu"),
    [
        pytest.param(*tiling.values, gpu, id=f"{gpu}-{tiling.id}")
        for gpu in (GPU, WITHOUT_STMATRIX)
        for tiling in TILINGS
        if gpu == GPU or tiling.id not in STORED_ALIKE
    ],
)
def test_every_tile_variable_is_right(cell: str, shape: Shape, changed: dict[str, int], gpu: str) -> None:
    tiling = get("resident").tiling(load_cell(cell), shape, load_profile(gpu), RESIDENT | changed)
    emulate(cell, shape, tiling, gpu=gpu)


CLUSTER = {
    "cluster": 4,
    "units_per_warp": 8,
    "batch_tile": 4,
    "k_split": 1,
    "k_tiles_in_registers": 1,
    "accumulators": 2,
    "num_stages": 3,
    "transfer_warps": 0,
}

HALVES = {"cluster": 2, "units_per_warp": 16, "accumulators": 1}


@pytest.mark.parametrize(
    ("cell", "shape", "changed"),
    [
        pytest.param("lstm", Shape(3, SEQ, 1, 128, save="gates"), {"cluster": 8}, id="cluster of 8"),
        pytest.param("elman", Shape(3, SEQ, 1, 256), {"cluster": 16, "k_split": 2}, id="cluster of 16"),
        pytest.param("gru", Shape(3, SEQ, 2, 32, save="gates"), {"cluster": 1}, id="a block alone"),
        pytest.param("slstm", Shape(3, SEQ, 1, 96, "float16"), {"k_split": 2}, id="K split unevenly"),
        pytest.param("elman", Shape(3, SEQ, 1, 128), {"k_split": 4, "accumulators": 1}, id="K split in 4"),
        pytest.param("lstm", Shape(5, SEQ, 1, 64), {"k_tiles_in_registers": 0}, id="R in shared memory"),
        pytest.param("gru", Shape(9, SEQ, 1, 64, save="gates"), HALVES | {"batch_tile": 8}, id="16 units, 8 sequences"),
        pytest.param(
            "lstm", Shape(3, SEQ, 1, 64, save="states"), HALVES | {"accumulators": 2}, id="16 units, 4 sequences"
        ),
        pytest.param(
            "lstm", Shape(18, SEQ, 1, 32), {"cluster": 2, "batch_tile": 16, "k_split": 2}, id="two column tiles"
        ),
        pytest.param("elman", Shape(34, 5, 1, 32), HALVES | {"batch_tile": 32}, id="four column tiles"),
        pytest.param("elman", Shape(9, SEQ, 1, 52, save="states"), {"cluster": 2}, id="head dimension of 4s"),
        pytest.param("slstm", Shape(3, SEQ, 1, 80, save="gates"), HALVES, id="a warp with nothing but padding"),
        pytest.param("lstm", Shape(9, SEQ, 1, 50, save="gates"), {"cluster": 2, "batch_tile": 8}, id="of 2s"),
        pytest.param("slstm", Shape(2, SEQ, 2, 33, save="gates"), {"cluster": 2}, id="odd head dimension"),
        pytest.param("gru", Shape(1, 1, 2, 30), {"cluster": 2, "num_stages": 8}, id="one sequence of one step"),
        pytest.param("lstm", Shape(5, SEQ, 1, 64, save="gates"), {"transfer_warps": 1}, id="a transfer warp"),
        pytest.param("gru", Shape(3, SEQ, 1, 128), {"transfer_warps": 1, "k_split": 2}, id="and K split"),
        pytest.param("slstm", Shape(3, SEQ, 1, 80, save="gates"), HALVES | {"transfer_warps": 1}, id="and padding"),
        pytest.param("elman", Shape(2, 1, 2, 33), {"cluster": 2, "transfer_warps": 1}, id="and one step"),
        pytest.param("lstm", Shape(3, SEQ, 1, 50), {"cluster": 2, "transfer_warps": 1}, id="and a dimension of 2s"),
        pytest.param(
            "lstm",
            Shape(9, SEQ, 1, 80),
            {"cluster": 2, "batch_tile": 8, "k_split": 2, "transfer_warps": 1},
            id="and shared polls",
        ),
    ],
)
def test_every_tile_variable_of_a_cluster_is_right(cell: str, shape: Shape, changed: dict[str, int]) -> None:
    values = CLUSTER | changed
    if -(-shape.head_dim // 32) == 1 and values["batch_tile"] == 4:
        values["accumulators"] = 1
    tiling = get("cluster").tiling(load_cell(cell), shape, load_profile(GPU), values)
    emulate(cell, shape, tiling, range(3))


GRID = {
    "blocks": 4,
    "units_per_warp": 8,
    "batch_tile": 4,
    "epilogue_rows": 4,
    "k_split": 2,
    "k_tiles_in_registers": 1,
    "accumulators": 1,
    "num_stages": 4,
    "step_warps": 0,
    "pause": -1,
    "owner_pause": 0,
}

PACED = {"pause": 0, "owner_pause": 200}
STEPPED_APART = {"step_warps": 1, "pause": 500}

OF_16 = {"units_per_warp": 16, "batch_tile": 8, "epilogue_rows": 8}
ALONE = {"k_split": 1, "accumulators": 2}


GRID_CASES = [
    pytest.param("lstm", Shape(3, SEQ, 1, 80, save="gates"), {"blocks": 5}, id="an odd number of blocks"),
    pytest.param("elman", Shape(3, SEQ, 1, 136), {"blocks": 17, "k_split": 4} | PACED, id="17 blocks of 8 units"),
    pytest.param("gru", Shape(5, SEQ, 2, 64, save="gates"), {}, id="two heads, two tiles of the batch"),
    pytest.param("lstm", Shape(3, SEQ, 1, 32), {"blocks": 2} | ALONE | {"accumulators": 1}, id="K not split"),
    pytest.param("slstm", Shape(3, SEQ, 1, 96, "float16"), {"k_split": 3} | PACED, id="K split in 3"),
    pytest.param("elman", Shape(3, SEQ, 1, 160), {"blocks": 20, "accumulators": 2}, id="K split unevenly"),
    pytest.param("lstm", Shape(5, SEQ, 1, 64), {"k_tiles_in_registers": 0}, id="R in shared memory"),
    pytest.param("gru", Shape(9, SEQ, 1, 64, save="gates"), OF_16, id="16 units, 8 sequences, 2 elements a lane"),
    pytest.param(
        "lstm",
        Shape(7, SEQ, 1, 128, save="states"),
        OF_16 | {"k_split": 8, "epilogue_rows": 4} | PACED,
        id="and 1 element",
    ),
    pytest.param("lstm", Shape(18, SEQ, 1, 64), OF_16 | {"batch_tile": 16, "epilogue_rows": 16}, id="16 sequences"),
    pytest.param(
        "gru", Shape(13, SEQ, 1, 128), {"blocks": 8, "batch_tile": 16, "k_split": 4}, id="and 1 element of these"
    ),
    pytest.param("elman", Shape(34, 5, 1, 64), {"blocks": 3, "batch_tile": 32, "epilogue_rows": 16}, id="32 sequences"),
    pytest.param("elman", Shape(9, SEQ, 1, 52, save="states"), {"blocks": 3}, id="head dimension of 4s"),
    pytest.param(
        "slstm",
        Shape(3, SEQ, 1, 80, save="gates"),
        OF_16 | {"blocks": 2, "k_split": 3},
        id="units of nothing but padding",
    ),
    pytest.param("lstm", Shape(9, SEQ, 1, 50, save="gates"), {"blocks": 7}, id="of 2s"),
    pytest.param("slstm", Shape(2, SEQ, 2, 33, save="gates"), {"blocks": 5} | ALONE, id="odd head dimension"),
    pytest.param("gru", Shape(1, 1, 2, 64), {"num_stages": 8}, id="one sequence of one step"),
    pytest.param("lstm", Shape(3, SEQ, 1, 80, save="gates"), {"blocks": 5} | STEPPED_APART, id="stepped apart"),
    pytest.param("gru", Shape(1, 1, 2, 64), STEPPED_APART, id="stepped apart, one step"),
    pytest.param(
        "elman", Shape(9, SEQ, 1, 72), OF_16 | {"k_split": 1, "blocks": 5} | STEPPED_APART, id="stepped apart, padding"
    ),
    pytest.param(
        "slstm",
        Shape(7, SEQ, 1, 128, save="states"),
        OF_16 | {"k_split": 3, "epilogue_rows": 4} | STEPPED_APART,
        id="more warps that step than multiply",
    ),
    pytest.param(
        "lstm",
        Shape(11, SEQ, 1, 128, save="gates"),
        OF_16 | {"k_split": 4, "blocks": 3} | STEPPED_APART | {"step_warps": 4},
        id="sums in four groups",
    ),
]


@pytest.mark.parametrize(("cell", "shape", "changed"), GRID_CASES)
def test_every_tile_variable_of_a_grid_is_right(cell: str, shape: Shape, changed: dict[str, int]) -> None:
    tiling = get("grid").tiling(load_cell(cell), shape, load_profile(GPU), GRID | changed)
    emulate(cell, shape, tiling, range(2))


@pytest.mark.parametrize(("cell", "shape", "changed"), GRID_CASES[::4])
def test_a_grid_is_right_without_stmatrix(cell: str, shape: Shape, changed: dict[str, int]) -> None:
    tiling = get("grid").tiling(load_cell(cell), shape, load_profile(WITHOUT_STMATRIX), GRID | changed)
    emulate(cell, shape, tiling, range(1), WITHOUT_STMATRIX)


STREAMING = {
    "units": 16,
    "batch_tile": 8,
    "units_per_warp": 8,
    "rows_per_warp": 8,
    "part_k": 32,
    "stationary": 0,
    "num_stages": 3,
    "blocks": 0,
}

WIDE_WARPS = {"units": 32, "units_per_warp": 32, "batch_tile": 16}


@pytest.mark.parametrize(
    ("cell", "shape", "changed"),
    [
        pytest.param("lstm", Shape(3, SEQ, 1, 64, save="gates"), {"stationary": 2}, id="all of R stays"),
        pytest.param(
            "gru", Shape(9, SEQ, 1, 160), {"units": 32, "stationary": 2, "num_stages": 4}, id="some of R stays"
        ),
        pytest.param("lstm", Shape(35, SEQ, 1, 48, save="gates"), WIDE_WARPS | {"stationary": 1}, id="32 units a warp"),
        pytest.param(
            "slstm",
            Shape(35, 5, 2, 33, save="states"),
            {"batch_tile": 32, "rows_per_warp": 16, "blocks": 3},
            id="in turn",
        ),
        pytest.param(
            "elman",
            Shape(33, SEQ, 1, 130),
            {"units": 64, "units_per_warp": 16, "batch_tile": 32, "rows_per_warp": 32, "part_k": 64},
            id="wide parts of K",
        ),
        pytest.param(
            "gru",
            Shape(20, SEQ, 2, 50, save="gates"),
            {"units": 32, "batch_tile": 16, "blocks": 2, "num_stages": 6},
            id="of 2s, in turn",
        ),
        pytest.param(
            "lstm", Shape(5, SEQ, 1, 100, "float16"), {"units": 32, "units_per_warp": 16, "stationary": 4}, id="of 4s"
        ),
        pytest.param("gru", Shape(5, 1, 1, 7, save="gates"), {"units": 8}, id="one step of 7 units"),
        pytest.param("lstm", Shape(3, SEQ, 1, 64, "float32", "gates"), {"stationary": 2}, id="floats that stay"),
        pytest.param(
            "gru",
            Shape(35, SEQ, 1, 50, "float32"),
            WIDE_WARPS | {"stationary": 1, "k_warps": 2},
            id="floats of 2s, some stay, two warps share K",
        ),
        pytest.param(
            "slstm",
            Shape(35, 4, 1, 33, "float32", "states"),
            {"batch_tile": 32, "rows_per_warp": 16, "blocks": 3},
            id="floats of 1s, in turn",
        ),
        pytest.param(
            "elman",
            Shape(5, SEQ, 1, 40, "float32", "gates"),
            {"part_k": 64, "k_warps": 8, "num_stages": 2},
            id="eight warps share K",
        ),
    ],
)
def test_every_tile_variable_of_a_stream_is_right(cell: str, shape: Shape, changed: dict[str, int]) -> None:
    tiling = get("streaming").tiling(load_cell(cell), shape, load_profile(GPU), STREAMING | changed)
    emulate(cell, shape, tiling, range(2))


def test_a_stream_is_right_without_stmatrix() -> None:
    shape, profile = Shape(18, SEQ, 1, 40, save="gates"), load_profile(WITHOUT_STMATRIX)
    values = STREAMING | {"units": 32, "batch_tile": 16, "rows_per_warp": 16}
    emulate("gru", shape, get("streaming").tiling(load_cell("gru"), shape, profile, values), range(1), WITHOUT_STMATRIX)


@pytest.mark.parametrize(("schedule", "values"), [("cluster", CLUSTER), ("grid", GRID)])
def test_a_nan_that_looks_like_poison_stops_nobody(schedule: str, values: dict[str, int]) -> None:
    """A NaN of any bits in the initial h: its sequence is NaN, the others are right, and nobody waits for ever."""
    cell, profile, shape = load_cell("gru"), load_profile(GPU), Shape(4, SEQ, 1, 64)
    tiling = get(schedule).tiling(cell, shape, profile, values)
    program = get(schedule).program(cell, shape, profile, tiling)
    inputs = random_inputs(cell, shape)
    found = []
    for poisoned in (False, True):
        if poisoned:
            inputs["initial"].view(np.uint16)[0, 1] = 0xFFFF
        states, last = np.zeros((1, 4, SEQ, 1, 64), np.uint16), np.zeros((1, 4, 1, 64), np.uint16)
        arguments = inputs | {"states": states, "last": last, "others": None, "gates": None, "batch": 4, "seq": SEQ}
        arguments |= {name: np.zeros(size // 4, np.int32) for name, size in program.poisoned(shape).items()}
        emulate_kernel(program.main.source, program.main.launch.at(shape), arguments, seed=1)
        found.append(states.view(numpy_dtype("bfloat16")).astype(np.float32))
    right, with_nan = found
    assert np.isnan(with_nan[0, 1]).all()
    assert np.array_equal(with_nan[0, [0, 2, 3]], right[0, [0, 2, 3]])
