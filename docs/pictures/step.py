"""One step of the resident forward kernel on the cost model's clock."""

from __future__ import annotations

from dataclasses import replace

from case import SHAPE, TITLE, best, model
from svg import Picture

from kernelgen.hardware.profile import Profile
from kernelgen.schedules.shared.cost import (
    ARITHMETIC_LATENCY,
    SHARED_BYTES_PER_CLOCK,
    SUB_PARTITIONS,
    StepWork,
    Weights,
    clocks_per_step,
)

WIDTH, LEFT, ROW = 900, 210, 30


def phases(work: StepWork, weights: Weights, profile: Profile) -> list[tuple[str, str, float, float]]:
    """Name, colour, exposed clocks and clocks in full of each phase, in the order of the kernel; the exposed add up to
    a step's own work as cost.py has it (which `draw` checks)."""
    w, busiest, epilogue = weights, -(-work.warps // SUB_PARTITIONS), -(-work.epilogue_warps // SUB_PARTITIONS)
    load, barrier = profile.latency("shared_load"), profile.latency("barrier", 32 * work.warps)
    reading = work.shared_bytes / SHARED_BYTES_PER_CLOCK
    issue = busiest * work.matrix * profile.latency("mma_interval")
    run = work.matrix_chain * profile.latency("mma")
    exposed, full = max((w.matrix * issue, issue), (w.matrix_chain * run, run))
    chain = work.chain_special * profile.latency("special_function") + work.chain_arithmetic * ARITHMETIC_LATENCY
    special = epilogue * work.special * 32 * SUB_PARTITIONS / profile.special_function_lanes
    arithmetic = epilogue * (work.arithmetic + work.special)
    staged, transfers = work.epilogue_warps * work.staged, work.warps * work.transfers
    return [
        ("first load of h", "a", load, load),
        ("reading h and R", "a", w.reading * reading, reading),
        ("matrix product", "b", exposed, full),
        ("longest chain of the step", "c", w.chain * chain, chain),
        ("special functions", "c", w.special * special, special),
        ("arithmetic", "c", w.arithmetic * arithmetic, arithmetic),
        ("Wx in, results out", "d", w.transfer * transfers, transfers),
        ("a branch around copies", "d", w.parted * work.branches, w.parted * work.branches),
        ("results to shared memory", "a", w.staged * staged, staged),
        ("partial sums (K split)", "a", w.exchange * work.exchanges, work.exchanges),
        ("barrier", "e", barrier, barrier),
        ("what the model cannot name", "box", w.fixed, w.fixed),
    ]


def draw() -> str:
    """Every phase where it comes in the step, as long as it holds the step up; in outline, what it takes in full."""
    profile, tiling = best()
    work, weights = model(tiling)
    alone = replace(work, device_bytes=0.0, lead=10**9)  # nothing but the block's own work
    rows = [row for row in phases(work, weights, profile) if row[3] > 0]
    own = sum(exposed for _, _, exposed, _ in rows)
    if abs(own - clocks_per_step(alone, profile, 0, weights)) > 0.01:
        raise AssertionError("the phases drawn are not those of kernelgen/schedules/shared/cost.py")
    total = tiling.clocks_per_step
    scale = (WIDTH - LEFT - 80) / max(total, *(sum(r[2] for r in rows[:i]) + row[3] for i, row in enumerate(rows)))
    height = 112 + ROW * len(rows) + 62
    picture = Picture(WIDTH, height, f"The phases of one step of the resident forward kernel: {TITLE}")
    picture.text(20, 28, "One step of the resident kernel, forward, in the cost model's clocks", "bold")
    picture.text(20, 47, TITLE, "small")
    picture.text(20, 63, str(tiling), "small code")
    picture.text(20, 79, "filled: what the phase adds to the step; outlined: what it would take in full", "small")
    at, top = 0.0, 98
    for number, (name, colour, exposed, full) in enumerate(rows):
        y, x = top + ROW * number, LEFT + at * scale
        picture.text(LEFT - 12, y + 15, name, "", "end")
        picture.box(x, y + 3, full * scale, 16, "none", 0)
        picture.box(x, y + 3, exposed * scale, 16, colour, 0)
        words = f"{exposed:.0f}" if abs(full - exposed) < 0.5 else f"{exposed:.0f} of {full:.0f}"
        picture.text(x + max(full, exposed) * scale + 6, y + 15, words, "small")
        at += exposed
    bottom = top + ROW * len(rows) + 8
    picture.line([(LEFT, bottom), (LEFT + total * scale, bottom)])
    for tick in range(0, int(total) + 1, 50):
        picture.line([(LEFT + tick * scale, bottom), (LEFT + tick * scale, bottom + 5)])
        picture.text(LEFT + tick * scale, bottom + 18, str(tick), "small", "middle")
    microseconds = total / profile.clock_mhz
    words = (
        f"{own:.0f} clocks of a block's own work; with waiting for Wx and device memory {total:.0f}, "
        f"{microseconds:.3f} µs a step, {microseconds * SHAPE.seq / 1000:.3f} ms for T = {SHAPE.seq:,}"
    )
    picture.text(20, bottom + 42, words)
    return str(picture)
