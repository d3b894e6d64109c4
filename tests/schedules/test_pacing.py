"""Every cell with warps of their own for the step, forward, and with polls that wait, backward, on the CPU."""

from __future__ import annotations

import re

import pytest

from kernelgen.build.compile import compile_source
from kernelgen.cells import load_cell
from kernelgen.hardware.profile import load_profile
from kernelgen.program.shape import Shape
from kernelgen.schedules import get
from kernelgen.schedules.grid.pacing import AT_ONCE, FORWARD
from kernelgen.tuning.plan import plan
from kernelgen.verify.validate import validate_emulated

APART = {
    "blocks": 4,
    "units_per_warp": 8,
    "batch_tile": 4,
    "epilogue_rows": 4,
    "k_split": 2,
    "k_tiles_in_registers": 1,
    "accumulators": 1,
    "num_stages": 4,
    "step_warps": 2,
    "pause": 500,
    "owner_pause": 0,
}
BACKWARD = {
    "clusters": 4,
    "cluster": 2,
    "batch_tile": 4,
    "epilogue_rows": 4,
    "tiles_per_warp": 1,
    "k_split": 2,
    "k_tiles_in_registers": 0,
    "accumulators": 1,
    "num_stages": 4,
    "pause": 500,
    "owner_pause": 200,
}
CELLS = ("lstm", "gru", "slstm", "elman", "cfc")
"""Every cell runs in a tiling drawn at random elsewhere; these differ in what a step reads, keeps and sends."""


def check(schedule: str, cell: str, shape: Shape, values: dict[str, int], gpu: str = "h200") -> None:
    """Emulate a tiling with two seeds; raises where a fault is found or the result is off."""
    profile = load_profile(gpu)
    tiling = get(schedule).tiling(load_cell(cell), shape, profile, values)
    assert validate_emulated(load_cell(cell), shape, tiling, profile, range(2), seq=shape.seq).errors


@pytest.mark.emulated
@pytest.mark.parametrize("cell", CELLS)
def test_cells_are_stepped_by_warps_of_their_own(cell: str) -> None:
    check("grid", cell, Shape(5, 7, 1, 64, save="gates"), APART)


@pytest.mark.emulated
@pytest.mark.parametrize("cell", CELLS)
def test_cells_wait_with_their_polls_backward(cell: str) -> None:
    check("grid_backward", cell, Shape(3, 7, 1, 128, save="gates"), BACKWARD)


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sequences_end_and_begin_anew_where_warps_of_their_own_step(dtype: str) -> None:
    for seq in (1, 20):
        check("grid", "lstm", Shape(9, seq, 2, 64, dtype, "states", resets=True, lengths=True), APART, "a100-80gb")


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("gpu", "batch", "cell"),
    [("h200", 16, cell) for cell in ("lstm", "gru", "slstm")]
    + [("a100-80gb", 16, "slstm"), ("a100-80gb", 16, "gru"), ("rtx3090", 8, "lstm"), ("rtx3090", 8, "slstm")]
    + [("b200", 16, "lstm")],
)
def test_they_compile_into_registers(gpu: str, batch: int, cell: str) -> None:
    """Every cell where several GPUs are alike, and in turn on the others."""
    shape, profile, schedule = Shape(batch, 1024, 1, 40 * batch + 128), load_profile(gpu), get("grid")
    apart = [t for t in plan(load_cell(cell), shape, profile, schedules=["grid"]) if t.values["step_warps"]]
    most = max(apart, key=lambda tiling: (tiling.resources.registers, tiling.resources.threads))
    for tiling in (apart[0], most):
        report = compile_source(schedule.program(load_cell(cell), shape, profile, tiling).main.source).report
        assert report.local_memory == 0, tiling
        assert abs(tiling.resources.registers / report.registers - 1) <= 0.15


@pytest.mark.unit
def test_what_is_tried_is_paced_as_stated() -> None:
    shape, profile = Shape(16, 1024, 1, 768), load_profile("h200")
    tilings = plan(load_cell("lstm"), shape, profile, schedules=["grid"])
    assert {tuple(t.values[name] for name in ("step_warps", "pause", "owner_pause")) for t in tilings} == {*FORWARD}
    small = plan(load_cell("lstm"), Shape(16, 1024, 1, 256), profile, schedules=["grid"])
    assert {(t.values["step_warps"], t.values["pause"]) for t in small} == {(0, AT_ONCE)}


@pytest.mark.unit
def test_few_loads_are_not_paced_first() -> None:
    best = plan(load_cell("lstm"), Shape(1, 1024, 1, 768), load_profile("h200"), schedules=["grid"])[0]
    assert best.values["pause"] == AT_ONCE
    assert re.search(r"pause=-1", str(best))
