"""Kernels of GPUs that lack instructions, and of float64: emulated, compiled, and refused by name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from drawn import drawn_tiling

from kernelgen.build.compile import compile_program
from kernelgen.cells import load_cell
from kernelgen.hardware.profile import load_profile
from kernelgen.program.program import Program
from kernelgen.program.shape import Shape
from kernelgen.schedules import get
from kernelgen.schedules.base import refusal
from kernelgen.tuning.plan import plan
from kernelgen.verify.validate import validate_emulated

SEQ = 6


def first_choice(schedule: str, cell: str, shape: Shape, gpu: str) -> Program:
    """The program of a schedule's best tiling by the model."""
    which, definition, profile = get(schedule), load_cell(cell), load_profile(gpu)
    best = plan(definition, shape, profile, schedules=[schedule], direction=which.direction, top=1)[0]
    return which.program(definition, shape, profile, best)


@pytest.mark.emulated
@pytest.mark.parametrize(
    ("schedule", "cell", "dtype", "dim"),
    [
        pytest.param("streaming", "gru", "float16", 24, id="m16n8k8 in pairs"),
        pytest.param("streaming_backward", "gru", "float32", 17, id="floats by lanes, odd"),
        pytest.param("streaming", "lstm", "tf32", 17, id="rounded floats by lanes"),
        pytest.param("streaming_backward", "lstm", "float64", 24, id="doubles by lanes"),
    ],
)
def test_what_takes_the_place_of_an_instruction_is_right(schedule: str, cell: str, dtype: str, dim: int) -> None:
    shape = Shape(3, SEQ, 1, dim, dtype, "gates")
    tiling = drawn_tiling(schedule, cell, shape, "t4")
    checked = validate_emulated(load_cell(cell), shape, tiling, load_profile("t4"), range(2), seq=SEQ)
    assert checked.errors
    assert max(checked.errors.values()) <= checked.tolerance


IN_TURN = {
    "units": 16,
    "batch_tile": 8,
    "units_per_warp": 16,
    "rows_per_warp": 8,
    "part_k": 32,
    "stationary": 0,
    "num_stages": 3,
    "blocks": 2,
}


@pytest.mark.emulated
@pytest.mark.parametrize(
    ("schedule", "cell", "shape", "changed"),
    [
        pytest.param("streaming", "slstm", Shape(11, SEQ, 1, 35, lengths=True), {}, id="in turn, lengths"),
        pytest.param("streaming_backward", "gru", Shape(11, SEQ, 1, 35, resets=True), {}, id="backward, resets"),
        pytest.param("streaming", "lstm", Shape(18, SEQ, 1, 36), {"blocks": 0, "stationary": 1}, id="R stays in part"),
    ],
)
def test_doubles_are_right_to_a_trillionth(schedule: str, cell: str, shape: Shape, changed: dict[str, int]) -> None:
    """Of all that a float does not hold: both factors of a product, its sum, states, and what a step computes."""
    shape, profile = replace(shape, dtype="float64", save="gates"), load_profile("h200")
    tiling = get(schedule).tiling(load_cell(cell), shape, profile, IN_TURN | changed)
    checked = validate_emulated(load_cell(cell), shape, tiling, profile, range(2), seq=SEQ)
    assert max(checked.errors.values()) < 1e-12


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("gpu", "schedule", "cell", "shape"),
    [
        ("t4", "resident", "lstm", Shape(16, 64, 2, 64, "float16")),
        ("t4", "streaming_backward", "gru", Shape(16, 64, 1, 300, "float16", "gates")),
        ("t4", "streaming", "lstm", Shape(16, 64, 1, 300, "float32")),
        ("b300", "streaming", "lstm", Shape(16, 64, 1, 300, "float64")),
        ("h200", "streaming_backward", "slstm", Shape(33, 64, 1, 333, "float64", "gates")),
    ],
)
def test_the_first_choice_keeps_to_its_registers(gpu: str, schedule: str, cell: str, shape: Shape) -> None:
    for binary in compile_program(first_choice(schedule, cell, shape, gpu)):
        assert not binary.report.local_memory


@pytest.mark.unit
@pytest.mark.parametrize("schedule", ["resident", "streaming", "streaming_backward", "grid"])
def test_bfloat16_is_refused_by_name_where_there_is_none(schedule: str) -> None:
    cell, t4, shape = load_cell("lstm"), load_profile("t4"), Shape(16, 64, 1, 64, "bfloat16", "gates")
    assert refusal(get(schedule), cell, shape, t4) == (
        f"the {schedule} schedule needs the matrix instruction m16n8k16 for bfloat16, which t4 (sm_75) lacks; "
        "in bfloat16 it runs on sm_80 and newer."
    )
    assert not refusal(get(schedule), cell, replace(shape, dtype="float16"), t4)


@pytest.mark.unit
def test_a_gpu_of_another_maker_lacks_even_multiply_adds() -> None:
    said = refusal(get("streaming"), load_cell("lstm"), Shape(1, 4, 1, 16, "float32"), load_profile("mi300x"))
    assert "m16n8k8 for tf32 and ldmatrix, which mi300x (gfx942) lacks" in said
