"""Which microbenchmarks there are: the points of every latency, and what each runs with.

The numbers given to the structs of cuda/probes/ are here, and so are the sizes that follow from them, which every
source asserts. docs/probe.md says what each is meant to stand for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from kernelgen.hardware.files import LATENCIES
from kernelgen.hardware.profile import Profile
from kernelgen.probing.microbenchmark import Microbenchmark
from kernelgen.program.launch import Launch

UNROLLED = 32
"""Operations of a round, of what takes few clocks (cuda/probes/timing.cuh)."""

ROUNDS_OF_ONE = 500
"""Rounds of what takes few clocks."""

ROUNDS_OF_MANY = 1000
"""Rounds of what a cluster does together, and of meetings of a grid."""

ROUNDS_OF_L2 = 200
"""Rounds of what has memory of its own in every round, which must fit in L2."""

ROUNDS_OF_MEMORY = 500
"""Rounds of what has memory of its own in every round, which L2 must not hold until the next run."""

BARRIER_THREADS = (32, 64, 128, 256, 512, 1024)
MESSAGES = {2: (1024,), 4: (1024, 2048), 8: (2048, 4096), 16: (4096, 8192, 16384, 32768)}
SUMS = {4: (2048, 4096), 8: (4096,), 16: (4096, 8192)}
GRID_BLOCKS = (16, 48, 96)
BARRIER_BLOCKS = (16, 64)
"""The points of the latencies by one or two numbers; of a barrier of the grid all multiprocessors are another."""

READERS = ((4, 1), (8, 2), (8, 4), (16, 8))
"""Warps of a block that exchanges messages, and how many share the reading: the fastest of them counts."""

MOST_READ = 8
"""Chunks of 16 bytes that a lane polls for together at most: more take too many registers."""

BUSY = 2 / 3
"""Part of the multiprocessors that clusters are given to at the same time, as in a kernel of several heads."""

CLUSTERS = (2, 4, 8, 16)
"""Sizes of clusters that are counted (clusters_that_fit), and of those that exchange anything."""

Make = Callable[[Profile], Iterable[Microbenchmark]]


def microbenchmarks(profile: Profile, only: Iterable[str] = LATENCIES) -> tuple[Microbenchmark, ...]:
    """Every microbenchmark of the latencies ``only`` that the GPU can run, in the order of LATENCIES."""
    wanted = frozenset(only)
    return tuple(each for name, make in _MAKERS.items() if name in wanted for each in make(profile))


def lacking(profile: Profile, name: str) -> str:
    """Why the GPU has no microbenchmark of a latency, or no clusters to count, in words; empty where it has."""
    if name in _OF_CLUSTERS and "clusters" not in profile.features:
        return f"{profile.arch} has no thread block clusters"
    if name in ("mma", "mma_interval") and not profile.supports("m16n8k16", "bfloat16"):
        return f"{profile.arch} has no m16n8k16 for bfloat16"
    if name == "global_load" and "cp_async" not in profile.features:
        return f"{profile.arch} has no asynchronous copies"
    return ""


def clusters(profile: Profile) -> tuple[int, ...]:
    """Sizes of clusters that the GPU has."""
    return tuple(size for size in CLUSTERS if size <= profile.largest_cluster and not lacking(profile, COUNTED))


COUNTED = "clusters_that_fit"
"""What is asked of the driver rather than timed."""

_OF_CLUSTERS = frozenset({"exchange_messages", "exchange_sums", COUNTED})


def cluster_launch(profile: Profile, cluster: int) -> Microbenchmark:
    """A kernel as a cluster whose blocks each take all the shared memory that they may: to be counted, not run."""
    shared = profile.shared_memory_per_block
    launch = Launch((cluster, 1, 1), 256, shared, cluster)
    return Microbenchmark(
        COUNTED, (cluster,), "barrier", f"Barrier<256, {shared}>", launch, UNROLLED, ROUNDS_OF_ONE, {}
    )


def _one_block(
    latency: str, at: tuple[int, ...], header: str, kernel: str, threads: int, shared: int
) -> Microbenchmark:
    return Microbenchmark(latency, at, header, kernel, Launch((1, 1, 1), threads, shared), UNROLLED, ROUNDS_OF_ONE, {})


def _shared_load(_: Profile) -> Iterator[Microbenchmark]:
    yield _one_block("shared_load", (), "shared_load", "SharedLoad", 32, 8 * 32 * 4)


def _barrier(_: Profile) -> Iterator[Microbenchmark]:
    for threads in BARRIER_THREADS:
        yield _one_block("barrier", (threads,), "barrier", f"Barrier<{threads}>", threads, 0)


def _mma(profile: Profile) -> Iterator[Microbenchmark]:
    if not lacking(profile, "mma"):
        yield _one_block("mma", (), "matrix", "Matrix<1, 1>", 32, 4 * 32)


def _mma_interval(profile: Profile) -> Iterator[Microbenchmark]:
    if lacking(profile, "mma_interval"):
        return
    warps, chains = 8, 4
    launch = Launch((1, 1, 1), 32 * warps, 4 * 32 * warps)
    operations = UNROLLED * warps // 4
    kernel = f"Matrix<{warps}, {chains}>"
    yield Microbenchmark("mma_interval", (), "matrix", kernel, launch, operations, ROUNDS_OF_ONE, {})


def _special_function(_: Profile) -> Iterator[Microbenchmark]:
    yield _one_block("special_function", (), "special_function", "SpecialFunction", 32, 4 * 32)


def _global_load(profile: Profile) -> Iterator[Microbenchmark]:
    if lacking(profile, "global_load"):
        return
    blocks = profile.multiprocessors
    threads, chunk = 256, 16
    buffers = {"inputs": blocks * threads * chunk, "results": blocks * threads * chunk // 4}
    launch = Launch((blocks, 1, 1), threads, threads * chunk)
    kernel = f"GlobalLoad<{blocks}>"
    yield Microbenchmark("global_load", (), "global_load", kernel, launch, 1, ROUNDS_OF_MEMORY, buffers)


def _together(profile: Profile, cluster: int) -> int:
    """Blocks of as many clusters as keep the GPU busy."""
    return cluster * max(1, int(profile.multiprocessors * BUSY) // cluster)


def _points(profile: Profile, table: Mapping[int, tuple[int, ...]]) -> Iterator[tuple[int, int]]:
    for cluster, sizes in table.items():
        if cluster in clusters(profile):
            yield from ((cluster, size) for size in sizes)


def _exchange_messages(profile: Profile) -> Iterator[Microbenchmark]:
    slots, chunk, warp = 4, 16, 32
    for cluster, size in _points(profile, MESSAGES):
        shared = slots * size
        if shared > profile.shared_memory_per_block:
            continue
        for warps, k_split in READERS:
            polled, left = divmod(size // chunk, warp * k_split)
            if left or polled > MOST_READ or size // chunk % (cluster * warps):
                continue
            yield Microbenchmark(
                "exchange_messages",
                (cluster, size),
                "exchange_messages",
                f"ExchangeMessages<{cluster}, {size}, {warps}, {k_split}>",
                Launch((_together(profile, cluster), 1, 1), warp * warps, shared, cluster),
                1,
                ROUNDS_OF_MANY,
                {},
                variant=f"{warps} warps, {k_split} share the reading",
            )


def _exchange_sums(profile: Profile) -> Iterator[Microbenchmark]:
    slots, warps = 3, 8
    for cluster, size in _points(profile, SUMS):
        launch = Launch((_together(profile, cluster), 1, 1), 32 * warps, slots * size, cluster)
        kernel = f"ExchangeSums<{cluster}, {size}, {warps}>"
        yield Microbenchmark("exchange_sums", (cluster, size), "exchange_sums", kernel, launch, 1, ROUNDS_OF_MANY, {})


def _exchange_grid(profile: Profile) -> Iterator[Microbenchmark]:
    for blocks in GRID_BLOCKS:
        if blocks > profile.multiprocessors:
            continue
        launch = Launch((blocks, 1, 1), 384, 0, cooperative=True)
        kernel = f"ExchangeGrid<{blocks}>"
        buffers = {"mail": 12 * 1024}
        yield Microbenchmark(
            "exchange_grid", (blocks,), "exchange_grid", kernel, launch, 1, ROUNDS_OF_L2, buffers, once=1
        )


def _grid_barrier_atomic(profile: Profile) -> Iterator[Microbenchmark]:
    every = profile.multiprocessors
    for blocks in (*(blocks for blocks in BARRIER_BLOCKS if blocks < every), every):
        launch = Launch((blocks, 1, 1), 256, 0, cooperative=True)
        kernel = f"GridBarrier<{blocks}>"
        yield Microbenchmark(
            "grid_barrier_atomic", (blocks,), "grid_barrier", kernel, launch, 1, ROUNDS_OF_MANY, {"counters": 4}
        )


_MAKERS: Mapping[str, Make] = {
    "shared_load": _shared_load,
    "barrier": _barrier,
    "mma": _mma,
    "mma_interval": _mma_interval,
    "special_function": _special_function,
    "global_load": _global_load,
    "exchange_messages": _exchange_messages,
    "exchange_sums": _exchange_sums,
    "exchange_grid": _exchange_grid,
    "grid_barrier_atomic": _grid_barrier_atomic,
}
