"""The sizes of cuda/stationary_matrix.cuh, of the rows beside it, and what a product takes, by dtype."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from constrint import Expr, Problem, minimum
from kernelgen.program.dtypes import dtype_info
from kernelgen.program.shape import SIXTEEN_BITS
from kernelgen.schedules.shared.limits import CHUNK
from kernelgen.schedules.shared.numbers import Number
from kernelgen.symbolic.instructions import CellCost

MULTIPLIED = (*SIXTEEN_BITS, "float32", "tf32")
"""Dtypes that a stationary matrix may have."""

LIBRARY_ARITHMETIC, LIBRARY_CHAIN = 11, 6
"""Ordinary instructions that a function of CUDA's library in float has more than the instruction of the multi-function
unit that takes its place for 16 bits, and those of them that wait for each other (tanh, exp; NVRTC 13.0, sm_90a)."""


def chunk_elements(dtype: str) -> int:
    """Elements of a chunk, the 16 bytes of k that a lane reads at a time."""
    return CHUNK // dtype_info(dtype).itemsize


def k_tile(dtype: str) -> int:
    """k of a k-tile: a chunk of each of four lanes."""
    return 4 * chunk_elements(dtype)


def row_bytes(units: Number | int, rows: Number, dtype: str) -> Number | int:
    """Bytes of a row of ``units``, a multiple of 8, of one of ``rows`` sequences (row_bytes_of of cuda/)."""
    chunks = units // chunk_elements(dtype)
    if dtype in SIXTEEN_BITS:
        return (chunks // 2 * 2 + 1) * CHUNK
    half_filled = 2 - minimum(rows // 4, 2)
    return (half_filled * (chunks // 4 * 4 + 2) + (1 - half_filled) * (chunks + 1)) * CHUNK


def add_float32_rules(problem: Problem, dtype: str, v: Mapping[str, Expr]) -> None:
    """Add what a product in float32 demands. Its accumulators are outside the tensor cores and wait for nothing, but of
    4 sequences a second one lets k-tiles be read in pairs."""
    if dtype != "float32":
        return
    problem.add(v["accumulators"] <= 3 - minimum(v["batch_tile"] // 4, 2), "a second accumulator: of 4 sequences only")
    problem.add(v["keeps_rests"] <= v["k_tiles_in_registers"], "rests of words that are in registers")


def multiply_chain(dtype: str, k_tiles: int, accumulators: int) -> float:
    """The longest dependent run of matrix instructions."""
    return 6.0 if dtype == "float32" else max(1.0, 2 * k_tiles / accumulators)


@dataclass(frozen=True)
class Product:
    """Instructions of a warp that multiplies. matrix: of tensor cores; arithmetic: what rounds, parts and adds up."""

    matrix: int
    arithmetic: int

    @classmethod
    def of(
        cls, dtype: str, tiles: int, k_tiles: int, column_tiles: int, kept: int = 0, *, are_factors: bool = False
    ) -> Product:
        """Of ``tiles`` of 16 rows by ``column_tiles`` of 8 columns. kept: k-tiles whose parts are. are_factors: in TF32
        the moving matrix has been rounded."""
        matrix = 2 * dtype_info(dtype).products * tiles * k_tiles * column_tiles
        whole = dtype in SIXTEEN_BITS or (dtype == "tf32" and are_factors)
        arithmetic = 0 if whole else 8 * column_tiles * k_tiles
        if dtype == "float32":
            arithmetic += tiles * (16 * (k_tiles - kept) + 4 * column_tiles * k_tiles)
        return cls(matrix, arithmetic)


def in_dtype(cost: CellCost, dtype: str) -> CellCost:
    """A cell's cost where its functions are those of a dtype."""
    if dtype in SIXTEEN_BITS:
        return cost
    return replace(
        cost,
        special=2 * cost.special,
        arithmetic=cost.arithmetic + LIBRARY_ARITHMETIC * cost.special,
        chain_special=2 * cost.chain_special,
        chain_arithmetic=cost.chain_arithmetic + LIBRARY_CHAIN * cost.chain_special,
    )
