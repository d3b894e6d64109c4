"""Profiles: their numbers, the occupancy rule, latencies and what happens to a profile that is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from kernelgen import paths
from kernelgen.errors import ProfileError
from kernelgen.hardware.doubts import doubts
from kernelgen.hardware.profile import (
    LATENCIES,
    Profile,
    load_profile,
    match_device,
    profile_from_device,
    profile_names,
)

pytestmark = pytest.mark.unit

NAMES = [
    "a10",
    "a100-40gb",
    "a100-80gb",
    "b200",
    "b300",
    "gh200",
    "h100-pcie",
    "h100-sxm",
    "h200",
    "l4",
    "l40s",
    "rtx3090",
    "rtx4090",
    "rtx5090",
    "t4",
]

# CUDA C++ Programming Guide 13.0, technical specifications per compute capability: shared memory per
# multiprocessor and per block, threads, warps and blocks per multiprocessor. KB are 1024 bytes.
GUIDE = {
    (7, 5): (64, 64, 1024, 32, 16),
    (8, 0): (164, 163, 2048, 64, 32),
    (8, 6): (100, 99, 1536, 48, 16),
    (8, 9): (100, 99, 1536, 48, 24),
    (9, 0): (228, 227, 2048, 64, 32),
    (10, 0): (228, 227, 2048, 64, 32),
    (10, 3): (228, 227, 2048, 64, 32),
    (12, 0): (100, 99, 1536, 48, 24),
}

# Peak TFLOPS of the data sheets: float16 with float32 accumulators, dense.
PEAKS = {
    "t4": 65,
    "a100-40gb": 312,
    "a100-80gb": 312,
    "a10": 125,
    "rtx3090": 71,
    "l4": 121,
    "l40s": 362,
    "rtx4090": 165.2,
    "rtx5090": 209.5,
}

# Blocks per multiprocessor for (threads, registers, shared memory), computed by cuda_occupancy.h of CUDA 13.0.
BLOCKS = [
    (32, 32, 0),
    (128, 64, 16384),
    (256, 255, 0),
    (96, 40, 4096),
    (160, 96, 33000),
    (1024, 64, 0),
    (1024, 65, 0),
    (512, 128, 49152),
    (576, 72, 20000),
    (33, 17, 1),
    (128, 168, 101376),
    (384, 80, 31000),
]
OCCUPANCY = {
    "t4": [16, 4, 1, 10, 1, 1, 0, 1, 1, 16, 0, 2],
    "a100-80gb": [32, 8, 1, 16, 4, 1, 0, 1, 1, 32, 1, 2],
    "a10": [16, 5, 1, 16, 3, 1, 0, 1, 1, 16, 1, 2],
    "l4": [24, 5, 1, 16, 3, 1, 0, 1, 1, 24, 1, 2],
    "h200": [32, 8, 1, 16, 4, 1, 0, 1, 1, 32, 2, 2],
    "b200": [32, 8, 1, 16, 4, 1, 0, 1, 1, 32, 2, 2],
    "rtx5090": [24, 5, 1, 16, 3, 1, 0, 1, 1, 24, 1, 2],
}

H200_ATTRIBUTES = {
    "compute_capability_major": 9,
    "compute_capability_minor": 0,
    "multiprocessor_count": 132,
    "clock_rate": 1_980_000,
    "memory_clock_rate": 3_201_000,
    "global_memory_bus_width": 6144,
    "l2_cache_size": 62_914_560,
    "max_registers_per_multiprocessor": 65536,
    "max_shared_memory_per_multiprocessor": 233_472,
    "max_shared_memory_per_block_optin": 232_448,
    "reserved_shared_memory_per_block": 1024,
    "max_threads_per_block": 1024,
    "max_threads_per_multiprocessor": 2048,
    "max_blocks_per_multiprocessor": 32,
    "total_memory": 150_000_000_000,
}

MINE = """\
name: mine
title: A GPU of one's own
arch: sm_89
numbers:
  multiprocessors: {value: 20, source: its data sheet}
  clock_mhz: {value: 2000, source: its data sheet}
  memory_bytes: {value: 8_000_000_000, source: its data sheet}
  memory_bandwidth: {value: 200_000_000_000, source: its data sheet}
latencies:
  barrier: {value: {64: 20, 128: 30}, source: measured}
"""


AMD = ["mi300x"]
"""Profiles of AMD's, for which Triton's kernels are compiled."""


def test_every_profile_is_there() -> None:
    assert profile_names() == sorted([*NAMES, *AMD])


def test_what_is_known_of_amd() -> None:
    profile = load_profile("mi300x")
    assert (profile.arch, profile.compute_capability) == ("gfx942", (9, 4))
    assert (profile.multiprocessors, profile.threads_per_sm) == (304, 2048)
    assert (profile.shared_memory_per_block, profile.registers_per_thread) == (64 * 1024, 512)
    assert profile.assumed == tuple(profile.latencies)
    assert not profile.supports("m16n8k16", "bfloat16")


def test_an_architecture_of_amd_must_have_its_section(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(MINE.replace("sm_89", "gfx90a"))
    with pytest.raises(ProfileError, match="gfx90a is no architecture that"):
        load_profile(file)
    file.write_text(MINE.replace("sm_89", "sm_103"))  # newer than any of its kind: not AMD's, whatever its number
    assert "m16n8k16" in load_profile(file).matrix_instructions


@pytest.mark.parametrize("name", NAMES)
def test_limits_are_those_of_the_compute_capability(name: str) -> None:
    profile = load_profile(name)
    shared, block, threads, warps, blocks = GUIDE[profile.compute_capability]
    assert profile.shared_memory_per_sm == shared * 1024
    assert profile.shared_memory_per_block == block * 1024
    assert profile.shared_memory_reserved == (shared - block) * 1024
    assert (profile.threads_per_sm, profile.warps_per_sm, profile.blocks_per_sm) == (threads, warps, blocks)
    assert (profile.registers_per_sm, profile.registers_per_thread) == (65536, 255)
    assert profile.threads_per_block == 1024
    assert (profile.largest_cluster > 1) == (profile.compute_capability >= (9, 0)) == ("clusters" in profile.features)
    assert profile.arch.removeprefix("sm_").rstrip("a") == "{}{}".format(*profile.compute_capability)


@pytest.mark.parametrize("name", [*NAMES, *AMD])
def test_every_number_says_where_it_comes_from(name: str) -> None:
    profile = load_profile(name)
    stated = {field for field, info in Profile.model_fields.items() if info.annotation is int} | {*profile.latencies}
    assert stated <= profile.sources.keys()
    # A key that no `sources` entry explains would stay a single word.
    assert [field for field, source in profile.sources.items() if " " not in source] == []


def test_no_source_is_listed_in_vain() -> None:
    for path in paths.profiles().glob("*.yaml"):
        text = path.read_text()
        for key in yaml.safe_load(text)["sources"]:
            assert f"source: {key}" in text, f"{path.name}: nothing comes from {key}"


@pytest.mark.parametrize("name", PEAKS)
def test_mma_interval_follows_from_the_peak(name: str) -> None:
    profile = load_profile(name)
    per_second = PEAKS[name] * 1e12 / 2
    expected = 16 * 8 * 16 * profile.multiprocessors * 4 * profile.clock_mhz * 1e6 / per_second
    assert profile.latency("mma_interval") == pytest.approx(expected, rel=0.02)
    assert profile.latency("mma") >= profile.latency("mma_interval")


def test_h200_is_measured_throughout() -> None:
    h200 = load_profile("h200")
    assert h200.assumed == ()
    assert h200.latencies.keys() == LATENCIES.keys()
    assert (h200.latency("mma"), h200.latency("mma_interval")) == (25, 6.2)
    assert [h200.latency("barrier", threads) for threads in (128, 256, 512, 1024)] == [21, 29, 45, 77]
    assert h200.latency("exchange_messages", 8, 4096) == 564
    assert h200.latency("exchange_grid", 48) == 1216
    assert h200.clusters_that_fit == {4: 30, 8: 15, 16: 7}


def test_hopper_defaults_are_the_h200s() -> None:
    h200, h100 = load_profile("h200"), load_profile("h100")
    assert h100.latencies == h200.latencies
    assert h100.assumed == tuple(h100.latencies)
    assert h100.sources["mma"].startswith("assumed: default of sm_90a")
    assert h100.clusters_that_fit == {}


def test_an_older_gpu_names_what_stands_in() -> None:
    l4 = load_profile("l4")
    assert "mma_interval" not in l4.assumed
    assert {"barrier", "mma", "shared_load"} <= set(l4.assumed)
    assert "sm_90a, which stands in for sm_89" in l4.sources["barrier"]
    assert "sm_86, which stands in for sm_89" in l4.sources["shared_load"]


def test_t4_has_neither_bfloat16_nor_asynchronous_copies() -> None:
    t4 = load_profile("t4")
    assert t4.supports("m16n8k8", "float16")
    assert not t4.supports("m16n8k8", "bfloat16")
    assert not t4.supports("m16n8k16", "float16")
    assert "cp_async" not in t4.features
    assert all(load_profile(name).supports("m16n8k16", "bfloat16") for name in NAMES if name != "t4")


def test_latency_interpolates_and_extends() -> None:
    h200 = load_profile("h200")
    assert h200.latency("barrier", 16) == 15
    assert h200.latency("barrier", 384) == 37
    assert h200.latency("barrier", 2048) == 77 + 2 * 32
    assert h200.latency("exchange_messages", 4, 1536) == (422 + 547) / 2
    assert h200.latency("exchange_sums", 6, 4096) == (678 + 765) / 2


@given(st.integers(32, 1024), st.integers(32, 1024))
def test_barrier_never_falls_with_more_threads(one: int, other: int) -> None:
    h200 = load_profile("h200")
    low, high = sorted((one, other))
    assert 15 <= h200.latency("barrier", low) <= h200.latency("barrier", high) <= 77


@pytest.mark.parametrize(
    ("gpu", "question", "answer"),
    [
        ("h200", ("mna",), "did you mean mma"),
        ("h200", ("barrier",), "takes 1 coordinates \\(threads\\), not 0"),
        ("t4", ("exchange_sums", 4, 128), "t4 has no latency 'exchange_sums': it has no clusters"),
    ],
)
def test_latency_refuses(gpu: str, question: tuple[str, int], answer: str) -> None:
    with pytest.raises(ProfileError, match=answer):
        load_profile(gpu).latency(*question)


@pytest.mark.parametrize("name", OCCUPANCY)
def test_occupancy_is_the_calculators(name: str) -> None:
    profile = load_profile(name)
    assert [profile.occupancy(*block) for block in BLOCKS] == OCCUPANCY[name]


@given(st.sampled_from(NAMES), st.integers(1, 1100), st.integers(0, 260), st.integers(0, 240_000))
def test_occupancy_keeps_every_limit_and_wastes_none(name: str, threads: int, registers: int, shared: int) -> None:
    gpu = load_profile(name)
    blocks = gpu.occupancy(threads, registers, shared)
    fits = threads <= 1024 and registers <= 255 and shared <= gpu.shared_memory_per_block

    def resident(count: int) -> bool:
        warps = count * -(-threads // 32)
        rows = -(-warps // 4)  # warps on the fullest sub-partition, with a quarter of the registers
        unit = gpu.shared_memory_allocation_unit
        return (
            count <= gpu.blocks_per_sm
            and warps <= gpu.warps_per_sm
            and rows * (-(-registers * 32 // 256) * 256) <= gpu.registers_per_sm // 4
            and count * (-(-(shared + gpu.shared_memory_reserved) // unit) * unit) <= gpu.shared_memory_per_sm
        )

    assert blocks == (max((n for n in range(33) if resident(n)), default=0) if fits else 0)


def test_occupancy_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="no block has 0 threads"):
        load_profile("h200").occupancy(0, 32, 0)


def test_registers_are_allocated_per_warp_in_units() -> None:
    h200 = load_profile("h200")
    assert [h200.registers_allocated(count) for count in (1, 8, 9, 96, 97, 255)] == [256, 256, 512, 3072, 3328, 8192]


@pytest.mark.parametrize(
    ("asked", "name"),
    [("H200", "h200"), ("h100", "h100-sxm"), ("a100", "a100-80gb"), ("NVIDIA A100-SXM4-40GB", "a100-40gb")],
)
def test_names_aliases_and_device_names(asked: str, name: str) -> None:
    assert load_profile(asked).name == name


def test_names_are_unambiguous() -> None:
    profiles = [load_profile(name) for name in NAMES]
    every = [called.lower() for gpu in profiles for called in (gpu.name, *gpu.aliases, *gpu.devices)]
    assert len(every) == len(set(every))
    assert [gpu.name for gpu in profiles] == NAMES


def test_an_unknown_name_gets_the_near_ones() -> None:
    with pytest.raises(ProfileError, match=r"unknown GPU 'h20'; did you mean h200"):
        load_profile("h20")


def test_a_profile_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_profile("h200").multiprocessors = 1  # type: ignore[misc]


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(MINE)
    mine = load_profile(str(path))
    assert (mine.name, mine.multiprocessors, mine.blocks_per_sm, mine.l2_bytes) == ("mine", 20, 24, None)
    assert mine.latency("barrier", 96) == 25
    assert "barrier" not in mine.assumed
    assert mine == load_profile(path)


def test_the_example_of_the_documentation_loads(tmp_path: Path) -> None:
    document = (Path(__file__).parents[2] / "docs" / "profiles.md").read_text()
    path = tmp_path / "rtx4070.yaml"
    path.write_text(document.split("```yaml\n")[1].split("```")[0])
    assert load_profile(path).latency("barrier", 192) == 25
    for name in LATENCIES:
        assert f"`{name}`" in document


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("value: 20,", "value: many,", r"line 5: numbers.multiprocessors.value: .*not 'many'"),
        ("value: 20,", "value: -20,", r"line 5: numbers.multiprocessors.value: .*not -20"),
        ("value: 20,", "value: 2.5,", r"line 5: numbers.multiprocessors.value: .*not 2.5"),
        ("value: 20,", "value: 0,", r"multiprocessors: .*greater than 0"),
        ("value: 20, source: its data sheet", "value: 20", r"line 5: numbers.multiprocessors.source: is missing"),
        ("clock_mhz:", "clock_mhx:", r"line 6: numbers.clock_mhx: unknown name; did you mean clock_mhz"),
        ("clock_mhz:", "multiprocessors:", r"line 6: numbers.multiprocessors is already on line 5"),
        ("title:", "titel:", r"title: is missing"),
        ("arch: sm_89", "arch: ada", r"line 3: arch: should be a compile target, such as sm_90a or gfx942, not 'ada'"),
        ("{value: 20, source: its data sheet}", "20", r"multiprocessors: should be {value: ..., source: ...}, not 20"),
        ("title:", "owner: me\ntitle:", r"line 2: owner: is no field of this form"),
        ("arch: sm_89", "arch: sm_70", r"sm_70 is too old"),
        ("  barrier:", "  barier:", r"line 10: latencies.barier: unknown name; did you mean barrier"),
        ("{64: 20, 128: 30}", "25", r"latency barrier must be clocks by threads"),
        ("{64: 20, 128: 30}", "{}", r"line 10: latencies.barrier.value"),
        ("{64: 20, 128: 30}", "{64: -1}", r"line 10: latencies.barrier.value"),
        ("{64: 20, 128: 30}", "{64: 20", r"line 11: not YAML"),
        ("  clock_mhz: {value: 2000, source: its data sheet}\n", "", r"clock_mhz: is missing"),
        ("numbers:", "numbers: &n\n  again: *n", r"line 4: not YAML: what this anchor names holds itself"),
        (MINE, "", r"is no GPU profile"),
        (MINE, "- a\n- list\n", r"is no GPU profile"),
        (MINE, "schema: 1\ncell: lstm\n", r"name: is missing"),
        ("latencies:", "  shared_memory_per_block: {value: 200_000, source: a slip}\nlatencies:", r"exceeds"),
        ("latencies:", "  warps_per_sm: {value: 40, source: a slip}\nlatencies:", r"40 warps are not 1536 threads"),
    ],
)
def test_a_wrong_file_is_named_with_its_line_and_field(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in MINE
    path = tmp_path / "mine.yaml"
    path.write_text(MINE.replace(old, new))
    with pytest.raises(ProfileError, match=message) as caught:
        load_profile(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_of_a_profile_is_a_guess_is_said(tmp_path: Path) -> None:
    assert doubts(load_profile("h200")) == []
    (assumed,) = doubts(load_profile("a100"))
    assert "7 of 8 latencies were not measured on a100-80gb" in assumed
    path = tmp_path / "mine.yaml"
    path.write_text(MINE.replace("arch: sm_89", "arch: sm_98"))
    unknown = doubts(load_profile(path))[0]
    assert unknown == "nothing is known of sm_98, the target of mine: the limits are those of sm_90a"


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="No such file"):
        load_profile("no/such/file.yaml")
    with pytest.raises(ProfileError, match="Is a directory"):
        load_profile(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ProfileError, match="no UTF-8"):
        load_profile(tmp_path / "binary.yaml")


def test_a_running_gpu_finds_its_profile() -> None:
    assert match_device("NVIDIA H200", (9, 0), 132) is load_profile("h200")
    part = match_device("NVIDIA H200", (9, 0), 60)
    assert (part.name, part.multiprocessors, part.clusters_that_fit) == ("h200", 60, {})
    assert part.sources["multiprocessors"] == "reported by the device"
    assert load_profile("h200").multiprocessors == 132


def test_an_unknown_running_gpu_is_described_by_its_attributes() -> None:
    made = match_device("NVIDIA H300", (9, 0), 132, H200_ATTRIBUTES)
    h200 = load_profile("h200")
    assert (made.name, made.title, made.arch) == ("nvidia-h300", "NVIDIA H300", "sm_90a")
    differing = {"name", "title", "devices", "memory_bytes", "memory_bandwidth", "clusters_that_fit"}
    differing |= {"sources", "assumed"}
    assert made.model_dump(exclude=differing) == h200.model_dump(exclude=differing)
    assert made.memory_bandwidth == pytest.approx(4.9e12, rel=0.01)
    assert made.assumed == tuple(made.latencies)
    with pytest.raises(ProfileError, match=r"no profile for 'NVIDIA H300' \(compute capability 9.0, 132"):
        match_device("NVIDIA H300", (9, 0), 132)


@pytest.mark.parametrize(
    ("capability", "arch", "instruction"),
    [((8, 7), "sm_87", "cp_async"), ((11, 0), "sm_110", "tcgen05"), ((12, 1), "sm_121", "bulk_copy")],
)
def test_a_compute_capability_without_a_section_takes_the_nearest(
    capability: tuple[int, int], arch: str, instruction: str
) -> None:
    major, minor = capability
    attributes = {**H200_ATTRIBUTES, "compute_capability_major": major, "compute_capability_minor": minor}
    made = profile_from_device(attributes, "NVIDIA Something")
    assert (made.arch, made.compute_capability) == (arch, capability)
    assert instruction in made.features


def test_a_device_that_says_too_little_or_is_too_old() -> None:
    with pytest.raises(ProfileError, match="reports no memory_clock_rate, total_memory; write a profile"):
        profile_from_device({**H200_ATTRIBUTES, "memory_clock_rate": 0, "total_memory": 0}, "NVIDIA H300")
    with pytest.raises(ProfileError, match="sm_70 is too old"):
        profile_from_device({**H200_ATTRIBUTES, "compute_capability_major": 7}, "Tesla V100")


def test_loading_a_profile_imports_nothing_heavy() -> None:
    code = (
        "import sys; from kernelgen.hardware.profile import load_profile; load_profile('h200');"
        "print(sorted({'cuda', 'numpy', 'ortools', 'sympy', 'torch'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
