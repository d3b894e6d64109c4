"""cuBLASLt as far as it is called, for arrays in the host's memory."""

from __future__ import annotations

import ctypes
from itertools import count
from typing import Any

import numpy as np

from kernelgen.device import cublaslt
from kernelgen.program.dtypes import numpy_dtype

DTYPES = {0: "float32", 1: "float64", 2: "float16", 14: "bfloat16"}

TRANSA, TRANSB, EPILOGUE, BIAS = 3, 4, 7, 8
BATCH, STRIDE = 5, 6


class FakeLibrary:
    """Multiplies as the library's documentation says. refuses: "all" where it has no algorithm, "bias" where it has
    none with a bias, "others" where none makes another product than that for which it was asked. workspace: bytes that
    every algorithm asks for. calls: what each product was, by the documentation's names. batches: of how many products
    each algorithm was asked for."""

    def __init__(self, *, refuses: str = "", workspace: int = 0) -> None:
        self.refuses, self.workspace = refuses, workspace
        self.calls: list[dict[str, Any]] = []
        self.batches: list[int] = []
        self._made: dict[int, dict[Any, Any]] = {}
        self._handles = count(0x1000)

    def _new(self, place: Any, **fields: Any) -> int:
        place._obj.value = next(self._handles)
        self._made[place._obj.value] = fields
        return 0

    def _set(self, of: ctypes.c_void_p, attribute: int, value: Any, size: ctypes.c_size_t) -> int:
        assert size.value == ctypes.sizeof(value._obj)
        self._made[of.value or 0][attribute] = value._obj.value
        return 0

    def cublasLtCreate(self, place: Any) -> int:
        return self._new(place)

    def cublasLtMatmulDescCreate(self, place: Any, compute: int, scale: int) -> int:
        return self._new(place, compute=compute, scale=scale)

    def cublasLtMatrixLayoutCreate(self, place: Any, kind: int, rows: Any, columns: Any, lead: Any) -> int:
        return self._new(place, dtype=DTYPES[kind], rows=rows.value, columns=columns.value, lead=lead.value)

    def cublasLtMatmulPreferenceCreate(self, place: Any) -> int:
        return self._new(place)

    def cublasLtMatmulPreferenceDestroy(self, preference: Any) -> int:
        return 0

    cublasLtMatmulDescSetAttribute = _set
    cublasLtMatrixLayoutSetAttribute = _set
    cublasLtMatmulPreferenceSetAttribute = _set

    def cublasLtMatmulAlgoGetHeuristic(self, handle: Any, operation: Any, *rest: Any) -> int:
        *_, preference, wanted, result, found = rest
        of = self._made[operation.value]
        assert self._made[preference.value][3] == 2, "sums are added in one order"
        refused = self.refuses == "all" or (self.refuses == "bias" and EPILOGUE in of)
        result._obj.workspace, result._obj.state, found._obj.value = self.workspace, 0, 0 if refused else wanted
        (batch,) = {self._made[one.value].get(BATCH, 1) for one in rest[:4]}
        self.batches.append(batch)
        result._obj.algorithm[0] = batch
        return 0

    def cublasLtMatmulAlgoCheck(self, handle: Any, operation: Any, *rest: Any) -> int:
        *layouts, algorithm, result = rest
        (batch,) = {self._made[one.value].get(BATCH, 1) for one in layouts}
        result._obj.workspace = self.workspace
        return 15 if self.refuses == "others" and algorithm[0] != batch else 0

    def cublasLtMatmul(
        self, handle: Any, operation: Any, alpha: Any, a: Any, a_is: Any, b: Any, b_is: Any, beta: Any, c: Any,
        c_is: Any, d: Any, d_is: Any, algorithm: Any, scratch: Any, size: Any, stream: Any,
    ) -> int:  # fmt: skip
        of = self._made[operation.value]
        number = ctypes.c_double if of["scale"] == 1 else ctypes.c_float
        by, adds = (number.from_address(one.value).value for one in (alpha, beta))
        assert (by, c.value, c_is.value) == (1, d.value, d_is.value)
        assert size.value == self.workspace
        layouts = [self._made[one.value] for one in (a_is, b_is, d_is)]
        batch = layouts[2].get(BATCH, 1)
        bias = None
        if EPILOGUE in of:
            assert of[EPILOGUE] == 4
            assert batch * layouts[2]["rows"] > 0
            bias = self._matrix(of[BIAS], {**layouts[2], "columns": 1, "lead": layouts[2]["rows"], STRIDE: 0}, 0)
        for each in range(batch):
            left, right, out = (
                self._matrix(one.value, layout, each) for one, layout in zip((a, b, d), layouts, strict=True)
            )
            left, right = (
                (one.T if of[turned] else one).astype(np.float64) for one, turned in ((left, TRANSA), (right, TRANSB))
            )
            made = left @ right + (adds * out.astype(np.float64) if adds else 0)
            out[...] = (made if bias is None else made + bias.astype(np.float64)).astype(out.dtype)
        self.calls.append(
            {"m": out.shape[0], "n": out.shape[1], "k": left.shape[1], "batch": batch, "adds": bool(adds),
             "bias": bias is not None, "leads": tuple(one["lead"] for one in layouts),
             "strides": tuple(one.get(STRIDE, 0) for one in layouts)}
        )  # fmt: skip
        return 0

    @staticmethod
    def _matrix(address: int, layout: dict[Any, Any], number: int) -> Any:
        """A matrix in memory, whose columns lie side by side."""
        kind = numpy_dtype(layout["dtype"])
        rows, columns, lead = layout["rows"], layout["columns"], layout["lead"]
        assert lead >= rows
        begin = address + number * layout.get(STRIDE, 0) * kind.itemsize
        size = ((columns - 1) * lead + rows) * kind.itemsize
        flat = np.frombuffer((ctypes.c_char * size).from_address(begin), np.uint8).view(kind)
        strides = (kind.itemsize, lead * kind.itemsize)
        return np.lib.stride_tricks.as_strided(flat, (rows, columns), strides, writeable=True)


def use_library(monkeypatch: Any, library: FakeLibrary | None) -> Any:
    """Have it be the library of this process, or have none."""
    cublaslt._planned.cache_clear()
    cublaslt._handle.cache_clear()
    monkeypatch.setattr(cublaslt, "library", lambda: library)
    return library
