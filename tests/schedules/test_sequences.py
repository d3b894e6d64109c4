"""Resets and lengths inside the kernels: every schedule that honours them, on the CPU against the float64 reference."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from drawn import drawn_tiling

from kernelgen.build.compile import compile_source
from kernelgen.cells import load_cell
from kernelgen.errors import InfeasibleError
from kernelgen.hardware.profile import load_profile
from kernelgen.program.arguments import arguments_of
from kernelgen.program.shape import FEATURES, Shape
from kernelgen.schedules import all_schedules, get
from kernelgen.schedules.base import stated_problem
from kernelgen.schedules.shared.parameter_gradients import ParameterGradients
from kernelgen.tuning.plan import plan
from kernelgen.verify.validate import validate_emulated
from kernelgen.verify.validate_parameters import emulate_parameters

GPU, WITHOUT_STMATRIX = "h200", "a100-80gb"
BOTH = dict.fromkeys(FEATURES, True)
HONOUR = [
    (schedule.name, cell, features)
    for direction in ("forward", "backward")
    for schedule in all_schedules(direction)
    for cell, features in (("lstm", {"resets": True}), ("gru", {"lengths": True}), ("gru", BOTH))
    if {*features} <= {*schedule.honours}
]


def check(schedule: str, cell: str, shape: Shape, values: dict[str, int] | None, seeds: int, gpu: str = GPU) -> None:
    """Emulate a tiling, or one that is drawn; raises where a fault is found or the result is off."""
    definition, profile = load_cell(cell), load_profile(gpu)
    if values is None:
        tiling = drawn_tiling(schedule, cell, shape, gpu)
    else:
        tiling = get(schedule).tiling(definition, shape, profile, values)
    validation = validate_emulated(definition, shape, tiling, profile, range(seeds), seq=shape.seq)
    assert validation.errors
    assert all(error <= validation.tolerance for error in validation.errors.values())


@pytest.mark.emulated
@pytest.mark.parametrize(("schedule", "cell", "features"), HONOUR)
def test_a_tiling_drawn_from_the_problem_is_right(schedule: str, cell: str, features: dict[str, bool]) -> None:
    check(schedule, cell, Shape(7, 9, 2, 32, "float16", "gates", **features), None, 3)


FORWARD = {
    "units_per_warp": 8,
    "batch_tile": 8,
    "k_split": 1,
    "k_tiles_in_registers": 1,
    "accumulators": 1,
    "num_stages": 3,
}
PAIRS = {"batch_tile": 4, "units_per_warp": 16, "accumulators": 2}
BACKWARD = {"batch_tile": 8, "k_tiles_in_registers": 1, "accumulators": 2, "num_stages": 3}
AGAIN = {"recompute_k_tiles_in_registers": 1}


@pytest.mark.emulated
@pytest.mark.parametrize(
    ("schedule", "cell", "shape", "values"),
    [
        pytest.param("resident", "lstm", Shape(5, 9, 1, 64), FORWARD | {"k_split": 2}, id="K split"),
        pytest.param("resident", "gru", Shape(7, 9, 1, 66, save="gates"), FORWARD | PAIRS, id="pairs of k-tiles"),
        pytest.param(
            "resident",
            "slstm",
            Shape(27, 9, 1, 40, save="states"),
            FORWARD | {"batch_tile": 24, "num_stages": 12},
            id="three column tiles, more stages than steps",
        ),
        pytest.param("resident", "elman", Shape(3, 1, 2, 33), FORWARD, id="one step"),
        pytest.param("resident", "lstm", Shape(5, 300, 1, 32), FORWARD | PAIRS | {"accumulators": 1}, id="300 steps"),
        pytest.param("resident", "lstm", Shape(5, 101, 1, 32), FORWARD, id="rows of resets that are not aligned"),
        pytest.param("resident_backward", "lstm", Shape(5, 300, 1, 32, save="gates"), BACKWARD, id="300 steps back"),
        pytest.param("cluster_backward", "lstm", Shape(5, 100, 1, 64, save="gates"), None, id="100 steps, cluster"),
        pytest.param("grid_backward", "lstm", Shape(5, 100, 1, 64, save="gates"), None, id="100 steps, grid"),
        pytest.param(
            "resident_backward",
            "lstm",
            Shape(21, 9, 1, 64, save="gates"),
            BACKWARD | {"batch_tile": 16, "num_stages": 4},
            id="two column tiles, backward",
        ),
        pytest.param("resident_backward", "gru", Shape(7, 9, 1, 33), BACKWARD | {"batch_tile": 4}, id="h is held"),
        pytest.param(
            "resident_backward", "lstm", Shape(5, 9, 1, 64, recompute=True), BACKWARD | AGAIN, id="gates recomputed"
        ),
        pytest.param(
            "resident_backward",
            "slstm",
            Shape(5, 9, 1, 40, save="gates", recompute=True),
            BACKWARD | {"num_stages": 12} | AGAIN,
            id="and more stages than steps",
        ),
        pytest.param("resident_backward", "elman", Shape(3, 1, 2, 33), BACKWARD, id="one step, backward"),
    ],
)
def test_every_kind_of_tile_is_right(schedule: str, cell: str, shape: Shape, values: dict[str, int] | None) -> None:
    check(schedule, cell, replace(shape, **BOTH), values, 4, WITHOUT_STMATRIX if shape.head_dim % 2 else GPU)


@pytest.mark.emulated
@pytest.mark.parametrize("clipped", [True, False], ids=["clipped", "cut"])
def test_the_recurrent_gradient_is_cut_and_clipped_between_the_ends(clipped: bool) -> None:
    cell = load_cell("lstm").with_gradient(recurrent_clip=0.01 if clipped else None, recurrent_cut=not clipped)
    shape, profile = Shape(7, 9, 1, 32, **BOTH), load_profile(GPU)
    tiling = get("resident_backward").tiling(cell, shape, profile, BACKWARD | {"accumulators": 1})
    assert validate_emulated(cell, shape, tiling, profile, range(4), seq=9).errors


@pytest.mark.emulated
@pytest.mark.parametrize(
    ("cell", "shape", "gpu", "inputless"),
    [
        ("lstm", Shape(16, 1024, 2, 64), GPU, False),
        ("gru", Shape(16, 1024, 1, 33), GPU, True),
        ("lstm", Shape(16, 1024, 2, 20), WITHOUT_STMATRIX, False),
        ("gru", Shape(4, 64, 2, 96, "float32"), GPU, False),
    ],
)
def test_the_gradient_of_r_is_of_the_initial_h_at_a_reset(cell: str, shape: Shape, gpu: str, inputless: bool) -> None:
    found = emulate_parameters(
        load_cell(cell), replace(shape, resets=True), load_profile(gpu), range(4), inputless=inputless
    )
    assert all(error <= found.tolerance for error in found.errors.values())


@pytest.mark.compiled
@pytest.mark.parametrize(("schedule", "features"), [(each[0], each[2]) for each in HONOUR if len(each[2]) == 2])
def test_they_compile_into_registers_as_predicted(schedule: str, features: dict[str, bool]) -> None:
    cell, profile = load_cell("lstm"), load_profile(GPU)
    dims = {"resident": 64, "cluster": 256, "streamed_grid": 2560, "wide": 512}
    dim = dims.get(schedule.removesuffix("_backward"), 768)
    shape = Shape(16, 1024, 1, dim, save="gates", **features)
    tiling = plan(cell, shape, profile, top=1, schedules=[schedule])[0]
    program = get(schedule).program(cell, shape, profile, tiling)
    report = compile_source(program.main.source).report
    assert report.local_memory == 0
    assert abs(tiling.resources.registers / report.registers - 1) <= 0.15


@pytest.mark.compiled
def test_the_kernel_of_dr_compiles_into_registers() -> None:
    for gpu in (GPU, WITHOUT_STMATRIX):
        kernel = ParameterGradients(load_cell("lstm"), Shape(16, 1024, 2, 64, resets=True), load_profile(gpu))
        assert compile_source(kernel.calls()[0].source).report.local_memory == 0


@pytest.mark.unit
def test_arguments_appear_where_they_are_asked_for() -> None:
    cell, profile = load_cell("lstm"), load_profile(GPU)
    for asked, names in (
        ({}, set()),
        ({"resets": True}, {"resets"}),
        ({"lengths": True}, {"lengths", "order"}),
        (BOTH, {"resets", "lengths", "order"}),
    ):
        for direction, schedule in (("forward", "resident"), ("backward", "resident_backward")):
            shape = Shape(16, 64, 2, 64, save="gates", **asked)
            tiling = plan(cell, shape, profile, top=1, schedules=[schedule])[0]
            program = get(schedule).program(cell, shape, profile, tiling)
            assert {*program.names} & {"resets", "lengths", "order"} == names
            arrays = {array.name: array for array in arguments_of(cell, shape, direction).inputs}
            assert arrays.keys() & {"resets", "lengths", "order"} == names
            if asked == BOTH:
                assert arrays["resets"].shape == (16, 64)
                assert (arrays["resets"].dtype, arrays["lengths"].dtype) == ("uint8", "int32")
            assert ("Sequences" in program.main.source.text) == bool(asked)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("honours", "words"),
    [
        ((), "the resident schedule knows no resets and no lengths."),
        (("lengths",), "the resident schedule knows no resets."),
    ],
)
def test_a_schedule_that_does_not_know_them_says_so(
    monkeypatch: pytest.MonkeyPatch, honours: tuple[str, ...], words: str
) -> None:
    cell, profile, shape = load_cell("lstm"), load_profile(GPU), Shape(16, 64, 1, 64, **BOTH)
    monkeypatch.setattr(type(get("resident")), "honours", honours)
    with pytest.raises(InfeasibleError, match=re.escape(words)):
        stated_problem(get("resident"), cell, shape, profile)
    with pytest.raises(InfeasibleError, match=re.escape(words)):
        plan(cell, shape, profile, schedules=["resident"])
