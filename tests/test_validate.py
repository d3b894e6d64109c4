"""Cases, how outputs compare, and validation in the emulator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernelgen import emulated_runs
from kernelgen.cells import load_cell
from kernelgen.errors import ValidationError
from kernelgen.hardware.profile import load_profile
from kernelgen.program.launch import Launch
from kernelgen.program.shape import Shape
from kernelgen.tuning.plan import plan
from kernelgen.verify import validate
from kernelgen.verify.cases import Case, make_case

pytestmark = pytest.mark.unit

TESTS = Path(__file__).parent
SMALL = Shape(2, 4, 1, 16)


@pytest.fixture(scope="module")
def case() -> Case:
    """A case with every kind of output."""
    return make_case(load_cell("lstm"), Shape(3, 5, 2, 8, "float16", "gates"), 0)


def _right(case: Case) -> dict[str, Any]:
    outputs = case.poisoned_outputs()
    return {name: case.expected[name].astype(array.dtype) for name, array in outputs.items() if array is not None}


def test_a_right_result_passes_with_an_error_for_every_output(case: Case) -> None:
    errors = case.compare(_right(case))
    assert list(errors) == ["h", "c", "last", "gates"]
    assert errors["h"] == 0
    assert 0 < errors["c"] < 3e-4  # c is rounded once, to float16


@pytest.mark.parametrize(
    ("name", "index"), [("states", (1, 2, 3, 1, 7)), ("last", (0, 1, 0, 4)), ("gates", (3, 0, 4, 1, 0))]
)
def test_one_wrong_element_is_found_and_named(case: Case, name: str, index: tuple[int, ...]) -> None:
    outputs = _right(case)
    outputs[name][index] += 1
    with pytest.raises(ValidationError) as caught:
        case.compare(outputs)
    message = str(caught.value)
    assert f"{name}[{', '.join(map(str, index))}]" in message
    assert "1 of" in message
    assert "got" in message
    assert "expected" in message


def test_the_first_difference_is_first_in_time(case: Case) -> None:
    outputs = _right(case)
    outputs["states"][0, 0, 4, 0, 0] += 1
    outputs["states"][0, 2, 1, 1, 3] += 1
    with pytest.raises(ValidationError, match=r"states\[0, 2, 1, 1, 3\].*2 of 240"):
        case.compare(outputs)


def test_many_small_errors_fail_too(case: Case) -> None:
    outputs = _right(case)
    outputs["states"][0] *= np.float16(1.02)
    with pytest.raises(ValidationError, match=r"relative error 0\.0[12]"):
        case.compare(outputs)


def test_nan_and_what_nobody_wrote_never_pass(case: Case) -> None:
    outputs = _right(case)
    outputs["last"][1, 2, 1, 5] = np.nan
    with pytest.raises(ValidationError, match=r"1 of 96 elements of last are NaN, first last\[1, 2, 1, 5\]"):
        case.compare(outputs)
    untouched = _right(case)
    untouched["states"][:, 2:] = case.poisoned_outputs()["states"][:, 2:]  # type: ignore[index]
    with pytest.raises(
        ValidationError, match=r"160 of 480 elements of states were never written, first states\[0, 2, 0"
    ):
        case.compare(untouched)


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

    schedule = schedules.get(tiling.schedule)
    source = schedule.source(load_cell("elman_relu"), SMALL, profile, tiling)
    with pytest.raises(ValidationError, match=r"states differs from the reference.*seed 0"):
        validate.emulate_source(cell, SMALL, source, lambda shape: schedule.launch(shape, tiling), (0,))
    with pytest.raises(ValidationError, match="at least one seed"):
        validate.validate_emulated(cell, SMALL, tiling, profile, ())
