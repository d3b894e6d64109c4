"""What every schedule shares: the limits of a GPU as constraints in words, and how blocks share a multiprocessor."""

from __future__ import annotations

from collections.abc import Mapping

from constrint import Problem, cdiv, minimum
from kernelgen.hardware.profile import Profile
from kernelgen.program.tiling import Resources
from kernelgen.schedules.shared.numbers import Int

WARP = 32

LANES = ("fma", "")


def add_limits(problem: Problem, profile: Profile, *, warps: Int, registers: Int, shared_memory: Int) -> None:
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
    # Registers are allocated per warp, in units, and each sub-partition of an SM holds its share of the warps.
    unit, sub_partitions = profile.register_allocation_unit, profile.warp_allocation_granularity
    problem.add(
        cdiv(registers * WARP, unit) * unit * cdiv(warps, sub_partitions) * sub_partitions <= profile.registers_per_sm,
        f"registers per block: at most {profile.registers_per_sm:,} on {profile.name}",
    )
    problem.add(
        shared_memory <= profile.shared_memory_per_block,
        f"shared memory per block: at most {profile.shared_memory_per_block:,} bytes on {profile.name}",
    )


def registers_of_block(profile: Profile, warps: Int) -> Int:
    """Registers that each thread of a block may have: what a compiler keeps to that is told the block's threads."""
    sub_partitions, step = profile.warp_allocation_granularity, profile.register_allocation_unit // WARP
    threads = cdiv(warps, sub_partitions) * sub_partitions * WARP
    return minimum(profile.registers_per_thread, profile.registers_per_sm // threads // step * step)


CHUNK = 16
"""Bytes of the unit in which kernels lay out shared memory: 8 elements of 16 bits."""

PRODUCTS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "bfloat16": (("m16n8k16", "bfloat16"),),
    "float16": (("m16n8k16", "float16"), ("m16n8k8", "float16")),
    "float32": (("m16n8k8", "tf32"), LANES),
    "tf32": (("m16n8k8", "tf32"), LANES),
    "float64": (("m8n8k4", "float64"), LANES),
}
"""Of which matrix instructions cuda/ makes a product of a dtype, the one that it takes where a GPU has it first; LANES:
of multiply-adds, which every GPU of NVIDIA's has."""


def vector_width(head_dim: int, itemsize: int = 2) -> int:
    """The widest vector, in elements of ``itemsize`` bytes, that divides every row: at most 16 bytes (the function
    widest_vector of cuda/elements.cuh)."""
    return next(width for width in (8, 4, 2, 1) if width * itemsize <= CHUNK and head_dim % width == 0)


def lacks_instructions(what: str, dtype: str, profile: Profile) -> str:
    """What ``what`` lacks, as a sentence, on a GPU without ldmatrix or any of a dtype's PRODUCTS; else empty."""
    ways = PRODUCTS[dtype]
    nvidia = profile.arch.startswith("sm_")
    missing = [] if "ldmatrix" in profile.features else ["ldmatrix"]
    if not any(nvidia if way == LANES else profile.supports(*way) for way in ways):
        instruction, kind = ways[0]
        missing.insert(0, f"the matrix instruction {instruction} for {kind}")
    if not missing:
        return ""
    oldest = "sm_80" if nvidia else "sm_75"
    return (
        f"the {what} needs {' and '.join(missing)}, which {profile.name} ({profile.arch}) lacks; "
        f"{'in ' + dtype + ' ' if nvidia else ''}it runs on {oldest} and newer."
    )


def lacks_clusters(schedule: str, profile: Profile) -> str:
    """That clusters lack, as a sentence, on a GPU without them; else empty."""
    if "clusters" in profile.features:
        return ""
    return (
        f"the {schedule} schedule needs thread block clusters, which {profile.name} ({profile.arch}) lacks; "
        "it runs on sm_90 and newer."
    )


Waves = tuple[tuple[int, int], ...]
"""How many blocks a multiprocessor runs together, and how often: one that does not fit waits for a whole sequence."""


def place(
    profile: Profile, blocks: int, threads: int, registers: int, shared_memory: int, cluster: int = 1
) -> tuple[Resources, Waves]:
    """Predicted resources, and the waves of the busiest multiprocessor. cluster: blocks that must run together, each on
    a multiprocessor of its own."""
    fit = profile.occupancy(threads, registers, shared_memory)
    room = profile.clusters_that_fit.get(cluster, profile.multiprocessors // cluster)
    share = -(-blocks // (cluster * max(room, 1)))
    full, rest = divmod(share, max(fit, 1))
    waves = ((max(fit, 1), full), (rest, 1))
    return Resources(registers, shared_memory, threads, blocks, fit), tuple(each for each in waves if all(each))
