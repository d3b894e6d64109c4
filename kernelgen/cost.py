"""The analytical model: how many clocks one step of a recurrence takes, from what a block does in it.

A step is a chain of phases that wait for each other (barrier, loads of h, matrix instructions, pointwise step). Each
phase takes the longer of its latency and the time its busiest unit needs for the warps of one quarter of a
multiprocessor. Where several blocks share a multiprocessor their phases interleave: the step then takes the longer of
one block's chain and the sum of the blocks' work on the busiest unit. Latencies and rates come from the Profile;
what the model adds of its own are the constants below, measured on an H200 (docs/lab/resident.md).
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

STORE_TO_BARRIER = 30.0
"""Clocks from the last result of the pointwise step to its arrival at the barrier: conversion, store, address."""


@dataclass(frozen=True)
class StepWork:
    """What one block does in one step. Counts are per warp unless they say otherwise.

    warps: of the block. matrix: m16n8k16 instructions; matrix_chain: the longest dependent run of them.
    hidden_bytes, weight_bytes: read from shared memory. special, arithmetic: instructions of the pointwise step;
    chain_special, chain_arithmetic: those on its longest chain. other: all remaining instructions.
    exchanges: passes of partial sums through shared memory behind a barrier of part of the block.
    """

    warps: int
    matrix: float
    matrix_chain: float
    hidden_bytes: float
    weight_bytes: float
    special: float
    arithmetic: float
    chain_special: float
    chain_arithmetic: float
    other: float
    exchanges: int = 0


def clocks_per_step(work: StepWork, profile: Profile, blocks_per_sm: int, stages_ahead: float) -> float:
    """Clocks of one step when ``blocks_per_sm`` blocks run together on the busiest multiprocessor.

    stages_ahead: how many steps a load from device memory may take before the step waits for it.
    """
    warps = max(1.0, work.warps / QUARTERS)
    load = profile.latency("shared_load")
    barrier = profile.latency("barrier", 32 * work.warps)
    special_latency = profile.latency("special_function")
    special_issue = 32 * QUARTERS / profile.special_function_lanes

    reading = (work.hidden_bytes + work.weight_bytes) * work.warps / SHARED_BYTES_PER_CLOCK
    matrix = warps * work.matrix * profile.latency("mma_interval")
    special = warps * work.special * special_issue
    pointwise_issue = warps * (work.arithmetic + work.special)
    issue = warps * (work.other + work.arithmetic + work.special + work.matrix)

    pointwise_chain = work.chain_special * special_latency + work.chain_arithmetic * ARITHMETIC_LATENCY
    chain = (
        barrier
        + load
        + max(work.matrix_chain * profile.latency("mma"), matrix, reading)
        + work.exchanges * (2 * load + barrier)
        + max(pointwise_chain, special, pointwise_issue)
        + min(pointwise_chain, special, pointwise_issue) / 2
        + warps * work.other
        + STORE_TO_BARRIER
    )
    together = blocks_per_sm * max(issue, matrix, special, reading)
    memory = profile.latency("global_load") / max(stages_ahead, 0.5)
    return max(chain, together, memory)
