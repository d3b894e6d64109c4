"""The streamed grid schedule: every tile variable in the emulator, where it is chosen and what it refuses."""

from __future__ import annotations

import pytest

from kernelgen.build.compile import compile_source
from kernelgen.cells import load_cell
from kernelgen.errors import InfeasibleError
from kernelgen.hardware.profile import load_profile
from kernelgen.program.shape import Shape
from kernelgen.schedules import get
from kernelgen.schedules.streamed_grid.forward import PIECE_BYTES
from kernelgen.tuning.plan import plan
from kernelgen.verify.validate import validate_emulated

SEQ = 5

TILING = {
    "blocks": 4,
    "batch_tile": 8,
    "epilogue_rows": 8,
    "k_split": 2,
    "in_registers": 0,
    "stationary": 1,
    "kept": 0,
    "ring": 3,
    "num_stages": 2,
    "pause": 0,
}
OF_16 = {"batch_tile": 16, "epilogue_rows": 8}


def check(cell: str, shape: Shape, changed: dict[str, int], gpu: str = "h200", seeds: int = 2) -> None:
    """Emulate a tiling; raises where a fault is found or the result is off."""
    definition, profile = load_cell(cell), load_profile(gpu)
    tiling = get("streamed_grid").tiling(definition, shape, profile, TILING | changed)
    validation = validate_emulated(definition, shape, tiling, profile, range(seeds), seq=SEQ)
    assert validation.errors
    assert all(error <= validation.tolerance for error in validation.errors.values())


CASES = [
    pytest.param("lstm", Shape(5, SEQ, 1, 128, save="gates"), {"blocks": 8}, id="one piece stays"),
    pytest.param("lstm", Shape(9, SEQ, 1, 256), OF_16 | {"k_split": 4, "blocks": 16}, id="16 sequences"),
    pytest.param(
        "gru",
        Shape(3, SEQ, 1, 192, save="gates"),
        {"blocks": 8, "k_split": 3, "in_registers": 2, "kept": 1},
        id="in registers too",
    ),
    pytest.param(
        "slstm",
        Shape(3, SEQ, 1, 256, "float16", "states"),
        {"blocks": 8, "k_split": 4, "in_registers": 5, "stationary": 0, "kept": 3},
        id="in registers alone",
    ),
    pytest.param(
        "lstm",
        Shape(3, SEQ, 1, 320, save="gates"),
        {"blocks": 20, "in_registers": 3, "stationary": 2, "ring": 5, "pause": 100},
        id="parts of pairs",
    ),
    pytest.param("elman", Shape(3, SEQ, 1, 200), {"blocks": 9, "k_split": 3, "ring": 2}, id="an odd number of halves"),
    pytest.param(
        "gru", Shape(18, 4, 2, 100, save="states"), OF_16 | {"blocks": 5, "epilogue_rows": 16, "k_split": 3}, id="of 4s"
    ),
    pytest.param("lstm", Shape(7, SEQ, 1, 130), {"blocks": 9, "stationary": 3}, id="of 2s"),
    pytest.param("slstm", Shape(2, SEQ, 2, 133, save="gates"), {"blocks": 9, "in_registers": 1}, id="odd units"),
    pytest.param(
        "lstm",
        Shape(15, SEQ, 1, 192),
        OF_16 | {"blocks": 12, "epilogue_rows": 4, "k_split": 8, "num_stages": 4, "stationary": 0, "ring": 8},
        id="four sequences a warp that steps",
    ),
    pytest.param(
        "elman", Shape(33, 3, 1, 96), {"batch_tile": 32, "epilogue_rows": 32, "k_split": 3}, id="32 sequences"
    ),
    pytest.param(
        "gru", Shape(1, 1, 1, 128), {"blocks": 8, "in_registers": 1, "stationary": 0, "kept": 1}, id="one step"
    ),
    pytest.param("lstm", Shape(3, SEQ, 1, 128), {"blocks": 8, "stationary": 4}, id="nothing comes"),
]


@pytest.mark.emulated
@pytest.mark.parametrize(("cell", "shape", "changed"), CASES)
def test_every_tile_variable_is_right(cell: str, shape: Shape, changed: dict[str, int]) -> None:
    check(cell, shape, changed)


@pytest.mark.emulated
@pytest.mark.parametrize(("cell", "shape", "changed"), CASES[1::4])
def test_it_is_right_without_stmatrix(cell: str, shape: Shape, changed: dict[str, int]) -> None:
    check(cell, shape, changed, "a100-80gb", 1)


@pytest.mark.emulated
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_sequences_end_and_begin_anew(cell: str) -> None:
    shape = Shape(11, 6, 1, 192, save="gates", resets=True, lengths=True)
    check(cell, shape, {"blocks": 12, "k_split": 4, "in_registers": 1, "kept": 1} | OF_16)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("shape", "schedule"),
    [
        (Shape(16, 64, 1, 4096), "streamed_grid"),
        (Shape(8, 64, 1, 2560, save="gates"), "streamed_grid"),
        (Shape(16, 64, 1, 2048), "grid"),
        (Shape(16, 64, 1, 64), "resident"),
    ],
    ids=str,
)
def test_it_takes_what_no_gpu_holds(shape: Shape, schedule: str) -> None:
    best = plan(load_cell("lstm"), shape, load_profile("h200"), top=1)[0]
    assert best.schedule == schedule
    assert best.resources.blocks <= load_profile("h200").multiprocessors or schedule == "resident"


@pytest.mark.unit
@pytest.mark.parametrize(("head_dim", "most"), [(64, 40), (1024, 40), (4096, 400)])
def test_few_tilings_are_offered(head_dim: int, most: int) -> None:
    tilings = plan(load_cell("lstm"), Shape(16, 64, 1, head_dim), load_profile("h200"), schedules=["streamed_grid"])
    assert 0 < len(tilings) <= most
    profile = load_profile("h200")
    for tiling in tilings:
        v = tiling.values
        kept = tiling.resources.blocks * v["k_split"] * v["kept"] * PIECE_BYTES
        assert kept <= (profile.l2_bytes or 0)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (Shape(256, 64, 1, 4096), "at most 132 on h200, one on each multiprocessor"),
        (Shape(16, 64, 1, 8), "a head of 8 has nothing to share"),
        (Shape(16, 64, 1, 16384), "at most 132 on h200|registers per thread: at most 255"),
    ],
    ids=str,
)
def test_it_says_why_it_does_not_run(shape: Shape, words: str) -> None:
    with pytest.raises(InfeasibleError, match=words):
        plan(load_cell("lstm"), shape, load_profile("h200"), schedules=["streamed_grid"])


@pytest.mark.compiled
@pytest.mark.parametrize(("cell", "save"), [("lstm", "gates"), ("gru", "hidden")])
def test_its_choice_compiles_into_registers(cell: str, save: str) -> None:
    definition, profile, shape = load_cell(cell), load_profile("h200"), Shape(16, 64, 1, 4096, save=save)
    tiling = plan(definition, shape, profile, top=1, schedules=["streamed_grid"])[0]
    report = compile_source(get("streamed_grid").program(definition, shape, profile, tiling).main.source).report
    assert report.local_memory == 0
    assert abs(tiling.resources.registers / report.registers - 1) <= 0.15
