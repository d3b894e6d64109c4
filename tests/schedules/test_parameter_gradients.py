"""The kernel of the gradients of R and b, against the float64 product of the same 16-bit values."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kernelgen.cells import load_cell
from kernelgen.cells.language import Cell, Gate, tanh
from kernelgen.errors import EmulationError, ValidationError
from kernelgen.hardware.profile import load_profile
from kernelgen.paths import cuda_headers
from kernelgen.program.dtypes import dtype_info, numpy_dtype
from kernelgen.program.program import KernelCall
from kernelgen.program.shape import Shape
from kernelgen.schedules.shared.parameter_gradients import MEMORY, ParameterGradients, load_clocks
from kernelgen.schedules.shared.parameter_tiles import LARGE, MOST_SUMS, ruled, work
from kernelgen.verify.cases import ValidationCase
from kernelgen.verify.emulator import emulate
from kernelgen.verify.validate_parameters import SIZES, emulate_calls, emulate_parameters, parameter_case

BARE = Cell(
    "bare",
    "An input without a bias, a product without an input",
    "none",
    ("h",),
    (Gate("x", recurrent=False, bias=False), Gate("a", input=False)),
    lambda gate, state: {"h": tanh(gate.a + gate.x)},
)


SHAPES = [
    pytest.param("lstm", Shape(3, 50, 2, 64), True, id="four gates of 64 units"),
    pytest.param("lstm", Shape(2, 33, 1, 64, "float16"), False, id="from zeros"),
    pytest.param("gru", Shape(3, 20, 2, 32), True, id="gates without an input or a product"),
    pytest.param("lstm_cifg", Shape(2, 20, 1, 16), True, id="gates with a bias alone"),
    pytest.param(BARE, Shape(2, 20, 2, 16), True, id="nothing to be made of the gates with an input"),
    pytest.param("elman", Shape(5, 7, 1, 33), True, id="odd head dimension"),
    pytest.param("elman", Shape(1, 1, 1, 7), True, id="one step"),
    pytest.param("mgu", Shape(2, 40, 1, 20, "float16"), False, id="head dimension of 4s"),
    pytest.param("janet", Shape(70, 1, 1, 16), True, id="every step is a first one"),
    pytest.param("lstm", Shape(1, 40, 1, 128), False, id="a gate a block"),
    pytest.param("elman", Shape(1, 70, 1, 144), True, id="two blocks of columns"),
    pytest.param("gru", Shape(3, 20, 2, 32, "float32"), True, id="float32"),
    pytest.param("lstm_cifg", Shape(2, 33, 1, 9, "float32"), False, id="float32, odd head dimension"),
    pytest.param("elman", Shape(1, 70, 1, 72, "float32"), True, id="float32, two blocks of columns"),
    pytest.param("lstm", Shape(2, 20, 1, 20, "tf32"), True, id="TF32"),
]

WAYS = [(1, False), (3, False), (3, True)]
"""Blocks that share a sum, and whether they are of one cluster."""

EVERY_WAY = ("four gates of 64 units", "gates without an input or a product", "one step", "float32", "TF32")


@pytest.mark.emulated
@pytest.mark.parametrize(
    ("name", "shape", "initial", "parts", "cluster"),
    [
        pytest.param(*case.values, *way, id=f"{case.id}, {'cluster of ' if way[1] else ''}{way[0]}")
        for i, case in enumerate(SHAPES)
        for way in (WAYS if case.id in EVERY_WAY else [WAYS[i % len(WAYS)]])
    ],
)
def test_it_is_the_product_and_the_sum(
    name: str | Cell, shape: Shape, initial: bool, parts: int, cluster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_product(name, shape, initial, parts, cluster, monkeypatch)


@pytest.mark.emulated
@pytest.mark.parametrize(("parts", "cluster"), [(1, False), (3, False), (3, True)])
def test_sums_of_16_bits_are_float32_where_that_is_asked(
    parts: int, cluster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_product("gru", Shape(3, 20, 2, 16), True, parts, cluster, monkeypatch, floats=True)


def check_product(
    name: str | Cell,
    shape: Shape,
    initial: bool,
    parts: int,
    cluster: bool,
    monkeypatch: pytest.MonkeyPatch,
    floats: bool = False,
) -> None:
    """Emulate the kernel of a shape; as exact as its dtype, or as float32. floats: what ParameterGradients has."""
    cell = load_cell(name) if isinstance(name, str) else name
    kind, random = numpy_dtype(shape.dtype), np.random.default_rng(0)
    batch, seq, heads, dim = shape.batch, shape.seq, shape.heads, shape.head_dim
    inputs, num_partials = cell.input_gates, 5
    d_wx = random.uniform(-1, 1, (batch, seq, len(cell.input_gates), heads, dim)).astype(kind)
    partial_r = [rank for rank, gate in enumerate(cell.recurrent_gates) if gate not in inputs]
    partial_b = [rank for rank, gate in enumerate(cell.bias_gates) if gate not in inputs]
    d_r_partial = random.uniform(-1, 1, (num_partials, len(partial_r), heads, dim, dim)).astype(np.float32)
    d_b_partial = random.uniform(-1, 1, (num_partials, len(partial_b), heads, dim)).astype(np.float32)
    hidden = random.uniform(-1, 1, (batch, seq, heads, dim)).astype(kind)
    start = random.uniform(-1, 1, (batch, heads, dim)).astype(kind) if initial else None

    each = np.zeros((len(cell.gates), batch, seq, heads, dim))
    each[list(inputs)] = np.moveaxis(d_wx, 2, 0)
    first = np.zeros((batch, 1, heads, dim)) if start is None else start[:, None].astype(np.float64)
    before = np.concatenate([first, hidden[:, :-1].astype(np.float64)], axis=1)
    d_r = np.stack([np.einsum("bthd,bthp->hdp", each[index], before) for index in cell.recurrent_gates])
    d_b = np.stack([each[index].sum((0, 1)) for index in cell.bias_gates])
    d_r[partial_r], d_b[partial_b] = d_r_partial.sum(0, dtype=np.float64), d_b_partial.sum(0, dtype=np.float64)

    kernel = ParameterGradients(cell, shape, load_profile("h200"), floats=floats)
    tiling = replace(kernel.tiling, parts=parts, cluster=cluster)
    monkeypatch.setattr(ParameterGradients, "tiling", tiling)
    apart = parts > 1 and not cluster
    calls = kernel.calls()
    assert (kernel.results, calls[0].launch.at(shape).cluster) == (parts if apart else 1, parts if cluster else 1)
    assert len(calls) == 1 + apart
    made_r, made_b = (np.zeros(like.shape, np.float32 if floats else kind) for like in (d_r, d_b))
    arguments = {
        "d_wx": d_wx,
        "d_r_partial": d_r_partial if partial_r else None,
        "d_b_partial": d_b_partial if partial_b else None,
        "states": hidden,
        "initial": start,
        "d_r": made_r,
        "d_b": made_b,
        "d_r_parts": np.zeros((parts, *d_r.shape), np.float32),
        "d_b_parts": np.zeros((parts, *d_b.shape), np.float32),
        "batch": batch,
        "seq": seq,
        "num_partials": num_partials,
    }
    for seed in range(2):
        for call in calls:
            given = {name: arguments[name] for name in call.source.arguments}
            emulate(call.source, call.launch.at(shape), given, outputs=call.source.writes, seed=seed)
        for got, wanted in ((made_r, d_r), (made_b, d_b)):
            error = np.linalg.norm(got.astype(np.float64) - wanted) / np.linalg.norm(wanted)
            rounded = 2**-11 if shape.dtype == "tf32" else dtype_info(shape.dtype).unit_roundoff
            assert error <= max(0.0 if floats else rounded, 2**-21)


@pytest.mark.emulated
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(
    ("warps", "dtype"),
    [
        (warps, dtype)
        for dtype in ("bfloat16", "float32")
        for warps in LARGE
        if 4 * warps[2] * (warps[3] // warps[1] // 8 + 1) <= MOST_SUMS[dtype_info(dtype).itemsize]
    ],
)
def test_warps_that_share_columns_make_the_same(warps: tuple[int, ...], dtype: str, parts: int) -> None:
    row_warps, column_warps, warp_tiles, columns = warps
    kernel = ParameterGradients(load_cell("gru"), Shape(2, 33, 1, 152, dtype), load_profile("h200"))
    tiling = replace(kernel.tiling, row_warps=row_warps, column_warps=column_warps, warp_tiles=warp_tiles)
    tiling = replace(tiling, columns=columns, step_groups=1, parts=parts, cluster=True, depth=16)
    assert tiling.sums <= MOST_SUMS[dtype_info(dtype).itemsize]
    kernel = replace(kernel, given=tiling)
    calls = kernel.calls()
    case = parameter_case(kernel, calls, 2, 33, parts)
    found = case.compare(emulate_calls(calls, case, parts))
    assert max(found.values()) < case.tolerance / 4


def float32_case(shape: Shape) -> tuple[ParameterGradients, ValidationCase]:
    kernel = ParameterGradients(load_cell("elman"), shape, load_profile("h200"))
    return kernel, parameter_case(kernel, kernel.calls(), shape.batch, shape.seq, 1)


@pytest.mark.emulated
def test_long_float32_sums_do_not_shrink() -> None:
    """Tensor cores cut what they add up: kept there, the sums of these steps would be off by 2e-5."""
    kernel, case = float32_case(Shape(1, 2048, 1, 16, "float32"))
    kernel = replace(kernel, given=replace(kernel.tiling, parts=1, cluster=False, step_groups=1))
    for name in ("d_wx", "states"):
        array = case.inputs[name]
        assert array is not None
        np.abs(array, out=array)
    (d_wx, states) = (case.inputs[name] for name in ("d_wx", "states"))
    assert d_wx is not None
    assert states is not None
    made = emulate_calls(kernel.calls(), case)["d_r"]
    assert made is not None
    wanted = d_wx[0, 1:, 0, 0].astype(float).T @ states[0, 0, :-1, 0].astype(float)
    assert np.linalg.norm(made[0, 0] - wanted) < 1e-6 * np.linalg.norm(wanted)


@pytest.mark.emulated
@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800000], ids="{:x}".format)
def test_a_float32_gradient_that_is_no_number_stays_none(bits: int) -> None:
    """0x7fffffff is what GPUs make; rounding it to TF32 by an addition would give -0."""
    kernel, case = float32_case(Shape(1, 9, 1, 16, "float32"))
    d_wx = case.inputs["d_wx"]
    assert d_wx is not None
    d_wx.view(np.uint32)[0, 4, 0, 0, 3] = bits
    made = emulate_calls(kernel.calls(), case)
    d_r, d_b = made["d_r"], made["d_b"]
    assert d_r is not None
    assert d_b is not None
    assert not np.isfinite(d_r[0, 0, 3]).any()
    assert not np.isfinite(d_b[0, 0, 3])
    assert np.isfinite(np.delete(d_r[0, 0], 3, 0)).all()


FAULTS = {
    "blocks that leave while their memory is read": (
        "        sync_cluster();  // nobody leaves while its memory is read\n",
        "",
        "end of the kernel",
    ),
    "sums read before they are there": (
        "        sync_cluster();\n        for (int at",
        "        for (int at",
        "sync_cluster",
    ),
    "sums left where others still read": (
        "        sync_block();  // the stages and the other warps' sums are read\n",
        "",
        "race",
    ),
}


@pytest.mark.emulated
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_planted_where_blocks_add_their_parts_are_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after, words = FAULTS[fault]
    cell, shape, kind = load_cell("elman"), Shape(2, 70, 1, 32), numpy_dtype("bfloat16")
    kernel = ParameterGradients(cell, shape, load_profile("h200"))
    monkeypatch.setattr(ParameterGradients, "tiling", replace(kernel.tiling, step_groups=1, parts=2, cluster=True))
    header = (cuda_headers() / "parameter_gradients.cuh").read_text().replace("#pragma once", "")
    assert header.count(before) == 1, f"the kernel has changed; plant the fault anew: {before!r}"
    (call,) = kernel.calls()
    source, arrays = call.source, {"d_wx": (2, 70, 1, 1, 32), "states": (2, 70, 1, 32)}
    source = replace(
        source, text=source.text.replace('#include "parameter_gradients.cuh"', header.replace(before, after))
    )
    arguments: dict[str, Any] = dict.fromkeys(source.arguments) | {"batch": 2, "seq": 70, "num_partials": 1}
    arguments |= {name: np.ones(size, kind) for name, size in arrays.items()}
    arguments |= {"d_r": np.zeros((1, 1, 32, 32), kind), "d_b": np.zeros((1, 1, 32), kind)}
    for seed in range(3):
        with pytest.raises(EmulationError, match=words):
            emulate(source, call.launch.at(shape), arguments, outputs=("d_r", "d_b"), seed=seed)


@pytest.mark.emulated
@pytest.mark.parametrize(
    ("cell", "shape", "gpu", "inputless"),
    [
        (load_cell("gru"), Shape(16, 1024, 3, 32), "h200", False),
        (load_cell("gru"), Shape(16, 1024, 1, 48), "h200", True),
        (load_cell("lstm_cifg"), Shape(128, 1024, 12, 16, "float16"), "a100-80gb", False),
        (load_cell("gru"), Shape(16, 1024, 3, 32, "float32"), "h200", True),
        (load_cell("lstm_cifg"), Shape(128, 1024, 12, 16, "float32"), "a100-80gb", False),
        (BARE, Shape(2, 20, 2, 16), "h200", False),
        (BARE, Shape(2, 20, 2, 16), "h200", True),
    ],
    ids=[
        "parts that a cluster adds",
        "gradients of gates without an input",
        "parts that are apart",
        "float32",
        "float32, parts that are apart",
        "nothing of the gates with an input",
        "nothing but gates without an input",
    ],
)
def test_the_kernel_is_proved_in_the_emulator(cell: Cell, shape: Shape, gpu: str, inputless: bool) -> None:
    seen: list[int] = []
    found = emulate_parameters(cell, shape, load_profile(gpu), range(4), on_seed=seen.append, inputless=inputless)
    assert (found.where, found.seeds, seen) == ("emulator", 4, [0, 1, 2, 3])
    assert (found.batch, found.seq) == SIZES[0]
    assert found.tolerance == dtype_info(shape.dtype).exact
    assert 0 <= found.worst < found.tolerance / (10 if shape.dtype != "float32" else 4)
    assert [*found.errors] == ["d_r", "d_b"]
    with pytest.raises(ValidationError, match="at least one seed"):
        emulate_parameters(cell, shape, load_profile(gpu), ())


@pytest.mark.emulated
@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (
            "copy(to, in.hidden + (static_cast<long long>(at - 1)",
            "copy(to, in.hidden + (static_cast<long long>(at)",
            "d_r",
        ),
        ("clear(to);\n                else if", "copy(to, in.hidden + unit);\n                else if", "d_r differs"),
        ("total += load_element(partial", "total = load_element(partial", "d_[rb] differs"),
        ("total.x += four.x, ", "", "d_[rb] differs"),
        ("product, a.high, b.low[0], b.low[1]", "product, a.high, b.high[0], b.high[1]", "d_r"),
        (
            "multiply_add(d, a, ones);",
            "auto cut = a;\n    for (unsigned& each : cut.low) each = 0;\n    multiply_add(d, cut, ones);",
            "d_b",
        ),
    ],
    ids=[
        "h of the step itself",
        "no zeros before the first step",
        "one partial sum of several",
        "a part not added",
        "float32: a high part for a low one",
        "float32: sums of high parts alone",
    ],
)
def test_a_wrong_kernel_is_found(before: str, after: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    factors, header = (
        (cuda_headers() / name).read_text().replace("#pragma once", "")
        for name in ("factors.cuh", "parameter_gradients.cuh")
    )
    dtype = "float32" if before in factors else "bfloat16"
    header = header.replace('#include "factors.cuh"', factors)
    assert header.count(before) == 1, f"the kernel has changed; plant the fault anew: {before!r}"
    sound = ParameterGradients.calls

    def wrong(self: ParameterGradients) -> tuple[KernelCall, ...]:
        (call,) = sound(self)
        text = call.source.text.replace('#include "parameter_gradients.cuh"', header.replace(before, after))
        return (replace(call, source=replace(call.source, text=text)),)

    monkeypatch.setattr(ParameterGradients, "calls", wrong)
    with pytest.raises((ValidationError, EmulationError), match=f"the kernel of dR and db: .*{words}"):
        emulate_parameters(load_cell("gru"), Shape(16, 1024, 2, 32, dtype), load_profile("h200"), range(4))


@pytest.mark.unit
def test_tiles_fill_the_gpu_and_read_little() -> None:
    profile = load_profile("h200")

    def blocks(cell: str, heads: int, dim: int) -> int:
        shape = Shape(16, 1024, heads, dim)
        return math.prod(ParameterGradients(load_cell(cell), shape, profile).calls()[0].launch.at(shape).grid)

    for heads, dim in ((24, 32), (12, 64), (6, 128)):
        assert 132 <= blocks("lstm", heads, dim) <= 264


@pytest.mark.unit
@pytest.mark.parametrize("gpu", ["h200", "a100-80gb", "rtx4090", "rtx5090"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_large_heads_have_the_tile_that_the_model_likes(gpu: str, dtype: str) -> None:
    profile = load_profile(gpu)
    for dim in (1000, 1024, 2048, 4096):
        kernel = ParameterGradients(load_cell("lstm"), Shape(16, 1024, 1, dim, dtype), profile)
        itemsize = dtype_info(dtype).itemsize
        ranked, clocks = kernel.tilings(), load_clocks()
        assert kernel.tiling == ranked[0]
        costs = [clocks.predict(kernel.product, tiling, profile) for tiling in ranked]
        assert costs[0] == min(costs)
        for tiling in ranked:
            assert tiling.shared_memory(itemsize) <= profile.shared_memory_per_block
            assert tiling.depth % ((32 // itemsize) * tiling.step_groups) == 0
    narrow = ruled(kernel.product, profile)
    chosen, ruled_work = (work(kernel.product, tiling, profile) for tiling in (kernel.tiling, narrow))
    assert chosen["cache"] <= ruled_work["cache"]
    if dtype == "bfloat16":
        assert kernel.tiling.column_warps > 1
        assert chosen["shared"] < 0.85 * ruled_work["shared"]


@pytest.mark.unit
def test_heads_that_were_measured_keep_their_tiles() -> None:
    profile = load_profile("h200")
    for heads, dim, batch, columns, parts in (
        (6, 128, 16, 128, 8),
        (4, 192, 16, 64, 4),
        (3, 256, 16, 128, 4),
        (1, 512, 16, 64, 2),
        (1, 512, 64, 64, 2),
    ):
        tiling = ParameterGradients(load_cell("lstm"), Shape(batch, 1024, heads, dim), profile).tiling
        assert (tiling.columns, tiling.parts, tiling.column_warps) == (columns, parts, 1)


@pytest.mark.unit
def test_the_blocks_of_a_cluster_leave_one_result() -> None:
    for gpu in ("h200", "b200", "rtx5090"):
        kernel = ParameterGradients(load_cell("lstm"), Shape(16, 1024, 12, 64), load_profile(gpu))
        (call,) = kernel.calls()
        launch = call.launch.at(kernel.shape)
        assert kernel.results == 1
        assert 1 < launch.cluster <= 8
        assert launch.grid[0] == 12 * launch.cluster


@pytest.mark.unit
def test_results_of_parts_take_little_memory() -> None:
    profile, found = load_profile("a100-80gb"), []
    for batch in (1, 16, 128):
        shape = Shape(batch, 1024, 12, 64)
        parts = ParameterGradients(load_cell("lstm"), shape, profile).results
        kept = 6 * batch * 1024 * 12 * 64 * 2
        assert parts == 1 or parts * 4 * 12 * 64 * 64 * 4 <= MEMORY * kept
        found.append(parts)
    assert found[0] == 1
    assert found[2] > 4


COMPILED = [
    ("gru", 16, "bfloat16"),
    ("lstm", 33, "bfloat16"),
    ("lstm", 64, "bfloat16"),
    ("gru", 128, "bfloat16"),
    ("lstm", 2048, "float16"),
    ("gru", 33, "float32"),
    ("lstm", 1024, "float32"),
]


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("gpu", "kernels"),
    [
        pytest.param("h200", COMPILED, id="h200"),
        pytest.param("a100-80gb", COMPILED[::2], id="a100-80gb"),
        pytest.param("rtx5090", COMPILED[1::2], id="rtx5090"),
    ],
)
def test_it_compiles_without_spills(gpu: str, kernels: list[tuple[str, int, str]]) -> None:
    from kernelgen.build.compile import compile_source

    for name, dim, dtype in kernels:
        kernel = ParameterGradients(load_cell(name), Shape(16, 64, 2, dim, dtype), load_profile(gpu))
        for call in kernel.calls():
            report = compile_source(call.source).report
            assert report.spills == 0, (name, dim, dtype)
            assert report.registers <= kernel.tiling.registers(dtype_info(dtype).itemsize) + 24, (name, dim, dtype)
