"""The analytical model: how many clocks one step of a recurrence takes, from what a block does in it.

Counts come from the schedule, latencies and rates from the Profile. How far the phases of a step overlap is learnt:
each has a weight between 0 (hidden behind the others) and about 1 (fully exposed), fitted for each schedule to random
tilings measured on an H200 (its model.yaml; docs/lab/cost_model.md). ``benchmarks/cost_model.py`` measures and fits
them anew, and compares the model with whatever the store has measured since.
"""

from __future__ import annotations

from dataclasses import dataclass

from kernelgen.hardware.profile import Profile

SUB_PARTITIONS = 4
"""Each multiprocessor has four schedulers, each with its own registers, tensor core and special-function lanes."""

ARITHMETIC_LATENCY = 4.0
"""Clocks of a dependent float instruction, Volta and newer (Jia et al. 2018, arXiv:1804.06826)."""

SHARED_BYTES_PER_CLOCK = 128.0
"""Shared-memory bandwidth of a multiprocessor: 32 banks of 4 bytes (CUDA C++ Programming Guide)."""


SHARPNESS = 4.0
"""A step waits for its own work, for its inputs and for device memory at once, each of which varies: the three are
added as the norm of this order, which is near the largest where one stands out."""

MESSAGE_BYTES_PER_CLOCK = 11.0
"""That reach the blocks of a cluster on one multiprocessor (docs/lab/cluster_forward.md)."""

ASKING = 0.3
"""Part of a step that lies between asking for inputs and the time from which their lead counts."""


@dataclass(frozen=True)
class Weights:
    """How much of each phase is exposed. fixed: clocks of a step with nothing in it, beyond barrier and first load.
    matrix: of the time to issue the matrix instructions, matrix_chain: of their longest dependent run; the larger
    counts. reading, chain, special, arithmetic: of the phases' clocks. staged, transfer: clocks for each warp-wide
    16-bit store to shared memory, each transfer between shared and global memory. exchange: clocks of a pass of
    partial sums, beyond its reading. neighbour: clocks that each further block on a multiprocessor adds, and
    neighbour_reading of the time that shared memory takes for it. device: of the time that device memory needs at its
    full rate. arrival: of the latency of device memory, and load: how much more where its rate is reached.
    """

    fixed: float
    matrix: float
    matrix_chain: float
    reading: float
    chain: float
    special: float
    arithmetic: float
    staged: float
    transfer: float
    exchange: float
    neighbour: float
    neighbour_reading: float
    device: float
    arrival: float
    load: float
    parted: float = 0.0


@dataclass(frozen=True)
class StepWork:
    """What one block does in one step. Counts are per warp unless they say otherwise.

    warps: of the block; epilogue_warps: those that run the pointwise step. matrix: m16n8k16 instructions; matrix_chain:
    the longest dependent run of them. shared_bytes: read from or exchanged through shared memory by the whole block.
    special, arithmetic: instructions of the pointwise step; chain_special, chain_arithmetic: those on its longest
    chain. staged: 16-bit stores to shared memory. transfers: instructions that move data between global and shared
    memory. exchanges: passes of partial sums through shared memory. device_bytes: moved between device memory and
    all blocks. lead: how many steps before it reads them a step's inputs are asked for. meeting: clocks from h being
    made to its being there for the next step; where it is None that takes a barrier of the block and a load. streamed:
    clocks that the operands of the product need to come, beside it, at their full rates. received: bytes of messages
    that come to a block: those of all blocks of a multiprocessor come one after another. parting: ordinary
    instructions of each warp that multiplies, which part floats for tensor cores and add up what these make. branches:
    around copies that not all threads make.
    """

    warps: int
    epilogue_warps: int
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
    lead: int
    exchanges: int = 0
    meeting: float | None = None
    streamed: float = 0.0
    received: float = 0.0
    parting: float = 0.0
    branches: int = 0


Phases = tuple[tuple[str, float], ...]
"""Named clocks of a step, in the order in which clocks_per_step adds them."""


def own_clocks(work: StepWork, profile: Profile, neighbours: int, weights: Weights) -> Phases:
    """What a block's own work takes of a step, by phases. neighbours: as of clocks_per_step."""
    w = weights
    # Warps of the busiest sub-partition:
    busiest, epilogue = -(-work.warps // SUB_PARTITIONS), -(-work.epilogue_warps // SUB_PARTITIONS)
    issue = busiest * work.matrix * profile.latency("mma_interval")
    reading = work.shared_bytes / SHARED_BYTES_PER_CLOCK
    chain = work.chain_special * profile.latency("special_function") + work.chain_arithmetic * ARITHMETIC_LATENCY
    special = epilogue * work.special * 32 * SUB_PARTITIONS / profile.special_function_lanes
    staged = work.epilogue_warps * work.staged
    meeting = work.meeting
    if meeting is None:
        meeting = profile.latency("barrier", 32 * work.warps) + profile.latency("shared_load")
    together = (1 + neighbours) * work.received / MESSAGE_BYTES_PER_CLOCK
    delayed = max(0.0, together - meeting) if neighbours else 0.0
    return (
        ("fixed", w.fixed),
        ("meeting", meeting),
        (
            "matrix",
            max(w.matrix * issue, w.matrix_chain * work.matrix_chain * profile.latency("mma"), work.streamed),
        ),
        ("reading", w.reading * reading),
        ("chain", w.chain * chain),
        ("special", w.special * special),
        ("arithmetic", w.arithmetic * (epilogue * (work.arithmetic + work.special) + busiest * work.parting)),
        ("staged", w.staged * staged),
        ("transfer", w.transfer * work.warps * work.transfers),
        ("exchange", w.exchange * work.exchanges),
        ("parted", w.parted * work.branches),
        ("neighbours", neighbours * (w.neighbour + w.neighbour_reading * (reading + staged)) + delayed),
    )


def clocks_per_step(work: StepWork, profile: Profile, neighbours: int, weights: Weights) -> float:
    """Clocks of one step on the busiest multiprocessor. neighbours: blocks that run there beside this one."""
    w = weights
    own = 0.0
    for _, clocks in own_clocks(work, profile, neighbours, weights):
        own += clocks
    device = work.device_bytes / profile.memory_bandwidth * profile.clock_mhz * 1e6
    latency = profile.latency("global_load") * w.arrival * (1 + w.load * min(device / own, 1.0))
    arrival = latency / max(work.lead - ASKING, 0.5)
    waits = own**SHARPNESS + arrival**SHARPNESS + (w.device * device) ** SHARPNESS
    return float(max(waits ** (1 / SHARPNESS), device))
