"""The emulator's wgmma: what it computes from the bits of a descriptor, and the mistakes that it reports."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from emulator_kernels import fault, kernel, run, words
from numpy.typing import NDArray

from kernelgen.program.source import Source

pytestmark = pytest.mark.emulated

DTYPES = {"bf16": np.dtype(ml_dtypes.bfloat16), "fp16": np.dtype(np.float16)}
PARAMETERS = "const unsigned short* a, const unsigned short* b, float* out"
K = 32

STORE = """
    const SharedAddress of_a = shared_memory(), of_b = of_a + 64 * {k} * 2;
    const int thread = thread_index(), lane = thread % 32, g = lane / 4, j = lane % 4, row = thread / 32 * 16 + g;
    for (int i = thread; i < 64 * {k} / 8; i += 128)
        store_shared_128(of_a + i * 16, load_global_128(a + i % 64 * {k} + i / 64 * 8));
    for (int i = thread; i < {n} * {k} / 8; i += 128)
        store_shared_128(of_b + i * 16, load_global_128(b + i % {n} * {k} + i / {n} * 8));
"""
MULTIPLY = """
    {fence}
    sync_block();
    float d[{n} / 8][4] = {{}};
    {ready}
    for (int k = 0; k < {k} / 16; ++k) {{
        const MatrixDescriptor columns = matrix_descriptor(of_b + k * 2 * {n} * 16, {n} * 16, {along_rows});
        if ({registers}) {{
            unsigned rows[4];
            for (int i = 0; i < 4; ++i)
                rows[i] = load_global_32(a + (row + i % 2 * 8) * {k} + k * 16 + i / 2 * 8 + 2 * j);
            wgmma<{tag}>(d, rows, columns, k != 0);
        }} else {{
            wgmma<{tag}>(d, matrix_descriptor(of_a + k * 2 * 64 * 16, 64 * 16, 128), columns, k != 0);
        }}
    }}
    wgmma_commit();
    {meanwhile}
    {wait}
    for (int i = 0; i < {n} / 2; ++i)
        store_global_32(out + (row + i / 2 % 2 * 8) * {n} + i / 4 * 8 + 2 * j + i % 2,
                        __float_as_uint(d[i / 4][i % 4]));
"""
RIGHT = {
    "tag": "bf16",
    "registers": "true",
    "along_rows": "128",
    "fence": "fence_shared_for_wgmma();",
    "ready": "wgmma_fence();",
    "meanwhile": "",
    "wait": "wgmma_wait<0>();",
}


def product(n: int, **changed: str) -> Source:
    values = {"n": str(n), "k": str(K)} | RIGHT | changed
    return kernel((STORE + MULTIPLY).format(**values), PARAMETERS)


def factors(n: int, tag: str = "bf16") -> dict[str, NDArray[np.generic]]:
    rng = np.random.default_rng(1)
    a, b = (rng.normal(size=(rows, K)).astype(DTYPES[tag]) for rows in (64, n))
    return {"a": a, "b": b, "out": np.zeros((64, n), np.float32)}


def shared(n: int) -> int:
    return (64 + n) * K * 2


@pytest.mark.parametrize("registers", ["true", "false"])
@pytest.mark.parametrize(("tag", "n"), [("bf16", 16), ("fp16", 32), ("bf16", 64)])
def test_a_product_agrees_with_numpy(tag: str, n: int, registers: str) -> None:
    arrays = factors(n, tag)
    run(product(n, tag=tag, registers=registers), arrays, threads=128, shared=shared(n))
    expected = arrays["a"].astype(float) @ arrays["b"].astype(float).T
    assert np.abs(arrays["out"] - expected).max() <= 4 * np.spacing(np.abs(expected).max().astype(np.float32))


def test_a_descriptor_that_points_elsewhere_is_a_fault() -> None:
    report = fault(product(32, along_rows="1040"), factors(32), threads=128, shared=shared(32) + 4096)
    assert "which nobody has written" in report


@pytest.mark.parametrize(
    ("changed", "report"),
    [
        ({"fence": ""}, "fence_shared_for_wgmma() by the first thread is missing"),
        ({"ready": ""}, "a wgmma_fence is missing"),
        ({"meanwhile": "d[0][0] = 1;"}, "a wgmma_wait is missing"),
        ({"meanwhile": "sync_block(); if (thread == 5) store_shared_32(of_b, 0); sync_block();"}, "may not see yet"),
    ],
)
def test_a_mistake_is_reported(changed: dict[str, str], report: str) -> None:
    assert report in fault(product(16, **changed), factors(16), threads=128, shared=shared(16))


def test_sums_that_nobody_waits_for_are_none() -> None:
    arrays = factors(16)
    run(product(16, wait=""), arrays, threads=128, shared=shared(16))
    assert np.isnan(arrays["out"]).all()


def test_less_than_a_warpgroup_multiplies_nothing() -> None:
    source = kernel("float d[2][4] = {}; wgmma_fence(); wgmma<bf16>(d, 0ull, 0ull, false);", "unsigned* out")
    assert "a warpgroup is four warps" in fault(source, {"out": words(1)}, threads=64, shared=1024)
