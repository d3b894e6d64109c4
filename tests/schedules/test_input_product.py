"""Kernels that multiply their input themselves: against the float64 reference, compiled, asked for, refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import fine, refused

from kernelgen.build.compile import compile_source
from kernelgen.cells import load_cell
from kernelgen.cells.language import Cell, Gate, tanh
from kernelgen.emit.standalone import standalone
from kernelgen.errors import InfeasibleError, ShapeError
from kernelgen.hardware.profile import load_profile
from kernelgen.program.arguments import arguments_of
from kernelgen.program.shape import FEATURES, INPUT_PRODUCT, Shape
from kernelgen.program.source import Source
from kernelgen.program.tiling import Tiling
from kernelgen.records.config_reading import load_config
from kernelgen.schedules import all_schedules, get
from kernelgen.schedules.base import stated_problem
from kernelgen.schedules.resident.forward import apart_tiles
from kernelgen.tuning.floors import recurrence_floor_ms
from kernelgen.tuning.plan import plan
from kernelgen.verify.cases import make_case
from kernelgen.verify.reference import input_product
from kernelgen.verify.validate import validate_emulated

GPU, WITHOUT_STMATRIX = "h200", "a100-80gb"
BOTH = dict.fromkeys(FEATURES, True)
TILING = {
    "units_per_warp": 8,
    "batch_tile": 8,
    "k_split": 1,
    "k_tiles_in_registers": 1,
    "accumulators": 1,
    "num_stages": 3,
    "input_k_tiles_in_registers": 1,
    "overlap_input": 1,
}
BEHIND, IN_SHARED = {"overlap_input": 0}, {"input_k_tiles_in_registers": 0}
WIDE = {"units_per_warp": 16, "k_split": 2}


def tiling_of(cell: Cell, shape: Shape, changed: dict[str, int], gpu: str = GPU) -> Tiling:
    return get("resident").tiling(cell, shape, load_profile(gpu), TILING | changed)


@pytest.mark.emulated
@pytest.mark.parametrize(
    ("cell", "shape", "changed"),
    [
        pytest.param("lstm", Shape(7, 6, 1, 32, save="gates", inputs=48), {}, id="a tile and a half of x"),
        pytest.param("gru", Shape(3, 6, 1, 64, inputs=64, save="gates"), BEHIND | WIDE, id="K split, n apart"),
        pytest.param("gru", Shape(3, 6, 2, 33, inputs=7), {"k_split": 2} | IN_SHARED, id="odd sizes, a part without x"),
        pytest.param(
            "slstm",
            Shape(3, 9, 1, 40, "float16", "states", inputs=160),
            {"batch_tile": 4, "accumulators": 2, "k_tiles_in_registers": 2, "input_k_tiles_in_registers": 2}
            | {"num_stages": 12},
            id="pairs of h, part of W in shared memory, more stages than steps",
        ),
        pytest.param(
            "lstm", Shape(19, 9, 1, 34, **BOTH, inputs=20), {"batch_tile": 16, "num_stages": 2}, id="resets and lengths"
        ),
    ],
)
def test_every_kind_of_tile_is_right(cell: str, shape: Shape, changed: dict[str, int]) -> None:
    gpu = WITHOUT_STMATRIX if shape.head_dim % 2 else GPU
    definition, profile = load_cell(cell), load_profile(gpu)
    found = validate_emulated(
        definition, shape, tiling_of(definition, shape, changed, gpu), profile, range(2), seq=shape.seq
    )
    assert found.errors
    assert all(error <= found.tolerance for error in found.errors.values())


@pytest.mark.emulated
def test_gates_with_an_input_alone_are_right_wherever_they_stand() -> None:
    """Of the rows of W, two gates apart, in tiles beside gates with both products and by themselves."""
    cell = Cell(
        name="apart",
        title="A cell whose gates have one product, the other or both",
        states=("h",),
        gates=(Gate("a", recurrent=False), Gate("b"), Gate("c", input=False), Gate("d", recurrent=False, bias=False)),
        step=lambda gate, state: {"h": tanh(gate.a * gate.b) + tanh(gate.c + gate.d) * state.h / 2},
    )
    assert (apart_tiles(cell, 8), apart_tiles(cell, 16)) == (2, 2)
    assert (apart_tiles(load_cell("gru"), 8), apart_tiles(load_cell("gru"), 16)) == (1, 1)
    assert apart_tiles(load_cell("lstm"), 8) == 0
    shape = Shape(5, 6, 1, 64, save="gates", inputs=40)
    found = validate_emulated(cell, shape, tiling_of(cell, shape, {"k_split": 2}), load_profile(GPU), [0], seq=6)
    assert all(error <= found.tolerance for error in found.errors.values())


@pytest.mark.compiled
def test_what_is_planned_compiles_into_registers() -> None:
    cell, profile, shape = load_cell("lstm"), load_profile(GPU), Shape(512, 256, 1, 128, inputs=128)
    (tiling,) = plan(cell, shape, profile, top=1)
    assert_in_registers(tiling, get("resident").program(cell, shape, profile, tiling).main.source)


@pytest.mark.compiled
def test_a_source_that_stands_alone_compiles_into_registers() -> None:
    cell, profile, shape = load_cell("lstm"), load_profile(GPU), Shape(512, 256, 1, 64, inputs=64)
    wide = {"units_per_warp": 16, "batch_tile": 4, "k_tiles_in_registers": 2, "input_k_tiles_in_registers": 2}
    tiling = tiling_of(cell, shape, wide)
    program = get("resident").program(cell, shape, profile, tiling)
    text = standalone(program, shape)
    assert "struct InputProduct {" in text
    assert_in_registers(tiling, replace(program.main.source, text=text))


def assert_in_registers(tiling: Tiling, source: Source) -> None:
    report = compile_source(source).report
    assert report.local_memory == 0
    assert abs(tiling.resources.registers / report.registers - 1) <= 0.15


@pytest.mark.unit
def test_the_arguments_are_x_and_w_in_the_place_of_wx() -> None:
    cell, profile = load_cell("gru"), load_profile(GPU)
    shape = Shape(16, 64, 2, 32, inputs=20)
    program = get("resident").program(cell, shape, profile, tiling_of(cell, shape, {}))
    assert program.names[:6] == ("x", "w", "input_bias", "r", "b", "initial")
    arrays = {array.name: array for array in arguments_of(cell, shape, "forward").inputs}
    assert "wx" not in arrays
    assert [arrays[name].shape for name in ("x", "w", "input_bias")] == [(16, 64, 20), (3, 2, 32, 20), (3, 2, 32)]
    assert [arrays[name].optional for name in ("x", "w", "input_bias")] == [False, False, True]
    assert arrays["w"].in_words == "gate, head, unit, input"
    plain = arguments_of(cell, replace(shape, inputs=0), "forward").inputs
    assert [array.name for array in plain] == ["wx", "r", "b", "initial"]
    assert str(shape) == "B=16 T=64 2x32 bfloat16, 20 inputs"


@pytest.mark.unit
@pytest.mark.parametrize(
    "schedule",
    [
        each.name
        for direction in ("forward", "backward")
        for each in all_schedules(direction)
        if each.name != "resident"
    ],
)
def test_other_schedules_refuse_by_name(schedule: str) -> None:
    words = f"the {schedule} schedule knows no lengths and no product of its input."
    with pytest.raises(InfeasibleError) as caught:
        stated_problem(get(schedule), load_cell("lstm"), Shape(16, 64, 1, 64, **BOTH, inputs=64), load_profile(GPU))
    assert "no product of its input." in str(caught.value), words


@pytest.mark.unit
def test_what_makes_no_sense_is_refused() -> None:
    profile = load_profile(GPU)
    with pytest.raises(InfeasibleError, match=r"takes bfloat16, float16, float32, tf32 only, not float64"):
        stated_problem(get("resident"), load_cell("lstm"), Shape(16, 64, 1, 64, "float64", inputs=64), profile)
    lone = Cell(
        name="lone",
        title="A cell that hears nothing",
        states=("h",),
        gates=(Gate("a", input=False),),
        step=lambda gate, state: {"h": tanh(gate.a)},
    )
    with pytest.raises(InfeasibleError, match="no gate of lone has an input, so nothing multiplies the 64 inputs"):
        stated_problem(get("resident"), lone, Shape(16, 64, 1, 64, inputs=64), profile)
    for wrong in (-1, True, 2.0, "64"):
        with pytest.raises(ShapeError, match="inputs must be an integer of at least 0, not " + re.escape(repr(wrong))):
            Shape(16, 64, 1, 64, inputs=wrong)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="inputs must be at most 65,536"):
        Shape(16, 64, 1, 64, inputs=65_537)
    with pytest.raises(ShapeError, match=r"w must have shape \(4, 1, 8, 3\), not \(4, 1, 8, 5\)"):
        input_product(np.zeros((2, 2, 3)), np.zeros((4, 1, 8, 5)))


@pytest.mark.unit
def test_the_reference_multiplies_in_float64() -> None:
    case = make_case(load_cell("gru"), Shape(3, 4, 2, 8, "float16", "gates", inputs=5), 0)
    x, w, bias, b = (case.inputs[name].astype(np.float64) for name in ("x", "w", "input_bias", "b"))  # type: ignore[union-attr]
    n = np.einsum("bti,hdi->bthd", x, w[2]) + bias[2] + b[2]
    assert np.abs(case.expected["gates"][2] - n).max() <= 1e-6
    assert np.abs(input_product(x, w)[..., 2, :, :] + bias[2] + b[2] - n).max() <= 1e-12


@pytest.mark.unit
def test_the_command_line_asks_for_it_forward_alone() -> None:
    size = "lstm --gpu h200 --batch 64 --seq 8 --head-dim 32 --inputs 16"
    (found,) = json.loads(fine("plan --json --top 1", *size.split()))
    assert {"input_k_tiles_in_registers", "overlap_input"} <= found["tiling"].keys()
    for direction in ("backward", "both"):
        command = "plan" if direction == "backward" else "tune"
        assert "--inputs is about the forward kernel" in refused(command, *size.split(), "--direction", direction)
    nothing_fits = refused("plan --top 1", *size.split(), "--head-dim", 2048)
    assert "knows no product of its input. So it is with " in nothing_fits
    assert "streaming" in nothing_fits


@pytest.mark.emulated
def test_a_configuration_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    fine(
        "tune elman --gpu h200 --batch 2 --seq 3 --head-dim 16 --inputs 8 --top 1 --seeds 1 --dtype float16", "-o", path
    )
    config = load_config(path)
    assert config.shape == Shape(2, 3, 1, 16, "float16", inputs=8)
    assert "inputs: 8" in path.read_text()
    assert config.main.arguments[:3] == ("x", "w", "input_bias")
    assert "valid in the emulator" in fine("validate --emulate --seeds 1", path)


@pytest.mark.unit
def test_the_models_know_what_is_read_and_multiplied() -> None:
    """A quarter of the bytes where I is D; and never less than the recurrence, whose matrix work there is besides."""
    cell, profile = load_cell("lstm"), load_profile(GPU)
    plain, own = Shape(4096, 256, 1, 64), Shape(4096, 256, 1, 64, inputs=64)
    floors = [recurrence_floor_ms(cell, shape, profile, "forward") for shape in (plain, own)]
    assert floors[0] is not None
    assert floors[1] is not None
    assert floors[1] / floors[0] < 0.75
    schedule = get("resident")
    values = {name: value for name, value in TILING.items() if name not in ("input_k_tiles_in_registers", BEHIND)}
    given, made = schedule.work(cell, plain, profile, values), schedule.work(cell, own, profile, TILING)  # type: ignore[attr-defined]
    assert made.device_bytes * 5 == given.device_bytes * 2
    assert made.matrix == 2 * given.matrix
    assert (made.matrix_chain, made.chain_arithmetic) == (given.matrix_chain, given.chain_arithmetic)
    assert INPUT_PRODUCT in schedule.honours
