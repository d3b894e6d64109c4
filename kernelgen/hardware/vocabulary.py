"""A GPU's limits as words for constraints: what the restrictions of anybody's kernel may say of it.

    blocks_per_sm(registers, shared_memory, threads) >= 2
    4 * tile_m * tile_k <= max_shared_memory_per_block

constrint takes a Vocabulary wherever it reads expressions (docs/hardware_limits.md).
"""

from __future__ import annotations

from collections.abc import Mapping

from constrint import Expr, cdiv, maximum, minimum
from constrint.expr import as_expr
from constrint.vocabulary import Function, Vocabulary
from kernelgen.hardware.profile import WARP, Profile

NUMBERS = {
    "multiprocessors": "multiprocessors",
    "max_threads_per_block": "threads_per_block",
    "max_threads_per_sm": "threads_per_sm",
    "max_warps_per_sm": "warps_per_sm",
    "max_blocks_per_sm": "blocks_per_sm",
    "max_registers_per_thread": "registers_per_thread",
    "registers_per_sm": "registers_per_sm",
    "max_shared_memory_per_block": "shared_memory_per_block",
    "shared_memory_per_sm": "shared_memory_per_sm",
    "max_cluster": "largest_cluster",
    "l2_bytes": "l2_bytes",
    "memory_bytes": "memory_bytes",
    "memory_bandwidth": "memory_bandwidth",
    "clock_mhz": "clock_mhz",
}
"""The words for numbers, and the fields of Profile that they are; bytes, bytes per second, MHz."""


def vocabulary(profile: Profile) -> Vocabulary:
    """The numbers of NUMBERS that are known of a GPU, ``warp_size``, and functions of a block of a kernel:

    ``blocks_per_sm(registers, shared_memory, threads)``: how many a multiprocessor runs at a time, by the rules of
    ``Profile.occupancy``; registers per thread, bytes of shared memory, threads per block.
    ``registers_of_block(registers, threads)``, ``shared_memory_of_block(shared_memory)``: what one takes of a
    multiprocessor, in the units in which it is given out.
    ``waves(blocks, registers, shared_memory, threads)``: how often the GPU must be filled to run so many.
    """
    gpu = _Blocks(profile)
    known = {word: getattr(profile, field) for word, field in NUMBERS.items()}
    return Vocabulary(
        profile.name,
        {"warp_size": WARP} | {word: value for word, value in known.items() if value is not None},
        {
            "blocks_per_sm": Function(("registers", "shared_memory", "threads"), gpu.by_limit),
            "registers_of_block": Function(("registers", "threads"), gpu.registers),
            "shared_memory_of_block": Function(("shared_memory",), gpu.shared_memory),
            "waves": Function(("blocks", "registers", "shared_memory", "threads"), gpu.waves),
        },
    )


class _Blocks:
    """The same rules as ``Profile.occupancy``, over expressions."""

    def __init__(self, profile: Profile) -> None:
        self.gpu = profile

    def by_limit(self, registers: Expr, shared_memory: Expr, threads: Expr) -> Mapping[str, Expr]:
        """How many blocks each limit lets run together, 0 where a block exceeds it."""
        gpu = self.gpu
        warps = cdiv(threads, WARP)
        step = gpu.warp_allocation_granularity
        # A block always takes something: what is 0 is never the least of these.
        by_registers = gpu.registers_per_sm // self._of_warp(maximum(registers, 1)) // step * step // warps
        taken = maximum(self._taken(shared_memory), gpu.shared_memory_allocation_unit)
        return {
            f"threads, {gpu.threads_per_sm:,} per multiprocessor and {gpu.threads_per_block:,} per block": (
                gpu.warps_per_sm // warps
            )
            * (threads <= gpu.threads_per_block),
            f"registers, {gpu.registers_per_sm:,} per multiprocessor and {gpu.registers_per_thread} per thread": (
                by_registers * (registers <= gpu.registers_per_thread)
            ),
            f"shared memory, {gpu.shared_memory_per_sm:,} bytes per multiprocessor and {gpu.shared_memory_per_block:,} "
            "per block": (gpu.shared_memory_per_sm // taken) * (shared_memory <= gpu.shared_memory_per_block),
            f"blocks, {gpu.blocks_per_sm} per multiprocessor": as_expr(gpu.blocks_per_sm),
        }

    def registers(self, registers: Expr, threads: Expr) -> Mapping[str, Expr]:
        step = self.gpu.warp_allocation_granularity
        return {"registers": self._of_warp(registers) * (cdiv(cdiv(threads, WARP), step) * step)}

    def shared_memory(self, shared_memory: Expr) -> Mapping[str, Expr]:
        return {"shared memory": self._taken(shared_memory)}

    def waves(self, blocks: Expr, registers: Expr, shared_memory: Expr, threads: Expr) -> Mapping[str, Expr]:
        together = minimum(*self.by_limit(registers, shared_memory, threads).values())
        return {"waves": cdiv(blocks, together * self.gpu.multiprocessors)}

    def _of_warp(self, registers: Expr) -> Expr:
        unit = self.gpu.register_allocation_unit
        return cdiv(registers * WARP, unit) * unit

    def _taken(self, shared_memory: Expr) -> Expr:
        unit = self.gpu.shared_memory_allocation_unit
        return cdiv(shared_memory + self.gpu.shared_memory_reserved, unit) * unit
