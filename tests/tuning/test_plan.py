"""Plans: what fits, in what order, and why nothing does."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from kernelgen.cells import cell_names, load_cell
from kernelgen.errors import InfeasibleError
from kernelgen.hardware.profile import load_profile
from kernelgen.program.launch import Launch
from kernelgen.program.shape import Shape
from kernelgen.program.task import Direction
from kernelgen.program.tiling import Tiling
from kernelgen.schedules import get, schedule_names
from kernelgen.schedules.base import refusal, stated_problem
from kernelgen.schedules.shared.numbers import TileValues, once
from kernelgen.tuning.plan import plan, spread

pytestmark = pytest.mark.unit

LSTM_64 = Shape(16, 1024, 12, 64)


def test_plans_are_sorted_and_within_the_limits() -> None:
    h200 = load_profile("h200")
    tilings = plan(load_cell("lstm"), LSTM_64, h200)
    assert [t.clocks_per_step for t in tilings] == sorted(t.clocks_per_step for t in tilings)
    for tiling in tilings:
        need = tiling.resources
        assert need.blocks_per_sm == h200.occupancy(need.threads, need.registers, need.shared_memory)
        assert need.blocks_per_sm >= 1
    assert plan(load_cell("lstm"), LSTM_64, h200, top=3) == tilings[:3]


@pytest.mark.parametrize("cell", cell_names())
@pytest.mark.parametrize("head_dim", [1, 8, 33, 128])
def test_small_heads_fit_every_gpu_with_the_instructions(cell: str, head_dim: int) -> None:
    """In registers and shared memory of one multiprocessor, whatever the other schedules do."""
    for gpu in ("rtx4090", "h200"):
        assert plan(load_cell(cell), Shape(1, 1, 1, head_dim), load_profile(gpu), top=1, schedules=["resident"])


def test_a_problem_has_exactly_the_tilings_of_its_solutions() -> None:
    cell, profile, schedule = load_cell("gru"), load_profile("rtx4090"), get("resident")
    problem = schedule.problem(cell, LSTM_64, profile)
    solutions = list(problem.solutions())
    assert len(solutions) == problem.count()
    for values in solutions:
        assert problem.check(values) == []


def test_formulas_are_computed_once_for_a_tiling_and_anew_for_other_values() -> None:
    asked = []

    @once
    def product(cell: object, shape: object, v: Mapping[str, int]) -> int:
        asked.append(dict(v))
        return v["a"] * v["b"]

    of_a_tiling, plain = TileValues({"a": 2, "b": 3}), {"a": 5, "b": 7}
    assert [product(None, None, of_a_tiling) for _ in range(2)] == [6, 6]
    assert asked == [of_a_tiling]
    assert product(None, None, plain) == 35
    plain["a"] = 0
    assert product(None, None, plain) == 0
    assert product(None, None, TileValues(plain)) == 0
    assert len(asked) == 4


def test_what_does_not_fit_says_why_with_numbers() -> None:
    with pytest.raises(
        InfeasibleError,
        match=r"(?s)cluster schedule: .*grid schedule: .*resident schedule: .*at most 1,024 .*at least 8,192",
    ):
        plan(
            load_cell("lstm"), Shape(16, 1024, 1, 4096), load_profile("h200"), schedules=["cluster", "grid", "resident"]
        )
    with pytest.raises(InfeasibleError, match=r"at most 1,024 on h200 .*at least 1,536"):
        plan(load_cell("lstm"), Shape(16, 1024, 1, 768), load_profile("h200"), schedules=["resident"])
    with pytest.raises(InfeasibleError, match=r"registers|shared memory"):
        plan(load_cell("lstm"), Shape(16, 1024, 1, 256), load_profile("h200"), schedules=["resident"])


def test_large_heads_are_shared_by_a_cluster_where_there_are_any() -> None:
    cell = load_cell("lstm")
    for head_dim, dtype in ((192, "bfloat16"), (250, "float16"), (332, "float16"), (512, "bfloat16")):
        shape = Shape(16, 1024, 1, head_dim, dtype)
        for gpu in ("h200", "b200"):
            best = plan(cell, shape, load_profile(gpu), top=1, schedules=["cluster", "resident"])[0]
            assert best.schedule == "cluster"
            assert best.values["cluster"] > 1
            if head_dim != 332:  # narrow vectors leave a cluster few tilings
                assert plan(cell, shape, load_profile(gpu), top=1)[0] == best
        with pytest.raises(InfeasibleError, match=r"needs thread block clusters, which a100-80gb \(sm_80\) lacks"):
            plan(cell, shape, load_profile("a100"), schedules=["cluster"])
        assert plan(cell, shape, load_profile("a100"), top=1)[0].schedule == "grid"
    largest = plan(cell, Shape(16, 1024, 1, 256), load_profile("rtx5090"), schedules=["cluster"])
    assert {tiling.values["cluster"] for tiling in largest} == {4, 8}


def test_a_cluster_needs_as_many_multiprocessors_as_it_has_blocks() -> None:
    """Sixteen clusters of 8 do not all fit an H200 with a block on each multiprocessor: two share one, and it costs."""
    schedule, cell, h200 = get("cluster"), load_cell("lstm"), load_profile("h200")
    values = {"cluster": 8, "units_per_warp": 8, "batch_tile": 4, "k_split": 1}
    values |= {
        "k_tiles_in_registers": 8,
        "accumulators": 2,
        "num_stages": 4,
        "transfer_warps": 0,
    }
    three, four = (schedule.tiling(cell, Shape(16, 1024, heads, 256), h200, values) for heads in (3, 4))
    assert (three.resources.blocks, four.resources.blocks) == (96, 128)
    assert four.clocks_per_step > 1.05 * three.clocks_per_step
    launch = schedule.program(cell, Shape(16, 1024, 3, 256), h200, three).main.launch
    assert launch.at(Shape(9, 5, 3, 256)) == Launch((24, 3, 1), 128, three.resources.shared_memory, 8)


def test_a_gpu_without_the_instructions_says_which() -> None:
    with pytest.raises(InfeasibleError, match=r"m16n8k16 for bfloat16.*t4 \(sm_75\)"):
        plan(load_cell("lstm"), LSTM_64, load_profile("t4"))


def test_the_models_favourite_on_the_h200_is_the_measured_one() -> None:
    """docs/lab/resident.md: of the tilings measured at 12 x 64 and a batch of 16, this family was the fastest."""
    best = plan(load_cell("lstm"), LSTM_64, load_profile("h200"), top=1)[0]
    assert (best.values["units_per_warp"], best.values["batch_tile"]) == (16, 4)
    assert best.clocks_per_step == pytest.approx(0.2040e-3 * 1.98e9 / 1024, rel=0.15)


def test_spreading_keeps_every_tiling_and_puts_look_alikes_later() -> None:
    tilings = plan(load_cell("lstm"), LSTM_64, load_profile("h200"))
    order = spread(tilings)
    assert sorted(map(str, order)) == sorted(map(str, tilings))
    assert order[0] == tilings[0]

    def kinds(some: list[Tiling]) -> int:
        """How many there are if rings of any length count as one."""
        return len({tuple(value for name, value in t.values.items() if name != "num_stages") for t in some})

    assert kinds(order[:8]) > kinds(tilings[:8])
    alone = [tiling for tiling in order if tiling.values.get("num_stages") == 12]
    assert kinds(spread(alone)[:8]) == 8


def test_advice_is_only_what_was_tried_and_helps() -> None:
    cell, h200 = load_cell("lstm"), load_profile("h200")

    def said(shape: Shape, gpu: str = "h200") -> str:
        with pytest.raises(InfeasibleError) as caught:
            plan(cell, shape, load_profile(gpu))
        return str(caught.value)

    def refused(schedule: str, shape: Shape, gpu: str) -> str:
        with pytest.raises(InfeasibleError) as caught:
            plan(cell, shape, load_profile(gpu), schedules=[schedule])
        return str(caught.value)

    large = refused("grid", Shape(16, 4, 1, 2048), "a100")
    advice = " It fits with a head dimension of 1664, or with the library, streamed_grid or streaming schedule, or on "
    assert advice + "b200, b300, gh200" in large
    assert plan(cell, Shape(16, 4, 1, 1664), load_profile("a100"), top=1, schedules=["grid"])
    assert plan(cell, Shape(16, 4, 1, 2048), h200, top=1, schedules=["grid"])
    on_a_t4 = said(Shape(1, 4, 1, 16), "t4")
    assert "head dimension" not in on_a_t4
    assert "\nIt fits in float16, float32, tf32 or float64, or on a10, a100-40gb, " in on_a_t4
    many = refused("resident", Shape(3_000_000, 4, 1, 16), "h200")
    assert many.endswith("It fits in batches of 1,048,576, or with the library or streaming schedule.")
    assert "It fits with a head dimension of 130, or with the" in refused("resident", Shape(16, 4, 1, 129), "h200")
    assert " It fits with a head dimension of " in refused("resident", Shape(16, 4, 1, 512), "h200")
    on_amd = said(Shape(16, 4, 1, 64), "mi300x").splitlines()
    assert on_amd[1].endswith("So it is with grid, resident, streamed_grid, streaming, wide.")
    assert on_amd[-1].startswith("It fits in Triton (--language triton), or on a10, ")


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_schedule_that_does_not_take_the_dtype_says_so(direction: Direction) -> None:
    """Before anything else is looked at, in the same words for all, with what would help."""
    cell, profile = load_cell("lstm"), load_profile("h200")
    shape = Shape(16, 64, 4, 64, "float32", "gates")
    narrow = [name for name in schedule_names(direction) if shape.dtype not in get(name).dtypes]
    with pytest.raises(InfeasibleError) as caught:
        plan(cell, shape, profile, schedules=narrow, direction=direction)
    message = str(caught.value)
    assert {tiling.schedule for tiling in plan(cell, shape, profile, direction=direction)}.isdisjoint(narrow)
    suffix = "_backward" if direction == "backward" else ""
    assert f"cluster{suffix}" in narrow
    for name in narrow:
        with pytest.raises(InfeasibleError, match="takes 16-bit types only"):
            stated_problem(get(name), cell, shape, profile)
    words = f"the {narrow[0]} schedule takes 16-bit types only (bfloat16, float16), not float32."
    assert f"{words} So it is with {', '.join(narrow[1:])}. It fits " in message
    assert re.search(
        r" It fits with the grid\w*, library\w*, resident\w* or streaming\w* schedule, "
        r"or in bfloat16 or float16\.$",
        message,
    )


def test_a_schedule_takes_what_it_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    cell, profile, schedule = load_cell("lstm"), load_profile("mi300x"), get("cluster")
    shape = Shape(16, 64, 4, 64, "float32")
    assert "16-bit types" in refusal(schedule, cell, shape, profile)
    monkeypatch.setattr(type(schedule), "dtypes", ("float16", "float32"))
    assert "takes" not in refusal(schedule, cell, shape, profile)
    assert refusal(schedule, cell, shape, profile) == schedule.refuses(cell, shape, profile) != ""
    assert "the cluster schedule takes float16, float32 only, not bfloat16" in refusal(
        schedule, cell, Shape(16, 64, 4, 64), profile
    )
