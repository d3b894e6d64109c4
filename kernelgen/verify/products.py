"""Products of rows with a head's matrix, as the float64 reference makes them in every step."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

IN_ONE_THREAD = 1 << 18
"""OpenBLAS, as NumPy carries it, gives a product of at most so many multiplications to the thread that asks. For a
larger one it wakes a thread a core, and where these are busy (compiling, or other references) waits for each: a product
of a millisecond then takes a hundred."""
WORTH_THREADS = 1 << 25
"""A product of more multiplications than this takes all threads all the same."""
ROWS = 32
NARROWEST = 8
"""Columns of a part; where no such part divides the matrix, it stays whole."""


class HeadProduct:
    """rows [H, B, K] times weights [H, K, M], made in parts that one thread computes. batch: B."""

    def __init__(self, weights: npt.NDArray[Any], batch: int) -> None:
        heads, inner, columns = weights.shape
        self.weights = np.ascontiguousarray(weights, np.float64)
        self.rows, self.columns = _parts(batch, inner, columns)
        if self.columns:
            parts = self.weights.reshape(heads, 1, inner, columns // self.columns, self.columns)
            self.parts = np.ascontiguousarray(parts.transpose(0, 1, 3, 2, 4))

    def __call__(self, rows: Array) -> Array:
        """[H, B, K] to [H, B, M]."""
        if not self.columns:
            whole: Array = np.matmul(rows, self.weights)
            return whole
        heads, batch, inner = rows.shape
        split = rows.reshape(heads, batch // self.rows, 1, self.rows, inner)
        made: Array = np.matmul(split, self.parts).transpose(0, 1, 3, 2, 4)
        return made.reshape(heads, batch, -1)


def sum_of_products(left: Array, right: Array) -> Array:
    """left [N, M] transposed times right [N, D]: [M, D], in parts of N that one thread computes."""
    count, rows = left.shape
    columns = right.shape[1]
    part = IN_ONE_THREAD // (rows * columns)
    if part < NARROWEST or count <= part:
        whole: Array = left.T @ right
        return whole
    even = count - count % part
    halves = (each[:even].reshape(-1, part, each.shape[1]) for each in (left, right))
    first, second = (np.ascontiguousarray(each) for each in halves)
    made: Array = np.matmul(first.transpose(0, 2, 1), second).sum(axis=0)
    return made + left[even:].T @ right[even:]


def _parts(batch: int, inner: int, columns: int) -> tuple[int, int]:
    """Rows and columns of a part; none where the product is best made whole."""
    whole = batch * inner * columns
    if not IN_ONE_THREAD < whole <= WORTH_THREADS:
        return batch, 0
    width = _divisor(columns, IN_ONE_THREAD // (inner * min(batch, ROWS)))
    return (_divisor(batch, IN_ONE_THREAD // (inner * width)), width) if width >= NARROWEST else (batch, 0)


def _divisor(number: int, most: int) -> int:
    """The largest divisor that is at most so much; 0 where most is."""
    return next((d for d in range(min(number, most), 0, -1) if number % d == 0), 0)
