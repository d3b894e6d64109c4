"""The benchmark that trains three models twice, at tiny sizes on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from scripts import load_benchmark

pytestmark = pytest.mark.unit

models = load_benchmark("models")


@pytest.mark.parametrize(("name", "value"), [("speech", "loss"), ("language", "loss"), ("control", "reward")])
def test_both_take_the_same_steps(name: str, value: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / "found.json"
    arguments = ["--only", name, "--steps", "3", "--probes", "1", "--device", "cpu", "--json", str(path)]
    result = CliRunner().invoke(models.main, arguments)
    assert result.exit_code == 0, result.output
    assert f"{value} " in result.output
    twin, ours = json.loads(path.read_text())["runs"]
    assert (twin["workload"], ours["workload"], ours["system"]) == (name, name, "kernelgen.torch")
    assert twin["parameters"] == ours["parameters"]
    assert len(twin[value]) == 3
    assert ours[value] == pytest.approx(twin[value], rel=1e-4)
    if value == "loss":
        assert len(set(twin[value])) == 3
    for run in (twin, ours):
        assert 0 < run["step_p10_ms"] <= run["step_ms"] <= run["step_p90_ms"]
        assert 0 < run["recurrence_share"] < 1
        assert min(run[value]) <= run["end"] <= max(run[value])
    assert ours["speed_up"] == pytest.approx(twin["step_ms"] / ours["step_ms"])


def test_a_twin_ends_in_time_and_ours_after_as_many_steps(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    arguments = ["--only", "control", "--seconds", "0", "--probes", "1", "--device", "cpu", "--json", str(path)]
    assert CliRunner().invoke(models.main, arguments).exit_code == 0
    twin, ours = json.loads(path.read_text())["runs"]
    assert len(twin["reward"]) == len(ours["reward"]) == 5


def test_without_a_gpu_the_message_says_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.torch.cuda, "is_available", lambda: False)
    result = CliRunner().invoke(models.main, ["--device", "cuda"])
    assert result.exit_code == 1
    assert "--device cpu trains without" in result.output


def test_memory_is_learnt() -> None:
    """PPO on short corridors remembers the cue; ours and the twin are the same until a rounding decides an action."""
    from workloads import common, control

    workload = control.Control(control.Sizes(48, 9, 16, 2), models.torch.device("cpu"), 0)
    settings = common.Settings(models.torch.device("cpu"), 18, None, 2e-2, 1)
    rewards = common.train(workload, True, "float32", settings)["reward"]
    assert sum(rewards[:5]) / 5 < 0.65
    assert sum(rewards[-5:]) / 5 > 0.9
