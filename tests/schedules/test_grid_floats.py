"""The grid schedule in TF32 and float32: every cell and tile variable on the CPU, what is chosen, and registers."""

from __future__ import annotations

import numpy as np
import pytest
from drawn import TWINS, check_emulated

from kernelgen.build.compile import compile_source
from kernelgen.cells import cell_names, load_cell
from kernelgen.hardware.profile import load_profile
from kernelgen.program.shape import FEATURES, Shape
from kernelgen.program.task import Direction
from kernelgen.schedules import get
from kernelgen.tuning.plan import plan, spread
from kernelgen.verify.emulator import emulate
from kernelgen.verify.inputs import random_inputs

GPU, A100 = "h200", "a100-80gb"
SEQ = 7
BOTH = dict.fromkeys(FEATURES, True)
FLOATS = ("tf32", "float32")
FORWARD = {
    "blocks": 4,
    "units_per_warp": 8,
    "batch_tile": 4,
    "epilogue_rows": 4,
    "k_split": 2,
    "k_tiles_in_registers": 1,
    "accumulators": 2,
    "num_stages": 4,
    "step_warps": 0,
    "pause": -1,
    "owner_pause": 0,
}
OF_16 = {"units_per_warp": 16, "batch_tile": 8, "epilogue_rows": 8, "accumulators": 1}
PACED, APART = {"pause": 0, "owner_pause": 200}, {"step_warps": 1, "pause": 100}
BACKWARD = {
    "clusters": 4,
    "cluster": 1,
    "batch_tile": 4,
    "epilogue_rows": 4,
    "tiles_per_warp": 1,
    "k_split": 2,
    "k_tiles_in_registers": 1,
    "accumulators": 2,
    "num_stages": 4,
    "pause": -1,
    "owner_pause": 0,
}
CLUSTERS = {"clusters": 2, "cluster": 2}
OF_8 = {"batch_tile": 8, "epilogue_rows": 8, "tiles_per_warp": 2, "k_split": 4, "accumulators": 1}
KEPT, LEFT = {"keeps_rests": 1}, {"keeps_rests": 0}


def check(schedule: str, cell: str, shape: Shape, values: dict[str, int] | None, gpu: str = GPU) -> None:
    check_emulated(schedule, cell, shape, values, gpu, seeds=2)


@pytest.mark.emulated
@pytest.mark.parametrize("schedule", ["grid", "grid_backward"])
@pytest.mark.parametrize("cell", sorted(set(cell_names()) - set(TWINS)))
def test_every_cell_is_right(schedule: str, cell: str) -> None:
    check(schedule, cell, Shape(5, SEQ, 1, 36, "float32", "gates"), None)


@pytest.mark.emulated
@pytest.mark.parametrize(
    ("cell", "shape", "changed"),
    [
        pytest.param("lstm", Shape(3, SEQ, 1, 80, "tf32", "gates"), {"blocks": 5}, id="an odd number of blocks"),
        pytest.param(
            "elman", Shape(3, SEQ, 1, 136, "float32"), {"blocks": 17, "k_split": 4} | PACED | LEFT, id="17 blocks"
        ),
        pytest.param("gru", Shape(5, SEQ, 2, 64, "float32", "gates"), KEPT, id="two heads, two tiles of the batch"),
        pytest.param("slstm", Shape(3, SEQ, 1, 96, "tf32"), {"k_split": 3} | PACED, id="K split in 3"),
        pytest.param(
            "lstm", Shape(5, SEQ, 1, 64, "float32"), {"k_tiles_in_registers": 0} | LEFT, id="R in shared memory"
        ),
        pytest.param("gru", Shape(9, SEQ, 1, 64, "float32", "gates"), OF_16 | KEPT, id="16 units, 2 elements a lane"),
        pytest.param(
            "lstm",
            Shape(7, SEQ, 1, 128, "tf32", "states"),
            OF_16 | {"k_split": 8, "epilogue_rows": 4} | PACED,
            id="and 1 element",
        ),
        pytest.param(
            "lstm",
            Shape(18, SEQ, 1, 64, "tf32"),
            OF_16 | {"batch_tile": 16, "epilogue_rows": 16, "accumulators": 2},
            id="16 sequences",
        ),
        pytest.param(
            "gru",
            Shape(13, SEQ, 1, 128, "float32"),
            {"blocks": 8, "batch_tile": 16, "k_split": 4, "accumulators": 1} | LEFT,
            id="and 1 element of these",
        ),
        pytest.param(
            "elman", Shape(9, SEQ, 1, 52, "tf32", "states"), {"blocks": 3}, id="head dimension of 4s, units of padding"
        ),
        pytest.param("lstm", Shape(9, SEQ, 1, 50, "float32", "gates"), {"blocks": 7} | KEPT, id="of 2s"),
        pytest.param("slstm", Shape(2, SEQ, 2, 33, "float32", "gates"), {"blocks": 5} | LEFT, id="odd head dimension"),
        pytest.param("gru", Shape(1, 1, 2, 64, "tf32"), {"num_stages": 8}, id="one sequence of one step"),
        pytest.param("lstm", Shape(3, SEQ, 1, 80, "tf32", "gates"), {"blocks": 5} | APART, id="stepped apart"),
        pytest.param(
            "slstm",
            Shape(7, SEQ, 1, 128, "float32", "states"),
            OF_16 | {"k_split": 4, "epilogue_rows": 4} | APART | {"step_warps": 2} | KEPT,
            id="sums in groups",
        ),
        pytest.param(
            "lstm", Shape(9, 20, 1, 50, "float32", "gates", **BOTH), {"blocks": 3} | APART | LEFT, id="own ends, apart"
        ),
        pytest.param("gru", Shape(9, 20, 1, 33, "tf32", "states", **BOTH), {"blocks": 5}, id="own ends, odd"),
    ],
)
@pytest.mark.parametrize("gpu", [GPU, A100])
def test_every_tile_variable_is_right(cell: str, shape: Shape, changed: dict[str, int], gpu: str) -> None:
    if gpu == A100 and shape.head_dim % 16 == 0:
        pytest.skip("stored alike")
    check("grid", cell, shape, FORWARD | changed, gpu)


@pytest.mark.emulated
@pytest.mark.parametrize(
    ("cell", "shape", "changed"),
    [
        pytest.param("lstm", Shape(3, SEQ, 1, 64, "tf32", "gates"), {}, id="blocks alone"),
        pytest.param("lstm", Shape(5, SEQ, 1, 64, "float32", "gates"), CLUSTERS | OF_8 | KEPT, id="clusters"),
        pytest.param("gru", Shape(9, SEQ, 1, 50, "float32", "states"), CLUSTERS | OF_8 | LEFT, id="of 2s, inputless"),
        pytest.param(
            "slstm",
            Shape(5, SEQ, 2, 33, "tf32", "gates"),
            {"clusters": 3} | {"k_tiles_in_registers": 0},
            id="odd, in shared",
        ),
        pytest.param(
            "lstm",
            Shape(18, SEQ, 1, 64, "tf32"),
            CLUSTERS | OF_8 | {"batch_tile": 16, "epilogue_rows": 8, "k_split": 8, "owner_pause": 200},
            id="16 sequences",
        ),
        pytest.param(
            "elman",
            Shape(7, SEQ, 1, 128, "float32"),
            {"clusters": 4, "cluster": 2, "k_split": 4, "pause": 0, "owner_pause": 200} | LEFT,
            id="paced",
        ),
        pytest.param("gru", Shape(1, 1, 1, 64, "float32", "gates"), KEPT, id="one sequence of one step"),
        pytest.param("lstm", Shape(9, 20, 1, 50, "float32", "gates", **BOTH), CLUSTERS | OF_8 | KEPT, id="own ends"),
        pytest.param(
            "gru", Shape(5, 20, 1, 36, "tf32", "hidden", **BOTH), {"clusters": 3}, id="own ends, blocks alone"
        ),
    ],
)
def test_every_tile_variable_is_right_backward(cell: str, shape: Shape, changed: dict[str, int]) -> None:
    check("grid_backward", cell, shape, BACKWARD | changed)


@pytest.mark.emulated
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bits", [0xFFFFFFFF, 0x7FC00000, 0xFF800001, 0x7F800000])
def test_a_nan_that_looks_like_poison_stops_nobody(dtype: str, bits: int) -> None:
    """A NaN of any bits, or an infinity, in the initial h: the other sequences are right, and nobody waits for ever."""
    cell, profile, shape = load_cell("gru"), load_profile(GPU), Shape(4, SEQ, 1, 64, dtype)
    values = FORWARD | (LEFT if dtype == "float32" else {})
    program = get("grid").program(cell, shape, profile, get("grid").tiling(cell, shape, profile, values))
    inputs = random_inputs(cell, shape)
    found = []
    for poisoned in (False, True):
        if poisoned:
            inputs["initial"].view(np.uint32)[0, 1] = bits
        states, last = np.zeros((1, 4, SEQ, 1, 64), np.float32), np.zeros((1, 4, 1, 64), np.float32)
        arguments = inputs | {"states": states, "last": last, "others": None, "gates": None, "batch": 4, "seq": SEQ}
        arguments |= {name: np.zeros(size // 4, np.int32) for name, size in program.poisoned(shape).items()}
        emulate(program.main.source, program.main.launch.at(shape), arguments, seed=1)
        found.append(states)
    right, with_nan = found
    assert np.isnan(with_nan[0, 1]).all() or bits == 0x7F800000
    assert np.array_equal(with_nan[0, [0, 2, 3]], right[0, [0, 2, 3]])


@pytest.mark.unit
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_large_heads_run_on_a_grid(dtype: str, direction: Direction) -> None:
    for cell in ("lstm", "gru", "slstm"):
        for gpu in (GPU, A100):
            shape = Shape(16, 1024, 1, 512, dtype, "gates")
            best = plan(load_cell(cell), shape, load_profile(gpu), top=1, direction=direction)[0]
            assert best.schedule.startswith("grid"), f"{cell} on {gpu}: {best}"


@pytest.mark.compiled
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("gpu", "head_dim"), [(GPU, 512), (GPU, 768), (A100, 512)])
@pytest.mark.parametrize("schedule", ["grid", "grid_backward"])
def test_the_models_choices_compile_into_registers(schedule: str, dtype: str, gpu: str, head_dim: int) -> None:
    """Of the first that differ one at least: a kernel that spills is passed over. What is not the GPU's first size has
    each cell in one dtype, in turn."""
    chosen, profile = get(schedule), load_profile(gpu)
    cells, first = ("lstm", "gru"), (gpu, head_dim) == (GPU, 512)
    for name in cells if first else cells[(FLOATS.index(dtype) + (gpu == A100)) % 2 :: 2]:
        cell, shape = load_cell(name), Shape(16, 1024, 1, head_dim, dtype, "gates")
        spilled = {}
        for tiling in spread(plan(cell, shape, profile, schedules=[schedule], direction=chosen.direction))[:2]:
            report = compile_source(chosen.program(cell, shape, profile, tiling).main.source).report
            spilled[str(tiling)] = report.local_memory
            if not report.local_memory:
                break
        assert min(spilled.values()) == 0, f"{name} {head_dim}: {spilled}"
