"""What both passes of the wide schedule go by: the instruction of a warpgroup, and what blocks share."""

from __future__ import annotations

from kernelgen.hardware.profile import Profile

COLUMNS = [16, 32, 64, 128]
"""Sequences of a product, for which cuda/ptx/warpgroups.cuh has an instruction."""

K_TILE = 16
"""Products that an instruction adds up."""

MOST_WARPGROUPS = 4
"""Of a block."""

MOST_IN_REGISTERS = 128
"""Registers of a thread that hold R."""

COUNTER_WORDS = 32
"""From one counter to the next (cuda/grid_barrier.cuh)."""

MACS_PER_CLOCK = 2048
"""Of 16-bit factors, what the tensor cores of a multiprocessor multiply and add in a clock: 989 TFLOP/s of 132 at
1.83 GHz (NVIDIA H100 datasheet)."""

LEAST_CLOCKS = 13.4
"""Of an instruction, however few its columns are (measured on one H200, 2026-11-26)."""

SHARED_BYTES_PER_CLOCK = 128
"""What a multiprocessor reads of its shared memory in a clock."""

L2_BYTES_PER_CLOCK = 2_300
"""What L2 gives to all multiprocessors together: 4.5 TB/s on an H200, whose clock is 1.98 GHz (measured 2026-11-26)."""


def instruction_clocks(columns: int, *, shared: bool) -> float:
    """Clocks of an instruction of 64 rows and so many columns: what tensor cores take, or shared memory to give the
    moving factor and, where it has that too (``shared``), the stationary one."""
    read = (columns + (64 if shared else 0)) * K_TILE * 2
    return max(columns * 64 * K_TILE / MACS_PER_CLOCK, LEAST_CLOCKS, read / SHARED_BYTES_PER_CLOCK)


def lacks_warpgroups(schedule: str, profile: Profile) -> str:
    """That wgmma lacks, as a sentence, on a GPU without it; else empty."""
    if "wgmma" in profile.features:
        return ""
    return (
        f"the {schedule} schedule needs wgmma, the matrix instruction of warpgroups, which {profile.name} "
        f"({profile.arch}) lacks; it runs on sm_90a alone."
    )
