"""Products of cuBLASLt as links of chains: each call as the library's documentation reads it, on arrays in the host's
memory, against NumPy in float64."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fake_cublaslt import FakeLibrary, use_library  # noqa: E402
from library_calls import moved_by_numpy  # noqa: E402
from products import ProductCase, error  # noqa: E402

from kernelgen.device.executor import Launches  # noqa: E402
from kernelgen.errors import LaunchError  # noqa: E402
from kernelgen.hardware.profile import load_profile  # noqa: E402
from kernelgen.schedules.shared.library_product import library_product, predicted_seconds  # noqa: E402
from kernelgen.schedules.shared.matrix_product import (  # noqa: E402
    TURNED_A,
    TURNED_B,
    TURNED_OUT,
    MatrixProduct,
)
from kernelgen.schedules.shared.moved_rows import MovedRows  # noqa: E402
from kernelgen.torch import library_links  # noqa: E402
from kernelgen.torch.library_links import OfLibrary, Part  # noqa: E402

pytestmark = pytest.mark.unit

H200 = load_profile("h200")

LIMITS = {"bfloat16": 2**-8, "float16": 2**-11, "float32": 2**-23, "tf32": 2**-23, "float64": 2**-50}

INPUT, WEIGHT = (False, True), (True, True)


@dataclass(frozen=True)
class Copy:
    """The kernel that copies rows, by NumPy."""

    moved: MovedRows

    def start(self, stream: Any, config: Any, source: int, second: int, to: int) -> None:
        assert second == 0
        rows = int(np.prod([self.moved.sizes[axis] for axis in self.moved.source]))
        size = rows * self.moved.row_bytes
        given = np.frombuffer((ctypes.c_char * size).from_address(source), np.uint8)
        made = moved_by_numpy(self.moved, given)
        ctypes.memmove(to, made.tobytes(), made.size)


def copying(moved: MovedRows) -> Part:
    return Part(Launches(((Copy(moved), None, ("from", "second", "to")),), {}, (None,)))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_links.gpu, "selected", lambda device: nullcontext())
    monkeypatch.setattr(library_links.gpu, "primary_context", lambda device: 0xC0)


def run(case: ProductCase) -> tuple[Any, Any]:
    """out, and what it should be."""
    arguments, wanted = case.draw(0)
    numbers = {name: arguments[name] for name in ("batch", "seq", "turned")}
    part = OfLibrary(case.product).part(H200, 0, copying, numbers, bias=case.bias)
    memory = {one.name: np.full(one.nbytes, 0xFF, np.uint8) for one in part.workspaces}
    arrays = {name: arguments[name] for name in ("a", "b", "bias", "out")} | memory
    values = {name: 0 if one is None else one.ctypes.data for name, one in arrays.items()}
    part.launches.run(SimpleNamespace(handle=7), values)
    return arguments["out"], wanted


CASES = [
    ProductCase(MatrixProduct(35, 72, 136, "bfloat16")),
    ProductCase(MatrixProduct(35, 72, 136, "float16"), turned=TURNED_A, batch=7),
    ProductCase(MatrixProduct(600, 72, 8, "bfloat16"), turned=TURNED_A | TURNED_OUT, batch=3),
    ProductCase(MatrixProduct(35, 75, 100, "float16", *INPUT), turned=TURNED_OUT, batch=5, bias=False),
    ProductCase(MatrixProduct(640, 33, 21, "float32", *INPUT), turned=TURNED_OUT, batch=2, bias=False),
    ProductCase(MatrixProduct(40, 72, 135, "bfloat16", *WEIGHT), turned=TURNED_B, batch=5, bias=False),
    ProductCase(MatrixProduct(40, 72, 135, "float16", *WEIGHT), turned=TURNED_A, batch=45, bias=False),
    ProductCase(MatrixProduct(41, 7, 90, "tf32", *WEIGHT), bias=False),
    ProductCase(MatrixProduct(40, 72, 136, "bfloat16", *WEIGHT, True), turned=TURNED_B, batch=68),
    ProductCase(MatrixProduct(37, 40, 36, "float32", True, False)),
    ProductCase(MatrixProduct(35, 36, 45, "float64"), turned=TURNED_A, batch=5),
    ProductCase(MatrixProduct(35, 36, 45, "float64", *WEIGHT), turned=TURNED_B, batch=9, bias=False),
    ProductCase(MatrixProduct(1, 8, 8, "bfloat16")),
    ProductCase(MatrixProduct(8, 1, 8, "float32")),
    ProductCase(MatrixProduct(8, 1, 1, "float32", *WEIGHT)),
    ProductCase(MatrixProduct(1, 1, 5, "float16", *INPUT), turned=5, batch=1),
    ProductCase(MatrixProduct(9, 16, 16, "float16"), turned=TURNED_A, batch=9),
    ProductCase(MatrixProduct(9, 16, 1, "float32"), turned=TURNED_A, batch=3),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("workspace", [0, 96])
def test_it_is_the_product(case: ProductCase, workspace: int, monkeypatch: pytest.MonkeyPatch) -> None:
    use_library(monkeypatch, FakeLibrary(workspace=workspace))
    made, wanted = run(case)
    rounded = 2.0 if case.bias else 1.0  # a copy of it may be rounded by itself
    limit = 2**-23 if case.product.floats else LIMITS[case.product.dtype]
    assert error(made, wanted) <= rounded * limit


def made_by(product: MatrixProduct, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[Mapping[str, Any]]:
    library = use_library(monkeypatch, FakeLibrary())
    run(ProductCase(product, **options))
    return library.calls  # type: ignore[no-any-return]


def test_time_major_steps_are_a_batch_of_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of as few and large ones as there can be, with the weights in each."""
    (call,) = made_by(MatrixProduct(1280, 256, 64, "bfloat16"), monkeypatch, turned=TURNED_A, batch=2)
    assert (call["batch"], call["m"], call["n"], call["k"]) == (2, 256, 640, 64)
    assert call["leads"] == (64, 2 * 64, 256)
    assert call["strides"] == (0, 64, 640 * 256)
    assert call["bias"]
    (call,) = made_by(MatrixProduct(1280, 256, 64, "bfloat16"), monkeypatch, turned=TURNED_A, batch=640)
    assert (call["batch"], call["n"], call["strides"]) == (2, 640, (0, 640 * 64, 256))
    assert call["leads"] == (64, 64, 2 * 256)


def test_few_steps_of_many_sequences_and_sums_over_sequences_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    wide, weight = MatrixProduct(1024, 2048, 512, "bfloat16"), MatrixProduct(512, 128, 2048, "bfloat16", *WEIGHT)
    for product, seq, turned, name in ((wide, 32, TURNED_A, "a"), (weight, 64, TURNED_B, "b"), (weight, 64, 1, "a")):
        made = library_product(product, H200, batch=32, seq=seq, turned=turned)
        assert [(copy.source, copy.to) for copy in made.before] == [(name, f"{name}_rows")]
        assert [(gemm.batch, gemm.adds) for gemm in made.gemms] == [(1, False)]
    (call,) = made_by(weight, monkeypatch, turned=TURNED_B, batch=32, bias=False)
    assert (call["batch"], call["k"], call["adds"]) == (1, 2048, False)


def test_who_adds_the_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    def added(*product: Any) -> list[tuple[bool, bool]]:
        calls = made_by(MatrixProduct(*product), monkeypatch)
        return [(call["bias"], call["adds"]) for call in calls]

    for dtype in ("bfloat16", "float16", "float32", "tf32"):
        assert added(40, 24, 16, dtype) == [(True, False)]
    assert added(40, 24, 16, "float64") == [(False, True)]  # to copies of it
    assert added(40, 24, 16, "bfloat16", False, False, True) == [(False, True)]
    assert added(40, 1, 16, "float32") == [(False, True)]  # columns of one element lie across


def test_one_without_an_algorithm_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    use_library(monkeypatch, FakeLibrary(refuses="all"))
    with pytest.raises(LaunchError, match="no algorithm"):
        run(CASES[0])


def test_the_model_is_near_what_was_measured() -> None:
    """Microseconds of torch.mm in a CUDA graph on an H200, docs/lab/matrix_product.md."""
    measured = {(256, 64, 256): 2.7, (1024, 256, 1024): 3.9, (1024, 512, 2048): 6.2, (2048, 1024, 4096): 25.0}
    for (steps, inputs, units), wanted in measured.items():
        found = 1e6 * predicted_seconds(MatrixProduct(steps, units, inputs, "bfloat16"), H200)
        assert 0.8 < found / wanted < 1.25


@pytest.mark.parametrize("gpu", ["t4", "a10", "a100-80gb", "l4", "h200", "b200", "rtx5090"])
def test_the_model_has_an_answer_for_every_gpu(gpu: str) -> None:
    for dtype in ("float16", "float32", "tf32", "float64"):
        short, long = (
            predicted_seconds(MatrixProduct(steps, 512, 128, dtype), load_profile(gpu)) for steps in (256, 65536)
        )
        assert 2e-6 < short < long < 5e-3
