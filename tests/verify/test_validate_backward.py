"""Cases of backward kernels: their reference, how gradients compare, and validation in the emulator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kernelgen.cells import load_cell
from kernelgen.cells.language import Cell, Gate, tanh
from kernelgen.errors import ValidationError
from kernelgen.hardware.profile import load_profile
from kernelgen.program import dtypes
from kernelgen.program.arguments import arguments_of
from kernelgen.program.shape import Shape
from kernelgen.schedules import get
from kernelgen.tuning.plan import plan
from kernelgen.verify import reference
from kernelgen.verify.cases import ValidationCase, make_case
from kernelgen.verify.emulated_runs import emulated_steps
from kernelgen.verify.validate import emulate_main, validate_emulated

pytestmark = pytest.mark.unit

SHAPE = Shape(3, 5, 2, 8, "float16", "gates")
BARE = Cell(
    "bare",
    "No input and no bias",
    "none",
    ("h",),
    (Gate("a", input=False, bias=False),),
    lambda gate, state: {"h": 0.5 * state.h + 0.5 * tanh(gate.a)},
)


LINEAR = Cell(
    "linear",
    "No sum to be saved, and a bias that is read",
    "none",
    ("h",),
    (Gate("a"), Gate("g", input=False), Gate("p", recurrent=False, input=False)),
    lambda gate, state: {"h": 0.5 * gate.a + 0.25 * gate.g + 0.1 * gate.p * state.h},
    gain=0.5,
)


@pytest.fixture(scope="module")
def case() -> ValidationCase:
    """A case with every kind of output: GRU has a gate without an input."""
    return make_case(load_cell("gru"), SHAPE, 0, direction="backward")


def _right(case: ValidationCase) -> dict[str, Any]:
    kinds = {argument.name: dtypes.numpy_dtype(argument.dtype) for argument in case.table.values()}
    return {name: array.astype(kinds[name]) for name, array in case.expected.items()}


def _array(case: ValidationCase, name: str) -> Any:
    array = case.inputs[name]
    assert array is not None
    return array


def test_the_reference_reads_what_a_kernel_reads(case: ValidationCase) -> None:
    """The gradients from the saved arrays alone, step by step, as the definition says."""
    from kernelgen.emit.numpy import numpy_backward

    cell, shape = load_cell("gru"), case.shape
    dtype = np.float16
    given = {name: _array(case, name).astype(np.float64) for name in case.inputs if case.inputs[name] is not None}
    step, r = numpy_backward(cell), given["r"]
    carried = given["d_last"]
    d_gates = np.zeros((len(cell.gates), shape.batch, shape.seq, shape.heads, shape.head_dim))
    for t in reversed(range(shape.seq)):
        before = given["states"][:, :, t - 1] if t else given["initial"]
        made, back = step(list(given["gates"][:, :, t]), list(before), list(carried + given["d_states"][:, :, t]))
        d_gates[:, :, t] = np.stack(made).astype(dtype)
        carried = np.stack(back)
        for index, gate in enumerate(cell.recurrent_gates):
            carried[0] += np.einsum("bhd,hdp->bhp", d_gates[gate, :, t], r[index])
    inputs, inputless = list(cell.input_gates), cell.inputless_products[0]
    before = np.concatenate([given["initial"][0][:, None], given["states"][0][:, :-1]], axis=1)
    np.testing.assert_allclose(case.expected["d_wx"], np.moveaxis(d_gates[inputs], 0, 2), rtol=1e-3, atol=1e-6)
    d_r = np.einsum("bthd,bthp->hdp", d_gates[inputless], before)
    np.testing.assert_allclose(case.expected["d_r_partial"][0, 0], d_r, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(case.expected["d_b_partial"][0, 0], d_gates[inputless].sum((0, 1)), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(case.expected["d_initial"], carried, rtol=1e-3, atol=1e-6)


def test_inputs_have_the_shapes_of_the_table_and_the_dtype(case: ValidationCase) -> None:
    for argument in case.arguments.inputs:
        if not argument.empty:
            array = _array(case, argument.name)
            assert (array.shape, array.dtype, array.flags.c_contiguous) == (argument.shape, np.float16, True)
    bare = make_case(load_cell("gru"), SHAPE, 0, direction="backward", optional=False, batch=2, seq=3)
    assert bare.inputs["initial"] is None
    assert bare.inputs["d_last"] is None
    assert _array(bare, "states").shape == (1, 2, 3, 2, 8)
    hidden = make_case(load_cell("lstm"), replace(SHAPE, save="hidden"), 0, direction="backward")
    assert (_array(hidden, "states").shape[0], _array(hidden, "d_states").shape[0]) == (2, 1)
    again = make_case(load_cell("gru"), SHAPE, 0, direction="backward")
    assert np.array_equal(_array(again, "d_states"), _array(case, "d_states"))


def test_a_right_gradient_passes_and_every_output_is_poisoned(case: ValidationCase) -> None:
    errors = case.compare(_right(case))
    assert list(errors) == ["d_wx", "d_r", "d_b", "d_initial", "d_inputless", "d_r_partial", "d_b_partial"]
    assert all(0 <= error < 3e-4 for error in errors.values())
    written = {name: case.table[name].shape for name in case.expected}
    outputs = case.poisoned(written)
    assert {name: array.shape for name, array in outputs.items() if array is not None} == written
    for name in written:
        with pytest.raises(ValidationError, match=f"elements of {name} were never written"):
            case.compare(_right(case) | {name: outputs[name]})


def test_partial_sums_are_added(case: ValidationCase) -> None:
    right = _right(case)
    parts = np.random.default_rng(0).uniform(-1, 1, (3, *right["d_r_partial"].shape[1:])).astype(np.float32)
    parts[2] = right["d_r_partial"][0] - parts[0] - parts[1]
    assert case.compare(right | {"d_r_partial": parts})["d_r_partial"] < 1e-5
    several = case.poisoned(("d_wx", "d_r_partial", "d_b_partial", "d_initial"), {"P": 3})
    assert [array.shape[0] for array in several.values() if array is not None] == [3, 3, 3, 1]
    with pytest.raises(ValidationError, match="d_r_partial differs from the reference"):
        case.compare(right | {"d_r_partial": parts[:2]})
    parts[1, 0, 0, 5, 2] = several["d_r_partial"][0, 0, 0, 0, 0]  # type: ignore[index]
    with pytest.raises(
        ValidationError, match=r"1 of 384 elements of d_r_partial were never written, first d_r_partial\[1, 0"
    ):
        case.compare(right | {"d_r_partial": parts})


@pytest.mark.parametrize(
    ("name", "index", "axes"),
    [
        ("d_wx", (2, 3, 1, 1, 7), "batch, step, gate, head, unit"),
        ("d_r_partial", (0, 0, 1, 0, 7), "partial sum, gate, head, unit, unit"),
        ("d_initial", (0, 1, 1, 2), "state, batch, head, unit"),
    ],
)
def test_one_wrong_element_is_found_and_named(
    case: ValidationCase, name: str, index: tuple[int, ...], axes: str
) -> None:
    outputs = _right(case)
    outputs[name][index] += 1
    with pytest.raises(ValidationError) as caught:
        case.compare(outputs)
    message = str(caught.value)
    assert f"{name}[{', '.join(map(str, index))}] ({axes})" in message
    assert ": 1 of" in message or "; 1 of" in message


def test_the_first_difference_is_first_in_time(case: ValidationCase) -> None:
    outputs = _right(case)
    outputs["d_wx"][0, 4, 0, 0, 0] += 1
    outputs["d_wx"][2, 1, 1, 1, 3] += 1
    with pytest.raises(ValidationError, match=r"d_wx\[2, 1, 1, 1, 3\].*2 of 720"):
        case.compare(outputs)


def test_a_gradient_may_err_by_more_than_a_state_but_not_by_much() -> None:
    for dtype in ("bfloat16", "float16"):
        forward, backward = (dtypes.tolerance(dtype, 1024, direction) for direction in ("forward", "backward"))  # type: ignore[arg-type]
        assert forward < backward < 3 * forward
        assert backward < 5e-3


def test_only_huge_gradients_may_have_an_element_on_the_other_side_of_a_kink() -> None:
    assert dtypes.far_elements(1 << 30, "forward") == 0
    assert dtypes.far_elements((1 << 20) - 1, "backward") == 0
    assert dtypes.far_elements(5 << 20, "backward") == 5
    shape = Shape(16, 1024, 1, 64, "float16")
    arguments = arguments_of(load_cell("elman"), shape, "backward")
    expected = {array.name: np.ones(array.shape, np.float32) for array in arguments.outputs if not array.empty}
    large = ValidationCase(shape, "backward", 0, ("h",), arguments, {}, expected)
    outputs = _right(large)
    outputs["d_wx"][3, 500, 0, 0, 9] = 3
    assert 0 < large.compare(outputs)["d_wx"] < large.tolerance
    outputs["d_wx"][3, 500, 0, 0, 10] = 3
    with pytest.raises(ValidationError, match=r"d_wx\[3, 500, 0, 0, 9\].*2 of 1,048,576"):
        large.compare(outputs)


def test_sums_that_are_rounded_on_their_way_may_err_by_a_rounding_more() -> None:
    shape = Shape(5, 19, 2, 64, "bfloat16")
    arguments = arguments_of(load_cell("elman"), shape, "backward")
    expected = {array.name: np.ones(array.shape, np.float32) for array in arguments.outputs if not array.empty}
    case = ValidationCase(shape, "backward", 0, ("h",), arguments, {}, expected)
    rounds = case.allowing(("d_wx", "d_sums"))
    assert case.allowing(("d_wx",)) == case
    assert case.tolerance < rounds.tolerance < 1.5 * case.tolerance
    outputs = _right(case)
    outputs["d_wx"][:] = 1 + 2**-7 * (np.arange(outputs["d_wx"].size).reshape(outputs["d_wx"].shape) % 3 == 0)
    with pytest.raises(ValidationError, match=r"relative error 0\.0045"):
        case.compare(outputs)
    assert rounds.compare(outputs)["d_wx"] > case.tolerance


# ---- in the emulator ----


@pytest.mark.emulated
@pytest.mark.parametrize(("save", "recompute"), [("hidden", False), ("gates", False), ("states", True)])
@pytest.mark.parametrize("cell", [load_cell("lstm"), load_cell("gru"), BARE, LINEAR], ids=lambda cell: str(cell.name))
def test_backward_kernels_are_right_in_the_emulator(cell: Cell, save: str, recompute: bool) -> None:
    shape, profile = Shape(3, 14, 1, 16, "bfloat16", save, recompute), load_profile("h200")
    tiling = plan(cell, shape, profile, top=1, direction="backward")[0]
    found = validate_emulated(cell, shape, tiling, profile, (0, 1))
    program = get(tiling.schedule).program(cell, shape, profile, tiling)
    steps = emulated_steps(program)
    assert tiling.values["num_stages"] < steps <= shape.seq
    assert (found.where, found.seeds, found.batch, found.seq) == ("emulator", 2, 3, steps)
    if cell.inputless_products:  # an exact tie of a gradient that nobody writes is no fault of the kernel's
        assert dtypes.EXACT <= found.tolerance < 1e-2
    else:
        assert found.tolerance == dtypes.EXACT
    assert 0 <= found.worst <= min(found.tolerance, dtypes.EXACT)
    arguments = program.arguments(cell, shape)
    written = [each for each in (*arguments.outputs, *arguments.workspaces) if not each.empty]
    assert list(found.errors) == [each.name for each in written if each.name in program.main.source.writes]


def test_a_kernel_of_the_other_direction_is_told_in_words(case: ValidationCase) -> None:
    with pytest.raises(ValidationError, match="the kernel takes last, which no backward kernel of"):
        case.values({}, ("wx", "r", "last", "states"))


@pytest.mark.emulated
def test_a_wrong_backward_source_is_found() -> None:
    cell, profile = load_cell("elman"), load_profile("h200")
    shape = Shape(2, 4, 1, 16, save="gates")
    tiling = plan(cell, shape, profile, top=1, direction="backward")[0]
    schedule = get(tiling.schedule)
    program = schedule.program(load_cell("elman_relu"), shape, profile, tiling)
    with pytest.raises(ValidationError, match=r"d_wx differs from the reference.*seed 0"):
        emulate_main(cell, shape, program, (0,))


def test_the_reference_of_a_cell_with_neither_input_nor_bias() -> None:
    made = make_case(BARE, SHAPE, 0, direction="backward")
    assert list(made.expected) == ["d_r", "d_initial", "d_inputless", "d_r_partial"]
    forward = make_case(BARE, SHAPE, 0)
    assert forward.inputs["wx"] is None
    assert forward.inputs["b"] is None
    result = reference.forward(
        BARE, np.zeros((3, 5, 0, 2, 8)), _array(forward, "r"), np.zeros((0, 2, 8)), _array(forward, "initial")
    )
    assert np.abs(result.states - forward.expected["states"]).max() < 1e-2
