"""The search, without a GPU; runners.py plays what a GPU may do."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runners import PLAYED_TOLERANCE, write_script

from kernelgen.build.compile import Report
from kernelgen.cells import load_cell
from kernelgen.cells.language import Cell, Gate
from kernelgen.errors import EmulationError, LaunchError, NotFiniteError, ProfileError, StoreError, ValidationError
from kernelgen.hardware.profile import load_profile
from kernelgen.program.shape import Shape
from kernelgen.program.tiling import Resources
from kernelgen.records.config_reading import load_config
from kernelgen.records.store import Store
from kernelgen.tuning import search, tune
from kernelgen.tuning.prepare import objection
from kernelgen.tuning.ray_workers import RayGpus
from kernelgen.tuning.search import Event
from kernelgen.tuning.workers import LocalGpus
from kernelgen.verify import gpu_worker, validate
from kernelgen.verify.gpu_worker import GpuWorker

pytestmark = pytest.mark.unit

TESTS = Path(__file__).parents[1]
SMALL = Shape(2, 4, 1, 16)


# ---- judging a compiled candidate ----


def test_spills_and_missed_predictions_are_objections() -> None:
    profile = load_profile("h200")
    need = Resources(registers=64, shared_memory=10_000, threads=512, blocks=264, blocks_per_sm=2)
    good = Report(registers=64, stack=0, spill_stores=0, spill_loads=0, static_shared_memory=0, barriers=1)
    assert objection(need, good, profile, strict=True) == ""
    assert "spills 8 bytes" in objection(need, replace(good, spill_stores=8), profile, strict=False)
    assert "arrays of 64 bytes per thread" in objection(need, replace(good, stack=64), profile, strict=False)
    static = replace(good, static_shared_memory=512)
    assert "10,512 bytes of shared memory, not the predicted 10,000" in objection(need, static, profile, strict=True)
    assert objection(need, static, profile, strict=False) == ""
    many = replace(good, registers=120)  # one block of 512 threads instead of two
    assert "120 registers, not the predicted 64: 1 blocks" in objection(need, many, profile, strict=True)
    assert objection(replace(need, blocks=132), many, profile, strict=True) == ""  # one a multiprocessor is enough


# ---- tuning without a GPU ----


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU, whatever this machine has."""
    monkeypatch.setattr("kernelgen.device.gpu.why_no_gpu", lambda: "there is no NVIDIA driver on this machine")


def _tune(store: Store | None = None, events: list[Event] | None = None, **options: Any) -> tune.TuneResult:
    told = events if events is not None else []
    options = {"top": 3, "seeds": 1, **options}
    return tune.tune(load_cell("elman"), SMALL, "h200", store=store, on_event=told.append, **options)


@pytest.mark.emulated
def test_tuning_without_a_gpu_ends_with_a_valid_kernel(no_gpu: None, tmp_path: Path) -> None:
    events: list[Event] = []
    with Store(tmp_path / "trials.sqlite") as store:
        result = _tune(store, events)
        assert result.best.trial.status == "valid"
        assert result.best.rank == 1
        assert not result.on_gpu
        assert [event.message for event in events if event.stage == "first"]
        assert 0 < result.first_valid <= result.seconds
        assert {trial.source_hash for trial in store.trials()} == {trial.source_hash for trial in result.trials}
        path = tmp_path / "out" / "elman.yaml"
        config = tune.save(result, path, "elman")
        assert sorted(file.name for file in path.parent.iterdir()) == ["elman.cu", "elman.cubin", "elman.yaml"]
        assert config.measured is None
        assert config.validation.where == "emulator"


@pytest.mark.emulated
def test_a_second_run_continues_from_the_store(no_gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(tmp_path / "trials.sqlite") as store:
        first = _tune(store)
        known = len(store.trials())
        monkeypatch.setattr(validate, "validate_program", _never)
        events: list[Event] = []
        second = _tune(store, events)
        assert second.best.tiling == first.best.tiling
        assert second.best.remembered
        assert second.best.trial.validation == first.best.trial.validation
        assert any("known from an earlier run" in event.message for event in events)
        assert len(store.trials()) < 2 * known
        with pytest.raises(AssertionError, match="should not be called"):
            _tune(store, again=True)


def _never(*_: Any, **__: Any) -> None:
    raise AssertionError("this should not be called")


def test_a_wrong_kernel_is_a_failed_trial_and_the_next_is_tried(
    no_gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = [EmulationError("a race"), ValidationError("h differs"), _valid()]
    monkeypatch.setattr(validate, "validate_program", _answering(answers))
    with Store(tmp_path / "trials.sqlite") as store:
        result = _tune(store)
        assert [trial.status for trial in result.trials] == ["failed", "failed", "valid"]
        assert [trial.reason for trial in result.trials[:2]] == [
            "in the emulator: a race",
            "in the emulator: h differs",
        ]
        assert result.best.rank == 3
        assert len(store.trials(status="failed")) == 2


def test_when_everything_is_wrong_the_search_stops_and_says_so(no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [EmulationError("a race")] * 50
    monkeypatch.setattr(validate, "validate_program", _answering(answers))
    with pytest.raises(ValidationError, match=r"none of the \d+ candidates.*validated in the emulator.*a race"):
        _tune()
    assert len(answers) == 50 - search.MOST_WRONG


@pytest.mark.emulated
def test_a_cell_without_a_reference_stops_the_search_at_once(no_gpu: None) -> None:
    cell = Cell("odd", "Odd", "none", ("h",), (Gate("a"),), lambda gate, state: {"h": gate.a**0.5})
    events: list[Event] = []
    with pytest.raises(NotFiniteError, match=r"reference of odd itself is NaN at step 0 of 4.*gain=.*ranges="):
        tune.tune(cell, SMALL, "h200", top=2, store=None, on_event=events.append)
    assert sum(event.stage == "emulate" for event in events) == 1
    assert not [event for event in events if event.stage == "warning"]


def _valid() -> Any:
    from kernelgen.records.trial import Validation

    return Validation("emulator", 1, 2, 4, 1e-2, {"h": 1e-4})


def _answering(answers: list[Any]) -> Callable[..., Any]:
    """A stand-in for validate_program that gives these answers in turn."""

    def answer(*_: Any, **__: Any) -> Any:
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    return answer


def test_a_store_that_cannot_be_written_costs_one_warning(
    no_gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validate, "validate_program", lambda *_, **__: _valid())
    with Store(tmp_path / "trials.sqlite") as store:
        monkeypatch.setattr(store, "add", _full)
        events: list[Event] = []
        result = _tune(store, events)
    assert result.best.trial.status == "valid"
    assert [event.message for event in events if event.stage == "warning"] == ["the disk is full"]


def _full(*_: Any) -> None:
    raise StoreError("the disk is full")


def test_a_store_that_cannot_be_opened_costs_one_warning(
    no_gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validate, "validate_program", lambda *_, **__: _valid())
    monkeypatch.setenv("TILESMITH_CACHE", str(tmp_path))
    (tmp_path / "trials.sqlite").write_bytes(b"this is no database, but long enough to look at" * 50)
    events: list[Event] = []
    result = tune.tune(load_cell("elman"), SMALL, "h200", top=1, on_event=events.append)
    assert result.best.trial.status == "valid"
    warnings = [event.message for event in events if event.stage == "warning"]
    assert len(warnings) == 1
    assert "trials.sqlite" in warnings[0]


def test_without_gpu_and_compiler_tuning_refuses_at_once(no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LaunchError, match=r"neither a GPU nor a C\+\+ compiler"):
        _tune()


def test_auto_without_a_gpu_names_the_profiles(no_gpu: None) -> None:
    with pytest.raises(ProfileError, match=r"--gpu auto found no GPU: there is no NVIDIA driver.*h200"):
        tune.resolve_gpu("auto")
    assert tune.resolve_gpu("a100")[1] == ()


@pytest.mark.emulated
def test_a_backward_kernel_is_tuned_and_known_the_next_time(
    no_gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(tmp_path / "trials.sqlite") as store:
        events: list[Event] = []
        result = _tune(store, events, direction="backward")
        assert (result.direction, result.best.trial.status) == ("backward", "valid")
        assert result.best.trial.validation is not None
        assert set(result.best.trial.validation.errors) == {"d_wx", "d_r", "d_b", "d_initial"}
        assert "backward tilings of elman fit h200" in events[0].message
        assert all(trial.schedule.endswith("_backward") for trial in store.trials())
        config = tune.save(result, tmp_path / "elman_backward.yaml", "elman")
        assert (config.direction, config.main.entry) == ("backward", "tilesmith_backward")
        monkeypatch.setattr(validate, "validate_program", _never)
        assert _tune(store, direction="backward").best.remembered
        with pytest.raises(AssertionError, match="should not be called"):
            _tune(store)  # forward is another kernel


# ---- tuning with a GPU, played by runners.pretend ----


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> None:
    """An H200 that runners.pretend plays."""
    monkeypatch.setattr(tune, "resolve_gpu", lambda gpu: (load_profile("h200"), (0,)))
    monkeypatch.setattr(gpu_worker, "GpuWorker", functools.partial(GpuWorker, runner="runners:pretend"))


def test_the_fastest_valid_kernel_wins_whatever_else_happens(
    played: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(search, "JOB_SECONDS", 3.0)
    write_script(monkeypatch, tmp_path, "hang crash fault wrong 0.5 0.3 0.4")
    events: list[Event] = []
    with Store(tmp_path / "trials.sqlite") as store:
        result = _tune(store, events, top=7)
        assert len(store.trials(status="measured")) == 3
        assert len(store.trials(status="failed")) == 4
    assert [trial.status for trial in result.trials] == ["failed"] * 4 + ["measured"] * 3
    reasons = [trial.reason for trial in result.trials[:4]]
    for reason, words in zip(reasons, ("limit of 3 s", "status 9", "illegal memory access", "h differs"), strict=True):
        assert words in reason
    assert result.best.rank == 6
    assert result.best.trial.measurement is not None
    assert result.best.trial.measurement.median_ms == 0.3
    firsts = [event for event in events if event.stage == "first"]
    assert len(firsts) == 1
    assert firsts[0].seconds <= result.seconds
    config = tune.save(result, tmp_path / "elman.yaml", "elman")
    assert config.measured == result.best.trial.measurement


def test_backward_kernels_are_measured_like_forward_ones(
    played: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_script(monkeypatch, tmp_path, "wrong 0.5 0.3 0.4")
    given: list[Any] = []
    monkeypatch.setattr(
        GpuWorker, "use", lambda self, cases: given.extend(cases) or setattr(self, "cases", tuple(cases))
    )
    with Store(tmp_path / "trials.sqlite") as store:
        result = _tune(store, top=4, direction="backward")
        assert [trial.status for trial in result.trials] == ["failed", "measured", "measured", "measured"]
        best = store.best(cell="elman", shape=SMALL, gpu="h200", schedule="resident_backward")
    assert best is not None
    assert (result.best.rank, best.tiling) == (3, result.best.tiling.values)
    assert [(case.direction, list(case.expected)) for case in given] == [
        ("backward", ["d_wx", "d_r", "d_b", "d_initial"])
    ] * 2
    assert result.best.trial.validation is not None
    assert result.best.trial.validation.tolerance == PLAYED_TOLERANCE


def test_measured_kernels_are_not_measured_again(played: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = write_script(monkeypatch, tmp_path, "0.5 0.3 0.4")
    counter = script.with_suffix(".count")
    with Store(tmp_path / "trials.sqlite") as store:
        _tune(store, top=2)
        assert counter.read_text() == "2"
        result = _tune(store, top=3)  # one candidate more than before
        assert counter.read_text() == "3"
        assert [prepared.remembered for prepared in result.prepared_trials] == [True, True, False]
        assert result.best.rank == 2
        _tune(store, top=3, again=True)
        assert counter.read_text() == "6"


def test_the_kernel_that_takes_least_energy_wins_where_that_is_asked(
    played: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of the played kernels the slowest takes least energy, and all have the same product with time."""
    script = write_script(monkeypatch, tmp_path, "0.5 0.25 0.3")
    monkeypatch.setattr(tune, "require_energy", lambda objective, gpus: None)
    with Store(tmp_path / "trials.sqlite") as store:
        assert _tune(store).best.rank == 2
        script.with_suffix(".count").unlink()
        result = _tune(store, objective="energy")  # what is known has no energy: it is measured again
        assert script.with_suffix(".count").read_text() == "3"
        assert result.best.rank == 1
        assert result.best.trial.measurement is not None
        assert result.best.trial.measurement.energy_mj == 2.0
        assert result.best.trial.measurement.cost("edp") == 1.0
        _tune(store, objective="edp")
        assert script.with_suffix(".count").read_text() == "3"
        assert store.trials()[-1] == result.trials[2]
        config = tune.save(result, tmp_path / "elman.yaml", "elman")
        assert load_config(tmp_path / "elman.yaml").measured == config.measured
        assert "energy_mj: 2.0" in (tmp_path / "elman.yaml").read_text()


def test_energy_is_refused_by_name_where_nobody_counts_it(no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        LaunchError, match="--objective energy is measured on the GPU that is tuned for, and there is none"
    ):
        _tune(objective="energy")
    with pytest.raises(LaunchError, match="--objective edp is measured on GPUs of this machine, not of a Ray cluster"):
        tune.require_energy("edp", RayGpus("head:1", 2))
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(LaunchError, match=r"--objective energy cannot be measured: .*needs nvidia-ml-py: pip install"):
        tune.require_energy("energy", LocalGpus((0,)))


def test_the_budget_ends_the_search_after_the_first_valid_kernel(
    played: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_script(monkeypatch, tmp_path, "wrong 0.5 0.3")
    result = _tune(top=7, budget=0)
    assert [trial.status for trial in result.trials] == ["failed", "measured"]


def test_ctrl_c_keeps_what_was_measured(played: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_script(monkeypatch, tmp_path, "0.5 0.3 interrupt 0.1")
    with Store(tmp_path / "trials.sqlite") as store:
        result = _tune(store, top=5)
        assert result.interrupted
        assert result.best.trial.measurement is not None
        assert result.best.trial.measurement.median_ms == 0.3
        assert len(store.trials(status="measured")) == 2


def test_ctrl_c_before_anything_is_measured_goes_through(
    played: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_script(monkeypatch, tmp_path, "interrupt")
    with pytest.raises(KeyboardInterrupt):
        _tune(top=2)


def test_when_no_worker_starts_the_error_says_so(played: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_worker, "GpuWorker", functools.partial(GpuWorker, runner="runners:nobody"))
    with pytest.raises(LaunchError, match="did not start"):
        _tune(top=2)


# ---- several processes ----

_TUNE = "tune elman --gpu h200 --batch 2 --seq 4 --heads 1 --head-dim 16 --top 2 --seeds 1 -o"


def _start(output: Path, cache: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "kernelgen.commands", *_TUNE.split(), str(output)],
        env={**os.environ, "TILESMITH_CACHE": str(cache), "CUDA_VISIBLE_DEVICES": "-1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=TESTS.parent,
    )


@pytest.mark.emulated
def test_two_processes_tune_at_once_and_one_is_killed(tmp_path: Path, fresh_cache: Path) -> None:
    cache = fresh_cache
    victim = _start(tmp_path / "victim.yaml", cache)
    others = [_start(tmp_path / f"{name}.yaml", cache) for name in ("a", "b")]
    until = time.monotonic() + 60
    while not (cache / "trials.sqlite").exists() and time.monotonic() < until:
        time.sleep(0.01)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    for process, name in zip(others, ("a", "b"), strict=True):
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert (tmp_path / f"{name}.yaml").exists()
    assert not (tmp_path / "victim.yaml").exists()
    with Store(cache / "trials.sqlite") as store:
        statuses = {trial.status for trial in store.trials()}
    assert statuses == {"compiled", "valid"}
