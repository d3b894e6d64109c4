"""The backward kernel of every cell on the CPU, against the float64 backward reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kernelgen.cells import cell_names, load_cell
from kernelgen.dtypes import numpy_dtype, tolerance
from kernelgen.emulator import emulate
from kernelgen.hardware import load_profile
from kernelgen.inputs import random_inputs
from kernelgen.plan import plan
from kernelgen.reference import backward, forward
from kernelgen.schedules import get, schedule_names
from kernelgen.schedules.base import Tiling
from kernelgen.shape import Shape

pytestmark = pytest.mark.emulated

GPU = "h200"


def run(name: str, shape: Shape, tiling: Tiling, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Emulate a backward kernel on what a forward pass saved; its outputs, and the reference's."""
    cell, schedule, dtype = load_cell(name), get(tiling.schedule), numpy_dtype(shape.dtype)
    batch, seq, heads, dim = shape.batch, shape.seq, shape.heads, shape.head_dim
    inputs = random_inputs(cell, shape, seed)
    initial = inputs["initial"] if seed % 2 == 0 else None
    passed = forward(cell, inputs["wx"], inputs["r"], inputs["b"], initial, round_h=dtype)
    assert passed.gates is not None
    draw = np.random.default_rng(seed)
    known = 1 if shape.save == "hidden" else len(cell.states)
    d_states = draw.uniform(-1, 1, (known, batch, seq, heads, dim)).astype(dtype)
    d_last = draw.uniform(-1, 1, (len(cell.states), batch, heads, dim)).astype(dtype) if seed % 2 == 0 else None
    expected = backward(
        cell,
        inputs["wx"],
        inputs["r"],
        inputs["b"],
        initial,
        d_states,
        d_last,
        round_h=dtype,
        round_saved=dtype,
        round_d_gates=dtype,
        result=passed,
    )
    rest = [index for index in range(len(cell.gates)) if index not in cell.input_gates]

    def empty(*sizes: int) -> Any:
        return np.full(sizes, np.nan, dtype) if all(sizes) else None

    outputs = {
        "d_wx": empty(batch, seq, len(cell.input_gates), heads, dim),
        "d_rest": empty(len(rest), batch, seq, heads, dim),
        "d_initial": empty(len(cell.states), batch, heads, dim),
    }
    arguments = {
        "r": inputs["r"],
        "initial": initial,
        "states": passed.states.astype(dtype),
        "others": None,
        "gates": passed.gates.astype(dtype),
        "d_states": d_states,
        "d_last": d_last,
        **outputs,
        "batch": batch,
        "seq": seq,
        "first": 0,
        "steps": seq,
    }
    source = schedule.source(cell, shape, load_profile(GPU), tiling)
    written = [name for name, array in outputs.items() if array is not None]
    emulate(source, schedule.launch(shape, tiling), arguments, outputs=written, seed=seed)
    wanted = {"d_wx": expected.d_wx, "d_rest": expected.d_gates[rest], "d_initial": expected.d_initial}
    return {name: outputs[name] for name in written}, {name: wanted[name] for name in written}


def check(name: str, shape: Shape, tiling: Tiling, seeds: range) -> None:
    """Every element written, every output within the tolerance of a 16-bit result."""
    for seed in seeds:
        outputs, expected = run(name, shape, tiling, seed)
        for output, got in outputs.items():
            got, want = got.astype(np.float64), expected[output]
            assert np.isfinite(got).all(), f"{output}: not everything was written"
            error = np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-6)
            assert error <= tolerance(shape.dtype, shape.seq), f"{output} with seed {seed}: relative error {error:.1e}"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("cell", cell_names())
@pytest.mark.parametrize("schedule", schedule_names("backward"))
def test_the_models_choice_is_right(schedule: str, cell: str, dtype: str) -> None:
    shape = Shape(3, 7, 2, 32, dtype, "gates")
    best = plan(load_cell(cell), shape, load_profile(GPU), top=1, schedules=[schedule])[0]
    check(cell, shape, best, range(3))


RESIDENT = {"batch_tile": 8, "register_groups": 1, "chains": 2, "prefetch": 3}


@pytest.mark.parametrize(
    ("cell", "shape", "changed"),
    [
        pytest.param("lstm", Shape(5, 7, 1, 64), {"register_groups": 0}, id="R in shared memory"),
        pytest.param("gru", Shape(18, 6, 1, 32), {"batch_tile": 16, "prefetch": 2}, id="two column tiles"),
        pytest.param("slstm", Shape(3, 6, 1, 20, save="states"), {}, id="head dimension of 4s"),
        pytest.param("elman", Shape(3, 5, 1, 33), {"batch_tile": 4}, id="odd head dimension"),
        pytest.param("gru", Shape(1, 1, 2, 7), {"batch_tile": 4}, id="one sequence of one step, 7 units"),
        pytest.param("lstm", Shape(2, 3, 1, 16), {"prefetch": 12, "chains": 4}, id="prefetch beyond the end"),
    ],
)
def test_every_tile_variable_is_right(cell: str, shape: Shape, changed: dict[str, int]) -> None:
    tiling = get("resident_backward").tiling(load_cell(cell), shape, load_profile(GPU), RESIDENT | changed)
    check(cell, shape, tiling, range(2))
