"""Worker processes, the GPU's among them: errors, hangs, crashes, orphans. runners.py plays what a GPU may do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from runners import write_script

from kernelgen.device.worker import JobFailed, Worker
from kernelgen.errors import LaunchError
from kernelgen.program.launch import LaunchRule
from kernelgen.program.program import KernelCall, Program
from kernelgen.program.shape import Shape
from kernelgen.program.source import Source
from kernelgen.verify.gpu_worker import GpuJob, GpuWorker

pytestmark = pytest.mark.unit

TESTS = Path(__file__).parents[1]
SMALL = Shape(2, 4, 1, 16)


PROGRAM = Program("forward", KernelCall(Source("", "entry", "sm_90a"), LaunchRule(("1", "1", "1"), 32, 0)))


@pytest.fixture
def obedient() -> Iterator[Worker]:
    """A worker that does what a job says."""
    with Worker("runners:obey") as made:
        yield made


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
    with pytest.raises(JobFailed, match=r"longer than its limit of 0.5 s") as caught:
        obedient.run(("hang", None), 0.5)
    assert caught.value.reason == "timeout"
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
        "import sys; from pathlib import Path; from kernelgen.device.worker import Worker; w = Worker('runners:obey'); "
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
    script = write_script(monkeypatch, tmp_path, "crash 0.5 0.4")
    job = GpuJob(PROGRAM, (b"",))
    with GpuWorker(runner="runners:pretend") as made:
        made.use(())
        with pytest.raises(JobFailed, match="status 9"):
            made.run(job, 60)
        times = [made.run(job, 60).measurement for _ in range(2)]
    assert [time.median_ms for time in times if time] == [0.5, 0.4]
    assert script.with_suffix(".cases").read_text().count("cases") == 2


@pytest.mark.parametrize("first", [("return", 1), ("raise", "nobody hears this")])
def test_a_first_job_leaves_no_answer(first: tuple[str, object]) -> None:
    with Worker("runners:obey", first) as worker:
        assert worker.run(("return", 2), 60.0) == 2
        assert worker.run(("return", 3), 60.0) == 3
