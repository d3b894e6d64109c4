"""A schedule that is a folder and a header and touches nothing else: found, planned, compiled, emulated, validated."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from drawn import kinds
from pages import blocks

from kernelgen import paths, schedules
from kernelgen.build.compile import compile_source
from kernelgen.cells import load_cell
from kernelgen.errors import ValidationError
from kernelgen.hardware.profile import load_profile
from kernelgen.program.shape import Shape
from kernelgen.tuning.plan import plan
from kernelgen.verify.validate import emulate_main, validate_emulated, validate_program

FOLDER = Path(__file__).parent
GPU = "h200"
CELLS = [names[0] for names in kinds().values()]
"""One of every kind; those of a kind differ in their step alone."""


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
    assert "naive_backward" in schedules.schedule_names("backward")
    cell, profile = load_cell("lstm"), load_profile(GPU)
    ranked = plan(cell, Shape(16, 64, 4, 64), profile)
    assert {tiling.schedule for tiling in ranked} >= {
        "cluster",
        "grid",
        "library",
        "naive",
        "resident",
        "streamed_grid",
        "streaming",
    }
    assert ranked[0].schedule == "resident"
    only = plan(cell, Shape(16, 64, 64, 700, "float32"), profile)
    assert {tiling.schedule for tiling in only} == {"library", "naive", "streaming"}
    alone = plan(cell, Shape(2, 64, 64, 700, "float32"), profile, schedules=["naive"])
    assert [tiling.values["sequences"] for tiling in alone] == [1, 2]


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
@pytest.mark.parametrize("cell", CELLS)
def test_forward(cell: str) -> None:
    shape = Shape(3, 5, 2, 9, "bfloat16" if len(cell) % 2 else "float16", "gates")
    profile = load_profile(GPU)
    tiling = plan(load_cell(cell), shape, profile, schedules=["naive"])[-1]
    assert validate_emulated(load_cell(cell), shape, tiling, profile, range(1)).errors


@pytest.mark.emulated
@pytest.mark.parametrize("cell", CELLS)
def test_backward(cell: str) -> None:
    shape = Shape(3, 5, 2, 9, "float16" if len(cell) % 2 else "bfloat16", "gates", recompute=len(cell) % 3 == 0)
    profile = load_profile(GPU)
    tiling = plan(load_cell(cell), shape, profile, schedules=["naive_backward"], direction="backward")[-1]
    assert validate_emulated(load_cell(cell), shape, tiling, profile, range(1)).errors


FLOAT32_CELLS = ("bilinear", "cfc", "elman_relu", "gru", "ligru", "lstm", "slstm")
"""Every function of the language, and every kind of gate."""


@pytest.mark.emulated
@pytest.mark.parametrize("cell", FLOAT32_CELLS)
@pytest.mark.parametrize("schedule", ["naive", "naive_backward"])
def test_float32_from_the_plan_to_the_last_gradient(cell: str, schedule: str) -> None:
    shape, profile = Shape(3, 5, 2, 9, "float32", "gates"), load_profile(GPU)
    direction = schedules.get(schedule).direction
    tiling = plan(load_cell(cell), shape, profile, schedules=[schedule], direction=direction)[-1]
    program = schedules.get(schedule).program(load_cell(cell), shape, profile, tiling)
    found = validate_program(load_cell(cell), shape, profile, program, range(1))
    assert found.tolerance < 2**-17
    assert found.worst < 2**-21
    assert "namespace math = tilesmith::accurate" in program.main.source.text


@pytest.mark.emulated
def test_a_float32_kernel_with_approximate_functions_is_found() -> None:
    """The emulator's tanh.approx is exact; one as inexact as the instruction may be is not let pass."""
    cell, shape, profile = load_cell("elman"), Shape(3, 5, 2, 9, "float32", "gates"), load_profile(GPU)
    tiling = plan(cell, shape, profile, schedules=["naive"])[0]
    program = schedules.get("naive").program(cell, shape, profile, tiling)
    text = program.main.source.text
    assert text.count("math::tanh(") == 1
    source = replace(program.main.source, text=text.replace("math::tanh(", "1.0002f * math::tanh("))
    wrong = replace(program, main=replace(program.main, source=source))
    with pytest.raises(ValidationError, match="differs from the reference"):
        emulate_main(cell, shape, wrong, range(1))


@pytest.mark.compiled
@pytest.mark.parametrize("schedule", ["naive", "naive_backward"])
@pytest.mark.parametrize(("gpu", "dtype"), [("a100-80gb", "float32"), ("h200", "bfloat16"), ("rtx5090", "float32")])
def test_it_compiles_without_spills(schedule: str, gpu: str, dtype: str) -> None:
    cell, shape, profile = load_cell("gru"), Shape(16, 64, 2, 100, dtype, "gates"), load_profile(gpu)
    chosen = schedules.get(schedule)
    tiling = plan(cell, shape, profile, schedules=[schedule], direction=chosen.direction)[0]
    assert compile_source(chosen.program(cell, shape, profile, tiling).main.source).report.spills == 0
