"""The grid schedule: where it is chosen, what it refuses, how it is launched and what memory it needs."""

from __future__ import annotations

from math import ceil

import pytest

from kernelgen.cells import load_cell
from kernelgen.errors import InfeasibleError
from kernelgen.hardware.profile import load_profile
from kernelgen.program.launch import Launch
from kernelgen.program.shape import Shape
from kernelgen.program.task import Direction
from kernelgen.schedules import get
from kernelgen.schedules.grid.forward import SLOTS, block_counts
from kernelgen.tuning.plan import plan
from kernelgen.tuning.selection import compiled

LSTM = load_cell("lstm")


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("gpu", "head_dim"),
    [("h200", 768), ("h200", 1024), ("h200", 2048), ("a100", 256), ("a100", 512), ("a100", 1024)],
)
def test_large_heads_run_on_a_grid_and_in_registers(gpu: str, head_dim: int) -> None:
    profile, shape = load_profile(gpu), Shape(16, 1024, 1, head_dim)
    best = plan(LSTM, shape, profile, top=1)[0]
    assert best.schedule == "grid"
    assert best.resources.blocks <= profile.multiprocessors
    program, (binary,) = compiled(LSTM, shape, profile, "forward")
    assert program.main.launch.cooperative
    assert binary.report.local_memory == 0


@pytest.mark.compiled
@pytest.mark.parametrize(("gpu", "head_dim"), [("h200", 768), ("h200", 1024), ("a100", 512)])
def test_large_heads_are_trained_on_a_grid_and_in_registers(gpu: str, head_dim: int) -> None:
    profile, shape = load_profile(gpu), Shape(16, 1024, 1, head_dim, save="gates")
    best = plan(LSTM, shape, profile, top=1, direction="backward")[0]
    assert best.schedule == "grid_backward"
    program, (binary, *_) = compiled(LSTM, shape, profile, "backward")
    assert program.main.launch.cooperative
    assert best.values["cluster"] > 1 or gpu == "a100"
    assert binary.report.local_memory == 0


@pytest.mark.unit
@pytest.mark.parametrize(("schedule", "direction"), [("grid", "forward"), ("grid_backward", "backward")])
def test_there_are_not_too_many_tilings(schedule: str, direction: Direction) -> None:
    shape, profile = Shape(16, 1024, 1, 1024), load_profile("h200")
    assert 100 < len(plan(LSTM, shape, profile, schedules=[schedule], direction=direction)) < 4_000


@pytest.mark.unit
def test_clusters_of_a_grid_are_as_many_as_fit() -> None:
    profile = load_profile("h200")
    tilings = plan(LSTM, Shape(16, 1024, 1, 768), profile, schedules=["grid_backward"], direction="backward")
    assert {tiling.values["cluster"] for tiling in tilings} == {1, 2, 4, 8}
    for tiling in tilings:
        size = tiling.values["cluster"]
        clusters = tiling.resources.blocks // size
        if tiling.values["through_l2"]:
            assert clusters > profile.clusters_that_fit[size]
            continue
        assert clusters <= profile.clusters_that_fit.get(size, profile.multiprocessors // size)


@pytest.mark.unit
def test_blocks_are_any_number_of_which_the_last_has_units_too() -> None:
    assert block_counts(1024) == [16, 22, 32, 43, 64, 128]
    assert block_counts(9) == [2]
    for head_dim in (300, 768, 2047):
        for blocks in block_counts(head_dim):
            shares = [units * ceil(ceil(head_dim / units) / blocks) for units in (8, 16)]
            assert any((blocks - 1) * share < head_dim for share in shares)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("gpu", "shape", "words"),
    [
        (
            "h200",
            Shape(256, 1024, 1, 1024),
            "grid schedule: .*blocks of all heads and tiles of the batch: at most 132 on h200, one on each "
            "multiprocessor, since all must run at the same time",
        ),
        ("h200", Shape(16, 1024, 1, 8), "a head of 8 has nothing to share"),
        ("t4", Shape(16, 1024, 1, 512), "the grid schedule needs the matrix instruction m16n8k16 for bfloat16"),
    ],
)
def test_it_says_why_it_does_not_run(gpu: str, shape: Shape, words: str) -> None:
    with pytest.raises(InfeasibleError, match=words):
        plan(LSTM, shape, load_profile(gpu), schedules=["grid"])


@pytest.mark.unit
def test_its_launch_and_its_mail_grow_with_the_batch() -> None:
    shape, profile = Shape(16, 1024, 2, 512), load_profile("h200")
    values = {
        "blocks": 22,
        "units_per_warp": 8,
        "batch_tile": 8,
        "epilogue_rows": 8,
        "k_split": 2,
        "k_tiles_in_registers": 4,
        "accumulators": 1,
        "num_stages": 4,
        "step_warps": 0,
        "pause": -1,
        "owner_pause": 0,
    }
    grid = get("grid")
    program = grid.program(LSTM, shape, profile, grid.tiling(LSTM, shape, profile, values))
    assert program.main.launch.at(shape) == Launch((44, 2, 1), 192, program.main.launch.shared_memory, 1, True)
    tile = SLOTS * 8 * 576 * 2  # sequences, 528 units in two parts of 9 k-tiles, 2 bytes
    assert program.poisoned(shape) == {"mail": 2 * 2 * tile}
    assert program.poisoned(Shape(17, 3, 2, 512)) == {"mail": 2 * 3 * tile}
    (mail,) = program.arguments(LSTM, shape).workspaces
    assert (mail.name, mail.dtype, mail.in_words) == ("mail", "int32", "word")
