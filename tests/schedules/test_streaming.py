"""The streaming schedule: where it is chosen, what it refuses, how it is launched and what memory it needs."""

from __future__ import annotations

import pytest

from kernelgen.build.compile import compile_source
from kernelgen.cells import load_cell
from kernelgen.errors import InfeasibleError
from kernelgen.hardware.profile import load_profile
from kernelgen.program.launch import Launch
from kernelgen.program.shape import Shape
from kernelgen.program.task import Direction
from kernelgen.program.tiling import Tiling
from kernelgen.schedules import get
from kernelgen.tuning.plan import plan

LSTM = load_cell("lstm")
H200 = load_profile("h200")
ALONE = {
    "units": 64,
    "batch_tile": 128,
    "units_per_warp": 16,
    "rows_per_warp": 64,
    "part_k": 32,
    "stationary": 2,
    "num_stages": 3,
    "blocks": 0,
}
IN_TURN = ALONE | {"units": 32, "stationary": 0, "blocks": 132}


def best(shape: Shape, direction: Direction = "forward", gpu: str = "h200") -> Tiling:
    """The first choice of all schedules."""
    return plan(LSTM, shape, load_profile(gpu), top=1, direction=direction)[0]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("direction", "shape", "schedule"),
    [
        ("forward", Shape(1024, 1024, 1, 1024), "streaming"),
        ("forward", Shape(16, 1024, 1, 4096), "streamed_grid"),
        ("backward", Shape(1024, 1024, 1, 1024), "library_backward"),
        ("backward", Shape(16, 1024, 1, 4096), "library_backward"),
    ],
    ids=str,
)
def test_heads_and_batches_too_large_for_others(direction: Direction, shape: Shape, schedule: str) -> None:
    assert best(shape, direction).schedule == schedule


@pytest.mark.unit
@pytest.mark.parametrize(
    ("heads", "head_dim", "batch", "schedule"),
    [
        (12, 64, 16, "resident"),
        (3, 256, 16, "cluster"),
        (1, 512, 16, "cluster"),
        (1, 768, 16, "grid"),
        (1, 1024, 16, "grid"),
    ],
)
def test_it_leaves_small_batches_to_the_others(heads: int, head_dim: int, batch: int, schedule: str) -> None:
    assert best(Shape(batch, 1024, heads, head_dim)).schedule == schedule


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("gpu", "batch", "head_dim"),
    [
        ("a100-80gb", 1024, 1024),
        ("h200", 1024, 1024),
        ("h200", 1024, 512),
        ("h200", 16, 4096),
        ("b200", 16, 4096),
    ],
)
@pytest.mark.parametrize(("schedule", "direction"), [("streaming", "forward"), ("streaming_backward", "backward")])
def test_large_tiles_compile_into_registers(
    schedule: str, direction: Direction, gpu: str, batch: int, head_dim: int
) -> None:
    profile, shape = load_profile(gpu), Shape(batch, 1024, 1, head_dim, save="gates")
    tiling = plan(LSTM, shape, profile, top=1, schedules=[schedule], direction=direction)[0]
    assert tiling.resources.blocks <= profile.multiprocessors
    report = compile_source(get(schedule).program(LSTM, shape, profile, tiling).main.source).report
    assert report.local_memory == 0, str(tiling)


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("gpu", "batch", "head_dim"),
    [("a100-80gb", 16, 768), ("h200", 16, 768), ("h200", 256, 512), ("b200", 256, 512)],
)
@pytest.mark.parametrize(("schedule", "direction"), [("streaming", "forward"), ("streaming_backward", "backward")])
def test_floats_compile_into_registers(
    schedule: str, direction: Direction, gpu: str, batch: int, head_dim: int
) -> None:
    profile, shape = load_profile(gpu), Shape(batch, 1024, 1, head_dim, "float32", "gates")
    tiling = plan(LSTM, shape, profile, top=1, schedules=[schedule], direction=direction)[0]
    report = compile_source(get(schedule).program(LSTM, shape, profile, tiling).main.source).report
    assert report.local_memory == 0, str(tiling)


@pytest.mark.unit
def test_all_of_r_in_floats_stays_in_shared_memory_where_there_is_room() -> None:
    """9.4 MB, of which a step reads nothing again."""
    shape = Shape(16, 1024, 1, 768, "float32", "gates")
    for schedule in ("streaming", "streaming_backward"):
        tiling = plan(LSTM, shape, H200, top=1, schedules=[schedule], direction=get(schedule).direction)[0]
        gates = 4 if schedule == "streaming_backward" else 1
        assert tiling.values["stationary"] * tiling.values["part_k"] == gates * 768
        assert tiling.values["k_warps"] > 1


@pytest.mark.unit
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("schedule", ["streaming", "streaming_backward"])
@pytest.mark.parametrize("head_dim", [1, 7, 33, 2049])
def test_it_takes_any_head(schedule: str, head_dim: int, dtype: str) -> None:
    for batch in (1, 17, 5000):
        shape = Shape(batch, 16, 2, head_dim, dtype)
        assert plan(LSTM, shape, H200, top=1, schedules=[schedule], direction=get(schedule).direction)


@pytest.mark.unit
def test_it_says_why_it_does_not_run() -> None:
    with pytest.raises(InfeasibleError, match="the streaming schedule needs the matrix instruction m16n8k16"):
        plan(LSTM, Shape(16, 16, 1, 64, "bfloat16"), load_profile("t4"), schedules=["streaming"])
    shape = Shape(16, 16, 1, 64, recompute=True)
    with pytest.raises(InfeasibleError, match="does not recompute gates"):
        plan(LSTM, shape, H200, schedules=["streaming_backward"], direction="backward")


@pytest.mark.unit
def test_a_launch_has_a_block_for_each_tile_or_as_many_as_take_them_in_turn() -> None:
    shape, streaming = Shape(1024, 1024, 1, 1024), get("streaming")
    alone = streaming.program(LSTM, shape, H200, streaming.tiling(LSTM, shape, H200, ALONE))
    memory = alone.main.launch.shared_memory
    assert alone.main.launch.at(shape) == Launch((16 * 8, 1, 1), 256, memory, 1, True)
    assert alone.main.launch.at(Shape(129, 3, 1, 1024)).grid == (16 * 2, 1, 1)
    assert "carried" not in alone.names
    in_turn = streaming.program(LSTM, shape, H200, streaming.tiling(LSTM, shape, H200, IN_TURN))
    assert in_turn.main.launch.at(shape).grid == (132, 1, 1)
    assert in_turn.main.launch.at(Shape(129, 3, 1, 1024)).grid == (64, 1, 1)


@pytest.mark.unit
def test_its_memory_grows_with_the_batch() -> None:
    shape, streaming = Shape(1024, 1024, 1, 1024), get("streaming")
    program = streaming.program(LSTM, shape, H200, streaming.tiling(LSTM, shape, H200, IN_TURN))
    sizes = {array.name: array.shape for array in program.arguments(LSTM, shape).workspaces}
    assert sizes == {"hidden": (2 * 1024 * 1024,), "carried": (2 * 1024 * 1024,), "counters": (8 * 32,)}
    assert program.poisoned(shape) == {"counters": 8 * 32 * 4}
    backward = get("streaming_backward")
    tiling = backward.tiling(LSTM, shape, H200, IN_TURN | {"rows_per_warp": 32})
    sizes = {
        array.name: array.shape
        for array in backward.program(LSTM, shape, H200, tiling).arguments(LSTM, shape).workspaces
    }
    assert sizes["d_gates"] == (2 * 4 * 1024 * 1024,)
    assert sizes["d_carried"] == (2 * 1024 * 1024,)


@pytest.mark.unit
def test_there_are_not_too_many_tilings() -> None:
    sizes = [(128, 512), (1024, 1024), (16, 4096)]
    shapes = [Shape(batch, 1024, 1, dim, dtype) for batch, dim in sizes for dtype in ("bfloat16", "float32")]
    for schedule in ("streaming", "streaming_backward"):
        for shape in shapes:
            count = len(plan(LSTM, shape, H200, schedules=[schedule], direction=get(schedule).direction))
            assert 10 < count < 3_000
