"""Matrix products in the emulator, beside those of NumPy in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernelgen.hardware.profile import load_profile
from kernelgen.program.dtypes import numpy_dtype
from kernelgen.program.launch import Launch
from kernelgen.program.source import Source
from kernelgen.schedules.shared.matrix_product import (
    TURNED_A,
    TURNED_B,
    TURNED_OUT,
    MatrixProduct,
    kernel,
    ranked,
)
from kernelgen.verify.emulator import emulate

Array = NDArray[Any]


@dataclass(frozen=True)
class ProductCase:
    """A product to emulate. rows: of the tile to take. parts: blocks of a cluster that share it. turned, batch: the
    arguments of those names."""

    product: MatrixProduct
    gpu: str = "h200"
    rows: int = 32
    parts: int = 1
    turned: int = 0
    batch: int = 1
    bias: bool = True

    @property
    def kernel(self) -> tuple[Source, Launch]:
        """The kernel with the tile of so many rows, and its launch."""
        profile = load_profile(self.gpu)
        tiling = next(each for each in ranked(self.product, profile) if each.rows == self.rows)
        return kernel(self.product, profile, replace(tiling, parts=self.parts))

    @property
    def seq(self) -> int:
        """Steps of a sequence."""
        steps = self.product.depth if self.product.a_transposed else self.product.rows
        assert steps % self.batch == 0
        return steps // self.batch

    def draw(self, seed: int) -> tuple[dict[str, Any], Array]:
        """Random arguments, out of NaN; and what out should be, in float64."""
        product, random = self.product, np.random.default_rng(seed)
        kind = numpy_dtype(product.dtype)
        written = np.dtype(np.float32) if product.floats else kind
        a = random.uniform(-1, 1, (product.rows, product.depth)).astype(kind)
        b = random.uniform(-1, 1, (product.columns, product.depth)).astype(kind)
        bias = random.uniform(-1, 1, product.columns).astype(written) if self.bias else None
        wanted = a.astype(float) @ b.astype(float).T + (0.0 if bias is None else bias.astype(float))
        arguments = {
            "a": self._laid(a.T if product.a_transposed else a, TURNED_A),
            "b": self._laid(b.T if product.b_transposed else b, TURNED_B),
            "bias": bias,
            "out": np.full((product.rows, product.columns), np.nan, written),
            "rows": product.rows,
            "columns": product.columns,
            "depth": product.depth,
            "batch": self.batch if self.turned else 0,
            "seq": self.seq if self.turned else 0,
            "turned": self.turned,
        }
        return arguments, self._laid(wanted, TURNED_OUT)

    def _laid(self, steps: Array, bit: int) -> Array:
        """Rows as they lie in memory: time-major where the bit is set."""
        if self.turned & bit:
            steps = steps.reshape(self.batch, self.seq, -1).swapaxes(0, 1).reshape(steps.shape)
        return np.ascontiguousarray(steps)

    def emulate(self, seed: int, source: Source | None = None, inputs: int = 0) -> tuple[Array, Array]:
        """out, as the kernel makes it with threads in the order of ``seed``, and as it should be. source: to run
        instead of the kernel's. inputs: the seed that draws them."""
        own, launch = self.kernel
        arguments, wanted = self.draw(inputs)
        emulate(source or own, launch, arguments, outputs=("out",), seed=seed)
        return arguments["out"], wanted


def error(made: Array, wanted: Array) -> float:
    """Of the whole, in the norm."""
    return float(np.linalg.norm(made.astype(float) - wanted) / np.linalg.norm(wanted))
