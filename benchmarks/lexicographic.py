"""The fused recurrent kernel's tiling as an integer problem, solved by 28 ordered preferences.

    python benchmarks/lexicographic.py [--check | --explain]

The kernel is the kind that FlashRNN (Poeppel, Beck, Hochreiter, arXiv:2412.07752) tunes with ConstrINT: the recurrent
matrix stays on the chip for the whole sequence, spread over the multiprocessors, part of it in registers and part in
shared memory, and the blocks exchange the hidden state once a step. The formulation is this file's own: 57 variables,
61 constraints (products of up to seven variables, sums of products, divisibility) and 12 value lists.

Each shape is solved eleven times, and once by a fresh process; the time to read that problem is printed too, for with
the first problem the engine loads. --check asks CP-SAT (one worker) for the same first solution; --explain says, of
twenty shapes that no tiling fits, which constraints clash.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass

from constrint import Problem, parse_constrint


@dataclass(frozen=True)
class Limits:
    """One GPU. shared_memory: bytes per block; registers: 32-bit, per block and per thread."""

    name: str = "H100"
    multiprocessors: int = 132
    shared_memory: int = 232_448
    registers: int = 65_536
    thread_registers: int = 255
    threads: int = 1024


H100 = Limits()  # SXM; the H200 has the same limits (CUDA C++ Programming Guide, compute capability 9.0)
A100 = Limits("A100", 108, 166_912)  # compute capability 8.0
SMALL = Limits("a small GPU", 24, 101_376)  # the size of a small GPU of compute capability 8.9

SHAPES = ((12, 64), (6, 128), (3, 256), (1, 768), (1, 1024), (1, 2048), (1, 3072), (1, 4096))
"""heads, head_dim: hidden sizes 768 to 4096."""

# The matrix of one head has GATE_ROWS x HEAD_DIM elements. It is cut over blocks, the warps of a block, the loops of
# a warp and the tiles of the matrix instruction; so is the batch. Sizes are in bytes, registers in 32-bit registers.
TEXT = """
HEADS == {heads};
HEAD_DIM == {head_dim};
BATCH == {batch};
GATES == {gates};
ELEMENT == 2;
ACCUMULATOR == 4;
WARP == 32;
MULTIPROCESSORS == {gpu.multiprocessors};
THREADS_LIMIT == {gpu.threads};
REGISTERS_LIMIT == {gpu.registers};
THREAD_REGISTERS_LIMIT == {gpu.thread_registers};
SHARED_LIMIT == {gpu.shared_memory};
WORKSPACE_LIMIT == 33554432;
GATE_ROWS == GATES * HEAD_DIM;

# the shapes of the matrix instruction
TILE_GATE == [8, 16, 32];
TILE_HIDDEN == [16];
TILE_BATCH == [8, 16, 32];
TILE_GATE * TILE_BATCH == 256;

# heads side by side and one after the other; blocks of one head
HEADS == HEADS_AT_ONCE * WAVES;
BLOCKS == HEADS_AT_ONCE * BLOCKS_GATE * BLOCKS_HIDDEN * BLOCKS_BATCH;
RESIDENT == [1, 2];
BLOCKS <= MULTIPROCESSORS * RESIDENT;

# what one block covers
BLOCK_GATE == WARPS_GATE * LOOPS_GATE * TILE_GATE;
BLOCK_HIDDEN == WARPS_HIDDEN * LOOPS_HIDDEN * TILE_HIDDEN;
BLOCK_BATCH == WARPS_BATCH * LOOPS_BATCH * TILE_BATCH;
GATE_ROWS == BLOCKS_GATE * BLOCK_GATE;
HEAD_DIM == BLOCKS_HIDDEN * BLOCK_HIDDEN;
BATCH == BLOCKS_BATCH * BLOCK_BATCH;
BLOCK_GATE == GATES * BLOCK_UNITS;
VECTOR == [2, 4, 8];
BLOCK_UNITS % VECTOR == 0;
BLOCK_HIDDEN % VECTOR == 0;
GATE_ROWS % WARPS_GATE * TILE_GATE == 0;
HEAD_DIM % WARPS_HIDDEN * TILE_HIDDEN == 0;
BATCH % WARPS_BATCH * TILE_BATCH == 0;

# threads; the pointwise step spreads over all of them
WARPS == WARPS_GATE * WARPS_HIDDEN * WARPS_BATCH;
THREADS == WARP * WARPS;
THREADS <= THREADS_LIMIT;
POINTWISE == [1, 2, 4, 8, 16];
BLOCK_UNITS * BLOCK_BATCH <= POINTWISE * THREADS;
POINTWISE * THREADS <= 2 * BLOCK_UNITS * BLOCK_BATCH + 512;

# where the weights lie: loops over the hidden dimension from registers, and from shared memory
REGISTER_LOOPS == [0 .. 64];
SHARED_LOOPS == [0 .. 64];
LOOPS_HIDDEN == REGISTER_LOOPS + SHARED_LOOPS;

# registers of a thread, and of a block
REGISTERS_WEIGHTS == [0 .. 65536];
4 * WARP * REGISTERS_WEIGHTS == LOOPS_GATE * REGISTER_LOOPS * TILE_GATE * TILE_HIDDEN * ELEMENT;
4 * WARP * REGISTERS_SUMS == LOOPS_GATE * LOOPS_BATCH * TILE_GATE * TILE_BATCH * ACCUMULATOR;
4 * WARP * REGISTERS_FRAGMENTS == LOOPS_BATCH * TILE_HIDDEN * TILE_BATCH * ELEMENT + TILE_GATE * TILE_HIDDEN * ELEMENT;
REGISTERS_BASE == 40;
REGISTERS_STATES == 2 * POINTWISE;
REGISTERS_THREAD == REGISTERS_WEIGHTS + REGISTERS_SUMS + REGISTERS_FRAGMENTS + REGISTERS_STATES + REGISTERS_BASE;
REGISTERS_THREAD <= THREAD_REGISTERS_LIMIT;
REGISTERS_BLOCK == THREADS * REGISTERS_THREAD;
REGISTERS_BLOCK * RESIDENT <= REGISTERS_LIMIT;

# shared memory of a block
PADDING == [0, 8];
PREFETCH == [1, 2, 4];
ROW == BLOCK_HIDDEN + PADDING;
SHARED_WEIGHTS == [0 .. 4194304];
SHARED_WEIGHTS == WARPS_GATE * WARPS_HIDDEN * LOOPS_GATE * SHARED_LOOPS * TILE_GATE * TILE_HIDDEN * ELEMENT;
SHARED_STATE == BLOCK_BATCH * ROW * ELEMENT;
SHARED_SUMS == WARPS_HIDDEN * WARPS_GATE * LOOPS_GATE * TILE_GATE * BLOCK_BATCH * ACCUMULATOR;
SHARED_INPUT == PREFETCH * BLOCK_GATE * BLOCK_BATCH * ELEMENT;
SHARED_BIAS == BLOCK_GATE * ACCUMULATOR;
SHARED_TOTAL == SHARED_WEIGHTS + SHARED_STATE + SHARED_SUMS + SHARED_INPUT + SHARED_BIAS;
SHARED_TOTAL * RESIDENT <= SHARED_LIMIT;

# asynchronous copies move 16 bytes at a time
ROW * ELEMENT % 16 == 0;
BLOCK_GATE * ELEMENT % 16 == 0;
SHARED_WEIGHTS % 16 == 0;
SHARED_STATE % 16 == 0;
SHARED_SUMS % 16 == 0;
SHARED_INPUT % 16 == 0;

# partial sums that blocks exchange through the L2 cache
WORKSPACE == HEADS_AT_ONCE * BLOCKS_HIDDEN * GATE_ROWS * BATCH * ACCUMULATOR;
WORKSPACE <= WORKSPACE_LIMIT;
"""

PREFERENCES = (
    ("WAVES", "min"),
    ("BLOCKS_HIDDEN", "min"),
    ("WARPS_HIDDEN", "min"),
    ("SHARED_LOOPS", "min"),
    ("BLOCKS_BATCH", "min"),
    ("WARPS_BATCH", "min"),
    ("BLOCKS_GATE", "max"),
    ("WARPS_GATE", "max"),
    ("REGISTER_LOOPS", "max"),
    ("TILE_GATE", "max"),
    ("TILE_BATCH", "min"),
    ("LOOPS_BATCH", "max"),
    ("LOOPS_GATE", "min"),
    ("LOOPS_HIDDEN", "max"),
    ("VECTOR", "max"),
    ("PREFETCH", "max"),
    ("PADDING", "max"),
    ("POINTWISE", "min"),
    ("WARPS", "min"),
    ("BLOCKS", "max"),
    ("HEADS_AT_ONCE", "max"),
    ("SHARED_TOTAL", "min"),
    ("SHARED_SUMS", "min"),
    ("SHARED_STATE", "min"),
    ("SHARED_INPUT", "max"),
    ("REGISTERS_THREAD", "min"),
    ("REGISTERS_WEIGHTS", "max"),
    ("WORKSPACE", "min"),
)
"""Exchange little first, then fill the chip, then keep weights in registers."""


def fused_kernel(heads: int, head_dim: int, batch: int = 16, gates: int = 4, gpu: Limits = H100) -> Problem:
    """The tilings of a fused forward kernel with ``gates`` gates, 16-bit elements and 32-bit accumulators."""
    text = TEXT.format(heads=heads, head_dim=head_dim, batch=batch, gates=gates, gpu=gpu)
    return parse_constrint(text, f"fused kernel of {heads} x {head_dim}, {gates} gates, batch {batch}, on {gpu.name}")


def infeasible_shapes() -> list[Problem]:
    """Twenty kernels that no tiling fits: fourteen of this file's, six of tilesmith's resident schedule."""
    from kernelgen.cells import load_cell
    from kernelgen.hardware.profile import load_profile
    from kernelgen.program.shape import Shape
    from kernelgen.schedules import get

    schedule = get("resident")

    fused = [
        fused_kernel(1, 3072),
        fused_kernel(1, 4096),
        fused_kernel(1, 6144),
        fused_kernel(1, 8192),
        fused_kernel(2, 3072),
        fused_kernel(1, 1000),
        fused_kernel(7, 100),
        fused_kernel(1, 768, batch=20),
        fused_kernel(1, 2048, gpu=A100),
        fused_kernel(1, 3072, gpu=A100),
        fused_kernel(1, 1024, gpu=SMALL),
        fused_kernel(1, 2048, gpu=SMALL),
        fused_kernel(1, 4096, gates=3),
        fused_kernel(1, 2048, batch=128),
    ]
    resident = [
        schedule.problem(load_cell(cell), Shape(16, 1024, 1, head_dim), load_profile(gpu))
        for cell, head_dim, gpu in (
            ("lstm", 256, "h200"),
            ("lstm", 512, "h200"),
            ("slstm", 768, "b200"),
            ("gru", 512, "a100-80gb"),
            ("lstm", 192, "l4"),
            ("elman", 1024, "rtx4090"),
        )
    ]
    return fused + resident


def explain_all() -> None:
    """Print, for each infeasible shape, what clashes and the seconds it took to find out."""
    for problem in infeasible_shapes():
        start = time.perf_counter()
        core = problem.explain(time_limit=10)
        print(f"{problem.name}: {len(core)} constraints, {time.perf_counter() - start:.2f} s", flush=True)
        for constraint in core:
            print(f"    {constraint}")


def in_a_fresh_process(heads: int, head_dim: int) -> tuple[float, float]:
    """Milliseconds to read the problem, the first of the process, and to solve it."""
    call = [sys.executable, __file__, "--first", str(heads), str(head_dim)]
    read, solved = subprocess.run(call, check=True, capture_output=True, text=True).stdout.split()
    return float(read), float(solved)


def main() -> None:
    """Print, for each shape, the answer and the milliseconds it took."""
    if sys.argv[1:2] == ["--first"]:
        start = time.perf_counter()
        problem = fused_kernel(*map(int, sys.argv[2:]))
        print(1e3 * (time.perf_counter() - start), 1e3 * problem.solve(prefer=PREFERENCES).seconds)
        return
    if "--explain" in sys.argv[1:]:
        explain_all()
        return
    check = "--check" in sys.argv[1:]
    for heads, head_dim in SHAPES:
        read, first = in_a_fresh_process(heads, head_dim)
        problem = fused_kernel(heads, head_dim)
        results = [problem.solve(prefer=PREFERENCES) for _ in range(11)]
        result = results[0]
        times = sorted(1e3 * r.seconds for r in results)
        line = f"{heads:3d} x {head_dim:<5d} {result.status:<11s} median {times[5]:6.2f} ms, worst {times[-1]:6.2f}, "
        line += f"first of a process {first:6.2f} (read in {read:.2f})"
        if check:
            start = time.perf_counter()
            same = problem.solve(prefer=PREFERENCES, engine="cp-sat")
            agree = (same.status, same.solution) == (result.status, result.solution)
            line += f"   CP-SAT {time.perf_counter() - start:7.2f} s: {'the same' if agree else 'DIFFERENT'}"
        print(line, flush=True)
        if check and not agree:
            raise SystemExit("the two engines disagree")


if __name__ == "__main__":
    main()
