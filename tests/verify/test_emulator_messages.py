"""Messages on small hand-written kernels: words that blocks of a cluster, or of a grid, send and poll for."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from emulator_kernels import fault, kernel, line, run, words

from kernelgen.build.compile import compile_source
from kernelgen.errors import CompileError
from kernelgen.program.source import Source

ROUNDS = """
    const unsigned t = thread_index(), rank = cluster_rank();
    const SharedAddress slots = shared_memory(), mine = slots + 16 * t;
    for (int slot = 0; slot < 4; ++slot) poison_128(mine + 512 * slot); // first poison
    sync_cluster(); // begin
    unsigned sum = 0;
    for (unsigned n = 0; n < 9; ++n) {
        const unsigned slot = 512 * (n % 4);
        for (unsigned i = 0; i < 4; ++i)
            send_32(cluster_address(mine + slot + 4 * i, (rank + 1) % 2), 1000 * n + 4 * t + i + rank); // send
        unsigned rounds = 0;
        uint4 got;
        for (;;) {
            got = poll_128(mine + slot); // poll
            if (!any_lane(max(max(got.x, got.y), max(got.z, got.w)) == poison)) break;
            poll_again(rounds); // again
        }
        sum += got.x + got.y + got.z + got.w;
        poison_128(mine + 512 * ((n + 3) % 4)); // poison
    }
    sync_cluster(); // end
    store_global_32(out + block_x() * 32 + t, sum);
"""
"""Two blocks of a warp send each other a slot of words in every round."""

TWO: dict[str, Any] = {"shared": 2048, "grid": (2, 1, 1), "cluster": 2}
SEEDS = range(6)
DAWDLE = "for (int i = 0; i < 50; ++i) sync_warp(); "


def rounds(changes: Mapping[str, str] | None = None) -> Source:
    """ROUNDS with some of its text replaced."""
    body = ROUNDS
    for old, new in (changes or {}).items():
        assert body.count(old) == 1, old
        body = body.replace(old, new)
    return kernel(body, "unsigned* out")


@pytest.mark.emulated
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("pause", ["", DAWDLE])
def test_words_arrive_whole_and_are_waited_for(pause: str, seed: int) -> None:
    out = words(64)
    run(
        rounds({"const unsigned slot =": f"if (rank == 1) {{ {pause} }} const unsigned slot ="}),
        {"out": out},
        **TWO,
        seed=seed,
    )
    of_block = 4 * 1000 * 36 + 9 * (16 * np.arange(32) + 6)
    assert np.array_equal(out.reshape(2, 32), [of_block + 36, of_block])


@pytest.mark.emulated
def test_messages_come_late_and_in_any_order() -> None:
    """Of two words that a thread sends one after the other, either may be there first."""
    source = kernel(
        """
        const SharedAddress at = shared_memory();
        poison_128(at + 16 * thread_index());
        sync_cluster();
        if (cluster_rank() == 1 && thread_index() == 0)
            for (unsigned i = 0; i < 2; ++i) send_32(cluster_address(at + 4 * i, 0), 7);
        unsigned seen = 0;
        if (cluster_rank() == 0) {
            for (;;) {
                const uint4 got = poll_128(at);
                if (seen == 0 && got.x != got.y) seen = got.x == 7 ? 1 : 2;
                if (!any_lane(got.x == poison || got.y == poison)) break;
            }
        }
        sync_cluster();
        store_global_32(out + block_x() * 32 + thread_index(), seen);
        """,
        "unsigned* out",
    )
    found = set()
    for seed in range(20):
        out = words(64)
        run(source, {"out": out}, shared=512, grid=(2, 1, 1), cluster=2, seed=seed)
        found |= {*out[:32].tolist()}
    assert {1, 2} <= found


@pytest.mark.emulated
@pytest.mark.parametrize("seed", SEEDS)
def test_a_message_that_nobody_sends_is_a_deadlock(seed: int) -> None:
    source = rounds({"send_32(": "if (n != 5 || t != 7 || i != 2) send_32("})
    message = fault(source, {"out": words(64)}, **TWO, seed=seed)
    assert "deadlock: no thread can run" in message
    assert (
        f"1 words are polled for to which nobody sends a message any more, the first at offset {512 + 16 * 7 + 8}"
        in message
    )
    assert f"waits in poll_again at {line(source, 'again')}" in message


SENT_TO, POISONED = "(rank + 1) % 2", "(n + 3) % 4"
ANY = "any_lane(max(max(got.x, got.y), max(got.z, got.w)) == poison)"
FAULTS = {
    "no poison": ({f"poison_128(mine + 512 * ({POISONED}));": ""}, "a second message before the first has been"),
    "no first poison": ({"slot < 4; ++slot)": "slot < 2; ++slot)"}, "but has not been poisoned|nobody has written"),
    "poison too late": ({POISONED: "(n + 1) % 4"}, "a message under way to it|that nobody has read|poisoned only"),
    "two slots": (
        {"(n % 4)": "(n % 2)", POISONED: "(n + 1) % 2"},
        "under way|poisoned only|may not|first has been",
    ),
    "no meeting at the beginning": (
        {"sync_cluster(); // begin": "sync_warp();"},
        "poisoned only after|nobody has written|not been poisoned",
    ),
    "no meeting at the end": (
        {"sync_cluster(); // end": "", "n < 9; ++n) {": "n < 9; ++n) { if (n == 8 && rank == 1) break;"},
        "deadlock|ended",
    ),
    "two senders": ({SENT_TO: "0"}, "is sent two messages|second message|deadlock"),
    "a message like poison": ({"1000 * n + 4 * t + i + rank": "poison"}, "a message that looks like poison is sent to"),
    "a rank that is none": ({SENT_TO: "rank + 1"}, "rank 2 of a cluster with ranks 0 to 1"),
    "an ordinary load": (
        {"sum += got.x": "sum += load_shared_32(mine + 512 * ((n + 1) % 4)) + got.x"},
        "is poison, for a message that has not come|without having been polled",
    ),
    "lanes apart": ({ANY: ANY.removeprefix("any_lane")}, "does not know|may not have been read|poisoned only"),
}


@pytest.mark.emulated
@pytest.mark.parametrize("name", FAULTS)
def test_what_breaks_the_rules_is_reported(name: str) -> None:
    changes, words_of_report = FAULTS[name]
    for seed in range(10):
        message = fault(rounds(changes), {"out": words(64)}, **TWO, seed=seed)
        assert re.search(words_of_report, message), message


@pytest.mark.emulated
def test_a_message_orders_no_other_memory() -> None:
    """What the sender wrote before may not be there when the message is: that takes a barrier."""
    body = ROUNDS.replace("sum += got.x", "sum += load_cluster_float4(slots + 2048, 1 - rank).x + got.x")
    body = body.replace(
        "sync_cluster(); // begin",
        "sync_cluster(); if (t == 0) store_shared_float4(slots + 2048, make_float4(1, 2, 3, 4));",
    )
    message = fault(kernel(body, "unsigned* out"), {"out": words(64)}, shared=2064, grid=(2, 1, 1), cluster=2, seed=1)
    assert re.search(r"race on shared memory of block|which nobody has written", message)


GRID_ROUNDS = """
    const unsigned t = thread_index(), rank = block_x();
    unsigned sum = 0;
    for (unsigned n = 0; n < 9; ++n) {
        unsigned char* const slot = mail + 1024 * (n % 4) + 16 * t;
        for (unsigned i = 0; i < 4; ++i)
            send_global_32(slot + 512 * rank + 4 * i, 1000 * n + 4 * t + i + rank); // send
        unsigned rounds = 0;
        uint4 got;
        for (;;) {
            got = poll_global_128(slot + 512 * (1 - rank)); // poll
            if (!any_lane(max(max(got.x, got.y), max(got.z, got.w)) == poison)) break;
            poll_again(rounds); // again
        }
        sum += got.x + got.y + got.z + got.w;
        for (unsigned i = 0; i < 4; ++i)
            poison_global_32(mail + 1024 * ((n + 3) % 4) + 16 * t + 512 * rank + 4 * i); // poison
        fence_global(); // fence
    }
    store_global_32(out + rank * 32 + t, sum);
"""
"""Two blocks of a warp each put a slot of words into global memory in every round, and poison what they put there."""

GRID: dict[str, Any] = {"grid": (2, 1, 1), "cooperative": True}


def mail() -> dict[str, Any]:
    """Arguments of GRID_ROUNDS."""
    return {"out": words(64), "mail": words(1024)}


def grid_rounds(changes: Mapping[str, str] | None = None) -> Source:
    """GRID_ROUNDS with some of its text replaced."""
    body = GRID_ROUNDS
    for old, new in (changes or {}).items():
        assert body.count(old) == 1, old
        body = body.replace(old, new)
    return kernel(body, "unsigned* out, unsigned char* mail")


@pytest.mark.emulated
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("pause", ["", DAWDLE])
def test_words_arrive_through_global_memory(pause: str, seed: int) -> None:
    arguments = mail()
    source = grid_rounds({"unsigned char* const slot =": f"if (rank == 1) {{ {pause} }} unsigned char* const slot ="})
    run(source, arguments, **GRID, seed=seed)
    of_block = 4 * 1000 * 36 + 9 * (16 * np.arange(32) + 6)
    assert np.array_equal(arguments["out"].reshape(2, 32), [of_block + 36, of_block])


@pytest.mark.emulated
@pytest.mark.parametrize("seed", SEEDS)
def test_a_word_of_global_memory_that_nobody_sends_is_a_deadlock(seed: int) -> None:
    source = grid_rounds({"send_global_32(": "if (n != 5 || t != 7 || i != 2 || rank != 1) send_global_32("})
    message = fault(source, mail(), **GRID, seed=seed)
    assert "deadlock: no thread can run" in message
    place = 1024 + 512 + 16 * 7 + 8
    assert (
        f"1 words of 'mail' are polled for to which nobody sends a message any more, the first at offset {place}"
        in message
    )


GRID_FAULTS = {
    "no poison": (
        {"poison_global_32(mail": "if (n > 9) poison_global_32(mail"},
        "a second message before the first has",
    ),
    "poison too late": (
        {"((n + 3) % 4)": "((n + 1) % 4)"},
        "message under way|that nobody has read|may not have been read|only after it has been polled|deadlock",
    ),
    "poison too early": ({"((n + 3) % 4)": "(n % 4)"}, "may not have been read|nobody has read|under way"),
    "two slots": (
        {"(n % 4) + 16": "(n % 2) + 16", "((n + 3) % 4)": "((n + 1) % 2)"},
        "only after it has been polled|may not have been read|nobody has read",
    ),
    "no fence": ({"fence_global(); // fence": ""}, "only after it has been polled"),
    "two senders": (
        {"slot + 512 * rank + 4 * i, ": "slot + 512 * (n == 3 ? 0 : rank) + 4 * i, "},
        "two mess|second mess",
    ),
    "a message like poison": (
        {"1000 * n + 4 * t + i + rank)": "poison)"},
        "a message that looks like poison is sent to the word of 'mail' at offset",
    ),
    "an ordinary load": (
        {"sum += got.x": "sum += load_global_32(slot) + got.x"},
        "'mail' at offset .* is for messages",
    ),
    "an ordinary store": (
        {"sum += got.x": "store_global_32(slot, 1); sum += got.x"},
        "'mail' at offset .* is for mess",
    ),
    "a place that is none": (
        {"poll_global_128(slot + 512 * (1 - rank))": "poll_global_128(out)"},
        "'out' is no place for",
    ),
    "lanes apart": (
        {ANY: ANY.removeprefix("any_lane")},
        "only after it has been polled|may not have been read|does not know",
    ),
    "out of bounds": ({"slot + 512 * (1 - rank)": "slot + 4096 * (1 - rank)"}, "out of bounds of 'mail'|deadlock"),
}


@pytest.mark.emulated
@pytest.mark.parametrize("name", GRID_FAULTS)
def test_what_breaks_the_rules_in_global_memory_is_reported(name: str) -> None:
    changes, words_of_report = GRID_FAULTS[name]
    for seed in range(10):
        message = fault(grid_rounds(changes), mail(), **GRID, seed=seed)
        assert re.search(words_of_report, message), message


@pytest.mark.emulated
def test_blocks_that_do_not_run_together_cannot_send_each_other_messages() -> None:
    assert "deadlock" in fault(grid_rounds(), mail(), grid=(2, 1, 1))
    source = kernel(
        "send_global_32(mail, 7); store_global_32(out + block_x(), 0);", "unsigned* out, unsigned char* mail"
    )
    message = fault(source, mail(), threads=32, grid=(2, 1, 1))
    assert re.search("two messages|second message|do not run at the same time", message), message
    source = kernel(
        "if (thread_index() == 0) send_global_32(mail, 7); store_global_32(out + 32 * block_x() + thread_index(), 0);",
        "unsigned* out, unsigned char* mail",
    )
    assert "blocks which do not run at the same time" in fault(source, mail(), grid=(2, 1, 1))


@pytest.mark.emulated
def test_shuffles_and_votes() -> None:
    source = kernel(
        """
        const unsigned t = thread_index();
        const float other = shuffle_xor(static_cast<float>(t), 5);
        const bool some = any_lane(t == 40), none = any_lane(t == 99);
        store_global_32(out + t, static_cast<unsigned>(other) | some << 16 | none << 17);
        """,
        "unsigned* out",
    )
    out = words(64)
    run(source, {"out": out}, threads=64)
    expected = (np.arange(64) ^ 5) | (np.arange(64) >= 32) << 16
    assert np.array_equal(out, expected)


@pytest.mark.compiled
@pytest.mark.parametrize("arch", ["sm_90a", "sm_100a", "sm_120"])
def test_the_functions_compile_where_there_are_clusters(arch: str) -> None:
    source = rounds()
    source = dataclasses.replace(source, arch=arch, text=source.text.replace("__launch_bounds__(1024)", ""))
    assert compile_source(source, cache=None).report.spills == 0
    with pytest.raises(CompileError, match="sm_90"):
        compile_source(dataclasses.replace(rounds(), arch="sm_80"), cache=None)


@pytest.mark.compiled
@pytest.mark.parametrize("arch", ["sm_80", "sm_89", "sm_90a", "sm_100a", "sm_120"])
def test_those_of_global_memory_compile_everywhere(arch: str) -> None:
    source = grid_rounds()
    source = dataclasses.replace(source, arch=arch, text=source.text.replace("__launch_bounds__(1024)", ""))
    assert compile_source(source, cache=None).report.spills == 0


# ---- counters, and the clock ----

COUNTED = """
    sync_block();
    if (thread_index() == 0) {
        signal_global(counters); // signal
        for (unsigned rounds = 0; static_cast<int>(poll_signals(counters) + 1u - 3u) < 0;) poll_again(rounds);
    }
    sync_warp();
    sync_block();
    store_global_32(out + block_x() * 64 + thread_index(), poll_signals(counters));
"""
THREE: dict[str, Any] = {"grid": (3, 1, 1), "threads": 64, "cooperative": True}


@pytest.mark.parametrize("seed", SEEDS)
def test_blocks_count_to_three(seed: int) -> None:
    out = words(192)
    run(kernel(COUNTED, "unsigned* counters, unsigned* out"), {"counters": words(1), "out": out}, seed=seed, **THREE)
    assert (out == 2).all()  # from 0xffffffff on


@pytest.mark.parametrize(
    ("old", "new", "report"),
    [
        ("- 3u", "- 4u", "deadlock"),
        ("signal_global(counters);", "signal_global(out);", "'out' is no array of counters"),
        ("signal_global(counters);", "signal_global(counters + 1);", "out of bounds of 'counters'"),
        ("signal_global(counters);", "store_global_32(counters, 1);", "is a counter: it may be signalled and polled"),
    ],
)
def test_a_counter_is_not_misused(old: str, new: str, report: str) -> None:
    assert old in COUNTED
    source = kernel(COUNTED.replace(old, new, 1), "unsigned* counters, unsigned* out")
    assert report in fault(source, {"counters": words(1), "out": words(192)}, **THREE)


def test_counters_are_of_blocks_that_run_together() -> None:
    source = kernel("if (thread_index() == 0) signal_global(counters);", "unsigned* counters")
    report = fault(source, {"counters": words(1)}, grid=(2, 1, 1))
    assert "is that of blocks which do not run at the same time" in report
    assert "the launch must be cooperative" in report


def test_the_clock_goes_on_with_what_happens() -> None:
    body = """
        const unsigned long long first = read_clock(), second = read_clock();
        for (int i = 0; i < 20; ++i) store_shared_32(shared_memory() + 4 * thread_index(), i);
        sync_warp();
        const unsigned long long third = read_clock();
        store_global_64(out + 2 * thread_index(), uint2{unsigned(second - first), unsigned(third - second)});
    """
    out = words(64)
    run(kernel(body, "unsigned* out"), {"out": out}, shared=128)
    assert (out[0::2] >= 1).all()
    assert (out[1::2] >= 21).all()
