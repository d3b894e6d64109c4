"""The kernel of the gradients of R and b, against the float64 product of the same 16-bit values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kernelgen.cells import load_cell
from kernelgen.dtypes import dtype_info, numpy_dtype
from kernelgen.emulator import emulate
from kernelgen.hardware import load_profile
from kernelgen.parameter_gradients import ParameterGradients
from kernelgen.shape import Shape


@pytest.mark.emulated
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize(
    ("name", "shape", "initial"),
    [
        pytest.param("lstm", Shape(3, 50, 2, 64), True, id="four gates of 64 units"),
        pytest.param("lstm", Shape(2, 33, 1, 64, "float16"), False, id="from zeros"),
        pytest.param("gru", Shape(3, 20, 2, 32), True, id="gates without an input or a product"),
        pytest.param("elman", Shape(5, 7, 1, 33), True, id="odd head dimension"),
        pytest.param("elman", Shape(1, 1, 1, 7), True, id="one step"),
        pytest.param("mgu", Shape(2, 40, 1, 20, "float16"), False, id="head dimension of 4s"),
        pytest.param("janet", Shape(70, 1, 1, 16), True, id="every step is a first one"),
        pytest.param("lstm", Shape(1, 40, 1, 128), False, id="a gate a block"),
        pytest.param("elman", Shape(1, 70, 1, 144), True, id="two blocks of columns"),
    ],
)
def test_it_is_the_product_and_the_sum(
    name: str, shape: Shape, initial: bool, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, kind, random = load_cell(name), numpy_dtype(shape.dtype), np.random.default_rng(0)
    batch, seq, heads, dim = shape.batch, shape.seq, shape.heads, shape.head_dim
    rest = cell.rest_gates
    d_wx = random.uniform(-1, 1, (batch, seq, len(cell.input_gates), heads, dim)).astype(kind)
    d_rest = random.uniform(-1, 1, (len(rest), batch, seq, heads, dim)).astype(kind)
    hidden = random.uniform(-1, 1, (batch, seq, heads, dim)).astype(kind)
    start = random.uniform(-1, 1, (batch, heads, dim)).astype(kind) if initial else None

    each = dict(zip(cell.input_gates, np.moveaxis(d_wx, 2, 0), strict=True)) | dict(zip(rest, d_rest, strict=True))
    each = {index: value.astype(np.float64) for index, value in each.items()}
    first = np.zeros((batch, 1, heads, dim)) if start is None else start[:, None].astype(np.float64)
    before = np.concatenate([first, hidden[:, :-1].astype(np.float64)], axis=1)
    d_r = np.stack([np.einsum("bthd,bthp->hdp", each[index], before) for index in cell.recurrent_gates])
    d_b = np.stack([each[index].sum((0, 1)) for index in cell.bias_gates])

    kernel = ParameterGradients(cell, shape, load_profile("h200"))
    tiling = replace(kernel.tiling, parts=parts)
    monkeypatch.setattr(ParameterGradients, "tiling", tiling)
    sizes, made = (() if parts == 1 else (parts,)), kind if parts == 1 else np.float32
    made_r, made_b = (np.zeros((*sizes, *like.shape), made) for like in (d_r, d_b))
    arguments = {
        "d_wx": d_wx,
        "d_rest": d_rest if rest else None,
        "hidden": hidden,
        "initial": start,
        "d_r": made_r,
        "d_b": made_b,
        "batch": batch,
        "seq": seq,
        "parts": parts,
    }
    for seed in range(2):
        emulate(kernel.source(), kernel.launch(shape), arguments, outputs=("d_r", "d_b"), seed=seed)
        for got, wanted in ((made_r, d_r), (made_b, d_b)):
            total = got.astype(np.float64) if parts == 1 else got.astype(np.float64).sum(0)
            error = np.linalg.norm(total - wanted) / np.linalg.norm(wanted)
            assert error <= dtype_info(shape.dtype).unit_roundoff / (1 if parts == 1 else 100)


@pytest.mark.unit
def test_tiles_fill_the_gpu_and_read_little() -> None:
    profile = load_profile("h200")

    def blocks(cell: str, heads: int, dim: int) -> int:
        shape = Shape(16, 1024, heads, dim)
        return ParameterGradients(load_cell(cell), shape, profile).launch(shape).grid[1] * heads

    for heads, dim in ((24, 32), (12, 64), (6, 128), (1, 64)):
        assert 60 <= blocks("lstm", heads, dim) <= 132


@pytest.mark.unit
def test_partial_results_take_little_memory() -> None:
    profile, found = load_profile("h200"), []
    for batch in (1, 16, 128):
        shape = Shape(batch, 1024, 12, 64)
        parts = ParameterGradients(load_cell("lstm"), shape, profile).tiling.parts
        kept = 6 * batch * 1024 * 12 * 64 * 2
        assert parts == 1 or parts * 4 * 12 * 64 * 64 * 4 <= 0.01 * kept
        found.append(parts)
    assert found[0] == 1
    assert found[2] > 4


@pytest.mark.compiled
@pytest.mark.parametrize("gpu", ["a100-80gb", "h200", "rtx5090"])
def test_it_compiles_without_spills(gpu: str) -> None:
    from kernelgen.compile import compile_source

    for cell in map(load_cell, ("lstm", "gru")):
        for dim in (16, 33, 64, 128):
            source = ParameterGradients(cell, Shape(16, 64, 2, dim), load_profile(gpu)).source()
            assert compile_source(source).report.spills == 0, (cell.name, dim)
