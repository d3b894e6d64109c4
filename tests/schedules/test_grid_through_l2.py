"""The grid schedule, backward, where sums go through L2: cells on the CPU, where it is offered, registers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from drawn import check_emulated

from kernelgen.build.compile import compile_source
from kernelgen.cells import load_cell
from kernelgen.hardware.profile import load_profile
from kernelgen.program.shape import Shape
from kernelgen.schedules import get
from kernelgen.tuning.plan import plan

GPU, A100 = "h200", "a100-80gb"
SEQ = 9
THROUGH_L2 = {
    "clusters": 2,
    "cluster": 2,
    "batch_tile": 8,
    "epilogue_rows": 8,
    "tiles_per_warp": 4,
    "k_split": 4,
    "k_tiles_in_registers": 1,
    "accumulators": 1,
    "num_stages": 4,
    "pause": -1,
    "owner_pause": 0,
    "through_l2": 1,
    "sums_buffers": 1,
}
OF_4 = {"batch_tile": 4, "epilogue_rows": 4, "accumulators": 2, "sums_buffers": 2}


@pytest.mark.emulated
@pytest.mark.parametrize("cell", ["lstm", "gru", "slstm", "elman", "cfc"])
@pytest.mark.parametrize("gpu", [GPU, A100])
def test_cells_are_right(cell: str, gpu: str) -> None:
    shape = Shape(7, SEQ, 1, 256, save="gates")
    check_emulated("grid_backward", cell, shape, THROUGH_L2 | {"clusters": 4}, gpu, seeds=3)


@pytest.mark.emulated
@pytest.mark.parametrize(
    ("cell", "shape", "changed"),
    [
        pytest.param(
            "lstm", Shape(13, SEQ, 1, 256), {"clusters": 4, "cluster": 4, "batch_tile": 16}, id="16 sequences"
        ),
        pytest.param(
            "lstm",
            Shape(14, 5, 1, 512),
            {"clusters": 4, "cluster": 8, "batch_tile": 16, "epilogue_rows": 4, "tiles_per_warp": 8, "k_split": 8},
            id="as 1 x 2048 in small",
        ),
        pytest.param("gru", Shape(5, SEQ, 2, 120), {"sums_buffers": 2}, id="two heads, padded, two buffers"),
        pytest.param("slstm", Shape(3, SEQ, 1, 128), OF_4, id="4 sequences, in pairs"),
        pytest.param(
            "elman", Shape(4, SEQ, 1, 128), {"clusters": 4, "tiles_per_warp": 1, "k_split": 2}, id="far gates"
        ),
        pytest.param(
            "lstm", Shape(7, SEQ, 1, 96), {"tiles_per_warp": 3, "epilogue_rows": 4, "k_split": 6}, id="3 tiles"
        ),
        pytest.param("lstm", Shape(7, SEQ, 1, 128), {"pause": 0, "owner_pause": 200, "k_split": 8}, id="paced"),
        pytest.param("gru", Shape(1, 1, 1, 128), {}, id="one sequence of one step"),
        pytest.param("lstm", Shape(9, 20, 1, 120, resets=True, lengths=True), {"sums_buffers": 2}, id="own ends"),
        pytest.param("lstm", Shape(5, SEQ, 1, 128, "tf32"), {"k_tiles_in_registers": 0}, id="TF32"),
        pytest.param("lstm", Shape(5, SEQ, 1, 64, "float32"), {"tiles_per_warp": 2, "keeps_rests": 1}, id="float32"),
    ],
)
def test_every_tile_variable_is_right(cell: str, shape: Shape, changed: dict[str, int]) -> None:
    check_emulated("grid_backward", cell, replace(shape, save="gates"), THROUGH_L2 | changed, GPU, seeds=2)


@pytest.mark.unit
def test_sums_go_through_l2_where_clusters_do_not_fit() -> None:
    profile, cell = load_profile(GPU), load_cell("lstm")
    for head_dim, batch in ((1024, 16), (2048, 16)):
        shape = Shape(batch, 1024, 1, head_dim, save="hidden")
        tilings = plan(cell, shape, profile, schedules=["grid_backward"], direction="backward")
        for tiling in tilings:
            size = tiling.values["cluster"]
            fit = profile.clusters_that_fit.get(size, profile.multiprocessors // size)
            assert tiling.values["through_l2"] == (tiling.resources.blocks // size > fit)
    without = plan(cell, Shape(16, 1024, 1, 512), load_profile(A100), schedules=["grid_backward"], direction="backward")
    assert all(tiling.values["through_l2"] == (tiling.values["cluster"] > 1) for tiling in without)


@pytest.mark.unit
def test_two_buffers_of_sums_where_they_fit() -> None:
    shape, profile = Shape(16, 1024, 1, 1536, save="hidden"), load_profile(GPU)
    tilings = plan(load_cell("lstm"), shape, profile, schedules=["grid_backward"], direction="backward")
    assert {tiling.values["sums_buffers"] for tiling in tilings} == {1, 2}
    alike = {tuple(value for name, value in t.values.items() if name != "sums_buffers") for t in tilings}
    assert len(alike) == len(tilings)


@pytest.mark.compiled
def test_2048_units_are_trained_on_a_grid_and_in_registers() -> None:
    cell, shape, profile = load_cell("lstm"), Shape(16, 1024, 1, 2048, save="hidden"), load_profile(GPU)
    best = plan(cell, shape, profile, top=1, direction="backward")[0]
    assert best.schedule == "grid_backward"
    assert best.values["through_l2"] == 1
    report = compile_source(get("grid_backward").program(cell, shape, profile, best).main.source).report
    assert report.local_memory == 0
