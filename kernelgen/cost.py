"""The analytical model: how many clocks one step of a recurrence takes, from what a block does in it.

Counts come from the schedule, latencies and rates from the Profile. How far the phases of a step overlap is learnt:
each phase has a weight between 0 (hidden behind the others) and about 1 (fully exposed), fitted by least squares to 424
random tilings of four cells measured on an H200 (docs/lab/resident.md). ``benchmarks/cost_model.py`` compares the model
with whatever the store has measured since.
"""

from __future__ import annotations

from dataclasses import dataclass

from kernelgen.hardware import Profile

QUARTERS = 4
"""Each multiprocessor has four schedulers, each with its own registers, tensor core and special-function lanes."""

ARITHMETIC_LATENCY = 4.0
"""Clocks of a dependent float instruction, Volta and newer (Jia et al. 2018, arXiv:1804.06826)."""

SHARED_BYTES_PER_CLOCK = 128.0
"""Shared-memory bandwidth of a multiprocessor: 32 banks of 4 bytes (CUDA C++ Programming Guide)."""


@dataclass(frozen=True)
class Weights:
    """How much of each phase is exposed. fixed: clocks of a step with nothing in it, beyond barrier and first load.
    matrix, reading, chain, special, arithmetic: of the phases' clocks. staged, transfer: clocks for each warp-wide
    16-bit store to shared memory, each transfer between shared and global memory. exchange: clocks of a pass of
    partial sums, beyond its reading. neighbour_*: what each further block on a multiprocessor adds.
    bandwidth: of the time that device memory needs at its full rate, where several blocks share a multiprocessor.
    fill: steps of the prefetch that asking and waiting take. arrival: margin on the latency of device memory, whose
    spread is wide: a ring that is too short costs more than one that is too long.
    """

    fixed: float = 140.0
    matrix: float = 0.68
    reading: float = 0.76
    chain: float = 0.57
    special: float = 0.60
    arithmetic: float = 1.11
    staged: float = 2.1
    transfer: float = 1.25
    exchange: float = 86.0
    neighbour_reading: float = 0.55
    neighbour_transfer: float = 3.3
    bandwidth: float = 0.65
    fill: float = 1.3
    arrival: float = 1.25


WEIGHTS = Weights()


@dataclass(frozen=True)
class StepWork:
    """What one block does in one step. Counts are per warp unless they say otherwise.

    warps: of the block; owners: those that run the pointwise step. matrix: m16n8k16 instructions; matrix_chain: the
    longest dependent run of them. shared_bytes: read from or exchanged through shared memory by the whole block.
    special, arithmetic: instructions of the pointwise step; chain_special, chain_arithmetic: those on its longest
    chain. staged: 16-bit stores to shared memory. transfers: instructions that move data between global and shared
    memory. exchanges: passes of partial sums through shared memory. device_bytes: moved between device memory and
    all blocks.
    """

    warps: int
    owners: int
    matrix: float
    matrix_chain: float
    shared_bytes: float
    special: float
    arithmetic: float
    chain_special: float
    chain_arithmetic: float
    staged: float
    transfers: float
    device_bytes: float
    exchanges: int = 0


def clocks_per_step(
    work: StepWork, profile: Profile, neighbours: int, prefetch: int, weights: Weights = WEIGHTS
) -> float:
    """Clocks of one step on the busiest multiprocessor.

    neighbours: blocks that run there beside this one. prefetch: stages of the ring that holds the inputs: what is
    asked for in one step must arrive that many steps later, less the part of a step that asking and waiting take.
    """
    w = weights
    quarter = max(1.0, work.warps / QUARTERS)
    owners = max(1.0, work.owners / QUARTERS)
    matrix = max(quarter * work.matrix * profile.latency("mma_interval"), work.matrix_chain * profile.latency("mma"))
    reading = work.shared_bytes / SHARED_BYTES_PER_CLOCK
    chain = work.chain_special * profile.latency("special_function") + work.chain_arithmetic * ARITHMETIC_LATENCY
    special = owners * work.special * 32 * QUARTERS / profile.special_function_lanes
    arithmetic = owners * (work.arithmetic + work.special)
    staged = work.owners * work.staged
    transfers = work.warps * work.transfers
    alone = (
        w.fixed
        + profile.latency("barrier", 32 * work.warps)
        + profile.latency("shared_load")
        + w.matrix * matrix
        + w.reading * reading
        + w.chain * chain
        + w.special * special
        + w.arithmetic * arithmetic
        + w.staged * staged
        + w.transfer * transfers
        + w.exchange * work.exchanges
    )
    shared = neighbours * (w.neighbour_reading * (reading + staged) + w.neighbour_transfer * transfers)
    device = work.device_bytes / profile.memory_bandwidth * profile.clock_mhz * 1e6
    contended = w.bandwidth * device if neighbours else 0.0
    arrival = w.arrival * profile.latency("global_load") / max(prefetch - w.fill, 0.5)
    return max(alone + shared + contended, arrival, device)
