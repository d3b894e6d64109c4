"""What cuBLASLt computes, on flat NumPy arrays: columns are what lies side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernelgen.program.dtypes import numpy_dtype
from kernelgen.program.product import Gemm
from kernelgen.schedules.shared.library_product import Copied, LibraryProduct
from kernelgen.schedules.shared.moved_rows import MovedRows

Array = NDArray[Any]


def called(gemm: Gemm, left: Array, right: Array, out: Array, bias: Array | None = None) -> None:
    """A call of the library; sums are rounded once, to what out is."""

    def matrix(array: Array, which: int, rows: int, columns: int, number: int) -> Array:
        begin = gemm.offsets[which] + number * gemm.strides[which]
        assert gemm.leads[which] >= rows
        assert begin + (columns - 1) * gemm.leads[which] + rows <= array.size
        step = array.itemsize
        return np.lib.stride_tricks.as_strided(
            array[begin:], (rows, columns), (step, step * gemm.leads[which]), writeable=True
        )

    for number in range(gemm.batch):
        a = matrix(left, 0, gemm.k, gemm.m, number).T if gemm.turned[0] else matrix(left, 0, gemm.m, gemm.k, number)
        b = matrix(right, 1, gemm.k, gemm.n, number) if gemm.turned[1] else matrix(right, 1, gemm.n, gemm.k, number).T
        c = matrix(out, 2, gemm.m, gemm.n, number)
        made = a.astype(np.float64) @ b.astype(np.float64)
        if gemm.adds:
            made = made + c.astype(np.float64)
        if bias is not None:
            assert bias.shape == (gemm.m,)
            made = made + bias.astype(np.float64)[:, None]
        c[...] = made.astype(out.dtype)


def moved_by_numpy(moved: MovedRows, rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Rows in their new order, both flat."""
    every = np.array(rows).reshape(*(moved.sizes[axis] for axis in moved.source), moved.row_bytes)
    if moved.reverses:
        by_direction = np.moveaxis(every, [moved.source.index(axis) for axis in "kt"], [0, 1])
        by_direction[1:] = by_direction[1:, ::-1].copy()
    new = [axis for axis in moved.to if axis not in moved.source]
    every = np.broadcast_to(every, (*(moved.sizes[axis] for axis in new), *every.shape))
    order = [(*new, *moved.source).index(axis) for axis in moved.to]
    return every.transpose(*order, len(order)).reshape(-1)


def multiplied(made: LibraryProduct, arrays: Mapping[str, NDArray[np.uint8]]) -> None:
    """Run a product with its copies. arrays: a, b, out and, if there is one, bias, as bytes."""
    there = dict(arrays) | {name: np.full(size, 0xFF, np.uint8) for name, size in made.between}

    def copied(one: Copied) -> None:
        rows = int(np.prod([one.moved.sizes[axis] for axis in one.moved.source]))
        there[one.to][: one.moved.nbytes] = moved_by_numpy(one.moved, there[one.source][: rows * one.moved.row_bytes])

    for one in made.before:
        copied(one)
    sizes = {axis: int(rule) for axis, rule in made.call.sizes.items()}

    def flat(name: str, dtype: str, count: int) -> Array:
        return there[name].view(numpy_dtype(dtype))[:count]

    first, second, out = (
        flat(one.name, one.dtype, int(np.prod([sizes[axis] for axis in one.axes]))) for one in made.call.factors
    )
    for gemm in made.gemms:
        left, right = (second, first) if gemm.swapped else (first, second)
        bias = flat(made.bias, made.call.result.dtype, gemm.m) if made.bias else None
        called(gemm, left, right, out, bias)
    for one in made.after:
        copied(one)
