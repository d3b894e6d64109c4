"""The limits of a GPU that every schedule is subject to, as constraints in words."""

from __future__ import annotations

from constrint import Expr, Problem, cdiv
from kernelgen.hardware import Profile

WARP = 32


def add_limits(problem: Problem, profile: Profile, *, warps: Expr, registers: Expr, shared_memory: Expr) -> None:
    """Require that one block fits on a multiprocessor of ``profile``.

    warps: per block. registers: per thread. shared_memory: bytes per block, static and dynamic.
    """
    problem.add(
        warps * WARP <= profile.threads_per_block,
        f"threads per block: at most {profile.threads_per_block:,} on {profile.name}",
    )
    problem.add(
        registers <= profile.registers_per_thread,
        f"registers per thread: at most {profile.registers_per_thread:,} on {profile.name}",
    )
    # Registers are allocated per warp, in units, and each quarter of the multiprocessor holds its share of the warps.
    unit, quarters = profile.register_allocation_unit, profile.warp_allocation_granularity
    problem.add(
        cdiv(registers * WARP, unit) * unit * cdiv(warps, quarters) * quarters <= profile.registers_per_sm,
        f"registers per block: at most {profile.registers_per_sm:,} on {profile.name}",
    )
    problem.add(
        shared_memory <= profile.shared_memory_per_block,
        f"shared memory per block: at most {profile.shared_memory_per_block:,} bytes on {profile.name}",
    )
