"""Workers, cases, validation and the search, without a GPU; runners.py plays what a GPU may do."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernelgen import bench, tune, validate
from kernelgen.attempt import objection
from kernelgen.bench import Bench, Candidate
from kernelgen.cases import Case, make_case
from kernelgen.cells import load_cell
from kernelgen.compile import Report
from kernelgen.errors import EmulationError, LaunchError, ProfileError, StoreError, ValidationError
from kernelgen.hardware import load_profile
from kernelgen.plan import plan
from kernelgen.schedules.base import Launch, Resources
from kernelgen.shape import Shape
from kernelgen.store import Store
from kernelgen.tune import Event
from kernelgen.worker import JobFailed, Worker

pytestmark = pytest.mark.unit

TESTS = Path(__file__).parent
SMALL = Shape(2, 4, 1, 16)


@pytest.fixture(autouse=True)
def _runners(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let worker processes find runners.py."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))


@pytest.fixture
def obedient() -> Iterator[Worker]:
    """A worker that does what a job says."""
    with Worker("runners:obey") as made:
        yield made


# ---- the worker ----


def test_a_healthy_worker_serves_many_jobs(obedient: Worker) -> None:
    big = np.arange(1_000_000)
    first = obedient.run(("pid", None), 60)
    assert obedient.run(("return", {"a": 1}), 60) == {"a": 1}
    assert np.array_equal(obedient.run(("return", big), 60), big)
    assert obedient.run(("print", "hello"), 60) == "printed"
    assert obedient.run(("pid", None), 60) == first != os.getpid()
    assert obedient.started == 1


def test_an_error_is_told_in_words_and_the_worker_lives_on(obedient: Worker) -> None:
    with pytest.raises(JobFailed, match=r"^ValueError: too small$") as caught:
        obedient.run(("raise", "too small"), 60)
    assert caught.value.reason == "error"
    with pytest.raises(JobFailed, match=r"^h differs$"):
        obedient.run(("wrong", "h differs"), 60)
    assert obedient.run(("return", 1), 60) == 1
    assert obedient.started == 1


def test_after_a_fault_a_fresh_process_takes_over(obedient: Worker) -> None:
    first = obedient.run(("pid", None), 60)
    with pytest.raises(JobFailed, match="an illegal memory access"):
        obedient.run(("fault", "an illegal memory access"), 60)
    assert obedient.run(("pid", None), 60) != first
    assert obedient.started == 2


def test_a_hang_is_ended_by_the_time_limit(obedient: Worker) -> None:
    obedient.run(("return", 0), 60)
    began = time.monotonic()
    with pytest.raises(JobFailed, match=r"longer than its limit of 0.5 s") as caught:
        obedient.run(("hang", None), 0.5)
    assert caught.value.reason == "timeout"
    assert time.monotonic() - began < 20
    assert obedient.run(("return", 1), 60) == 1


def test_a_crash_is_told_with_its_signal_and_last_words(obedient: Worker) -> None:
    with pytest.raises(JobFailed, match="killed by SIGSEGV: something terrible") as caught:
        obedient.run(("abort", None), 60)
    assert caught.value.reason == "crash"
    with pytest.raises(JobFailed, match="ended with status 7"):
        obedient.run(("exit", None), 60)
    assert obedient.run(("return", 1), 60) == 1


def test_a_worker_without_a_runner_says_why() -> None:
    with Worker("runners:nobody") as lost, pytest.raises(LaunchError, match=r"did not start.*nobody"):
        lost.run(("return", 1), 60)


def test_a_closed_worker_leaves_no_process_behind() -> None:
    with Worker("runners:obey") as made:
        pid = made.run(("pid", None), 60)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_hanging_worker_does_not_outlive_its_parent(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from kernelgen.worker import Worker; w = Worker('runners:obey'); "
        "Path(sys.argv[1]).write_text(str(w.run(('pid', None), 60))); w.run(('hang', None), 600)"
    )
    note = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, "-c", code, str(note)], cwd=TESTS.parent)
    until = time.monotonic() + 60
    while not (note.exists() and note.read_text()) and time.monotonic() < until:
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    child = int(note.read_text())
    until = time.monotonic() + 20
    while _runs(child) and time.monotonic() < until:
        time.sleep(0.1)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    """Whether a process lives (a zombie that nobody waits for does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_bench_gives_its_cases_to_every_new_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = _script(monkeypatch, tmp_path, "crash 0.5 0.4")
    candidate = Candidate(b"", "entry", "sm_90a", ())
    with Bench(runner="runners:pretend") as made:
        made.use(())
        with pytest.raises(JobFailed, match="status 9"):
            made.run(candidate, 60)
        times = [made.run(candidate, 60).measurement for _ in range(2)]
    assert [time.median_ms for time in times if time] == [0.5, 0.4]
    assert script.with_suffix(".cases").read_text().count("cases") == 2


# ---- cases ----


@pytest.fixture(scope="module")
def case() -> Case:
    """A case with every kind of output."""
    return make_case(load_cell("lstm"), Shape(3, 5, 2, 8, "float16", "gates"), 0)


def _right(case: Case) -> dict[str, Any]:
    outputs = case.poisoned_outputs()
    return {name: case.expected[name].astype(array.dtype) for name, array in outputs.items() if array is not None}


def test_a_right_result_passes_with_an_error_for_every_output(case: Case) -> None:
    errors = case.compare(_right(case))
    assert list(errors) == ["h", "c", "last", "gates"]
    assert errors["h"] == 0
    assert 0 < errors["c"] < 3e-4  # c is rounded once, to float16


@pytest.mark.parametrize(
    ("name", "index"), [("states", (1, 2, 3, 1, 7)), ("last", (0, 1, 0, 4)), ("gates", (3, 0, 4, 1, 0))]
)
def test_one_wrong_element_is_found_and_named(case: Case, name: str, index: tuple[int, ...]) -> None:
    outputs = _right(case)
    outputs[name][index] += 1
    with pytest.raises(ValidationError) as caught:
        case.compare(outputs)
    message = str(caught.value)
    assert f"{name}[{', '.join(map(str, index))}]" in message
    assert "1 of" in message
    assert "got" in message
    assert "expected" in message


def test_the_first_difference_is_first_in_time(case: Case) -> None:
    outputs = _right(case)
    outputs["states"][0, 0, 4, 0, 0] += 1
    outputs["states"][0, 2, 1, 1, 3] += 1
    with pytest.raises(ValidationError, match=r"states\[0, 2, 1, 1, 3\].*2 of 240"):
        case.compare(outputs)


def test_many_small_errors_fail_too(case: Case) -> None:
    outputs = _right(case)
    outputs["states"][0] *= np.float16(1.02)
    with pytest.raises(ValidationError, match=r"relative error 0\.0[12]"):
        case.compare(outputs)


def test_nan_and_what_nobody_wrote_never_pass(case: Case) -> None:
    outputs = _right(case)
    outputs["last"][1, 2, 1, 5] = np.nan
    with pytest.raises(ValidationError, match=r"1 of 96 elements of last are NaN, first last\[1, 2, 1, 5\]"):
        case.compare(outputs)
    untouched = _right(case)
    untouched["states"][:, 2:] = case.poisoned_outputs()["states"][:, 2:]  # type: ignore[index]
    with pytest.raises(
        ValidationError, match=r"160 of 480 elements of states were never written, first states\[0, 2, 0"
    ):
        case.compare(untouched)


# ---- validation in the emulator ----


def test_the_emulated_shape_is_small_and_leaves_a_ragged_batch() -> None:
    def launch(shape: Shape) -> Launch:
        return Launch((shape.heads, -(-shape.batch // 8), 1), 32, 0)

    small = validate.emulated_shape(Shape(128, 1024, 12, 64), launch)
    assert (small.batch, small.seq, small.heads) == (15, validate.EMULATED_SEQ, 12)
    assert validate.emulated_shape(Shape(1, 2, 64, 64), launch) == Shape(1, 2, 64, 64)


@pytest.mark.emulated
def test_a_kernel_is_right_in_the_emulator_and_a_wrong_source_is_not() -> None:
    cell, profile = load_cell("elman"), load_profile("h200")
    tiling = plan(cell, SMALL, profile)[0]
    seen: list[int] = []
    found = validate.validate_emulated(cell, SMALL, tiling, profile, (0, 1), on_seed=seen.append)
    assert (found.where, found.seeds, found.seq, seen) == ("emulator", 2, 4, [0, 1])
    assert 0 <= found.worst <= found.tolerance
    from kernelgen import schedules

    schedule = schedules.get(tiling.schedule)
    source = schedule.source(load_cell("elman_relu"), SMALL, profile, tiling)
    with pytest.raises(ValidationError, match=r"states differs from the reference.*seed 0"):
        validate.emulate_source(cell, SMALL, source, lambda shape: schedule.launch(shape, tiling), (0,))
    with pytest.raises(ValidationError, match="at least one seed"):
        validate.validate_emulated(cell, SMALL, tiling, profile, ())


# ---- judging a compiled candidate ----


def test_spills_and_missed_predictions_are_objections() -> None:
    profile = load_profile("h200")
    need = Resources(registers=64, shared_memory=10_000, threads=512, blocks=264, blocks_per_sm=2)
    good = Report(registers=64, stack=0, spill_stores=0, spill_loads=0, static_shared_memory=0, barriers=1)
    assert objection(need, good, profile, strict=True) == ""
    assert "spills 8 bytes" in objection(need, replace(good, spill_stores=8), profile, strict=False)
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
    monkeypatch.setattr("kernelgen.gpu.why_no_gpu", lambda: "there is no NVIDIA driver on this machine")


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
        monkeypatch.setattr(validate, "emulate_source", _never)
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
    monkeypatch.setattr(validate, "emulate_source", _answering(answers))
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
    monkeypatch.setattr(validate, "emulate_source", _answering(answers))
    with pytest.raises(ValidationError, match=r"none of the \d+ candidates.*validated in the emulator.*a race"):
        _tune()
    assert len(answers) == 50 - tune.MOST_WRONG


def _valid() -> Any:
    from kernelgen.trial import Validation

    return Validation("emulator", 1, 2, 4, 1e-2, {"h": 1e-4})


def _answering(answers: list[Any]) -> Callable[..., Any]:
    """A stand-in for emulate_source that gives these answers in turn."""

    def answer(*_: Any, **__: Any) -> Any:
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    return answer


def test_a_store_that_cannot_be_written_costs_one_warning(
    no_gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validate, "emulate_source", lambda *_, **__: _valid())
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
    monkeypatch.setattr(validate, "emulate_source", lambda *_, **__: _valid())
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
    assert tune.resolve_gpu("a100")[1] is None


# ---- tuning with a GPU, played by runners.pretend ----


def _script(monkeypatch: pytest.MonkeyPatch, folder: Path, words: str) -> Path:
    script = folder / "script"
    script.write_text(words)
    monkeypatch.setenv("SCRIPT", str(script))
    return script


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> None:
    """An H200 that runners.pretend plays."""
    monkeypatch.setattr(tune, "resolve_gpu", lambda gpu: (load_profile("h200"), 0))
    monkeypatch.setattr(bench, "Bench", functools.partial(Bench, runner="runners:pretend"))


def test_the_fastest_valid_kernel_wins_whatever_else_happens(
    played: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tune, "CANDIDATE_SECONDS", 3.0)
    _script(monkeypatch, tmp_path, "hang crash fault wrong 0.5 0.3 0.4")
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


def test_measured_kernels_are_not_measured_again(played: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = _script(monkeypatch, tmp_path, "0.5 0.3 0.4")
    counter = script.with_suffix(".count")
    with Store(tmp_path / "trials.sqlite") as store:
        _tune(store, top=2)
        assert counter.read_text() == "2"
        result = _tune(store, top=3)  # one candidate more than before
        assert counter.read_text() == "3"
        assert [attempt.remembered for attempt in result.attempts] == [True, True, False]
        assert result.best.rank == 2
        _tune(store, top=3, again=True)
        assert counter.read_text() == "6"


def test_the_budget_ends_the_search_after_the_first_valid_kernel(
    played: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _script(monkeypatch, tmp_path, "wrong 0.5 0.3")
    result = _tune(top=7, budget=0)
    assert [trial.status for trial in result.trials] == ["failed", "measured"]


def test_ctrl_c_keeps_what_was_measured(played: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _script(monkeypatch, tmp_path, "0.5 0.3 interrupt 0.1")
    with Store(tmp_path / "trials.sqlite") as store:
        result = _tune(store, top=5)
        assert result.interrupted
        assert result.best.trial.measurement is not None
        assert result.best.trial.measurement.median_ms == 0.3
        assert len(store.trials(status="measured")) == 2


def test_ctrl_c_before_anything_is_measured_goes_through(
    played: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _script(monkeypatch, tmp_path, "interrupt")
    with pytest.raises(KeyboardInterrupt):
        _tune(top=2)


def test_when_no_worker_starts_the_error_says_so(played: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "Bench", functools.partial(Bench, runner="runners:nobody"))
    with pytest.raises(LaunchError, match="did not start"):
        _tune(top=2)


# ---- several processes ----

_TUNE = "tune elman --gpu h200 --batch 2 --seq 4 --heads 1 --head-dim 16 --top 4 --seeds 1 -o"


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
def test_two_processes_tune_at_once_and_one_is_killed(tmp_path: Path, session_cache: Path) -> None:
    cache = tmp_path / "cache"
    if (session_cache / "emulator").exists():  # g++ takes longest, and is not what this is about
        shutil.copytree(session_cache / "emulator", cache / "emulator")
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
