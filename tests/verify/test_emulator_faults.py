"""The emulator on small hand-written kernels with a fault: what barriers and copies order, and what is refused."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulator_kernels import EXCHANGE, exchange, fault, kernel, line, run, words
from numpy.typing import NDArray

from kernelgen.errors import EmulationError
from kernelgen.program.launch import Launch
from kernelgen.verify.emulator import emulate

pytestmark = pytest.mark.emulated

# ---- barriers and the order they give ----

PAIR = """
    const unsigned lane = thread_index() % 32;
    if (thread_index() < 32) {
        store_shared_32(shared_memory() + 4 * lane, 7 * lane); // produce
        arrive_named(3, 64); // arrive
    } else {
        sync_named(3, 64); // sync
        store_global_32(out + lane, load_shared_16(shared_memory() + 4 * (31 - lane))); // consume
    }
"""


@pytest.mark.parametrize("seed", range(3))
def test_arriving_at_a_named_barrier_publishes_to_those_who_wait(seed: int) -> None:
    out = words(32)
    run(kernel(PAIR, "unsigned* out"), {"out": out}, threads=64, shared=128, seed=seed)
    assert np.array_equal(out, 7 * np.arange(31, -1, -1))


def test_arriving_does_not_publish_what_comes_after() -> None:
    moved = PAIR.replace("arrive_named(3, 64); // arrive", "", 1).replace(
        "store_shared_32(", "arrive_named(3, 64); store_shared_32(", 1
    )
    for seed in range(4):
        message = fault(kernel(moved, "unsigned* out"), {"out": words(32)}, threads=64, shared=128, seed=seed)
        assert "race on shared memory" in message or "which nobody has written" in message


def test_a_barrier_met_with_two_counts_is_refused() -> None:
    source = kernel(PAIR.replace("sync_named(3, 64)", "sync_named(3, 32)"), "unsigned* out")
    message = fault(source, {"out": words(32)}, threads=64, shared=128)
    assert "barrier 3 is met with two thread counts" in message
    assert line(source, "arrive") in message
    assert line(source, "sync") in message


@pytest.mark.parametrize(
    ("call", "words_of_it"),
    [
        ("sync_named(0, 64)", "a named barrier is one of 1 to 15, not 0"),
        ("sync_named(16, 64)", "a named barrier is one of 1 to 15, not 16"),
        ("arrive_named(1, 48)", "barrier 1 cannot be met by 48 threads"),
        ("sync_named(1, 96)", "barrier 1 cannot be met by 96 threads: whole warps of a block of 64"),
        ("arrive_named(1, 64); arrive_named(1, 64)", "arrives twice at barrier 1"),
    ],
)
def test_wrong_use_of_a_named_barrier(call: str, words_of_it: str) -> None:
    assert words_of_it in fault(
        kernel(f"if (thread_index() < 32) {{ {call}; }}", "unsigned* out"), {"out": words(1)}, threads=64
    )


WARP = """
    const unsigned lane = thread_index();
    store_shared_32(shared_memory() + 4 * lane, lane); // store
    ORDER
    store_global_32(out + lane, load_shared_16(shared_memory() + 4 * (lane ^ 1))); // load
"""


def test_sync_warp_orders_memory_within_a_warp() -> None:
    out = words(32)
    run(kernel(WARP.replace("ORDER", "sync_warp();"), "unsigned* out"), {"out": out}, shared=128)
    assert np.array_equal(out, np.arange(32) ^ 1)


def test_other_collectives_order_nothing() -> None:
    source = kernel(WARP.replace("ORDER", "movmatrix_trans(lane);"), "unsigned* out")
    for seed in range(3):
        message = fault(source, {"out": words(32)}, shared=128, seed=seed)
        assert "race on shared memory" in message
        assert "a sync_warp() (or a wider barrier) is missing" in message
        assert line(source, "store") in message
        assert line(source, "load") in message


# ---- asynchronous copies ----

COPY = """
    const unsigned t = thread_index();
    const SharedAddress at = shared_memory() + 16 * t;
    cp_async<16>(at, in + 8 * t); // first
    cp_async_commit();
    cp_async<8>(at + 512, in + 8 * t); // second
    cp_async_commit();
    cp_async_wait<1>();
    store_global_16(out + t, load_shared_16(at + 2)); // early
    cp_async_wait<0>();
    store_global_16(out + 32 + t, load_shared_16(at + 512 + 4)); // late
"""
COPY_PARAMETERS = "const unsigned short* in, unsigned short* out"


def copy_arguments() -> dict[str, NDArray[Any] | int | None]:
    return {"in": np.arange(256, dtype=np.uint16), "out": np.zeros(64, np.uint16)}


@pytest.mark.parametrize("seed", range(3))
def test_copies_land_by_groups(seed: int) -> None:
    arguments = copy_arguments()
    run(kernel(COPY, COPY_PARAMETERS), arguments, shared=1024, seed=seed)
    assert np.array_equal(arguments["out"], np.concatenate([8 * np.arange(32) + 1, 8 * np.arange(32) + 2]))


@pytest.mark.parametrize(
    ("old", "new", "copy", "use"),
    [
        ("cp_async_wait<1>();", "", "first", "early"),
        ("cp_async_wait<1>();", "cp_async_wait<2>();", "first", "early"),
        ("cp_async_wait<0>();", "", "second", "late"),
        ("cp_async_wait<0>();", "cp_async_wait<1>();", "second", "late"),
        ("    cp_async_commit();\n    cp_async_wait<1>();", "    cp_async_wait<0>();", "second", "late"),
    ],
)
def test_a_copy_that_is_not_waited_for(old: str, new: str, copy: str, use: str) -> None:
    assert old in COPY
    source = kernel(COPY.replace(old, new, 1), COPY_PARAMETERS)
    for seed in range(3):
        message = fault(source, copy_arguments(), shared=1024, seed=seed)
        assert "a cp_async to it may still be under way" in message
        assert "a cp_async_wait that covers the copy is missing" in message
        assert line(source, copy) in message
        assert line(source, use) in message


def test_waiting_publishes_a_copy_to_the_waiting_thread_alone() -> None:
    body = COPY.replace("load_shared_16(at + 2)", "load_shared_16((at ^ 16) + 2)")
    for seed in range(3):
        message = fault(kernel(body, COPY_PARAMETERS), copy_arguments(), shared=1024, seed=seed)
        assert "race on shared memory" in message or "which nobody has written" in message
        assert "barrier" in message
    body = body.replace("cp_async_wait<1>();", "cp_async_wait<1>(); sync_warp();")
    run(kernel(body, COPY_PARAMETERS), copy_arguments(), shared=1024)


def test_an_empty_group_counts_and_a_copy_may_not_overtake_a_read() -> None:
    body = COPY.replace("cp_async_wait<1>();", "cp_async_commit(); cp_async_wait<2>();")
    run(kernel(body, COPY_PARAMETERS), copy_arguments(), shared=1024)
    refill = "load_shared_16(at + 2));\n    cp_async<16>(at ^ 16, in); // refill"
    source = kernel(COPY.replace("load_shared_16(at + 2)); // early", refill), COPY_PARAMETERS)
    message = fault(source, copy_arguments(), shared=1024)
    assert "race on shared memory" in message
    assert line(source, "refill") in message


# ---- faults ----


@pytest.mark.parametrize("seed", range(4))
def test_a_missing_barrier_is_named_whatever_the_order(seed: int) -> None:
    source = exchange("sync_block(); // barrier")
    message = fault(source, {"out": words(64)}, threads=64, shared=256, seed=seed)
    assert line(source, "load") in message
    if "which nobody has written" not in message:
        assert line(source, "store") in message
        assert "a sync_block() (or a named barrier that both warps take part in) is missing" in message
    assert re.search(r"thread \d+ \(warp [01], lane \d+\) of block \(0, 0, 0\)", message)


def test_a_write_that_overtakes_reads_is_a_race() -> None:
    body = EXCHANGE.replace("store_global_32", "store_shared_32(mine, 0); // overtake\n    store_global_32")
    source = kernel(body, "unsigned* out")
    for seed in range(3):
        message = fault(source, {"out": words(64)}, threads=64, shared=256, seed=seed)
        assert "race on shared memory" in message
        assert line(source, "overtake") in message


def test_a_write_after_many_readers_needs_them_all_to_have_met() -> None:
    body = """
    const unsigned t = thread_index();
    if (t == 0) store_shared_32(shared_memory(), 5);
    sync_block();
    const unsigned value = load_shared_16(shared_memory()); // read
    if (t < 64) sync_named(1, 64);
    if (t == 0) store_shared_32(shared_memory(), 6); // write
    store_global_32(out + t, value);
    """
    out = words(96)
    run(kernel(body, "unsigned* out"), {"out": out[:64]}, threads=64, shared=4)
    source = kernel(body, "unsigned* out")
    for seed in range(3):
        message = fault(source, {"out": out}, threads=96, shared=4, seed=seed)
        assert "race on shared memory" in message
        assert line(source, "read") in message
        assert line(source, "write") in message
        assert "(warp 2, lane" in message


def test_two_writers_of_one_place_race() -> None:
    source = kernel("store_shared_32(shared_memory(), 1); // both", "unsigned* out")
    message = fault(source, {"out": words(1)}, shared=4)
    assert message.count(line(source, "both")) == 2
    source = kernel("store_global_32(out, block_x()); // both", "unsigned* out")
    assert "race on 'out'" in fault(source, {"out": words(1)})


def test_blocks_may_not_write_the_same_output() -> None:
    source = kernel("if (thread_index() == 0) store_global_32(out, block_x()); // both", "unsigned* out")
    message = fault(source, {"out": words(1)}, grid=(2, 1, 1))
    assert "race on 'out': 2 bytes at offset 0 of 4" in message
    assert "another block writes at " + line(source, "both") in message


ACCESS = {
    "load_shared_16(shared_memory() + 4)": "read of shared memory: 2 bytes at offset 4 of 64, which nobody has written",
    "store_shared_32(shared_memory() + 64, 0)": "out of bounds of shared memory: 4 bytes at offset 64, but the launch "
    "gives the block 64 bytes",
    "store_shared_32(shared_memory() - 4, 0)": "out of bounds of shared memory: 4 bytes at offset -4",
    "store_shared_128(shared_memory() + 56, uint4{})": "out of bounds of shared memory: 16 bytes at offset 56",
    "store_shared_128(shared_memory() + 8, uint4{})": "misaligned access to shared memory: 16 bytes at offset 8",
    "cp_async<4>(shared_memory() + 2, in)": "misaligned access to shared memory: 4 bytes at offset 2",
    "load_global_16(in + 8)": "out of bounds of 'in': 2 bytes at offset 16, but it has 16 bytes",
    "load_global_32(in - 2)": "out of bounds of 'in': 4 bytes at offset -4",
    "cp_async<16>(shared_memory(), in + 4)": "out of bounds of 'in': 16 bytes at offset 8",
    "load_global_64(in + 2)": "misaligned access to 'in': 8 bytes at offset 4",
    "store_global_16(out + 4, 0)": "out of bounds of 'out': 2 bytes at offset 8, but it has 8 bytes",
    "store_global_64(out + 2, uint2{})": "out of bounds of 'out': 8 bytes at offset 4",
    "store_global_16(const_cast<unsigned short*>(in), 0)": "write to 'in', which is an input: 2 bytes at offset 0",
    "load_global_16(out)": "read of output 'out': 2 bytes at offset 0 of 8, which nobody has written",
    "load_global_16(none)": "access through a null pointer (address (nil); given as null: none)",
    "store_global_16(reinterpret_cast<unsigned short*>(0x123456789abcull), 0)": "which is in none of the arrays",
    "ldmatrix_x4_trans(fragments, shared_memory() + 4)": "misaligned access to shared memory: 16 bytes at offset 4",
}


@pytest.mark.parametrize("access", ACCESS)
def test_wrong_accesses_name_the_memory_the_line_and_the_thread(access: str) -> None:
    """One kernel makes each access on demand: in thread 5 alone, or in the whole warp where it takes one."""
    lines = [
        f"if (which == {i} && ({int('matrix' in a)} || thread_index() == 5)) {a}; // access {i}"
        for i, a in enumerate(ACCESS)
    ]
    parameters = "const unsigned short* in, unsigned short* out, const unsigned short* none, int which"
    source = kernel("\n".join(["unsigned fragments[4] = {};", *lines]), parameters)
    which = list(ACCESS).index(access)
    arguments = {"in": np.zeros(8, np.uint16), "out": np.zeros(4, np.uint16), "none": None, "which": which}
    message = fault(source, arguments, shared=64)
    assert ACCESS[access] in message
    assert line(source, f"access {which}") in message
    thread = r"thread \d+ \(warp 0" if "matrix" in access else r"thread 5 \(warp 0, lane 5\)"
    assert re.search(thread + r".* of block \(0, 0, 0\)", message)


def test_reading_what_the_kernel_wrote_through_the_read_only_path() -> None:
    source = kernel(
        "store_global_16(out + thread_index(), 1); // write\nload_global_16(out + thread_index());",
        "unsigned short* out",
    )
    message = fault(source, {"out": np.zeros(32, np.uint16)})
    assert "memory that does not change while the kernel runs" in message
    assert line(source, "write") in message


def test_a_diverged_warp_is_named_with_its_lanes() -> None:
    source = kernel("if (thread_index() < 5) movmatrix_trans(1); // some\nelse sync_warp(); // others", "unsigned* out")
    message = fault(source, {"out": words(1)})
    assert "a warp has diverged: warp 0, lane" in message
    assert line(source, "some") in message
    assert line(source, "others") in message
    source = kernel("if (thread_index() < 5) sync_block(); // some\nelse sync_block(); // others", "unsigned* out")
    assert "a warp has diverged" in fault(source, {"out": words(1)})


def test_deadlock_names_barriers_threads_and_lines() -> None:
    source = kernel(
        """
        const unsigned t = thread_index();
        if (t < 32) sync_named(2, 64); // named
        else if (t < 64) sync_block(); // all
        else if (t != 70) movmatrix_trans(1); // lanes
        """,
        "unsigned* out",
    )
    message = fault(source, {"out": words(1)}, threads=96)
    assert "deadlock: no thread can run" in message
    assert f"barrier 2 (sync_named at {line(source, 'named')}): 32 of 64 threads have arrived: 0-31" in message
    assert f"barrier 0 (sync_block at {line(source, 'all')}): 32 of 96 threads have arrived: 32-63" in message
    assert "warp 2: movmatrix_trans needs all 32 lanes; missing: 6" in message
    assert f"threads 64-69, 71-95 wait in movmatrix_trans at {line(source, 'lanes')}" in message
    assert "thread 70 has finished" in message


@pytest.mark.parametrize(
    ("body", "words_of_it"),
    [
        ("if (thread_index() == 3) *reinterpret_cast<volatile int*>(16) = 1;", "direct access to 0x10"),
        ("store_global_32(out, 7 / zero);", "integer division by zero"),
        (
            "volatile char big[200000]; for (int i = 199999; i >= 0; --i) big[i] = 1; store_global_32(out, big[zero]);",
            "stack overflow",
        ),
    ],
)
def test_traps_become_reports_and_python_lives(body: str, words_of_it: str) -> None:
    message = fault(kernel(body, "unsigned* out, int zero"), {"out": words(1), "zero": 0})
    assert words_of_it in message
    assert "of block (0, 0, 0)" in message


ENDLESS = "while (true) load_global_16(in); // loop"


def test_a_loop_without_end_is_stopped() -> None:
    source = kernel(ENDLESS, "const unsigned short* in")
    with pytest.raises(
        EmulationError, match=r"still running after 0\.2 s.*\n.*memory access at " + line(source, "loop")
    ):
        emulate(source, Launch((1, 1, 1), 32, 0), {"in": np.zeros(1, np.uint16)}, seconds=0.2)


def test_an_interrupt_stops_the_run_and_reaches_python() -> None:
    script = f"""
import numpy, os, signal, threading
from emulator_kernels import kernel
from kernelgen.verify.emulator import emulate
from kernelgen.program.launch import Launch
from kernelgen.errors import EmulationError
source = kernel({ENDLESS!r}, "const unsigned short* in")
def run(seconds):
    emulate(source, Launch((1, 1, 1), 32, 0), {{"in": numpy.zeros(1, numpy.uint16)}}, seconds=seconds)
try:
    run(0.01)
except EmulationError:
    print("compiled")
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    run(60)
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.stdout == "compiled\ninterrupted\n", done.stderr


def test_outputs_stay_as_they_were_after_a_fault_and_unwritten_ones_become_nan() -> None:
    source = kernel(
        "if (thread_index() == 0) store_global_16(out + 1, 0); if (bad) load_global_16(out);",
        "unsigned short* out, int bad",
    )
    out = np.full(3, 5.0, np.float16)
    fault(source, {"out": out, "bad": 1})
    assert out.tolist() == [5.0, 5.0, 5.0]
    run(source, {"out": out, "bad": 0})
    assert out[1] == 0
    assert np.isnan(out[[0, 2]]).all()
