"""The bounds of a shape, in words."""

from __future__ import annotations

import pytest

from kernelgen.cells import load_cell
from kernelgen.errors import LaunchError, ShapeError
from kernelgen.hardware.profile import load_profile
from kernelgen.program.shape import MOST_STEPS, Shape
from kernelgen.schedules import get

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            (3_000_000_000, 99_999_999_999, 1, 16),
            "batch times seq must be at most 2,147,483,584, not 299,999,9",
        ),
        ((10**60, 1, 1, 16), "batch times seq must be at most .* not a number of more than 40 digits"),
        ((1, 1, 2**31, 16), "heads times head-dim must be at most"),
        ((1, 1, 1, 2**17), "head-dim must be at most 65,536, not 131,072"),
        ((-(10**60), 1, 1, 16), "batch must be an integer of at least 1, not a number of more than 40 digits"),
    ],
)
def test_sizes_that_kernels_cannot_count_are_refused(sizes: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        Shape(*sizes)
    assert Shape(1, MOST_STEPS, 1, 16).seq == MOST_STEPS


@pytest.mark.parametrize("direction", ["", "_backward"])
def test_a_batch_of_more_tiles_than_a_grid_has_is_refused(direction: str) -> None:
    schedule = get(f"resident{direction}")
    cell, shape, profile = load_cell("elman"), Shape(4, 1, 1, 16), load_profile("h200")
    problem = schedule.problem(cell, shape, profile)
    values = next(values for values in problem.solutions() if values["batch_tile"] == 4)
    launch = schedule.program(cell, shape, profile, schedule.tiling(cell, shape, profile, values)).main.launch
    assert launch.at(Shape(4 * 65_535, 1, 1, 16)).grid == (1, 65_535, 1)
    with pytest.raises(LaunchError, match=r"B=262141 .*would be 65,536 blocks along y, .* cut the batch"):
        launch.at(Shape(4 * 65_535 + 1, 1, 1, 16))


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        ("double", r"; did you mean float64\?$"),
        ("bfloat", r"tf32 and float64; did you mean bfloat16\?$"),
        ("fp16", r"; did you mean float16\?$"),
        ("fp32", r"; did you mean float32\?$"),
        ("int8", r"kernels exist for bfloat16, float16, float32, tf32 and float64$"),
    ],
)
def test_an_unknown_dtype_says_what_there_is(dtype: str, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        Shape(1, 1, 1, 16, dtype)
