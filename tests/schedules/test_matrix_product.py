"""The kernel of a matrix product, against the float64 product of the same numbers."""

from __future__ import annotations

from itertools import product as every
from typing import Any

import numpy as np
import pytest
from products import ProductCase, error

from kernelgen.errors import InfeasibleError, LaunchError, ShapeError
from kernelgen.hardware.profile import load_profile
from kernelgen.program.dtypes import dtype_info
from kernelgen.schedules.shared.matrix_product import (
    TURNED_A,
    TURNED_B,
    TURNED_OUT,
    MatrixProduct,
    kernel,
    predicted_seconds,
    ranked,
)
from kernelgen.schedules.shared.product_tiles import BLOCKS
from kernelgen.verify.emulator import Excerpt, emulate

FORWARD, INPUT, WEIGHT = (False, False), (False, True), (True, True)
"""Whether a and b are transposed in the products of a layer: Wx, the gradient of x and that of W."""

LARGEST_ERROR = {"bfloat16": 2**-8, "float16": 2**-11, "float32": 2**-21, "tf32": 2**-11, "float64": 2**-50}
"""Of the norm, where out has the dtype; float32 of float32 sums."""


@pytest.mark.emulated
@pytest.mark.parametrize(
    "cases",
    [
        pytest.param(
            [
                ProductCase(MatrixProduct(35, 72, 136, "bfloat16"), turned=TURNED_A, batch=7),
                ProductCase(MatrixProduct(35, 72, 136, "bfloat16"), turned=TURNED_OUT, batch=5, bias=False),
                ProductCase(MatrixProduct(1, 8, 8, "bfloat16")),
                ProductCase(MatrixProduct(33, 72, 200, "bfloat16"), parts=2),
            ],
            id="Wx, one binary for all sizes",
        ),
        pytest.param(
            [
                ProductCase(MatrixProduct(35, 75, 100, "float16", *INPUT), turned=5, batch=5, bias=False),
                ProductCase(MatrixProduct(40, 1, 300, "float16", *INPUT), parts=4),
            ],
            id="dx, odd columns",
        ),
        pytest.param(
            [
                ProductCase(MatrixProduct(40, 72, 135, "bfloat16", *WEIGHT, True), turned=TURNED_A, batch=5, parts=4),
                ProductCase(MatrixProduct(40, 72, 136, "bfloat16", *WEIGHT, True), turned=TURNED_B, batch=68),
            ],
            id="dW in float32, a part without work",
        ),
        pytest.param([ProductCase(MatrixProduct(31, 33, 45, "bfloat16", floats=True))], id="nothing aligned"),
        pytest.param(
            [ProductCase(MatrixProduct(40, 66, 70, "bfloat16", *FORWARD, True), rows=64, parts=2)], id="64 x 64"
        ),
        pytest.param(
            [ProductCase(MatrixProduct(65, 136, 72, "float16", *INPUT, True), rows=128, parts=2)], id="128 x 128"
        ),
        pytest.param([ProductCase(MatrixProduct(37, 40, 99, "float32", *WEIGHT), parts=2)], id="float32"),
        pytest.param([ProductCase(MatrixProduct(37, 40, 36, "tf32", True, False))], id="TF32, a alone transposed"),
        pytest.param(
            [ProductCase(MatrixProduct(35, 35, 45, "float64", *INPUT), rows=128, turned=5, batch=5)], id="float64"
        ),
        pytest.param([ProductCase(MatrixProduct(33, 40, 72, "float16", *WEIGHT), "t4")], id="sm_75"),
        pytest.param([ProductCase(MatrixProduct(33, 40, 40, "float32"), "t4")], id="sm_75, floats by lanes"),
    ],
)
def test_it_is_the_product(cases: list[ProductCase]) -> None:
    """And the same bits whatever the order of the threads; cases of one parameter have one source."""
    assert len({case.kernel[0].text for case in cases}) == 1
    for case in cases:
        most = 2**-21 if case.product.floats else LARGEST_ERROR[case.product.dtype]
        made, wanted = case.emulate(0)
        assert error(made, wanted) <= most
        again, _ = case.emulate(1)
        assert again.tobytes() == made.tobytes()


@pytest.mark.emulated
def test_elements_beyond_what_32_bits_count() -> None:
    rows, kept, depth, columns = 2**27, 32, 32, 64
    case = MatrixProduct(rows, columns, depth, "bfloat16")
    small, wanted = ProductCase(MatrixProduct(kept, columns, depth, "bfloat16"), bias=False).draw(0)
    (tiling,) = [each for each in ranked(case, load_profile("h200")) if (each.rows, each.parts) == (32, 1)]
    source, launch = kernel(case, load_profile("h200"), tiling)
    arguments: dict[str, Any] = small | {"rows": rows}
    arguments |= {name: Excerpt(small[name], 0, rows - kept, rows) for name in ("a", "out")}
    emulate(source, launch, arguments, outputs=("out",), blocks=[launch.grid[0] - 1])
    assert error(small["out"], wanted) <= 2**-8


@pytest.mark.emulated
def test_a_number_that_is_none_stays_in_its_row_and_column() -> None:
    """Beyond the edges there are zeros, in both matrices: a NaN meets nothing of other rows."""
    case = ProductCase(MatrixProduct(33, 72, 200, "bfloat16"))
    arguments, wanted = case.draw(0)
    arguments["a"][32, 199] = np.nan
    source, launch = case.kernel
    emulate(source, launch, arguments, outputs=("out",))
    assert np.isnan(arguments["out"][32].astype(float)).all()
    assert error(arguments["out"][:32], wanted[:32]) <= 2**-8


@pytest.mark.unit
def test_few_binaries_serve_many_sizes() -> None:
    profile = load_profile("h200")
    texts = set()
    for rows, columns, depth in every((16, 256, 1024, 2048), (256, 1024, 4096), (64, 512, 1024)):
        source, launch = kernel(MatrixProduct(rows, columns, depth, "bfloat16"), profile)
        texts.add(source.text)
        assert source.arguments == ("a", "b", "bias", "out", "rows", "columns", "depth", "batch", "seq", "turned")
        assert source.writes == ("out",)
        assert launch.grid[0] % launch.cluster == 0
        assert launch.shared_memory <= profile.shared_memory_per_block
    assert len(texts) <= 3


@pytest.mark.unit
@pytest.mark.parametrize("gpu", ["t4", "a10", "a100-80gb", "l4", "h200", "b200", "rtx5090"])
def test_every_gpu_has_tiles_that_fit(gpu: str) -> None:
    profile = load_profile(gpu)
    for dtype, (a, b) in every(("float16", "float32", "tf32", "float64"), (FORWARD, INPUT, WEIGHT)):
        for size in ((256, 512, 64), (1025, 65, 2049)):
            asked = MatrixProduct(*size, dtype, a, b)
            found = ranked(asked, profile)
            assert {each.rows for each in found} >= {32, 64}
            for tiling in found:
                assert tiling.shared_memory(dtype_info(dtype).itemsize) <= profile.shared_memory_per_block
                assert tiling.parts <= min(profile.portable_cluster, -(-asked.depth // tiling.depth))
            assert 1e-6 < predicted_seconds(asked, profile) < 1e-3


@pytest.mark.unit
def test_small_products_are_spread_and_large_ones_read_little() -> None:
    profile = load_profile("h200")

    def chosen(rows: int, columns: int, depth: int, transposed: tuple[bool, bool]) -> tuple[int, int]:
        tiling = ranked(MatrixProduct(rows, columns, depth, "bfloat16", *transposed), profile)[0]
        return tiling.rows, tiling.parts

    assert chosen(256, 512, 128, FORWARD) == (32, 1)
    assert chosen(1024, 512, 128, FORWARD) == (64, 1)
    assert chosen(2048, 4096, 1024, FORWARD) == (128, 1)
    rows, parts = chosen(512, 128, 1024, WEIGHT)
    assert (rows < 128, parts > 1) == (True, True)


@pytest.mark.unit
def test_vectors_are_as_wide_as_every_row_and_address_allows() -> None:
    def widths(alignment: int = 16, **sizes: Any) -> tuple[int, int, int]:
        wanted: dict[str, Any] = {"rows": 64, "columns": 64, "depth": 64, "dtype": "bfloat16"} | sizes
        return MatrixProduct(**wanted, alignment=alignment).work.widths

    assert widths() == (8, 8, 8)
    assert widths(depth=65) == (1, 1, 8)
    assert widths(depth=65, a_transposed=True, b_transposed=True) == (8, 8, 8)
    assert widths(rows=66, columns=68, a_transposed=True, b_transposed=True) == (2, 4, 4)
    assert widths(floats=True) == (8, 8, 4)
    assert widths(dtype="float64", columns=65) == (2, 2, 1)
    assert widths(alignment=4) == (2, 2, 2)


@pytest.mark.unit
def test_what_cannot_be_is_refused_in_words() -> None:
    h200 = load_profile("h200")
    with pytest.raises(ShapeError, match="the depth of a product must be an integer from 1 to 2,147,418,112, not 0"):
        MatrixProduct(1, 1, 0, "bfloat16")
    with pytest.raises(ShapeError, match=r"the rows of a product .*not 2147483648"):
        MatrixProduct(2**31, 1, 1, "bfloat16")
    with pytest.raises(ShapeError, match="unknown dtype 'bf16'"):
        MatrixProduct(1, 1, 1, "bf16")
    for dtype, floats, alignment in (("float32", False, 2), ("bfloat16", True, 2), ("float32", False, 12)):
        with pytest.raises(ShapeError, match=f"power of two of at least 4 bytes, not of {alignment}"):
            MatrixProduct(1, 1, 1, dtype, floats=floats, alignment=alignment)
    with pytest.raises(InfeasibleError, match=r"the matrix product needs .*m16n8k16 for bfloat16, which t4"):
        kernel(MatrixProduct(1, 1, 1, "bfloat16"), load_profile("t4"))
    with pytest.raises(LaunchError, match="blocks, and a grid has at most"):
        kernel(MatrixProduct(2**30, 2**20, 1, "bfloat16"), h200)


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("gpu", "dtype", "transposed", "rows"),
    [
        ("t4", "float16", FORWARD, 64),
        ("t4", "float32", FORWARD, 32),
        ("a100-80gb", "float64", WEIGHT, 128),
        ("l4", "float16", WEIGHT, 32),
        ("h200", "bfloat16", WEIGHT, 128),
        ("h200", "float32", FORWARD, 128),
        ("b200", "tf32", INPUT, 64),
        ("rtx5090", "bfloat16", INPUT, 32),
    ],
)
def test_it_compiles_into_registers(gpu: str, dtype: str, transposed: tuple[bool, bool], rows: int) -> None:
    from kernelgen.build.compile import compile_source

    case = ProductCase(MatrixProduct(1001, 1000, 1000, dtype, *transposed), gpu, rows)
    report = compile_source(case.kernel[0]).report
    assert not report.spills
    assert not report.local_memory
    profile = load_profile(gpu)
    tiling = next(each for each in ranked(case.product, profile) if each.rows == rows)
    wanted = min(BLOCKS, case.product.work.fit(tiling, profile))
    assert profile.occupancy(tiling.threads, report.registers, case.kernel[1].shared_memory) >= wanted > 0
