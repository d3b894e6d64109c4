"""Where the time of a step goes: stamped kernels in the emulator, whose clock goes on with every access."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import fine, refused, run

from kernelgen.cells import load_cell
from kernelgen.commands.profile import timeline
from kernelgen.device.counters import count
from kernelgen.emit.kernel import STAMPS, stamped
from kernelgen.errors import LaunchError
from kernelgen.hardware.profile import load_profile
from kernelgen.paths import cuda_headers
from kernelgen.program.shape import Shape
from kernelgen.program.tiling import Tiling
from kernelgen.records.trial import Measurement
from kernelgen.schedules import get
from kernelgen.tuning.plan import plan
from kernelgen.tuning.step_profile import (
    ORDER,
    PHASES,
    READS,
    Profiled,
    StepProfile,
    marks_of,
    model_phases,
    read_records,
    record_words,
    require_known,
)
from kernelgen.verify.cases import make_case
from kernelgen.verify.emulator import emulate
from kernelgen.verify.host_compiler import find_compiler

H200 = load_profile("h200")
CELL = load_cell("lstm")
STEPS = 6


RESIDENT = {"units_per_warp": 8, "batch_tile": 8, "k_split": 2, "k_tiles_in_registers": 1, "accumulators": 1} | {
    "num_stages": 3
}
CLUSTER = {"cluster": 4, "units_per_warp": 8, "batch_tile": 4, "k_split": 2} | {
    "k_tiles_in_registers": 1, "accumulators": 1, "num_stages": 3, "transfer_warps": 0
}  # fmt: skip
BACKWARD = {"batch_tile": 8, "k_tiles_in_registers": 3, "accumulators": 2, "num_stages": 3}
CLUSTER_BACKWARD = {"cluster": 4, "batch_tile": 4, "tiles_per_warp": 1} | {
    "k_tiles_in_registers": 1, "accumulators": 2, "num_stages": 4
}  # fmt: skip

WIDE = {"blocks": 2, "units_per_warp": 8, "batch_tile": 16, "turns": 1} | {
    "k_tiles_in_registers": 2, "k_parts": 2, "num_stages": 1
}  # fmt: skip
WIDE_BACKWARD = {
    "blocks": 2,
    "batch_tile": 32,
    "warpgroups": 1,
    "k_tiles_in_registers": 4,
    "sum_bytes": 4,
    "prepared": 1,
}


def _records(tiling: Tiling, shape: Shape, mark: int) -> Any:
    """Run a stamped recurrence; its records. Its results must be right."""
    seed = 3
    schedule = get(tiling.schedule)
    program = replace(schedule.program(CELL, shape, H200, tiling), then=())
    source, launch = stamped(program.main.source, mark), program.main.launch.at(shape)
    case = make_case(CELL, shape, seed, direction=schedule.direction)
    extents = program.extents(shape)
    outputs = case.poisoned(dict.fromkeys(program.main.source.writes), extents)
    records = np.zeros(record_words(launch.grid[0] * launch.grid[1]), np.uint32)
    given = case.values(outputs, program.names, extents)
    written = [name for name in source.writes if name == STAMPS or outputs[name] is not None]
    emulate(source, launch, {**given, STAMPS: records}, outputs=written, seed=seed)
    for name, found in outputs.items():
        if found is not None and name in case.expected:
            assert np.abs(found.astype(np.float32) - case.expected[name]).max() < 0.1
    return records


@pytest.mark.emulated
@pytest.mark.parametrize(
    ("schedule", "shape", "values", "order"),
    [
        ("resident", Shape(8, STEPS, 1, 64, "float16"), RESIDENT, "matrix transfers sums pointwise meeting"),
        (
            "cluster",
            Shape(4, STEPS, 1, 64, "float16"),
            CLUSTER,
            "transfers exchange matrix sums pointwise transfers",
        ),
        (
            "cluster",
            Shape(4, STEPS, 1, 64, "float16"),
            {**CLUSTER, "k_split": 1, "transfer_warps": 1},
            "transfers exchange matrix pointwise meeting transfers",
        ),
        ("resident_backward", Shape(6, STEPS, 1, 32), BACKWARD, "pointwise meeting matrix pointwise transfers"),
        (
            "cluster_backward",
            Shape(4, STEPS, 1, 64),
            CLUSTER_BACKWARD,
            "exchange pointwise meeting matrix pointwise transfers",
        ),
        (
            "wide",
            Shape(16, STEPS, 1, 64),
            WIDE,
            "matrix transfers exchange meeting meeting matrix meeting matrix matrix meeting pointwise exchange meeting",
        ),
        (
            "wide_backward",
            Shape(4, STEPS, 1, 64),
            WIDE_BACKWARD,
            "exchange pointwise meeting matrix transfers",
        ),
    ],
)
def test_the_marks_of_a_step_come_in_order(schedule: str, shape: Shape, values: dict[str, int], order: str) -> None:
    tiling = get(schedule).tiling(CELL, shape, H200, values)
    phases = order.split()
    records = [_records(tiling, shape, mark) for mark in range(len(phases))]
    for one, phase in zip(records, phases, strict=True):
        assert (one[:, 0] == STEPS).all()
        assert marks_of(one) == len(phases)
        assert PHASES[one[0, 2]] == phase
        assert (one[:, 3] > 0).all()
        assert (one[:, 3] <= one[:, 6]).all()
    # The emulator takes turns in another way in each binary, so that marks may pass each other.
    found = read_records(records, schedule)
    assert {*found.phases} <= {*phases}
    assert found.clocks == pytest.approx(max(float((one[:, 3] / STEPS - one[:, 4] / READS).mean()) for one in records))
    assert (found.steps, found.blocks) == (STEPS, len(records[0]))


def test_without_stamps_there_is_no_trace_of_them() -> None:
    command = find_compiler()
    headers = cuda_headers()
    for define, there in (((), False), (("-DTILESMITH_STAMPS=1",), True)):
        for name in ("resident", "cluster_forward"):
            flags = ["-std=c++20", "-E", "-P", "-DTILESMITH_EMULATE", *define, f"-I{headers}", "-x", "c++"]
            words = [*command, *flags, str(headers / f"{name}.cuh")]
            text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
            assert ("stamps" in text) is there


def test_a_stamped_kernel_differs_in_an_argument_alone() -> None:
    shape = Shape(8, 4, 1, 64, lengths=True, resets=True)
    tiling = plan(CELL, shape, H200, schedules=["cluster"], top=1)[0]
    source = get("cluster").program(CELL, shape, H200, tiling).main.source
    found = stamped(source, 2)
    assert found.arguments == (*source.arguments, "stamps")
    assert found.writes == (*source.writes, "stamps")
    assert found.text.startswith("#define TILESMITH_STAMPS 2\n")
    back = found.text.replace("#define TILESMITH_STAMPS 2\n", "").replace(",\n    unsigned* stamps", "")
    assert back.replace(", .stamps = stamps", "") == source.text


def test_phases_are_the_differences_of_marks() -> None:
    """100 steps, reading takes 10 clocks, the clock ran at 1,500 MHz. The last mark comes sooner than it should."""

    def record(phase: str, *places: int) -> Any:
        rows = [[100, 4, PHASES.index(phase), 100 * place, 160, 0, 150_000, 0, 100_000, 0, 0, 0] for place in places]
        return np.array(rows, np.uint32)

    records = [record("matrix", 60, 70), record("transfers", 90, 100), record("pointwise", 210, 210)]
    found = read_records([*records, record("meeting", 205, 205)], "resident")
    assert found.phases == {"matrix": 55, "transfers": 30, "pointwise": 115}
    assert (found.clocks, found.steps, found.blocks, found.mark) == (200, 100, 2, 10)
    assert found.clock_mhz == pytest.approx(1500)
    assert found.agrees(200 / 1500) == pytest.approx(1)
    with pytest.raises(LaunchError, match="recorded no step"):
        read_records([np.zeros((1, 12), np.uint32)], "resident")


@pytest.mark.parametrize(("schedule", "shape"), [("resident", Shape(16, 8, 2, 64)), ("cluster", Shape(16, 8, 1, 256))])
def test_the_model_s_phases_add_up_to_its_step(schedule: str, shape: Shape) -> None:
    for tiling in plan(CELL, shape, H200, schedules=[schedule])[::200]:
        phases, rest = model_phases(CELL, shape, H200, tiling)
        assert sum(phases.values()) + rest == pytest.approx(tiling.clocks_per_step)
        assert list(phases) == list(ORDER[schedule])
        assert {*phases} <= {*PHASES}


def test_a_schedule_without_marks_is_refused_by_name() -> None:
    with pytest.raises(LaunchError, match=r"no marks in the kernels of the schedule grid.*resident, cluster"):
        require_known("grid")


def test_a_profile_compares_with_a_measured_step() -> None:
    profile = StepProfile({"matrix": 90.0, "meeting": 10.0}, {}, 0.0, 1000.0, 5.0, 10, 1)
    assert replace(profile, clock_mhz=2000.0).agrees(0.05) == 1.0


# ---- the command ----

FOUND = StepProfile(
    phases={"matrix": 200.0, "transfers": 100.0, "pointwise": 60.0, "meeting": 40.0},
    model={"matrix": 150.0, "transfers": 50.0, "pointwise": 50.0, "meeting": 50.0},
    rest=60.0,
    clock_mhz=2000.0,
    mark=9.0,
    steps=84,
    blocks=2,
)


def test_a_timeline_gives_each_phase_its_length() -> None:
    measured, model = timeline(FOUND)
    assert measured == "measured |" + "m" * 36 + "t" * 18 + "p" * 11 + "m" * 7
    assert model == "model    |" + "m" * 27 + "t" * 9 + "p" * 9 + "m" * 9 + "." * 11


def test_without_the_gpu_a_profile_says_so(tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernelgen.device.gpu.why_no_gpu", lambda: "there is no NVIDIA driver on this machine")
    message = refused("profile", tuned)
    assert "a profile needs the GPU that the kernel was tuned for, h200: there is no NVIDIA driver" in message
    assert "is not named so" in refused("profile --plot x.txt", tuned)


def test_a_profile_is_shown_and_drawn(tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """4 steps in 0.0008 ms are as long as the phases say; in 0.0004 ms they are not."""
    monkeypatch.setattr("kernelgen.tuning.tune.resolve_gpu", lambda profile: (profile, (0,)))
    profiled = Profiled(FOUND, Measurement(0.0008, 0.0008, 0.0008, 9), Measurement(0.0010, 0.001, 0.001, 9), 0)
    monkeypatch.setattr("kernelgen.tuning.step_profile.profile_kernel", lambda *_: profiled)
    result = run("profile --plot", tmp_path / "step.svg", tuned)
    assert result.exit_code == 0, result.output
    assert (
        "the phases add up to 0.2000 us a step at 2,000 MHz; measured without marks: 0.2000 us (+0.0%)" in result.stdout
    )
    assert "at most 1.25 times as long" in result.stdout
    assert "note:" not in result.stderr
    assert "<svg" in (tmp_path / "step.svg").read_text()
    profiled = replace(profiled, plain=Measurement(0.0004, 0.0004, 0.0004, 9), spills=16)
    result = run("profile", tuned)
    assert "(+100.0%)" in result.stdout
    assert "differ from the measured step by more than 10%" in result.stderr
    assert "spill 16 bytes" in result.stderr
    assert json.loads(fine("profile --json", tuned))["clocks"] == FOUND.phases


NCU = """#!/bin/sh
echo 'tilesmith: valid'
echo '"ID","Process ID","Kernel Name","Metric Name","Metric Unit","Metric Value"'
echo '"0","7","tilesmith_forward","sm__cycles_elapsed.max","cycle","1,234"'
echo 'more of the program'
"""


def test_counters_are_those_of_nsight_compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ncu"
    program.write_text(NCU)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert count(tmp_path / "x.yaml") == [("sm__cycles_elapsed.max", "1,234", "cycle")]
    program.write_text("#!/bin/sh\necho '==ERROR== ERR_NVGPUCTRPERM - no permission'\nexit 1\n")
    with pytest.raises(LaunchError, match="gave no counters: ERR_NVGPUCTRPERM - no permission"):
        count(tmp_path / "x.yaml")
