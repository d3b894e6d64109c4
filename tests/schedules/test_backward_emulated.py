"""The backward kernel of every cell on the CPU, against the float64 backward reference."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from drawn import cases, drawn_tiling, model_cases, recomputing_cases, refusal

from kernelgen.cells import load_cell
from kernelgen.errors import InfeasibleError
from kernelgen.hardware.profile import load_profile
from kernelgen.program.shape import SIXTEEN_BITS, Shape
from kernelgen.program.tiling import Tiling
from kernelgen.schedules import get, schedule_names
from kernelgen.tuning.plan import plan
from kernelgen.verify.validate import validate_emulated

pytestmark = pytest.mark.emulated

GPU, WITHOUT_STMATRIX = "h200", "a100-80gb"


def check(name: str, shape: Shape, tiling: Tiling, seeds: range, gpu: str = GPU) -> None:
    """Emulate a tiling; raises where a fault is found or the result is off."""
    validation = validate_emulated(load_cell(name), shape, tiling, load_profile(gpu), seeds, seq=shape.seq)
    assert validation.errors
    assert all(error <= validation.tolerance for error in validation.errors.values())


@pytest.mark.parametrize(("schedule", "cell"), model_cases("backward"))
def test_the_models_choice_is_right(schedule: str, cell: str) -> None:
    shape = Shape(3, 7, 2, 32, "bfloat16", "gates")
    check(cell, shape, plan(load_cell(cell), shape, load_profile(GPU), top=1, schedules=[schedule])[0], range(2))


@pytest.mark.parametrize(("schedule", "cell"), model_cases("backward", turn=1))
def test_the_models_choice_that_recomputes_gates_is_right(schedule: str, cell: str) -> None:
    shape = Shape(3, 7, 2, 32, "bfloat16", "gates", recompute=True)
    if reason := refusal(schedule, cell, shape, GPU):
        with pytest.raises(InfeasibleError, match=re.escape(reason)):
            plan(load_cell(cell), shape, load_profile(GPU), schedules=[schedule])
        return
    check(cell, shape, plan(load_cell(cell), shape, load_profile(GPU), top=1, schedules=[schedule])[0], range(2))


@pytest.mark.parametrize(("schedule", "cell"), cases("backward"))
def test_a_tiling_drawn_from_the_problem_is_right(schedule: str, cell: str) -> None:
    shape = Shape(3, 7, 2, 32, "float16", "gates")
    check(cell, shape, drawn_tiling(schedule, cell, shape, GPU), range(2))


@pytest.mark.parametrize(("schedule", "cell"), recomputing_cases())
def test_a_drawn_tiling_that_recomputes_gates_is_right(schedule: str, cell: str) -> None:
    shape = Shape(3, 7, 2, 32, "float16", "gates", recompute=True)
    check(cell, shape, drawn_tiling(schedule, cell, shape, GPU), range(2))


WIDER = [(n, dtype) for n in schedule_names("backward") for dtype in get(n).dtypes if dtype not in SIXTEEN_BITS]
"""Schedules with the other dtypes that each takes."""


@pytest.mark.parametrize(("schedule", "dtype"), WIDER)
def test_every_dtype_that_a_schedule_takes_is_right(schedule: str, dtype: str) -> None:
    shape = Shape(3, 7, 1, 32, dtype, "gates")
    best = plan(load_cell("lstm"), shape, load_profile(GPU), top=1, schedules=[schedule])[0]
    check("lstm", shape, best, range(1))
    check("gru", shape, drawn_tiling(schedule, "gru", shape, GPU), range(1))


STREAMING = {
    "units": 16,
    "batch_tile": 8,
    "units_per_warp": 16,
    "rows_per_warp": 8,
    "part_k": 32,
    "stationary": 0,
    "num_stages": 3,
    "blocks": 0,
}


@pytest.mark.parametrize(
    ("name", "shape", "changed"),
    [
        pytest.param("lstm", Shape(3, 7, 1, 64), {"part_k": 64, "stationary": 4}, id="all of R stays"),
        pytest.param(
            "gru",
            Shape(18, 7, 1, 72),
            {"units": 32, "batch_tile": 16, "stationary": 2, "num_stages": 4},
            id="some of R stays",
        ),
        pytest.param(
            "lstm",
            Shape(35, 7, 1, 48, save="states"),
            {"units": 32, "units_per_warp": 32, "batch_tile": 16},
            id="32 units a warp",
        ),
        pytest.param(
            "slstm",
            Shape(35, 5, 2, 33, save="states"),
            {"batch_tile": 32, "rows_per_warp": 16, "blocks": 3},
            id="in turn",
        ),
        pytest.param(
            "elman",
            Shape(33, 7, 1, 130),
            {"units": 64, "units_per_warp": 16, "batch_tile": 32, "rows_per_warp": 32, "part_k": 128},
            id="wide parts of K",
        ),
        pytest.param(
            "gru",
            Shape(20, 7, 2, 50),
            {"units": 32, "batch_tile": 16, "blocks": 2, "num_stages": 6},
            id="of 2s, in turn",
        ),
        pytest.param("lstm", Shape(5, 7, 1, 100, "float16"), {"units": 128, "part_k": 64}, id="of 4s"),
        pytest.param("gru", Shape(5, 1, 1, 7), {"units": 16}, id="one step of 7 units"),
        pytest.param(
            "lstm", Shape(3, 7, 1, 64, "float32"), {"part_k": 64, "stationary": 4, "k_warps": 4}, id="floats that stay"
        ),
        pytest.param(
            "gru",
            Shape(20, 7, 1, 50, "float32"),
            {"units": 32, "batch_tile": 16, "stationary": 2, "k_warps": 2},
            id="floats of 2s, some stay",
        ),
        pytest.param(
            "elman",
            Shape(5, 3, 1, 264, "float32"),
            {"part_k": 256, "stationary": 2, "k_warps": 4},
            id="longest parts of K",
        ),
        pytest.param(
            "slstm",
            Shape(35, 5, 2, 33, "float32", "states"),
            {"units": 32, "units_per_warp": 32, "batch_tile": 16, "rows_per_warp": 16, "blocks": 2},
            id="floats of 1s, in turn",
        ),
    ],
)
def test_every_tile_variable_of_a_stream_is_right(name: str, shape: Shape, changed: dict[str, int]) -> None:
    tiling = get("streaming_backward").tiling(load_cell(name), shape, load_profile(GPU), STREAMING | changed)
    check(name, shape, tiling, range(2))


AGAIN = Shape(5, 7, 1, 64, recompute=True)
RESIDENT = {"batch_tile": 8, "k_tiles_in_registers": 1, "accumulators": 2, "num_stages": 3}


TILINGS = [
    pytest.param("lstm", Shape(5, 7, 1, 64), {"k_tiles_in_registers": 0}, id="R in shared memory"),
    pytest.param("slstm", Shape(18, 6, 1, 32), {"batch_tile": 16, "num_stages": 2}, id="two column tiles"),
    pytest.param("gru", Shape(17, 6, 1, 32), {"batch_tile": 16}, id="products of two tiles of sequences"),
    pytest.param("mgu", Shape(21, 6, 1, 33), {"batch_tile": 24}, id="products of three, odd head dimension"),
    pytest.param("bilinear", Shape(11, 7, 1, 48), {}, id="products of three blocks of the batch"),
    pytest.param("slstm", Shape(3, 6, 1, 20, save="states"), {}, id="head dimension of 4s"),
    pytest.param("elman", Shape(3, 5, 1, 33), {"batch_tile": 4}, id="odd head dimension"),
    pytest.param("gru", Shape(1, 1, 2, 7), {"batch_tile": 4}, id="one sequence of one step, 7 units"),
    pytest.param("lstm", Shape(2, 3, 1, 16), {"num_stages": 12, "accumulators": 4}, id="more stages than steps"),
    pytest.param("gru", Shape(3, 4, 1, 32), {"batch_tile": 4}, id="three k-tiles, read in pairs"),
    pytest.param("lstm", AGAIN, {"recompute_k_tiles_in_registers": 1}, id="R for the gates in both memories"),
    pytest.param(
        "gru",
        replace(AGAIN, batch=18),
        {"batch_tile": 16, "recompute_k_tiles_in_registers": 0},
        id="gates of two tiles",
    ),
    pytest.param(
        "slstm",
        replace(AGAIN, head_dim=48, batch=4),
        {"batch_tile": 4, "recompute_k_tiles_in_registers": 2},
        id="K padded",
    ),
    pytest.param(
        "lstm",
        replace(AGAIN, head_dim=33),
        {"recompute_k_tiles_in_registers": 2},
        id="gates of an odd head dimension",
    ),
]

STORED_ALIKE = {
    "products of three blocks of the batch",
    "more stages than steps",
    "gates of two tiles",
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
    tiling = get("resident_backward").tiling(load_cell(cell), shape, load_profile(gpu), RESIDENT | changed)
    check(cell, shape, tiling, range(2), gpu)


CLUSTER = {
    "cluster": 2,
    "batch_tile": 4,
    "tiles_per_warp": 1,
    "k_tiles_in_registers": 1,
    "accumulators": 2,
    "num_stages": 4,
}
WIDE = {"cluster": 8, "tiles_per_warp": 2, "k_tiles_in_registers": 4}
SHARED = {"batch_tile": 8, "accumulators": 1, "k_tiles_in_registers": 0}
TWO_TILES = {"batch_tile": 16, "cluster": 4, "tiles_per_warp": 4}


@pytest.mark.parametrize(
    ("cell", "shape", "changed"),
    [
        pytest.param("lstm", Shape(3, 7, 1, 256), WIDE, id="256 units"),
        pytest.param("slstm", Shape(5, 6, 1, 80, "float16", "states"), {}, id="a warp with nothing but padding"),
        pytest.param("lstm", Shape(6, 6, 2, 50), SHARED, id="8 sequences, R in shared memory"),
        pytest.param("lstm", Shape(18, 6, 1, 64), TWO_TILES, id="two column tiles"),
        pytest.param("elman", Shape(3, 5, 1, 33), {}, id="odd head dimension"),
        pytest.param("lstm_peephole", Shape(3, 7, 1, 64), {"num_stages": 8, "accumulators": 4}, id="biases alone"),
    ],
)
def test_every_tile_variable_of_a_cluster_is_right(cell: str, shape: Shape, changed: dict[str, int]) -> None:
    tiling = get("cluster_backward").tiling(load_cell(cell), shape, load_profile(GPU), CLUSTER | changed)
    check(cell, shape, tiling, range(2))


WIDE_BLOCKS = {"blocks": 2, "batch_tile": 32, "warpgroups": 1, "k_tiles_in_registers": 2, "sum_bytes": 4, "prepared": 1}


@pytest.mark.parametrize(
    ("cell", "shape", "changed"),
    [
        pytest.param("lstm", Shape(20, 7, 1, 32), {"blocks": 1, "prepared": 0}, id="a block has the head"),
        pytest.param(
            "gru",
            Shape(33, 6, 1, 96),
            {"blocks": 3, "warpgroups": 2, "k_tiles_in_registers": 6},
            id="rows past the head, all of R in registers",
        ),
        pytest.param(
            "slstm",
            Shape(35, 5, 1, 128, save="states"),
            {"blocks": 8, "batch_tile": 64, "k_tiles_in_registers": 0, "sum_bytes": 2},
            id="sums of many blocks, R in shared memory",
        ),
        pytest.param(
            "elman",
            Shape(130, 5, 1, 64, "float16"),
            {"batch_tile": 128, "warpgroups": 2, "k_tiles_in_registers": 1},
            id="128 sequences",
        ),
        pytest.param("lstm_peephole", Shape(9, 7, 2, 32, save="gates"), {}, id="biases alone"),
    ],
)
def test_every_tile_variable_of_wide_blocks_is_right(cell: str, shape: Shape, changed: dict[str, int]) -> None:
    tiling = get("wide_backward").tiling(load_cell(cell), shape, load_profile(GPU), WIDE_BLOCKS | changed)
    check(cell, shape, tiling, range(2))
