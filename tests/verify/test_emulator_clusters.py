"""Clusters of blocks on small hand-written kernels: their barrier, and reads of another block's shared memory."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from emulator_kernels import fault, kernel, line, run, words
from numpy.typing import NDArray

from kernelgen.build.compile import compile_source
from kernelgen.errors import CompileError, EmulationError
from kernelgen.program.launch import Launch
from kernelgen.program.source import Source
from kernelgen.verify.emulator import emulate

RING = """
    const unsigned t = thread_index();
    const SharedAddress mine = shared_memory() + 16 * t;
    const float value = 1000.0f * block_x() + t;
    store_shared_float4(mine, make_float4(value, value + 0.25f, value + 0.5f, value + 0.75f)); // store
    sync_cluster(); // before
    const SharedAddress theirs = shared_memory() + 16 * (t ^ 33);
    const float4 got = load_cluster_float4(theirs, (cluster_rank() + 1) % 4); // load
    sync_cluster(); // after
    float* const to = out + (block_x() * 64 + t) * 4;
    store_global_float(to, got.x);
    store_global_float(to + 1, got.y);
    store_global_float(to + 2, got.z);
    store_global_float(to + 3, got.w);
"""
"""Each thread of a block of 64 reads what some thread of the next block in its cluster of 4 has stored."""

BEFORE, AFTER = "sync_cluster(); // before", "sync_cluster(); // after"
NEXT = "(cluster_rank() + 1) % 4"
DAWDLE = "for (int i = 0; i < 30; ++i) sync_warp(); "
"""Long enough for every other thread to have run before this one goes on."""

OWN = 1000 * np.arange(8)[:, None, None] + (np.arange(64)[:, None] ^ 33) + np.arange(4) / 4
"""What a thread gets that reads its own block's memory in place of the next one's."""

CLUSTERS_OF_4: dict[str, Any] = {"threads": 64, "shared": 1024, "grid": (8, 1, 1), "cluster": 4}
SEEDS = range(6)


def ring(changes: Mapping[str, str] | None = None) -> Source:
    """RING with some of its text replaced."""
    body = RING
    for old, new in (changes or {}).items():
        assert body.count(old) == 1
        body = body.replace(old, new)
    return kernel(body, "float* out")


def floats() -> NDArray[np.float32]:
    return np.zeros((8, 64, 4), np.float32)


# ---- what is computed ----


@pytest.mark.emulated
@pytest.mark.parametrize("seed", SEEDS)
def test_blocks_of_a_cluster_read_each_others_shared_memory(seed: int) -> None:
    out = floats()
    run(ring(), {"out": out}, **CLUSTERS_OF_4, seed=seed)
    block = np.arange(8)[:, None, None]
    next_in_cluster = block // 4 * 4 + (block + 1) % 4
    thread = np.arange(64)[:, None] ^ 33
    assert np.array_equal(out, 1000 * next_in_cluster + thread + np.arange(4) / 4)


@pytest.mark.emulated
@pytest.mark.parametrize(
    "launch",
    [
        Launch((6, 2, 1), 32, 0, cluster=3),
        Launch((6, 2, 1), 32, 0),
        Launch((6, 2, 1), 32, 0, cluster=2, cooperative=True),
    ],
)
def test_ranks_are_counted_along_x(launch: Launch) -> None:
    source = kernel(
        "store_global_32(out + (block_y() * 6 + block_x()) * 32 + thread_index(), cluster_rank());", "int* out"
    )
    out = np.full((2, 6, 32), -1, np.int32)
    emulate(source, launch, {"out": out}, outputs=("out",))
    assert np.array_equal(out, np.broadcast_to(np.arange(6)[:, None] % launch.cluster, out.shape))


@pytest.mark.emulated
@pytest.mark.parametrize("seed", SEEDS)
def test_a_cluster_of_one_block_is_that_block(seed: int) -> None:
    out = floats()
    launch: dict[str, Any] = {"threads": 64, "shared": 1024, "grid": (8, 1, 1), "seed": seed}
    run(ring({NEXT: "cluster_rank()"}), {"out": out}, **launch)
    assert np.array_equal(out, OWN)
    source = ring({NEXT: "cluster_rank()", BEFORE: DAWDLE})
    message = fault(source, {"out": floats()}, **launch)
    assert "race on shared memory: 2 bytes at offset" in message
    assert "a sync_block() (or a named barrier that both warps take part in) is missing" in message


@pytest.mark.emulated
@pytest.mark.parametrize("seed", SEEDS)
def test_the_barrier_of_a_cluster_orders_a_block_too(seed: int) -> None:
    """And again and again: one completion leaves nothing behind for the next."""
    source = kernel(
        """
        const unsigned t = thread_index();
        unsigned sum = 0;
        for (unsigned round = 0; round < 5; ++round) {
            store_shared_32(shared_memory() + 4 * t, t + round);
            sync_cluster();
            sum += load_shared_32(shared_memory() + 4 * (63 - t));
            sync_cluster();
        }
        store_global_32(out + block_x() * 64 + t, sum);
        """,
        "unsigned* out",
    )
    out = words(128)
    run(source, {"out": out}, threads=64, shared=256, grid=(2, 1, 1), cluster=2, seed=seed)
    assert np.array_equal(out.reshape(2, 64), np.broadcast_to(5 * np.arange(63, -1, -1) + 10, (2, 64)))


# ---- order ----


@pytest.mark.emulated
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("barrier", ["", "sync_block();", "sync_named(1, 64);"])
def test_a_missing_barrier_before_a_remote_read_is_a_race(barrier: str, seed: int) -> None:
    source = ring({BEFORE: DAWDLE + barrier})
    message = fault(source, {"out": floats()}, **CLUSTERS_OF_4, seed=seed)
    assert re.search(r"race on shared memory of block \([0-7], 0, 0\): 2 bytes at offset \d+ of 1024", message)
    assert f"writes at {line(source, 'store')}" in message
    assert f"reads at {line(source, 'load')}" in message
    assert "a sync_cluster() is missing between the two lines" in message


@pytest.mark.emulated
@pytest.mark.parametrize("seed", SEEDS)
def test_a_remote_read_that_comes_first_misses_the_barrier_too(seed: int) -> None:
    source = kernel(
        f"""
        const SharedAddress at = shared_memory() + 16 * thread_index();
        if (cluster_rank() == 0) {{
            load_cluster_float4(at, 1); // load
        }} else {{
            {DAWDLE}
            store_shared_float4(at, make_float4(1, 2, 3, 4));
        }}
        sync_cluster();
        """,
        "unsigned* out",
    )
    message = fault(source, {"out": words(1)}, shared=512, grid=(2, 1, 1), cluster=2, seed=seed)
    assert re.search(r"read of shared memory of block \(1, 0, 0\).*, which nobody has written", message)
    assert f"of block (0, 0, 0) reads at {line(source, 'load')}" in message
    assert "if that block is to write it, a sync_cluster() is missing before this line" in message


@pytest.mark.emulated
@pytest.mark.parametrize("seed", SEEDS)
def test_a_write_that_overtakes_a_remote_read_is_a_race(seed: int) -> None:
    source = ring({AFTER: "store_shared_float4(mine, got); sync_cluster(); // overtake"})
    message = fault(source, {"out": floats()}, **CLUSTERS_OF_4, seed=seed)
    assert "race on shared memory of block" in message
    assert f"reads at {line(source, 'load')}" in message
    assert f"writes at {line(source, 'overtake')}" in message
    assert "a sync_cluster() is missing between the two lines" in message


SHARED_READS = f"""
    const unsigned t = thread_index();
    if (cluster_rank() == 0 && t == 0) store_shared_float4(shared_memory(), make_float4(1, 2, 3, 4));
    sync_cluster();
    if (cluster_rank() == 0) {{ {DAWDLE} }}
    const float first = load_cluster_float4(shared_memory(), 0).x; // load
    sync_cluster(); // between
    if (cluster_rank() == 0 && t == 0) store_shared_float4(shared_memory(), make_float4(5, 6, 7, 8)); // write
    sync_cluster();
    const float second = load_cluster_float4(shared_memory(), 0).y;
    sync_cluster();
    store_global_float(out + block_x() * 64 + t, first + second);
"""


@pytest.mark.emulated
@pytest.mark.parametrize("seed", SEEDS)
def test_a_write_after_readers_of_several_blocks_needs_them_all_to_have_met(seed: int) -> None:
    out = np.zeros(256, np.float32)
    launch: dict[str, Any] = {"threads": 64, "shared": 16, "grid": (4, 1, 1), "cluster": 4, "seed": seed}
    run(kernel(SHARED_READS, "float* out"), {"out": out}, **launch)
    assert np.all(out == 7)
    source = kernel(SHARED_READS.replace("sync_cluster(); // between", "sync_block();"), "float* out")
    message = fault(source, {"out": out}, **launch)
    assert "race on shared memory of block (0, 0, 0)" in message
    assert re.search(r"of block \([123], 0, 0\) reads at " + line(source, "load"), message)
    assert f"of block (0, 0, 0) writes at {line(source, 'write')}" in message
    assert "a sync_cluster() is missing between the two lines" in message


@pytest.mark.emulated
@pytest.mark.parametrize("late", [0, 1])
def test_of_two_readers_the_one_that_has_not_met_the_writer_is_named(late: int) -> None:
    """One thread of each block reads, that of block `late` last; the writer meets that of block 0 alone."""
    source = kernel(
        f"""
        const unsigned t = thread_index();
        if (cluster_rank() == 0 && t == 0) store_shared_float4(shared_memory(), make_float4(1, 2, 3, 4));
        sync_cluster();
        if (cluster_rank() == {late}) {{ {DAWDLE} }}
        if (t == 0) load_cluster_float4(shared_memory(), 0); // load
        sync_block();
        if (cluster_rank() == 0 && t == 32) {{
            for (int i = 0; i < 20000; ++i) load_global_16(in);
            store_shared_float4(shared_memory(), make_float4(5, 6, 7, 8)); // write
        }}
        sync_cluster();
        """,
        "const unsigned short* in",
    )
    for seed in SEEDS:
        launch = {"threads": 64, "shared": 16, "grid": (2, 1, 1), "cluster": 2, "seed": seed}
        message = fault(source, {"in": np.zeros(1, np.uint16)}, **launch)
        assert f"first:  thread 0 (warp 0, lane 0) of block (1, 0, 0) reads at {line(source, 'load')}" in message
        assert f"second: thread 32 (warp 1, lane 0) of block (0, 0, 0) writes at {line(source, 'write')}" in message


@pytest.mark.emulated
def test_a_copy_under_way_may_not_be_read_from_another_block() -> None:
    body = """
    const unsigned t = thread_index();
    cp_async<16>(shared_memory() + 16 * t, in + 8 * t); // copy
    cp_async_commit();
    WAIT
    sync_cluster();
    const float4 got = load_cluster_float4(shared_memory() + 16 * t, 1 - cluster_rank()); // load
    sync_cluster();
    store_global_float(out + block_x() * 32 + t, got.w);
    """
    parameters = "const unsigned short* in, float* out"
    values = np.arange(128, dtype=np.float32)
    arguments = {"in": values.view(np.uint16), "out": np.zeros((2, 32), np.float32)}
    launch = {"shared": 512, "grid": (2, 1, 1), "cluster": 2}
    run(kernel(body.replace("WAIT", "cp_async_wait<0>();"), parameters), arguments, **launch)
    assert np.array_equal(arguments["out"], np.broadcast_to(values[3::4], (2, 32)))
    source = kernel(body.replace("WAIT", ""), parameters)
    for seed in SEEDS:
        message = fault(source, arguments, **launch, seed=seed)
        assert "a cp_async to it may still be under way" in message
        assert "a cp_async_wait by the first thread and then a sync_cluster() are missing" in message
        assert line(source, "copy") in message
        assert line(source, "load") in message


@pytest.mark.emulated
def test_only_blocks_of_one_cluster_can_be_ordered() -> None:
    """In a cooperative grid of two clusters, blocks 0 and 1 could meet, blocks 1 and 2 could not."""
    source = kernel(
        "if (thread_index() == 0 && (block_x() == first || block_x() == first + 1)) store_global_32(out, 1); // both",
        "unsigned* out, int first",
    )
    launch = Launch((4, 1, 1), 32, 0, cluster=2, cooperative=True)
    for first, missing in ((0, "a sync_cluster() is missing"), (1, "nothing orders threads of different blocks here")):
        with pytest.raises(EmulationError, match="race on 'out'") as caught:
            emulate(source, launch, {"out": words(1), "first": first}, outputs=("out",))
        assert missing in str(caught.value)
        assert str(caught.value).count(line(source, "both")) == 2


# ---- the end of a block ----


@pytest.mark.emulated
@pytest.mark.parametrize("seed", range(12))
def test_a_block_may_not_end_before_its_memory_has_been_read(seed: int) -> None:
    source = ring({AFTER: ""})
    message = fault(source, {"out": floats()}, **CLUSTERS_OF_4, seed=seed)
    assert re.search(r"use of the shared memory of block \([0-7], 0, 0\), which may have ended by then", message)
    assert re.search(rf"(reads|uses it) at {re.escape(line(source, 'load'))}", message)
    assert "a sync_cluster() is missing between this line and the end of the kernel" in message


@pytest.mark.emulated
@pytest.mark.parametrize(("reader", "owner"), [(DAWDLE, ""), ("", DAWDLE), ("", DAWDLE + "sync_block();")])
def test_the_end_of_a_block_is_not_ordered_by_luck(reader: str, owner: str) -> None:
    """A fault whether the read comes after the end of the block or long before it."""
    source = kernel(
        f"""
        if (thread_index() == 0) store_shared_float4(shared_memory(), make_float4(1, 2, 3, 4));
        sync_cluster();
        if (cluster_rank() == 0) {{
            {reader}
            load_cluster_float4(shared_memory(), 1); // load
        }} else {{
            {owner}
        }}
        """,
        "unsigned* out",
    )
    for seed in SEEDS:
        message = fault(source, {"out": words(1)}, shared=16, grid=(2, 1, 1), cluster=2, seed=seed)
        assert "use of the shared memory of block (1, 0, 0), which may have ended by then" in message
        used = re.escape(line(source, "load"))
        assert re.search(rf"of block \(0, 0, 0\) (reads|uses it) at {used}", message)


@pytest.mark.emulated
def test_a_block_may_read_its_own_memory_to_the_end() -> None:
    out = floats()
    run(ring({NEXT: "cluster_rank()", AFTER: ""}), {"out": out}, **CLUSTERS_OF_4)
    assert np.array_equal(out, OWN)


# ---- wrong use ----

READS = {
    "load_cluster_float4(at, 4)": "read of the shared memory of rank 4 of a cluster with ranks 0 to 3",
    "load_cluster_float4(at, ~0u)": "read of the shared memory of rank 4294967295 of a cluster with ranks 0 to 3",
    "load_cluster_float4(at + 1024, 2)": "out of bounds of shared memory of block (2, 0, 0): 16 bytes at offset 1024, "
    "but the launch gives the block 1024 bytes",
    "load_cluster_float4(at + 1016, 2)": "out of bounds of shared memory of block (2, 0, 0): 16 bytes at offset 1016",
    "load_cluster_float4(at - 16, 2)": "out of bounds of shared memory of block (2, 0, 0): 16 bytes at offset -16",
    "load_cluster_float4(at + 8, 3)": "misaligned access to shared memory of block (3, 0, 0): 16 bytes at offset 8",
    "load_cluster_float4(at + 512, 1)": "read of shared memory of block (1, 0, 0): 2 bytes at offset 512 of 1024, "
    "which nobody has written",
}


@pytest.mark.emulated
@pytest.mark.parametrize("read", READS)
def test_wrong_remote_reads_name_the_memory_the_line_and_the_thread(read: str) -> None:
    """One kernel makes each read on demand, in thread 5 of block 0."""
    lines = [
        f"if (which == {i} && thread_index() == 5 && cluster_rank() == 0) {text}; // read {i}"
        for i, text in enumerate(READS)
    ]
    fill = """const SharedAddress at = shared_memory();
    store_shared_float4(at + 16 * thread_index(), make_float4(1, 2, 3, 4));"""
    source = kernel("\n".join([fill, "sync_cluster();", *lines, "sync_cluster();"]), "int which")
    which = list(READS).index(read)
    message = fault(source, {"which": which}, shared=1024, grid=(4, 1, 1), cluster=4)
    assert READS[read] in message
    assert f"thread 5 (warp 0, lane 5) of block (0, 0, 0) reads at {line(source, f'read {which}')}" in message


@pytest.mark.emulated
@pytest.mark.parametrize("seed", SEEDS)
def test_a_block_that_skips_the_barrier_is_a_deadlock(seed: int) -> None:
    source = kernel("if (block_x() != 2) sync_cluster(); // wait", "unsigned* out")
    message = fault(source, {"out": words(1)}, threads=64, grid=(4, 1, 1), cluster=4, seed=seed)
    assert "deadlock: no thread can run" in message
    at = line(source, "wait")
    assert (
        f"cluster of blocks (0, 0, 0) to (3, 0, 0):\n    sync_cluster at {at}: 192 of 256 threads have arrived"
        in message
    )
    for block in (0, 1, 3):
        assert f"block ({block}, 0, 0):\n    threads 0-63 wait in sync_cluster at {at}" in message
    assert "block (2, 0, 0):\n    threads 0-63 have finished" in message


@pytest.mark.emulated
def test_waiting_in_another_barrier_is_a_deadlock() -> None:
    source = kernel(
        """
        if (block_x() == 0) sync_cluster(); // cluster
        else if (thread_index() < 32) sync_cluster(); // some
        else sync_block(); // block
        """,
        "unsigned* out",
    )
    message = fault(source, {"out": words(1)}, threads=64, grid=(2, 1, 1), cluster=2)
    assert re.search(r"sync_cluster at k\.cu:\d+: 96 of 128 threads have arrived", message)
    assert f"block (0, 0, 0):\n    threads 0-63 wait in sync_cluster at {line(source, 'cluster')}" in message
    assert f"barrier 0 (sync_block at {line(source, 'block')}): 32 of 64 threads have arrived: 32-63" in message
    assert f"threads 0-31 wait in sync_cluster at {line(source, 'some')}" in message
    assert f"threads 32-63 wait in sync_block at {line(source, 'block')}" in message


@pytest.mark.emulated
def test_the_lanes_of_a_warp_must_come_to_one_sync_cluster() -> None:
    """The instruction is aligned; other warps may come to it elsewhere."""
    body = "if (thread_index() < {}) sync_cluster(); // some\nelse sync_cluster(); // others"
    launch = {"threads": 64, "grid": (2, 1, 1), "cluster": 2}
    run(kernel(body.format(32), "unsigned* out"), {"out": words(1)}, **launch)
    source = kernel(body.format(37), "unsigned* out")
    message = fault(source, {"out": words(1)}, **launch)
    assert re.search(r"a warp has diverged: thread \d+ \(warp 1, lane \d+\) waits in sync_cluster at", message)
    assert line(source, "some") in message
    assert line(source, "others") in message


# ---- the same kernel for a GPU ----


@pytest.mark.compiled
@pytest.mark.parametrize("arch", ["sm_90a", "sm_120"])
def test_the_functions_compile_where_there_are_clusters(arch: str) -> None:
    binary = compile_source(dataclasses.replace(ring(), arch=arch), cache=None)
    assert binary.cubin.startswith(b"\x7fELF")
    assert binary.report.spills == 0


@pytest.mark.compiled
@pytest.mark.parametrize("call", ["cluster_rank()", "(sync_cluster(), 0)", "load_cluster_float4(shared_memory(), 0).x"])
def test_each_is_refused_where_there_are_none(call: str) -> None:
    source = kernel(f"out[0] = {call};", "float* out")
    compile_source(dataclasses.replace(source, arch="sm_90a"), cache=None)
    with pytest.raises(CompileError, match="sm_90"):
        compile_source(dataclasses.replace(source, arch="sm_80"), cache=None)
