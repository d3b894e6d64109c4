"""What the benchmarks that need a GPU decide before they touch one."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from dataclasses import asdict, replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from scripts import load_benchmark

from kernelgen.cells import load_cell
from kernelgen.hardware.profile import load_profile
from kernelgen.program.shape import Shape
from kernelgen.schedules.shared.model import load_model
from kernelgen.schedules.shared.parameter_gradients import ParameterGradients, load_clocks
from kernelgen.tuning.plan import plan

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("cell", ["lstm", "gru", "lstm_niaf"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_the_sanitizer_gets_kernels_of_every_kind(cell: str, direction: str) -> None:
    sanitizer, profile = load_benchmark("sanitizer"), load_profile("h200")
    found = {}
    for shape in sanitizer.SHAPES[direction]:
        sources = list(sanitizer._programs(load_cell(cell), shape, profile, direction))
        found[shape] = [tiling.values["batch_tile"] for tiling, _ in sources]
    assert all(tiles or (shape.recompute and shape.head_dim == 33) for shape, tiles in found.items()), found
    assert any(4 in tiles and max(tiles) >= 8 for tiles in found.values())


def test_the_sanitizer_sees_blocks_add_their_parts() -> None:
    sanitizer, profile = load_benchmark("sanitizer"), load_profile("h200")
    kernels = [ParameterGradients(load_cell("gru"), shape, profile) for shape in sanitizer.SHAPES["training"]]
    assert max(kernel.calls()[0].launch.cluster for kernel in kernels) > 1


def test_the_cost_model_is_fitted_to_what_was_measured(tmp_path: Path) -> None:
    """On a GPU that is slower in one phase than the model knows, the fit finds that."""
    benchmark, profile, cell = load_benchmark("cost_model"), load_profile("h200"), load_cell("lstm")
    today = load_model("kernelgen.schedules.resident", "forward").clocks
    slower = replace(today, fixed=2 * today.fixed)
    path = tmp_path / "samples.jsonl"
    with path.open("w") as file:
        for shape in (Shape(16, 512, 24, 32), Shape(16, 512, 12, 64), Shape(128, 512, 6, 128)):
            for tiling in plan(cell, shape, profile, schedules=["resident"])[::25]:
                record = {"gpu": profile.name, "cell": "lstm", "direction": "forward", "shape": asdict(shape)}
                record |= {"schedule": "resident", "values": dict(tiling.values), "spills": 0}
                record |= {"registers": tiling.resources.registers}
                us = benchmark._us(benchmark._work(record), slower)
                file.write(json.dumps(record | {"ms": us * shape.seq / 1000}) + "\n")
    result = CliRunner().invoke(benchmark.main, ["fit", str(path), "--schedule", "resident", "--steps", "200"])
    assert result.exit_code == 0, result.output
    errors = [float(found) for found in re.findall(r"half within ([\d.]+)%", result.output)]
    fixed = float(re.findall(r"fixed: ([\d.]+)", result.output)[0])
    assert errors[1] < errors[0] / 2
    assert fixed > 1.3 * today.fixed


def test_of_tilings_that_are_alike_the_best_is_timed() -> None:
    tilings = plan(load_cell("lstm"), Shape(16, 1024, 3, 256), load_profile("h200"), schedules=["cluster"])
    chosen = load_benchmark("tilings").different(tilings, ("cluster", "k_split"), {"batch_tile": 4})
    kinds = [(tiling.values["cluster"], tiling.values["k_split"]) for tiling in chosen]
    assert len(set(kinds)) == len(kinds) > 4
    assert {tiling.values["batch_tile"] for tiling in chosen} == {4}
    clocks = [tiling.clocks_per_step for tiling in chosen]
    assert clocks == sorted(clocks)
    assert chosen[0] == next(tiling for tiling in tilings if tiling.values["batch_tile"] == 4)


@pytest.mark.compiled
@pytest.mark.parametrize(("what", "kernels"), [("forward", 1), ("training", 3)])
def test_a_first_pass_compiles_each_kernel_once_and_no_other(
    monkeypatch: pytest.MonkeyPatch, fresh_cache: Path, what: str, kernels: int
) -> None:
    monkeypatch.setenv("TILESMITH_CACHE", str(fresh_cache))  # put back afterwards
    for _ in ("cold", "warm"):
        found = load_benchmark("first_kernel").measured("elman:1x16:2:8", "h200", what)
        assert (found["kernels"], found["reason"]) == (kernels, "")
        assert found["longest"] <= found["compile"]
        assert found["total"] >= found["longest"]


def test_the_model_of_dr_and_db_is_fitted_to_what_was_measured(tmp_path: Path) -> None:
    """On a GPU whose L2 gives half of what the model knows, the fit finds that, and nothing else."""
    benchmark, profile, cell = load_benchmark("parameter_gradients"), load_profile("h200"), load_cell("lstm")
    today = load_clocks()
    slower = replace(today, cache=2 * today.cache)
    path, lines = tmp_path / "samples.jsonl", []
    for dim in (512, 1024, 2048):
        kernel = ParameterGradients(cell, Shape(16, 1024, 1, dim), profile)
        tiles = benchmark.tiles(kernel, 12)
        assert tiles[0] == kernel.tiling
        assert len({(each.row_warps, each.column_warps, each.columns) for each in tiles}) >= 5
        for tiling in tiles:
            clocks = slower.predict(kernel.product, tiling, profile)
            record = {"gpu": profile.name, "cell": "lstm", "shape": asdict(kernel.shape), "tiling": asdict(tiling)}
            lines.append(json.dumps(record | {"ms": clocks / profile.clock_mhz / 1e3}))
    path.write_text("\n".join(lines))
    result = CliRunner().invoke(benchmark.main, ["fit", str(path)])
    assert result.exit_code == 0, result.output
    fitted = {name: float(value) for name, value in re.findall(r"^  (\w+): (\S+)", result.output, re.MULTILINE)}
    assert fitted["cache"] == pytest.approx(slower.cache, rel=0.1)
    assert fitted["tensor"] == pytest.approx(slower.tensor, rel=0.1)
    assert float(re.findall(r"fitted: half within ([\d.]+)%", result.output)[0]) < 1


def test_the_products_of_a_layer_are_those_of_its_passes() -> None:
    benchmark = load_benchmark("matrix_product")
    found = [use.product for use in benchmark.uses("48x24x96", "bfloat16", True)]
    assert [(each.rows, each.columns, each.depth) for each in found] == [(48, 96, 24), (48, 24, 96), (96, 24, 48)]
    assert [(each.a_transposed, each.b_transposed, each.floats) for each in found] == [
        (False, False, False),
        (False, True, False),
        (True, True, True),
    ]
    with pytest.raises(click.BadParameter, match="a size is steps x inputs x units"):
        benchmark.uses("48x24", "bfloat16", False)


def test_what_is_killed_is_of_the_command_and_leaves_with_it(tmp_path: Path) -> None:
    """A worker alone; and a command, whose others notice."""
    scale = load_benchmark("tuning_scale")
    notices = "while kill -0 $PPID 2> /dev/null; do sleep 0.05; done; : gpu_worker:run"
    words = ["sh", "-c", f"sh -c '{notices}'; sleep 60; : none"]
    with subprocess.Popen(words, start_new_session=True) as command:
        try:
            until = time.monotonic() + 60
            while not any(b"gpu_worker:run" in line for line in scale.started_by(command.pid).values()):
                assert time.monotonic() < until
            (worker,) = (each for each, line in scale.started_by(command.pid).items() if b"gpu_worker:run" in line)
            assert scale.alive(worker)
            assert not any(b"gpu_worker:run" in line for line in scale.started_by(worker).values())
            assert scale.kill_worker(command)
            while scale.alive(worker):
                assert time.monotonic() < until
            assert not scale.kill_worker(command)
        finally:
            os.killpg(command.pid, signal.SIGKILL)
    with subprocess.Popen(words, start_new_session=True) as command:
        try:
            while not scale.started_by(command.pid):
                assert time.monotonic() < until
            assert scale.kill_driver(command)
            assert command.returncode == -signal.SIGKILL
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(command.pid, signal.SIGKILL)


def test_pictures_of_steps_come_with_the_phases_sum_beside_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = load_benchmark("step_pictures")
    given: list[tuple[object, ...]] = []

    def played(*words: object) -> str:
        given.append(words)
        if words[0] == "report":
            raise click.ClickException("no charts")
        return json.dumps({"us_per_step": 0.19, "measured_us_per_step": 0.2}) if words[0] == "profile" else ""

    monkeypatch.setattr(pictures, "tilesmith", played)
    monkeypatch.setenv("TILESMITH_CACHE", str(tmp_path))
    result = CliRunner().invoke(pictures.main, ["--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "cluster_1x512: phases 0.1900 us, step 0.2000 us (-5.0%)" in result.output
    assert [words[0] for words in given] == ["tune", "profile", "report"] * 2
    assert (tmp_path / "out" / "resident_12x64.json").exists()
    assert "no report: no charts" in result.output
