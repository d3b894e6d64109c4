"""Cases, how outputs compare, and validation in the emulator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kernelgen.cells import load_cell
from kernelgen.cells.language import Cell, Gate, sigmoid, tanh
from kernelgen.errors import NotFiniteError, ValidationError
from kernelgen.hardware.profile import load_profile
from kernelgen.program import dtypes
from kernelgen.program.launch import Launch
from kernelgen.program.shape import Shape
from kernelgen.tuning.plan import plan
from kernelgen.verify import emulated_runs, reference, validate
from kernelgen.verify.cases import ValidationCase, make_case

pytestmark = pytest.mark.unit

SMALL = Shape(2, 4, 1, 16)


def cell_of(step: Any, **options: Any) -> Cell:
    """A cell of one state and one gate, with h = step(a, h)."""
    return Cell("odd", "Odd", "none", ("h",), (Gate("a"),), lambda gate, state: {"h": step(gate.a, state.h)}, **options)


GROWING = cell_of(lambda a, h: 30 * h * h + a)
NEGATIVE = cell_of(lambda a, h: a**0.5)


@pytest.fixture(scope="module")
def case() -> ValidationCase:
    """A case with every kind of output."""
    return make_case(load_cell("lstm"), Shape(3, 5, 2, 8, "float16", "gates"), 0)


def _right(case: ValidationCase) -> dict[str, Any]:
    outputs = case.poisoned(case.expected)
    return {name: case.expected[name].astype(array.dtype) for name, array in outputs.items() if array is not None}


def test_a_right_result_passes_with_an_error_for_every_output(case: ValidationCase) -> None:
    errors = case.compare(_right(case))
    assert list(errors) == ["h", "c", "last", "gates"]
    assert errors["h"] == 0
    assert 0 < errors["c"] < 3e-4  # c is rounded once, to float16


@pytest.mark.parametrize(
    ("name", "index"), [("states", (1, 2, 3, 1, 7)), ("last", (0, 1, 0, 4)), ("gates", (3, 0, 4, 1, 0))]
)
def test_one_wrong_element_is_found_and_named(case: ValidationCase, name: str, index: tuple[int, ...]) -> None:
    outputs = _right(case)
    outputs[name][index] += 1
    with pytest.raises(ValidationError) as caught:
        case.compare(outputs)
    message = str(caught.value)
    assert f"{name}[{', '.join(map(str, index))}]" in message
    assert "1 of" in message
    assert "got" in message
    assert "expected" in message


def test_the_first_difference_is_first_in_time(case: ValidationCase) -> None:
    outputs = _right(case)
    outputs["states"][0, 0, 4, 0, 0] += 1
    outputs["states"][0, 2, 1, 1, 3] += 1
    with pytest.raises(ValidationError, match=r"states\[0, 2, 1, 1, 3\].*2 of 240"):
        case.compare(outputs)


def test_many_small_errors_fail_too(case: ValidationCase) -> None:
    outputs = _right(case)
    outputs["states"][0] *= np.float16(1.02)
    with pytest.raises(ValidationError, match=r"relative error 0\.0[12]"):
        case.compare(outputs)


def test_nan_and_what_nobody_wrote_never_pass(case: ValidationCase) -> None:
    outputs = _right(case)
    outputs["last"][1, 2, 1, 5] = np.nan
    with pytest.raises(ValidationError, match=r"1 of 96 elements of last are NaN, first last\[1, 2, 1, 5\]"):
        case.compare(outputs)
    untouched = _right(case)
    untouched["states"][:, 2:] = case.poisoned(["states"])["states"][:, 2:]  # type: ignore[index]
    with pytest.raises(
        ValidationError, match=r"160 of 480 elements of states were never written, first states\[0, 2, 0"
    ):
        case.compare(untouched)


def test_a_case_that_follows_a_kernel_shows_a_wrong_rounding_where_it_is_made() -> None:
    cell, shape = load_cell("lstm"), Shape(3, 9, 2, 8, "bfloat16", "gates")
    kind = dtypes.numpy_dtype(shape.dtype)
    case = make_case(cell, shape, 0)
    given: dict[str, Any] = dict(case.inputs)

    def outputs(flip: bool) -> dict[str, Any]:
        """What a kernel makes that rounds one h to the neighbour."""
        first = reference.forward(cell, given["wx"][:, :3], given["r"], given["b"], given["initial"], round_h=kind)
        if flip:
            h = first.last[0, 1, 0]
            h[3] = np.nextafter(h[3].astype(kind), np.array(9, kind))
            first.states[0, :, 2] = first.last[0]
        then = reference.forward(cell, given["wx"][:, 3:], given["r"], given["b"], first.last, round_h=kind)
        assert first.gates is not None
        assert then.gates is not None
        states, gates = (
            np.concatenate(pair, 2).astype(kind) for pair in ((first.states, then.states), (first.gates, then.gates))
        )
        return {"states": states, "last": then.last.astype(kind), "gates": gates}

    for flip in (False, True):
        made = outputs(flip)
        exact = make_case(cell, shape, 0, follow=made)
        if not flip:
            assert max(exact.compare(made).values()) < 1e-9
            continue
        with pytest.raises(ValidationError, match=r"first at states\[0, 1, 2, 0, 3\].*; 1 of 432 elements"):
            exact.compare(made)
        assert np.count_nonzero(made["states"][:, :, 3:] != outputs(False)["states"][:, :, 3:]) > 1  # elsewhere too


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_half_the_spacing_is_what_rounding_errs_by_at_most(dtype: str) -> None:
    kind = dtypes.numpy_dtype(dtype)
    values = np.array([1.0, 1.5, -3.0, 2.0**-10, 100.0, 0.0, 2.0**-20], kind)
    above = np.nextafter(values, np.array(np.inf, kind)).astype(np.float64)
    half = np.abs(above - values.astype(np.float64)) / 2
    found = dtypes.half_spacing(values.astype(np.float32), dtype)
    expected = np.where(values == 0, found, half)
    assert np.array_equal(found[values > 0], expected[values > 0])
    assert found[2] == 2 * found[0]
    assert 0 < found[5] <= found.min()


# ---- a reference that is no number ----


@pytest.mark.parametrize(
    ("cell", "dtype", "words"),
    [
        (NEGATIVE, "bfloat16", r"NaN at step 0 of 60: state h in states\[0, 0, 0, 0, \d+\]"),
        (GROWING, "bfloat16", r"too large for bfloat16 \(.*\) at step [1-9] of 60: state h in states"),
        (GROWING, "float16", r"too large for float16 \(.*\) at step [1-9] of 60: state h in states"),
    ],
)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_reference_that_is_no_number_is_the_cells_own(cell: Cell, dtype: str, words: str, direction: Any) -> None:
    with pytest.raises(NotFiniteError, match=words) as caught:
        make_case(cell, Shape(2, 60, 1, 8, dtype), 0, direction=direction)
    for name in ("gain=", "ranges={", "docs/cells.md", "reference of odd itself", "seed 0"):
        assert name in str(caught.value)


def test_gradients_that_are_no_numbers_are_the_cells_own() -> None:
    root = cell_of(lambda a, h: sigmoid(a) + h**0.5)  # its slope at 0 is infinite
    make_case(root, SMALL, 0, optional=False)
    with pytest.raises(NotFiniteError, match=r"odd itself is too large for bfloat16 \(.*inf\): state h in d_initial"):
        make_case(root, SMALL, 0, direction="backward", optional=False)


def test_ranges_and_gain_are_a_cure() -> None:
    slow = replace(cell_of(lambda a, h: h * h + 0.1 * tanh(a), gain=0.1), ranges={"h": (0.0, 0.1)})
    make_case(slow, Shape(2, 60, 1, 8), 0)


# ---- what is emulated ----


def test_seeds_differ_in_steps_and_in_what_is_null() -> None:
    def launch(shape: Shape) -> Launch:
        return Launch((shape.heads, -(-shape.batch // 8), 1), 32, 0)

    shape = Shape(16, 1024, 3, 64)
    whole = [emulated_runs.whole_run(shape, launch, 8, seed) for seed in range(16)]
    assert {run.shape.seq for run in whole} == set(range(1, 9))
    assert [run.shape.seq for run in whole[:2]] == [8, 1]
    for parity in (0, 1):
        assert len({run.given for run in whole[parity::2]}) == 4
    lone = [emulated_runs.lone_run(shape, launch, seed) for seed in range(16)]
    for run, other in zip(lone, whole, strict=True):
        assert run is not None
        assert {*run.given} | {*other.given} == {"initial", "d_last", "input_bias"}
        assert not {*run.given} & {*other.given}
        assert run.shape.seq >= 24
        assert run.launched.batch % 8 == run.shape.batch > 0
        assert run.launched.batch * 3 * 64 > 2**32
        assert run.blocks == ((run.launched.batch // 8) * 3 + (run.head or 0),)
    assert {run.head for run in lone if run} == {0, 1, 2}
    assert len({run.shape.batch for run in lone if run}) == 7

    assert emulated_runs.lone_run(shape, lambda shape: Launch((shape.heads, 4, 1), 32, 0), 0) is None
    assert emulated_runs.lone_run(shape, lambda shape: Launch((2 * shape.heads, shape.batch, 1), 32, 0), 0) is None
    assert emulated_runs.lone_run(replace(shape, heads=1, head_dim=1), launch, 0).launched.batch < 2**31  # type: ignore[union-attr]


@pytest.mark.emulated
def test_a_cell_that_grows_only_after_the_steps_asked_for_is_valid() -> None:
    cell, profile = cell_of(lambda a, h: 8 * h + a, gain=0.5), load_profile("h200")
    shape = replace(SMALL, dtype="float16")
    tiling = plan(cell, shape, profile)[0]
    assert validate.validate_emulated(cell, shape, tiling, profile, (0,)).worst <= dtypes.EXACT
    with pytest.raises(NotFiniteError, match="too large for float16"):
        validate.validate_emulated(cell, replace(shape, seq=64), tiling, profile, (0,), seq=24)


# ---- validation in the emulator ----


def test_the_emulated_shape_is_small_and_leaves_a_ragged_batch() -> None:
    def launch(shape: Shape) -> Launch:
        return Launch((shape.heads, -(-shape.batch // 8), 1), 32, 0)

    small = emulated_runs.emulated_shape(Shape(128, 1024, 12, 64), launch)
    assert (small.batch, small.seq, small.heads) == (15, emulated_runs.EMULATED_SEQ, 12)
    assert emulated_runs.emulated_shape(Shape(5, 1024, 12, 64), launch).batch == 5
    assert emulated_runs.emulated_shape(Shape(1, 2, 64, 64), launch) == Shape(1, 2, 64, 64)


@pytest.mark.emulated
def test_a_kernel_is_right_in_the_emulator_and_a_wrong_source_is_not() -> None:
    cell, profile = load_cell("elman"), load_profile("h200")
    tiling = plan(cell, SMALL, profile)[0]
    seen: list[int] = []
    found = validate.validate_emulated(cell, SMALL, tiling, profile, (0, 1), on_seed=seen.append)
    assert (found.where, found.seeds, found.seq, seen) == ("emulator", 2, 4, [0, 1])
    assert 0 <= found.worst <= found.tolerance
    from kernelgen import schedules

    program = schedules.get(tiling.schedule).program(load_cell("elman_relu"), SMALL, profile, tiling)
    with pytest.raises(ValidationError, match=r"states differs from the reference.*seed 0"):
        validate.emulate_main(cell, SMALL, program, (0,))
    with pytest.raises(ValidationError, match="at least one seed"):
        validate.validate_emulated(cell, SMALL, tiling, profile, ())
