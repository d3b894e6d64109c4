"""The microbenchmarks of cuda/probes/: they run in the emulator, and compile for every architecture."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from kernelgen.build.compile import compile_source
from kernelgen.errors import EmulationError
from kernelgen.hardware.files import LATENCIES
from kernelgen.hardware.profile import Profile, load_profile
from kernelgen.paths import cuda_headers
from kernelgen.probing.catalogue import CLUSTERS, COUNTED, READERS, cluster_launch, clusters, lacking, microbenchmarks
from kernelgen.probing.microbenchmark import Microbenchmark
from kernelgen.verify.emulator import emulate

GPUS = {"sm_80": "a100-80gb", "sm_89": "l4", "sm_90a": "h200", "sm_100a": "b200", "sm_120": "rtx5090"}


def small(multiprocessors: int = 18) -> Profile:
    """An H200 with so few multiprocessors that all of them can be emulated."""
    return load_profile("h200").model_copy(update={"multiprocessors": multiprocessors})


def first(benches: tuple[Microbenchmark, ...]) -> list[Microbenchmark]:
    """Of each latency the first point, in all variants."""
    at = {bench.latency: bench.at for bench in reversed(benches)}
    return [bench for bench in benches if bench.at == at[bench.latency]]


def emulated(bench: Microbenchmark, rounds: int, seed: int) -> int:
    """Clocks of the slowest block, in the emulator."""
    elapsed = np.zeros(bench.blocks, np.uint64)
    arrays = {name: np.zeros(bench.bytes_of(name, rounds), np.uint8) for name in bench.buffers}
    source = bench.source("sm_90a")
    arguments = {"clocks": elapsed, "rounds": rounds, **arrays}
    emulate(source, bench.launch, arguments, outputs=source.writes, seed=seed)
    return int(elapsed.max())


@pytest.mark.emulated
@pytest.mark.parametrize("latency", LATENCIES)
def test_every_microbenchmark_ends_and_takes_time(latency: str) -> None:
    """More rounds than slots; and more rounds take longer."""
    for bench in first(microbenchmarks(small(), [latency])):
        few, many = (emulated(bench, rounds, seed=rounds) for rounds in (2, 9))
        assert 0 < few < many
        assert bench.clocks(many, 9) > 0


@pytest.mark.emulated
@pytest.mark.parametrize(("warps", "k_split"), READERS)
def test_however_many_warps_share_the_reading(warps: int, k_split: int) -> None:
    benches = microbenchmarks(small(), ["exchange_messages"])
    bench = next(each for each in benches if each.variant.startswith(f"{warps} warps, {k_split} share"))
    assert emulated(bench, 6, seed=warps) > 0


@pytest.mark.emulated
@pytest.mark.parametrize(
    ("latency", "header", "old", "new", "report"),
    [
        ("exchange_messages", "exchange_messages", "sync_cluster();  // every", "// every", "poison"),
        ("exchange_messages", "exchange_messages", "slots = 4", "slots = 2", "poison"),
        ("exchange_sums", "exchange_sums", "            sync_block();\n#pragma", "#pragma", "poison"),
        ("grid_barrier_atomic", "grid_barrier", "signal_global(in.counters);", "", "deadlock"),
    ],
)
def test_a_microbenchmark_with_a_fault_is_caught(latency: str, header: str, old: str, new: str, report: str) -> None:
    """The emulator looks at what is measured, too: a microbenchmark cannot leave out what a kernel has to do."""
    bench = microbenchmarks(small(), [latency])[-1 if latency == "exchange_sums" else 0]
    text = (cuda_headers() / "probes" / f"{header}.cuh").read_text()
    assert old in text
    include = f'#include "probes/{header}.cuh"\n'
    changed = re.sub(r"^#pragma once", "", text.replace(old, new, 1), flags=re.MULTILINE)
    source = bench.source("sm_90a")
    source = replace(source, text=source.text.replace(include, changed).replace("Probe::shared_bytes ==", "0 <="))
    elapsed = np.zeros(bench.blocks, np.uint64)
    arguments = {"clocks": elapsed, "rounds": 9, **{name: np.zeros(n, np.uint8) for name, n in bench.buffers.items()}}
    with pytest.raises(EmulationError, match=report):
        emulate(source, bench.launch, arguments, outputs=source.writes)


@pytest.mark.compiled
@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)
def test_every_microbenchmark_compiles_into_registers(gpu: str) -> None:
    """The last point of each, which takes the most registers; on one GPU the first, too."""
    profile = load_profile(gpu)
    benches = microbenchmarks(profile)
    ends = {bench.latency: bench for bench in benches}
    starts = {bench.latency: bench for bench in reversed(benches)} if gpu == "h200" else {}
    counted = [cluster_launch(profile, size) for size in clusters(profile)[-1:]]
    for bench in [*starts.values(), *ends.values(), *counted]:
        report = compile_source(bench.source(profile.arch)).report
        assert report.local_memory == 0, bench
        assert report.static_shared_memory == 0, bench
        assert profile.occupancy(bench.launch.block, report.registers, bench.launch.shared_memory) >= 1, bench


@pytest.mark.unit
@pytest.mark.parametrize("gpu", [*GPUS.values(), "t4"])
def test_a_gpu_has_what_it_can_run(gpu: str) -> None:
    profile = load_profile(gpu)
    measured = {bench.latency for bench in microbenchmarks(profile)}
    assert measured == {name for name in LATENCIES if not lacking(profile, name)}
    assert ("exchange_sums" in measured) == ("clusters" in profile.features) == (not lacking(profile, COUNTED))
    assert clusters(profile) == tuple(size for size in CLUSTERS if size <= profile.largest_cluster > 1)
    for bench in microbenchmarks(profile):
        blocks, launch = bench.blocks, bench.launch
        assert blocks % launch.cluster == 0
        assert launch.cluster <= profile.largest_cluster
        assert launch.shared_memory <= profile.shared_memory_per_block
        assert not launch.cooperative or blocks <= profile.multiprocessors


@pytest.mark.unit
def test_the_points_are_those_of_the_h200s_profile() -> None:
    """What is measured takes the place of what is there, point for point."""
    h200 = load_profile("h200")
    measured: dict[str, set[tuple[int, ...]]] = {}
    for bench in microbenchmarks(h200):
        measured.setdefault(bench.latency, set()).add(bench.at)
    for name, table in h200.latencies.items():
        if not isinstance(table, dict):
            places: set[tuple[int, ...]] = {()}
        elif isinstance(next(iter(table.values())), dict):
            places = {(outer, inner) for outer, row in table.items() if isinstance(row, dict) for inner in row}
        else:
            places = {(key,) for key in table}
        assert measured[name] == places, name
    assert {*clusters(h200)} >= {*h200.clusters_that_fit}
