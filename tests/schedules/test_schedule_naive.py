"""A schedule that is a folder and a header and touches nothing else: found, planned, compiled, emulated, validated."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import blocks

from kernelgen import paths, schedules
from kernelgen.build.compile import compile_source
from kernelgen.cells import cell_names, load_cell
from kernelgen.hardware.profile import load_profile
from kernelgen.program.shape import Shape
from kernelgen.tuning.plan import plan
from kernelgen.verify.validate import validate_emulated

FOLDER = Path(__file__).parent
GPU = "h200"


@pytest.fixture(autouse=True, scope="module")
def naive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The folder of the schedule beside the others, and its header among those of cuda/."""
    headers = tmp_path_factory.mktemp("headers") / "cuda"
    shutil.copytree(paths.cuda_headers(), headers)
    shutil.copy(FOLDER / "naive" / "naive.cuh", headers)
    resource = paths._resource
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedules, "__path__", [*schedules.__path__, str(FOLDER)])
        patch.setattr(paths, "_resource", lambda name: headers if name == "cuda" else resource(name))
        schedules._schedules.cache_clear()
        yield
    schedules._schedules.cache_clear()


@pytest.mark.unit
def test_it_is_found_and_ranked_with_the_others() -> None:
    assert schedules.schedule_names("backward") == ["cluster_backward", "naive_backward", "resident_backward"]
    cell, profile = load_cell("lstm"), load_profile(GPU)
    ranked = plan(cell, Shape(16, 64, 4, 64), profile)
    assert {tiling.schedule for tiling in ranked} == {"cluster", "grid", "naive", "resident"}
    assert ranked[0].schedule == "resident"
    only = plan(cell, Shape(16, 64, 64, 700), profile)
    assert {tiling.schedule for tiling in only} == {"naive"}
    assert [tiling.values["sequences"] for tiling in plan(cell, Shape(2, 64, 64, 700), profile)] == [1, 2]


@pytest.mark.unit
def test_the_tutorial_shows_its_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "tutorials" / "add_a_schedule.md").read_text()
    files = {"python": FOLDER / "naive" / "__init__.py", "cuda": FOLDER / "naive" / "naive.cuh"}
    shown = blocks(page, *files)
    assert len(shown) == 5
    for block in shown:
        lines = [line.strip() for line in block.text.splitlines()]
        there = [line.strip() for line in files[block.language].read_text().splitlines()]
        assert any(there[i : i + len(lines)] == lines for i in range(len(there))), block.text


@pytest.mark.emulated
@pytest.mark.parametrize("cell", cell_names())
def test_forward(cell: str) -> None:
    shape = Shape(3, 5, 2, 9, "bfloat16" if len(cell) % 2 else "float16", "gates")
    profile = load_profile(GPU)
    tiling = plan(load_cell(cell), shape, profile, schedules=["naive"])[-1]
    assert validate_emulated(load_cell(cell), shape, tiling, profile, range(1)).errors


@pytest.mark.emulated
@pytest.mark.parametrize("cell", cell_names())
def test_backward(cell: str) -> None:
    shape = Shape(3, 5, 2, 9, "float16" if len(cell) % 2 else "bfloat16", "gates", recompute=len(cell) % 3 == 0)
    profile = load_profile(GPU)
    tiling = plan(load_cell(cell), shape, profile, schedules=["naive_backward"], direction="backward")[-1]
    assert validate_emulated(load_cell(cell), shape, tiling, profile, range(1)).errors


@pytest.mark.compiled
@pytest.mark.parametrize("schedule", ["naive", "naive_backward"])
@pytest.mark.parametrize("gpu", ["a100-80gb", "h200", "rtx5090"])
def test_it_compiles_without_spills(schedule: str, gpu: str) -> None:
    cell, shape, profile = load_cell("gru"), Shape(16, 64, 2, 100, save="gates"), load_profile(gpu)
    chosen = schedules.get(schedule)
    tiling = plan(cell, shape, profile, schedules=[schedule], direction=chosen.direction)[0]
    assert compile_source(chosen.program(cell, shape, profile, tiling).main.source).report.spills == 0
