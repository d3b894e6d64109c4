"""Bulk copies to blocks of a cluster and the barriers that count them, in small kernels."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from emulator_kernels import kernel, run, words

from kernelgen.errors import EmulationError
from kernelgen.program.source import Source

pytestmark = pytest.mark.emulated

SEEDS = range(4)

ROUNDS = """
    const unsigned t = thread_index(), rank = block_x() % 2, pair = block_x() / 2;
    const SharedAddress shared = shared_memory(), come = shared + 2048, used = come + 8;
    if (t == 0) {
        begin_transfer_barrier(come, 1);
        begin_transfer_barrier(used, 4); // arrivals
        fence_transfer_barriers(); // begun
    }
    sync_cluster(); // begin
    unsigned sum = 0;
    for (unsigned n = 0; n < 5; ++n) {
        unsigned char* const slot = hidden + 4096 * (n % 2);
        store_global_128(slot + 1024 * block_x() + 16 * t, uint4{n, t, rank, 1000 * n + t + 100 * block_x()}); // store
        sync_block(); // stored
        if (t == 0) signal_global(counters); // signal
        if (t < 32) {
            if (t == 0)
                for (unsigned i = 0; static_cast<int>(poll_signals(counters) + 1u - 4 * (n + 1)) < 0;) poll_again(i);
            if (t == 0 && n > 0)
                for (unsigned i = 0; !phase_ended_in_cluster(used, (n + 1) % 2);) poll_again(i); // free
            sync_warp(); // polled
            if (t == 0) {
                fence_global_for_copies(); // fence
                arrive_and_expect(come, 2048); // expect
                copy_to_blocks<2>(shared + 1024 * rank, slot + 2048 * (1 - pair) + 1024 * rank, 1024, come); // copy
            }
        }
        for (unsigned i = 0; !phase_ended(come, n % 2);) poll_again(i); // wait
        sum += load_shared_32(shared + 16 * ((t + 5) % 64) + 12) + load_shared_32(shared + 1024 + 16 * t + 12);
        sync_warp(); // read
        if (t % 32 == 0)
            for (unsigned other = 0; other < 2; ++other) arrive_at(cluster_address(used, other)); // used
    }
    store_global_32(out + 64 * block_x() + t, sum);
    sync_cluster(); // end
"""
"""Two clusters of two blocks of 64 threads: each block stores 16 bytes a thread in every round, and each cluster loads
what the other has stored, each of its blocks half for both."""

GRID: dict[str, Any] = {"grid": (4, 1, 1), "cluster": 2, "cooperative": True, "threads": 64, "shared": 2064}


def rounds(old: str = "", new: str = "") -> Source:
    assert old in ROUNDS
    body = ROUNDS.replace(old, new, 1) if old else ROUNDS
    return kernel(body, "unsigned* out, unsigned char* hidden, unsigned* counters")


def arguments() -> dict[str, Any]:
    return {"out": words(256), "hidden": words(2048), "counters": words(32)}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cluster_loads_together_what_others_have_stored(seed: int) -> None:
    given = arguments()
    run(rounds(), given, **GRID, seed=seed)
    expected = [
        20_000 + 5 * ((t + 5) % 64 + 100 * first + t + 100 * (first + 1)) for first in (2, 2, 0, 0) for t in range(64)
    ]
    assert np.array_equal(given["out"], expected)


FAULTS = {
    "copies that nobody waits for": (
        "for (unsigned i = 0; !phase_ended(come, n % 2);) poll_again(i); // wait",
        "",
        "race|lack",
    ),
    "a peer's bytes that are not expected": (
        "arrive_and_expect(come, 2048)",
        "arrive_and_expect(come, 1024)",
        "race|lack|differ|more",
    ),
    "a buffer that is still read": (
        "for (unsigned i = 0; !phase_ended_in_cluster(used, (n + 1) % 2);) poll_again(i); // free",
        "",
        "race",
    ),
    "a peer that is not told": ("other < 2; ++other", "other < 1; ++other", "deadlock|race|arrivals"),
    "a warp that says too early that it has read": ("sync_warp(); // read", "", "race"),
    "stores that copies may not see": ("fence_global_for_copies(); // fence", "", "may not see yet"),
    "a signal that nobody waits for": (
        "static_cast<int>(poll_signals(counters) + 1u - 4 * (n + 1)) < 0",
        "false",
        "race|nobody",
    ),
    "a poll that the lanes do not share": ("sync_warp(); // polled", "", "race|nobody|may not see"),
    "barriers that nobody knows of": ("sync_cluster(); // begin", "sync_block();", "no barrier|race"),
    "barriers that copies do not know of": ("fence_transfer_barriers(); // begun", "", "fence_transfer_barriers"),
    "peers' arrivals that are not acquired": ("phase_ended_in_cluster", "phase_ended", "phase_ended_in_cluster"),
    "a block that ends too early": ("sync_cluster(); // end", "", "ended"),
    "a copy of odd bytes": ("rank, 1024, come", "rank, 1000, come", "multiples of 16"),
    "more arrivals than were said": ("(used, 4); // arrivals", "(used, 3); // arrivals", "arrivals|race|deadlock"),
    "a cluster that is too small": ("copy_to_blocks<2>", "copy_to_blocks<4>", "a cluster of 2"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_nothing_orders_is_reported(name: str) -> None:
    old, new, words_of_report = FAULTS[name]
    source = rounds(old, new)
    found = []
    for seed in range(10):
        try:
            run(source, arguments(), **GRID, seed=seed)
        except EmulationError as error:
            found.append(str(error))
    assert found, "not caught"
    assert all(re.search(words_of_report, each) for each in found), found
