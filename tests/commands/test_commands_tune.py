"""tilesmith tune, show and validate: what they write, print and refuse."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import ELMAN, ROOT, fine, own_cell, refused, run
from rich.console import Console

from kernelgen.build import triton
from kernelgen.cells import load_cell
from kernelgen.program.shape import Shape
from kernelgen.records.config import CellRecord
from kernelgen.records.config_reading import load_config
from kernelgen.records.store import Store
from kernelgen.records.workload import Work, save_workload
from kernelgen.tuning import tune

pytestmark = pytest.mark.unit


@pytest.mark.emulated
def test_tune_show_and_validate_a_cell_of_ones_own(tmp_path: Path) -> None:
    file, output = own_cell(tmp_path), tmp_path / "out" / "leaky.yaml"
    result = run("tune --gpu h200 --batch 2 --seq 4 --head-dim 16 --top 2 --seeds 1", f"{file}:LEAKY", "-o", output)
    assert result.exit_code == 0, result.output
    assert "first valid kernel after" in result.stderr
    assert "validated in the emulator against float64" in result.stdout
    assert "wrote" in result.stdout
    assert sorted(path.name for path in output.parent.iterdir()) == ["leaky.cu", "leaky.cubin", "leaky.yaml"]
    file.unlink()  # the YAML holds what it needs
    shown = fine("show", output)
    assert "resident" in shown
    assert output.with_suffix(".cu").read_text().strip() in shown
    checked = run("validate --emulate --seeds 2", output)
    assert checked.exit_code == 0, checked.output
    assert "valid in the emulator" in checked.stdout
    assert "2 inputs" in checked.stdout


@pytest.mark.emulated
@pytest.mark.parametrize(
    ("option", "saved"), [("", "gates"), ("--recompute", "states"), ("--resets --lengths", "gates")]
)
def test_both_directions_of_a_cell_of_ones_own(
    fresh_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, saved: str
) -> None:
    monkeypatch.setattr("kernelgen.device.gpu.why_no_gpu", lambda: "this test wants none")
    file, output = own_cell(tmp_path), tmp_path / "out" / "mine.yaml"
    result = run(
        "tune --gpu h200 --batch 2 --seq 4 --head-dim 16 --top 2 --seeds 1 --direction both " + option,
        f"{file}:LEAKY",
        "-o",
        output,
    )
    assert result.exit_code == 0, result.output
    assert result.stderr.count("first valid kernel after") == 2
    assert "relative error d_wx" in result.stdout
    backward = output.with_name("mine_backward.yaml")
    assert f"wrote {backward}, mine_backward.cu, mine_backward.cubin, mine_backward_parameter" in result.stdout
    assert len(list(output.parent.iterdir())) == 8
    file.unlink()  # the YAML holds what it needs
    for path, direction in ((output, "forward"), (backward, "backward")):
        config = load_config(path)
        assert (config.direction, config.shape.save) == (direction, saved)
        assert config.shape.recompute is (saved == "states" and direction == "backward")
        own = ("resets", "lengths") if "--resets" in option else ()
        assert config.shape.features == own
        assert {*config.main.arguments} & {"resets", "lengths", "order"} == {*own, *(("order",) if own else ())}
        assert ("resets: " in path.read_text()) is bool(own)
        shown = fine("show", path)
        assert re.search(rf"^direction +{direction} *$", shown, re.MULTILINE)
        assert f"tilesmith_{direction}(" in shown
        checked = run("validate --emulate --seeds 2", path)
        assert checked.exit_code == 0, checked.output
        assert f"valid in the emulator, {direction}: B=2 T=4, 2 inputs" in checked.stdout
        assert ("d_r " in checked.stdout) is (direction == "backward")
    with Store() as store:
        directions = {schedule.endswith("_backward") for schedule in (trial.schedule for trial in store.trials())}
        assert directions == {False, True}


def test_what_a_forward_kernel_has_to_save_follows_from_the_backward_one() -> None:
    assert "it goes with --direction backward or both" in refused(f"tune {ELMAN} --recompute")
    assert "saves gates" in refused(f"tune {ELMAN} --direction both --save states")
    assert "saves states" in refused(f"tune {ELMAN} --direction both --recompute --save gates")


@pytest.mark.emulated
def test_one_direction_is_written_where_one_would_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernelgen.device.gpu.why_no_gpu", lambda: "this test wants none")
    monkeypatch.chdir(tmp_path)
    fine(f"tune {ELMAN} --top 1 --seeds 1 --direction backward")
    config = load_config(tmp_path / "elman_backward.yaml")
    assert (config.direction, config.shape.save) == ("backward", "gates")
    fine(f"tune {ELMAN} --top 1 --seeds 1 --direction backward --save hidden -o named.yaml")
    config = load_config(tmp_path / "named.yaml")
    assert (config.direction, config.shape.save) == ("backward", "hidden")


def test_ctrl_c_in_the_first_direction_ends_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    real = tune.tune
    monkeypatch.setattr("kernelgen.device.gpu.why_no_gpu", lambda: "this test wants none")

    def interrupted(*arguments: Any, **options: Any) -> tune.TuneResult:
        return replace(real(*arguments, **options | {"store": None}), interrupted=True)

    monkeypatch.setattr(tune, "tune", interrupted)
    result = run(f"tune {ELMAN} --top 1 --seeds 1 --direction both", "-o", tmp_path / "elman.yaml")
    assert result.exit_code == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elman.cu", "elman.cubin", "elman.yaml"]


@pytest.mark.emulated
def test_a_narrow_terminal_shows_the_lines_of_the_source_as_they_are(
    tuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that they can be copied: the terminal wraps them."""
    stream = io.StringIO()
    monkeypatch.setattr("kernelgen.commands.show.console", lambda: Console(file=stream, width=40))
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True)
    monkeypatch.setenv("TERM", "dumb")
    run("show", tuned)
    assert stream.getvalue() == tuned.with_suffix(".cu").read_text()


def test_validate_refuses_a_kernel_that_is_not_right(tuned: Path, tmp_path: Path) -> None:
    import hashlib

    copy = tmp_path / tuned.name
    for suffix in (".yaml", ".cu", ".cubin"):
        shutil.copy(tuned.with_suffix(suffix), copy.with_suffix(suffix))
    source = copy.with_suffix(".cu").read_text()
    wrong = source.replace("tanh(", "sigmoid(")
    assert wrong != source
    copy.with_suffix(".cu").write_text(wrong)
    digest = load_config(tuned).main.files.source_sha256
    copy.write_text(copy.read_text().replace(digest, hashlib.sha256(wrong.encode()).hexdigest()))
    message = refused("validate --emulate --seeds 1", copy)
    assert "differs from the reference" in message
    assert "expected" in message


def test_an_interrupted_tune_ends_with_130_after_saving(
    tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    real = tune.tune
    monkeypatch.setattr("kernelgen.device.gpu.why_no_gpu", lambda: "this test wants none")

    def interrupted(*arguments: Any, **options: Any) -> tune.TuneResult:
        return replace(real(*arguments, **options | {"store": None}), interrupted=True)

    monkeypatch.setattr(tune, "tune", interrupted)
    output = tmp_path / "elman.yaml"
    result = run(f"tune {ELMAN} --top 1 --seeds 1", "-o", output)
    assert result.exit_code == 130
    assert "best so far" in result.stderr
    assert output.exists()

    def at_once(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tune, "tune", at_once)
    result = run(f"tune {ELMAN}", "-o", tmp_path / "none.yaml")
    assert result.exit_code == 130
    assert "none.yaml was not written; what was compiled is kept" in result.stderr
    assert not (tmp_path / "none.yaml").exists()


def test_ctrl_c_in_a_process_of_its_own_is_130_without_a_traceback(fresh_cache: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kernelgen.commands", "tune", *ELMAN.split(), "--top", "400", "--again", "-o"]
    started = subprocess.Popen(
        [*command, str(tmp_path / "elman.yaml")],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
    )
    until = time.monotonic() + 60
    while not (fresh_cache / "trials.sqlite").exists() and time.monotonic() < until:
        time.sleep(0.02)
    started.send_signal(signal.SIGINT)
    _, errors = started.communicate(timeout=60)
    assert started.returncode == 130, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors


def test_a_read_only_cache_costs_a_warning_not_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    cache.write_text("a file, where a folder should be")
    monkeypatch.setenv("TILESMITH_CACHE", str(cache))
    monkeypatch.setattr("kernelgen.device.gpu.why_no_gpu", lambda: "this test wants none")
    result = run(f"tune {ELMAN} --top 1 --seeds 1", "-o", tmp_path / "elman.yaml")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("warning: cannot write to the store") == 1
    assert (tmp_path / "elman.yaml").exists()


@pytest.mark.emulated
def test_tune_all_tunes_a_workload_and_goes_on_where_one_cannot_be(tmp_path: Path) -> None:
    cell = load_cell("elman")
    work = [
        Work(cell, CellRecord.of(cell), Shape(2, 4, 1, 16), "forward", 3),
        Work(cell, CellRecord.of(cell), Shape(2, 4, 1, 1024, recompute=True), "backward", 3),
    ]
    file, folder = tmp_path / "work.yaml", tmp_path / "kernels"
    save_workload(file, work)
    listed = json.loads(fine("tune-all --gpu h200 --list --json", file))
    assert [row["status"] == "not tuned" for row in listed] == [True, False]
    result = run("tune-all --gpu h200 --top 1 --json -o", folder, file)
    assert result.exit_code == 1, result.output
    rows = json.loads(result.stdout)
    assert rows[0]["status"] == "tuned"
    assert rows[0]["runs"] == 3
    assert "recompute" in rows[1]["status"]
    config = load_config(folder / f"{rows[0]['kernel']}.yaml")
    assert config.tiling == rows[0]["tiling"]
    assert "no GPU h200 in this machine" in refused("tune-all --gpu h200 --workers 2 --top 1 -o", folder, file)
    assert "--objective edp" in refused("tune-all --gpu h200 --objective edp --top 1 -o", folder, file)
    assert "no workload" in refused("tune-all --gpu h200", folder / f"{rows[0]['kernel']}.yaml")


@pytest.mark.emulated
def test_a_triton_kernel_is_tuned_shown_and_validated(
    fresh_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton", reason="Triton is not installed, so no kernel of its is tuned")
    monkeypatch.setattr("kernelgen.device.gpu.why_no_gpu", lambda: "this test wants none")
    file, output = own_cell(tmp_path), tmp_path / "mine.yaml"
    asked = "tune --gpu h200 --batch 2 --seq 4 --head-dim 16 --top 1 --seeds 1 --direction both --language triton"
    result = run(asked, f"{file}:LEAKY", "-o", output)
    assert result.exit_code == 0, result.output
    backward = output.with_name("mine_backward.yaml")
    assert f"wrote {output}, mine.triton.py, mine.cubin" in result.stdout
    assert "d_r" in result.stdout
    for path in (output, backward):
        config = load_config(path)
        assert config.schedule.startswith("triton_resident")
        assert config.versions.compiler.startswith("Triton ")
        assert "@triton.jit" in fine("show", path)
        checked = run("validate --emulate --seeds 1", path)
        assert checked.exit_code == 0, checked.output
        assert "not compared" not in checked.stderr
    fine("export", output, "--triton", tmp_path / "module.py")
    assert "by the model" not in (tmp_path / "module.py").read_text()


def test_without_triton_its_kernels_are_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernelgen.device.gpu.why_no_gpu", lambda: "this test wants none")
    monkeypatch.setitem(sys.modules, "triton", None)
    triton.version.cache_clear()
    message = refused("tune", *ELMAN.split(), "--language", "triton")
    assert "needs Triton, which is not installed" in message
    assert "pip install 'tilesmith[triton]'" in message
