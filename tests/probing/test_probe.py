"""tilesmith probe: what it writes and keeps, without a GPU, on Ctrl-C, and when a kernel fails."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from command_line import fine, refused, run

from kernelgen import paths
from kernelgen.device import gpu
from kernelgen.device.launcher import cluster_config
from kernelgen.errors import ProfileError
from kernelgen.hardware.files import LATENCIES
from kernelgen.hardware.profile import Profile, load_profile, profile_file, profile_from_device, profile_names
from kernelgen.probing import probe
from kernelgen.probing.probe import Measured, Point
from kernelgen.probing.write import check_output, merge, rounded, text_of, write
from kernelgen.program.launch import Launch

pytestmark = pytest.mark.unit

H200 = {
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
}
A100 = H200 | {
    "compute_capability_major": 8,
    "multiprocessor_count": 108,
    "max_shared_memory_per_multiprocessor": 167_936,
    "max_shared_memory_per_block_optin": 166_912,
}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An H200 that runners.measure plays, and a folder to write in."""
    become(monkeypatch, "NVIDIA H200", H200)
    monkeypatch.chdir(tmp_path)


def become(monkeypatch: pytest.MonkeyPatch, name: str, attributes: dict[str, int]) -> None:
    """Have this machine a GPU of that name."""
    capability = (attributes["compute_capability_major"], attributes["compute_capability_minor"])
    device = gpu.Device(0, name, capability, 150_000_000_000, attributes)
    monkeypatch.setattr(gpu, "why_no_gpu", lambda: None)
    monkeypatch.setattr(gpu, "device", lambda index=0: device)
    monkeypatch.setattr(gpu, "versions", lambda: ("580.1.2", (13, 0)))
    monkeypatch.setattr(probe, "compile_source", lambda source: SimpleNamespace(cubin=b""))
    monkeypatch.setattr(probe, "measure", partial(probe.measure, runner="runners:measure"))


def test_a_profile_is_measured_and_planned_with(machine: None, tmp_path: Path) -> None:
    result = run("probe")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert "wrote h200.yaml" in result.stdout
    assert "threads 256" in result.stdout
    made, known = load_profile(tmp_path / "h200.yaml"), load_profile("h200")
    assert made.assumed == ()
    assert {name: made.latency(name, *([16] * len(axes))) for name, axes in LATENCIES.items()} == dict.fromkeys(
        LATENCIES, 1000
    )
    assert made.clusters_that_fit == dict.fromkeys((2, 4, 8, 16), 7)
    assert made.sources["mma"].startswith(
        "measured on one NVIDIA H200 by tilesmith probe, driver 580.1.2, CUDA 13.0, NVRTC"
    )
    assert made.sources["clock_mhz"] == "CUDA device attributes of one NVIDIA H200, driver 580.1.2, CUDA 13.0"
    # What a probe cannot measure, with its source; and what it is called.
    assert (made.memory_bandwidth, made.sources["memory_bandwidth"]) == (
        known.memory_bandwidth,
        known.sources["memory_bandwidth"],
    )
    assert (made.name, made.title, made.devices, made.memory_bytes) == (
        "h200",
        known.title,
        known.devices,
        150_000_000_000,
    )
    assert set(yaml.safe_load((tmp_path / "h200.yaml").read_text())["sources"]) == {"datasheet", "device", "probe"}
    planned = fine("plan lstm --gpu ./h200.yaml --batch 16 --seq 64 --heads 4 --head-dim 64 --top 1 --json")
    assert json.loads(planned)[0]["model_us_per_step"] > 0


def test_only_what_is_asked_for(machine: None, tmp_path: Path) -> None:
    answer = json.loads(fine("probe --only mma --only barrier --json --name Mine -o mine.yaml"))
    assert [(point["name"], point["at"]) for point in answer["points"]][:3] == [
        ("barrier", [32]),
        ("barrier", [64]),
        ("barrier", [128]),
    ]
    mma = answer["points"][-1]
    assert (mma["name"], mma["value"], mma["known"], mma["least"], mma["runs"]) == ("mma", 1000.4, 25.0, 990.0, 3)
    assert (answer["name"], answer["file"], answer["failures"], answer["interrupted"]) == (
        "Mine",
        "mine.yaml",
        [],
        False,
    )
    made, known = load_profile(tmp_path / "mine.yaml"), load_profile("h200")
    assert (made.name, made.latency("mma"), made.latency("barrier", 64)) == ("mine", 1000, 1000)
    assert made.latencies["exchange_sums"] == known.latencies["exchange_sums"]
    assert made.sources["exchange_sums"] == known.sources["exchange_sums"]
    assert made.clusters_that_fit == known.clusters_that_fit


def test_variants_are_told_the_fastest_first(machine: None) -> None:
    answer = json.loads(fine("probe --only exchange_messages --json"))
    (point,) = (each for each in answer["points"] if each["at"] == [8, 2048])
    assert len(point["variants"]) == 3
    assert point["variant"] in point["variants"]


def test_an_unknown_gpu_without_clusters(machine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    become(monkeypatch, "NVIDIA A101", A100)
    result = run("probe")
    assert result.exit_code == 0, result.output
    assert "exchange_sums is left out: sm_80 has no thread block clusters" in result.stderr
    made = load_profile(tmp_path / "nvidia-a101.yaml")
    assert (made.arch, made.multiprocessors, made.devices) == ("sm_80", 108, ("NVIDIA A101",))
    assert {*LATENCIES} - {*made.latencies} == {"exchange_messages", "exchange_sums"}
    assert made.assumed == ()
    assert made.clusters_that_fit == {}


def test_a_failure_is_told_and_the_rest_goes_on(machine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILS", "exchange_grid (48,)")
    result = run("probe --only exchange_grid --only mma --only grid_barrier_atomic")
    assert result.exit_code == 0, result.output
    assert "exchange_grid, 48 blocks: " in result.stderr
    assert "an illegal memory access" in result.stderr
    made, known = load_profile(tmp_path / "h200.yaml"), load_profile("h200")
    assert made.latency("grid_barrier_atomic", 16) == made.latency("mma") == 1000
    assert made.latencies["exchange_grid"] == known.latencies["exchange_grid"]  # one source for all of a table


def test_ctrl_c_keeps_what_was_measured(machine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOPS", "special_function")
    result = run("probe")
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    assert "wrote h200.yaml" in result.stdout
    made = load_profile(tmp_path / "h200.yaml")
    assert (made.latency("mma_interval"), made.latency("special_function")) == (1000, 17.1)
    monkeypatch.setenv("STOPS", "shared_load")
    nothing = run("probe -o nothing.yaml")
    assert nothing.exit_code == 130
    assert "nothing was measured" in nothing.stdout
    assert not (tmp_path / "nothing.yaml").exists()


def test_what_is_refused(machine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "did you mean barrier" in refused("probe --only barier")
    assert "is a .yaml file" in refused("probe -o mine.txt")
    assert "is not a folder" in refused("probe -o there/is/none.yaml")
    assert "--name is empty" in run("probe", "--name", " ").output
    mine = tmp_path / "mine.yaml"
    mine.write_text("schema: 1\n")
    assert "is no GPU profile, so it is not replaced" in refused("probe -o mine.yaml")
    assert mine.read_text() == "schema: 1\n"
    monkeypatch.setattr(gpu, "why_no_gpu", lambda: "the NVIDIA driver sees no GPU on this machine")
    message = refused("probe")
    assert "no GPU to measure: the NVIDIA driver sees no GPU" in message
    assert "by hand" in message


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot write"):
        write(tmp_path / "none" / "mine.yaml", profile_file(load_profile("h200")))
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(ProfileError, match="it is a folder"):
        check_output(tmp_path / "folder.yaml")


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_survives_being_written(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.yaml"
    write(path, profile_file(load_profile(name)))
    assert load_profile(path) == load_profile(name)
    assert [line for line in path.read_text().splitlines() if len(line) > 400] == []


def test_the_form_is_that_of_the_profiles() -> None:
    """The H200's file and what would be written of it differ in comments, line breaks and quotes alone."""
    written = text_of(profile_file(load_profile("h200"))).splitlines()
    shipped = (paths.profiles() / "h200.yaml").read_text().splitlines()
    kept = [line for line in shipped if line and not line.lstrip().startswith("#")]
    same = [line for line in kept if line in written]
    assert len(same) >= len(kept) - 4, sorted({*kept} - {*same})


def test_a_profile_made_of_a_device_has_its_numbers() -> None:
    made = profile_from_device({**H200, "total_memory": 150_000_000_000}, "NVIDIA H300")
    file = profile_file(made)
    assert (file.name, file.latencies, file.devices) == ("nvidia-h300", {}, ["NVIDIA H300"])
    assert file.numbers["memory_bandwidth"].source == "reported by the device"


def test_a_driver_that_says_too_little_leaves_what_is_known(
    machine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(monkeypatch, "NVIDIA H200", H200 | {"clock_rate": 0, "memory_clock_rate": 0, "l2_cache_size": 0})
    assert run("probe --only mma").exit_code == 0
    made, known = load_profile(tmp_path / "h200.yaml"), load_profile("h200")
    assert (made.clock_mhz, made.l2_bytes, made.latency("mma")) == (known.clock_mhz, known.l2_bytes, 1000)


def test_names_that_yaml_would_take_for_something_else(tmp_path: Path) -> None:
    file = profile_file(load_profile("h200"))
    for name in ("no", "4090", "a: b", "#1", 'x"y', "ü", "null", "true", "1e3", "-"):
        odd = file.model_copy(update={"name": name, "title": name, "aliases": [name]})
        path = tmp_path / "odd.yaml"
        path.write_text(text_of(odd))
        assert load_profile(path).title == name


def test_half_a_table_is_written_where_there_is_none() -> None:
    points = {
        "exchange_grid": {(16,): [Point(1160.4, 1160, 1161, 11)]},
        "clusters_that_fit": {(4,): [Point(30, 30, 30, 1)]},
    }
    half = Measured(points, incomplete={"exchange_grid", "clusters_that_fit"})
    about = {"device": "the device says so", "probe": "was measured"}
    known, unknown = profile_file(load_profile("h200")), profile_file(unmeasured())
    assert merge(known, {}, half, about).latencies == known.latencies
    assert merge(known, {}, half, about).clusters_that_fit == known.clusters_that_fit
    made = merge(unknown, {"multiprocessors": 100}, half, about)
    assert made.latencies["exchange_grid"].value == {16: 1160}
    assert made.clusters_that_fit is not None
    assert made.clusters_that_fit.value == {4: 30}
    assert made.sources == about


def unmeasured() -> Profile:
    """A GPU of which nothing is measured."""
    return profile_from_device({**H200, "total_memory": 150_000_000_000}, "NVIDIA H300")


@pytest.mark.parametrize(("clocks", "written"), [(29.13, 29.1), (99.94, 99.9), (100.4, 100), (1425.6, 1426)])
def test_clocks_are_written_in_tenths_or_whole(clocks: float, written: float) -> None:
    assert rounded(clocks) == written


def test_the_driver_is_asked_about_the_launch_itself() -> None:
    driver = pytest.importorskip("cuda.bindings.driver")
    config = cluster_config(driver, Launch((16, 1, 1), 256, 232_448, 16))
    assert (config.gridDimX, config.blockDimX, config.sharedMemBytes, config.numAttrs) == (16, 256, 232_448, 1)
    assert config.attrs[0].value.clusterDim.x == 16
