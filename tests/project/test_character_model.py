"""The benchmark that trains one character model with two LSTMs, at tiny sizes on the CPU."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner, Result
from scripts import load_benchmark

pytestmark = [pytest.mark.unit, pytest.mark.xdist_group("character_model")]  # one worker measures, once

SIZES = {"--steps": 5, "--batch": 3, "--seq": 12, "--hidden": 16, "--repetitions": 2, "--window": 2}
TINY = ["--device", "cpu", *(str(part) for pair in SIZES.items() for part in pair)]


benchmark = load_benchmark("character_model")


def run(*arguments: str | Path) -> Result:
    """Run the benchmark in this process, and leave PyTorch's settings as they were."""
    allowed = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        return CliRunner().invoke(benchmark.main, [str(argument) for argument in arguments])
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = allowed


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The numbers of a tiny measurement: kernelgen.torch.LSTM and torch.nn.LSTM in float32, then in bfloat16."""
    path = tmp_path_factory.mktemp("numbers") / "new" / "numbers.json"
    result = run(*TINY, "--peer-dtype", "float32", "--peer-dtype", "bfloat16", "--json", path)
    assert result.exit_code == 0, result.output
    assert "float32 and torch.nn.LSTM float32" in result.output
    return path


def test_both_modules_take_the_same_steps_in_float32(numbers: Path) -> None:
    ours, theirs, other, rounded = json.loads(numbers.read_text())["runs"]
    assert [run["module"] for run in (ours, theirs, other)] == [benchmark.OURS, benchmark.PEER, benchmark.PEER]
    assert len(ours["losses"]) == 5
    assert ours["losses"] == pytest.approx(theirs["losses"], abs=2e-5)
    assert ours["losses"][-1] < ours["losses"][0] - 0.01, "the weights moved"
    assert (theirs["order"], other["order"]) == (0, 1)
    assert other["losses"] != pytest.approx(theirs["losses"], abs=1e-3), "other batches, other losses"
    assert rounded["dtype"] == "bfloat16"
    assert rounded["losses"] == pytest.approx(theirs["losses"], abs=2e-2)
    assert rounded["losses"] != theirs["losses"]


def test_every_time_is_there(numbers: Path) -> None:
    written = json.loads(numbers.read_text())
    assert written["settings"]["hidden"] == 16
    assert {row["dtype"] for row in written["layers"]} == {"float32", "bfloat16"}
    for row in written["layers"]:
        parts = [row[part] for part in ("forward", "backward", "both")]
        assert all(0 < part["p10_ms"] <= part["median_ms"] <= part["p90_ms"] for part in parts)
        assert parts[0]["median_ms"] < parts[2]["median_ms"]
    assert all(run["step"]["counted"] == 3 for run in written["runs"]), "two of five steps warm up"
    assert written["text"]["characters"] > 100_000


def test_two_measurements_give_the_same_losses(numbers: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.json"
    assert run(*TINY, "--json", again).exit_code == 0
    for one, other in zip(json.loads(again.read_text())["runs"], json.loads(numbers.read_text())["runs"], strict=False):
        assert one["losses"] == pytest.approx(other["losses"], abs=1e-6)


def test_float16_with_its_loss_scale_learns_what_float32_learns() -> None:
    settings = benchmark.Settings("cpu", 6, 3, 12, 16, 2, 3e-3, 0, 2, 2)
    torch.manual_seed(0)
    initial = benchmark.CharacterModel(False, 7, settings).state_dict()
    text = torch.arange(200) % 7
    for ours in (True, False):
        exact = benchmark.train(ours, "float32", 0, text, initial, settings)["losses"]
        rounded = benchmark.train(ours, "float16", 0, text, initial, settings)["losses"]
        assert rounded == pytest.approx(exact, abs=5e-3)
        assert rounded != exact
        assert exact[-1] < exact[0]


def curves(*losses: Sequence[float]) -> dict[str, Any]:
    """Numbers with these curves: ours, torch.nn.LSTM's, with other batches, in further dtypes."""
    return {"settings": {"window": 1}, "runs": [{"dtype": str(i), "losses": list(run)} for i, run in enumerate(losses)]}


def test_within_noise_means_no_further_than_other_batches_lead() -> None:
    theirs, other = [3.0, 2.0, 1.0], [3.0, 2.2, 1.1]
    near, far = [3.0, 2.1, 1.1], [3.0, 2.1, 1.4]
    result = benchmark.compare(curves(near, theirs, other, far))
    assert result["noise"] == pytest.approx({"mean": 0.1, "largest": 0.2})
    assert [peer["within_noise"] for peer in result["peers"]] == [True, False]
    assert result["peers"][0]["largest"] == pytest.approx(0.1)
    steady = [3.15, 2.15, 1.15]  # never as far off as the noise at its worst, but further on average
    assert not benchmark.compare(curves(steady, theirs, other))["peers"][0]["within_noise"]


def test_losses_are_smoothed_by_those_before_them() -> None:
    assert benchmark.smoothed([4.0, 2.0, 0.0, 4.0], 2) == [4.0, 3.0, 1.0, 2.0]


def test_replot_reads_what_was_written(numbers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("--replot", numbers)
    assert result.exit_code == 0, result.output
    assert "within noise" in result.output
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run("--replot", numbers, "--plot", tmp_path / "curves.svg")
    assert result.exit_code == 0, result.output
    assert "for want of matplotlib" in result.output
    cut = json.loads(numbers.read_text())
    cut["runs"] = cut["runs"][:1]
    (tmp_path / "cut.json").write_text(json.dumps(cut))
    result = run("--replot", tmp_path / "cut.json")
    assert result.exit_code == 1
    assert "cut short" in result.output


def test_the_curves_are_drawn(numbers: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = run("--replot", numbers, "--plot", tmp_path / "curves.svg")
    assert result.exit_code == 0, result.output
    assert "<svg" in (tmp_path / "curves.svg").read_text()


def test_what_cannot_be_measured_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = tmp_path / "short.txt"
    short.write_text("Grüße!")
    result = run(*TINY, "--text", short)
    assert result.exit_code == 1
    assert "6 characters" in result.output
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = run("--device", "cuda")
    assert result.exit_code == 2
    assert "no GPU" in result.output


def test_a_loss_that_is_not_finite_ends_the_measurement() -> None:
    settings = benchmark.Settings("cpu", 2, 3, 4, 8, 1, 1e-3, 0, 2, 2)
    initial = benchmark.CharacterModel(False, 5, settings).state_dict()
    initial["readout.bias"].fill_(float("nan"))
    with pytest.raises(click.ClickException, match="the loss of step 1 is nan"):
        benchmark.train(False, "float32", 0, torch.arange(50) % 5, initial, settings)
