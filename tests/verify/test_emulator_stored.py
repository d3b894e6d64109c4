"""What blocks store for each other in global memory, and the counters that say so, in small kernels."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from emulator_kernels import fault, kernel, run, words

from kernelgen.program.source import Source

pytestmark = pytest.mark.emulated

SEEDS = range(4)

ROUNDS = """
    const unsigned t = thread_index(), rank = block_x();
    const SharedAddress shared = shared_memory() + 16 * t;
    unsigned sum = 0;
    for (unsigned n = 0; n < 5; ++n) {
        unsigned char* const slot = hidden + 2048 * (n % 2);
        store_global_128(slot + 1024 * rank + 16 * t, uint4{n, t, rank, 1000 * n + t + rank}); // store
        sync_block(); // stored
        if (t == 0) signal_global(counters); // signal
        if (t == 0)
            for (unsigned i = 0; static_cast<int>(poll_signals(counters) + 1u - 2 * (n + 1)) < 0;) poll_again(i);
        sync_block(); // waited
        cp_async<16>(shared, slot + 1024 * (1 - rank) + 16 * ((t + 5) % 64)); // copy
        cp_async_commit();
        cp_async_wait<0>(); // wait
        sum += load_shared_32(shared + 12);
    }
    store_global_32(out + 64 * rank + t, sum);
"""
"""Two blocks of 64 threads each store 16 bytes a thread in every round, and read the other's."""

GRID: dict[str, Any] = {"grid": (2, 1, 1), "cooperative": True, "threads": 64, "shared": 1024}


def rounds(old: str = "", new: str = "") -> Source:
    assert old in ROUNDS
    body = ROUNDS.replace(old, new, 1) if old else ROUNDS
    return kernel(body, "unsigned* out, unsigned char* hidden, unsigned* counters")


def arguments() -> dict[str, Any]:
    return {"out": words(128), "hidden": words(1024), "counters": words(32)}


@pytest.mark.parametrize("seed", SEEDS)
def test_blocks_read_what_others_have_stored(seed: int) -> None:
    given = arguments()
    run(rounds(), given, **GRID, seed=seed)
    expected = [10_000 + 5 * ((t + 5) % 64 + 1 - rank) for rank in range(2) for t in range(64)]
    assert np.array_equal(given["out"], expected)


FAULTS = {
    "no meeting before the signal": ("sync_block(); // stored", "", "race on the word of 'hidden'|nobody has written"),
    "a signal before the store": (
        "store_global_128(slot",
        "if (n == 3 && t == 0) signal_global(counters); store_global_128(slot",
        "race on the word of 'hidden'|nobody has written",
    ),
    "no wait": ("static_cast<int>(", "n != 2 && static_cast<int>(", "race on the word of 'hidden'|nobody has written"),
    "a wait that the block does not know of": (
        "sync_block(); // waited",
        "",
        "race on the word of 'hidden'|nobody has written",
    ),
    "one slot": ("2048 * (n % 2)", "0", "race on the word of 'hidden'|cp_async from it"),
    "too few signals": ("if (t == 0) signal_global", "if (t == 0 && n != 3) signal_global", "deadlock"),
    "a read-only load": (
        "sum += load_shared_32(shared + 12);",
        "sum += load_global_32(slot + 1024 * rank);",
        "by a load for memory that does not change",
    ),
    "a narrow copy": ("cp_async<16>(shared,", "cp_async<8>(shared,", "copy of 8 bytes from the word of 'hidden'"),
    "a load of another block's store": (
        "sum += load_shared_32(shared + 12);",
        "sum += load_stored_float(slot + 1024 * (1 - rank) + 16 * t) > 0.0f;",
        "which another block writes",
    ),
    "a store to a counter": ("signal_global(counters); // signal", "store_global_32(counters, n);", "is a counter"),
    "a signal that is none": ("signal_global(counters); // signal", "signal_global(out);", "is no array of counters"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_not_ordered_is_a_fault(name: str) -> None:
    old, new, expected = FAULTS[name]
    for seed in SEEDS:
        assert re.search(expected, fault(rounds(old, new), arguments(), **GRID, seed=seed)), name


def test_blocks_that_do_not_run_together_share_nothing() -> None:
    source = kernel(
        "store_global_32(hidden + 128 * block_x() + 4 * thread_index(), 7); store_global_32(out + block_x() * 32 + "
        "thread_index(), 0);",
        "unsigned* out, unsigned char* hidden",
    )
    message = fault(source, {"out": words(64), "hidden": words(64)}, grid=(2, 1, 1))
    assert "blocks which do not run at the same time" in message
