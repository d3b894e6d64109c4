"""cuBLASLt: products of matrices by NVIDIA's library, planned once for each size and called with plans.

The library is that which this process has loaded (PyTorch's), else that of the package nvidia-cublas, else the
toolkit's. It is looked for when a product is first planned. Numbers of its enumerations are those of its header,
cublasLt.h, of CUDA 12 and 13.
"""

from __future__ import annotations

import ctypes
import importlib.util
import math
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from kernelgen.errors import LaunchError
from kernelgen.program.dtypes import dtype_info
from kernelgen.program.lanes import Span
from kernelgen.program.product import SCRATCH, SCRATCH_BYTES, Gemm, ProductCall

NAMES = ("libcublasLt.so.13", "libcublasLt.so.12")

_TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}
"""cudaDataType."""

_COMPUTE = {"tf32": 77, "float64": 70}
_COMPUTE_FLOAT = 68
"""cublasComputeType_t: float32 sums; of tf32, of factors that are rounded to TF32; and of float64."""

_TRANSA, _TRANSB, _EPILOGUE, _BIAS = 3, 4, 7, 8
_BATCH_COUNT, _BATCH_STRIDE = 5, 6
_WORKSPACE, _REDUCTIONS, _ALIGNMENTS = 1, 3, (5, 6, 7, 8)
"""Attributes of a product, of a matrix, and of what is preferred of an algorithm."""

_ADDS_BIAS = 4
"""Of the epilogues, which take what has been multiplied: that which adds a bias to every column
(CUBLASLT_EPILOGUE_BIAS)."""

_SUMS_APART = 2
"""The one way that parts of K may be added: apart, in what they are summed in, and in one order
(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE); not where the result lies."""

_ALIGNED = 16
"""Bytes: how arrays begin at least, and what more the library may count on it is not told."""


class _Result(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = (
        ("algorithm", ctypes.c_uint64 * 8),
        ("workspace", ctypes.c_size_t),
        ("state", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )


def _candidates() -> Iterator[str]:
    """Where the library may be, the best place first."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        maps = ""
    mapped = (path for line in maps.splitlines() for path in line.split()[5:6])
    yield from dict.fromkeys(path for path in mapped if "libcublasLt.so" in Path(path).name)
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for name in NAMES:
            yield from map(str, sorted(Path(folder).glob(f"*/lib/{name}")))
    toolkit = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    for name in NAMES:
        yield str(Path(toolkit) / "lib64" / name)
    yield from NAMES


@cache
def library() -> ctypes.CDLL | None:
    """The library; None where there is none."""
    for place in _candidates():
        if Path(place).is_absolute() and not Path(place).exists():
            continue
        try:
            return ctypes.CDLL(place)
        except OSError:
            continue
    return None


MISSING = (
    "the program multiplies with cuBLASLt, and neither this process, nor the package nvidia-cublas, nor a CUDA toolkit "
    "has libcublasLt.so.13 or .12. Install nvidia-cublas, or take another schedule."
)


def required() -> ctypes.CDLL:
    """The library. Raises LaunchError where there is none."""
    found = library()
    if found is None:
        raise LaunchError(MISSING)
    return found


_operations = threading.Lock()
"""An operation has one bias at a time."""


@dataclass(frozen=True, eq=False)
class PlannedProduct:
    """A call of the library for one size on one GPU, ready to be made.

    entry: what it makes, in words. arrays: the names of left, right and out. handle, operation, layouts (of these): the
    library's. result: its algorithm and what of the scratch that takes.
    offsets: bytes from the beginnings of left, right, out, the scratch and the bias. numbers: 1 and 0. adds: to what is
    there. bias: the name of what is added to every column, or nothing.
    """

    entry: str
    arrays: tuple[str, str, str]
    handle: int
    operation: int
    layouts: tuple[int, int, int]
    offsets: tuple[int, int, int, int, int]
    result: _Result
    numbers: ctypes.Array[Any]
    adds: bool
    bias: str = ""

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of what ``start`` takes."""
        return (*self.arrays, SCRATCH, *([self.bias] if self.bias else []))

    @property
    def function(self) -> int:
        """The address of cublasLtMatmul."""
        return _address(required().cublasLtMatmul)

    @property
    def set_function(self) -> int:
        """The address of cublasLtMatmulDescSetAttribute, which tells an operation its bias."""
        return _address(required().cublasLtMatmulDescSetAttribute)

    @property
    def algorithm(self) -> int:
        """The address of the algorithm."""
        return ctypes.addressof(self.result)

    @property
    def scales(self) -> tuple[int, int]:
        """The addresses of alpha and beta: 1, and 1 or 0."""
        one = ctypes.addressof(self.numbers)
        return one, one + (0 if self.adds else ctypes.sizeof(self.numbers) // 2)

    def start(self, stream: Any, config: Any, *arrays: Any) -> None:
        """Queue the product on a cuda-core stream of the GPU, which is current. arrays: the addresses of ``arguments``.
        Raises LaunchError."""
        left, right, out, scratch, *bias = (
            int(array) + offset for array, offset in zip(arrays, self.offsets, strict=False)
        )
        (a, b, c), (alpha, beta) = self.layouts, self.scales
        given = (self.handle, self.operation, alpha, left, a, right, b, beta, out, c, out, c, self.algorithm, scratch)
        pointers = map(ctypes.c_void_p, given)
        with _operations:
            if bias:
                of_operation, operation = required().cublasLtMatmulDescSetAttribute, ctypes.c_void_p(self.operation)
                _set(of_operation, operation, _BIAS, ctypes.c_void_p(bias[0]), self.entry)
            status = required().cublasLtMatmul(
                *pointers, ctypes.c_size_t(self.result.workspace), ctypes.c_void_p(int(stream.handle))
            )
        if status:
            raise LaunchError(f"{self.entry} failed: cuBLASLt says {status}")


@lru_cache(maxsize=64)
def _handle(context: int) -> int:
    """The library's for a GPU's context, which is current; it lives as long as the process."""
    made = ctypes.c_void_p()
    _checked(required().cublasLtCreate(ctypes.byref(made)), "cuBLASLt cannot be started")
    return made.value or 0


def planned(
    call: ProductCall,
    gemms: Sequence[Gemm],
    context: int,
    bias: str = "",
    *,
    scratch: Span = (0, SCRATCH_BYTES),
    beside: int = 1,
) -> tuple[PlannedProduct, ...]:
    """The calls ``gemms`` of a product on the GPU of a context, which must be current. bias: the name of an array of
    the result's dtype that each adds to all its columns, of as many elements as these have rows, or nothing. scratch:
    the bytes of that workspace which they may use. beside: how many such calls run at the same time.

    Raises LaunchError where the library is missing, or has no algorithm.
    """
    return tuple(_planned(call, gemm, context, bias, scratch, beside) for gemm in gemms)


@lru_cache(maxsize=4096)
def _planned(call: ProductCall, gemm: Gemm, context: int, bias: str, scratch: Span, beside: int) -> PlannedProduct:
    lt, what = required(), f"the product {call}"
    handle = _handle(context)
    left, right = (call.second, call.first) if gemm.swapped else (call.first, call.second)
    arrays = (left, right, call.result)
    widths = [dtype_info(array.dtype).itemsize for array in arrays]
    scale = 1 if call.math == "float64" else 0
    operation = ctypes.c_void_p()
    compute = _COMPUTE.get(call.math, _COMPUTE_FLOAT)
    _checked(lt.cublasLtMatmulDescCreate(ctypes.byref(operation), compute, scale), what)
    for attribute, turned in ((_TRANSA, gemm.turned[0]), (_TRANSB, not gemm.turned[1])):
        _set(lt.cublasLtMatmulDescSetAttribute, operation, attribute, ctypes.c_int32(int(turned)), what)
    if bias:
        _set(lt.cublasLtMatmulDescSetAttribute, operation, _EPILOGUE, ctypes.c_uint32(_ADDS_BIAS), what)
        # Where it lies is known later; it is not read before.
        _set(lt.cublasLtMatmulDescSetAttribute, operation, _BIAS, ctypes.c_void_p(_ALIGNED), what)
    sizes = (
        (gemm.k, gemm.m) if gemm.turned[0] else (gemm.m, gemm.k),
        (gemm.k, gemm.n) if gemm.turned[1] else (gemm.n, gemm.k),
        (gemm.m, gemm.n),
    )
    layouts = []
    for array, (rows, columns), lead, stride in zip(arrays, sizes, gemm.leads, gemm.strides, strict=True):
        layout = ctypes.c_void_p()
        given = (ctypes.c_uint64(rows), ctypes.c_uint64(columns), ctypes.c_int64(lead))
        _checked(lt.cublasLtMatrixLayoutCreate(ctypes.byref(layout), _TYPES[array.dtype], *given), what)
        if gemm.batch > 1:
            _set(lt.cublasLtMatrixLayoutSetAttribute, layout, _BATCH_STRIDE, ctypes.c_int64(stride), what)
        layouts.append(layout)
    offsets = [offset * width for offset, width in zip(gemm.offsets, widths, strict=True)]
    preference = ctypes.c_void_p()
    _checked(lt.cublasLtMatmulPreferenceCreate(ctypes.byref(preference)), what)
    of_preference = lt.cublasLtMatmulPreferenceSetAttribute
    _set(of_preference, preference, _WORKSPACE, ctypes.c_uint64(scratch[1] - scratch[0]), what)
    _set(of_preference, preference, _REDUCTIONS, ctypes.c_uint32(_SUMS_APART), what)
    for attribute, place in zip(_ALIGNMENTS, (0, 1, 2, 2), strict=True):
        aligned = math.gcd(_ALIGNED, offsets[place], gemm.strides[place] * widths[place])
        _set(of_preference, preference, attribute, ctypes.c_uint32(aligned), what)
    asked = (ctypes.c_void_p(handle), operation, *layouts, layouts[2])
    result = None
    if beside > 1 and gemm.batch > 1:
        # Chosen for itself, each would take the small tiles with which it fills the GPU alone.
        _of_batch(layouts, beside * gemm.batch, what)
        result = _first_algorithm(asked, preference)
    _of_batch(layouts, gemm.batch, what)
    if result is None or not _able(asked, result, scratch[1] - scratch[0]):
        result = _first_algorithm(asked, preference)
    lt.cublasLtMatmulPreferenceDestroy(preference)
    if result is None:
        raise LaunchError(f"{what} cannot be made: cuBLASLt has no algorithm for it on this GPU; take another schedule")
    number = ctypes.c_double if scale else ctypes.c_float
    a, b, c = (layout.value or 0 for layout in layouts)
    places = (offsets[0], offsets[1], offsets[2], scratch[0], 0)
    ones = (number * 2)(1, 0)
    return PlannedProduct(
        what,
        (left.name, right.name, call.result.name),
        handle,
        operation.value or 0,
        (a, b, c),
        places,
        result,
        ones,
        gemm.adds,
        bias,
    )


def _of_batch(layouts: Sequence[ctypes.c_void_p], count: int, what: str) -> None:
    """Say how many matrices follow each other."""
    for layout in layouts:
        _set(required().cublasLtMatrixLayoutSetAttribute, layout, _BATCH_COUNT, ctypes.c_int32(count), what)


def _first_algorithm(asked: Sequence[ctypes.c_void_p], preference: ctypes.c_void_p) -> _Result | None:
    """What the library's heuristic names first. asked: handle, operation and layouts."""
    result, count = _Result(), ctypes.c_int(0)
    status = required().cublasLtMatmulAlgoGetHeuristic(*asked, preference, 1, ctypes.byref(result), ctypes.byref(count))
    return None if status or not count.value or result.state else result


def _able(asked: Sequence[ctypes.c_void_p], result: _Result, room: int) -> bool:
    """Whether an algorithm that was named for another product makes this one as well, in so much memory; ``result`` has
    what it takes then."""
    checked = _Result()
    if required().cublasLtMatmulAlgoCheck(*asked, result.algorithm, ctypes.byref(checked)) or checked.state:
        return False
    result.workspace = checked.workspace
    return int(checked.workspace) <= room


def _address(function: Any) -> int:
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)


def _set(function: Any, of: ctypes.c_void_p, attribute: int, value: Any, what: str) -> None:
    _checked(function(of, attribute, ctypes.byref(value), ctypes.c_size_t(ctypes.sizeof(value))), what)


def _checked(status: int, what: str) -> None:
    if status:
        raise LaunchError(f"{what} cannot be made: cuBLASLt says {status}")
