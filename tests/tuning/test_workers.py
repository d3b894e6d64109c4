"""Several workers, played by runners.paced: who does what, and that whoever is killed loses what it ran and no more."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from processes import start
from runners import write_script

from kernelgen.cells import load_cell
from kernelgen.device.worker import JobFailed
from kernelgen.errors import InfeasibleError, LaunchError
from kernelgen.hardware.profile import load_profile
from kernelgen.program.shape import Shape
from kernelgen.records.config import CellRecord
from kernelgen.records.config_reading import load_config
from kernelgen.records.store import Store
from kernelgen.records.workload import Work
from kernelgen.tuning import ahead as ahead_module
from kernelgen.tuning.ahead import Ahead, Kernel
from kernelgen.tuning.gpus import named
from kernelgen.tuning.kept_workers import KeptWorkers
from kernelgen.tuning.ray_workers import RayGpus, RemoteGpu, connect
from kernelgen.tuning.search import Event
from kernelgen.tuning.task_worker import TaskProcesses, _Deal
from kernelgen.tuning.tasks import Task, TaskResult
from kernelgen.tuning.tune import TuneResult, tune
from kernelgen.tuning.workers import LocalGpus, WorkerPool
from kernelgen.tuning.workload import predicted
from kernelgen.verify.gpu_worker import GpuJob
from kernelgen.verify.validate import gpu_cases

pytestmark = pytest.mark.unit

SMALL = Shape(2, 4, 1, 16)
TWO = LocalGpus((0, 1), "runners:paced")
TOP = 4
"""Candidates of a kernel."""

PATIENCE = 60.0
"""Seconds to wait for what must come."""


@pytest.fixture
def pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where runners.paced writes; nothing takes long."""
    folder = tmp_path / "paced"
    folder.mkdir()
    monkeypatch.setenv("PACED", str(folder))
    monkeypatch.setenv("PACE", "0.01")
    return folder


@pytest.fixture
def own_store(fresh_cache: Path, session_cache: Path) -> Path:
    """In use by the test alone; what NVRTC made is there."""
    (fresh_cache / "cubin").symlink_to(session_cache / "cubin")
    return fresh_cache / "trials.sqlite"


def _lines(file: Path) -> list[tuple[int, str]]:
    """(process, candidate) of each line."""
    if not file.exists():
        return []
    return [(int(number), name) for number, name in (line.split() for line in file.read_text().splitlines())]


def _until(ready: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < until
        time.sleep(0.01)


def _tune(store: Store | None, workers: Any = TWO, events: list[Event] | None = None, **options: Any) -> TuneResult:
    told = events if events is not None else []
    options = {"top": TOP, **options}
    return tune(load_cell("elman"), SMALL, "h200", store=store, workers=workers, on_event=told.append, **options)


# ---- one kernel on two GPUs ----


def test_two_workers_share_the_candidates_and_one_that_is_killed_loses_nothing(pace: Path, tmp_path: Path) -> None:
    """It is killed in the middle of its first, which the other tries once more."""
    (pace / "hold").touch()

    def kill() -> None:
        _until(lambda: len(_lines(pace / "began")) == 2)  # both at once
        os.kill(_lines(pace / "began")[0][0], signal.SIGKILL)
        (pace / "hold").unlink()

    threading.Thread(target=kill).start()
    events: list[Event] = []
    with Store(tmp_path / "trials.sqlite") as store:
        result = _tune(store, events=events)
        assert len(store.trials(status="measured")) == len(result.trials) == TOP
    assert {trial.status for trial in result.trials} == {"measured"}
    began = _lines(pace / "began")
    (victim, candidate) = began[0]
    assert began[1][0] != victim
    assert [number for number, name in began if name == candidate].count(victim) == 1
    assert Counter(name for _, name in began) == Counter([name for _, name in _lines(pace / "ended")] + [candidate])
    assert sum("another worker tries this kernel once more" in event.message for event in events) == 1
    assert [event.done for event in events if event.stage == "gpu"] == [*range(1, TOP + 1)]
    best = result.best.trial.measurement
    assert best is not None
    assert best.median_ms == min(trial.measurement.median_ms for trial in result.trials if trial.measurement)


_DRIVER = """
import sys
from pathlib import Path
from kernelgen.cells import load_cell
from kernelgen.program.shape import Shape
from kernelgen.records.store import Store
from kernelgen.records.workload import Work
from kernelgen.tuning.tune import tune
from kernelgen.tuning.workers import LocalGpus
with Store(Path(sys.argv[1])) as store:
    tune(load_cell("elman"), Shape(2, 4, 1, 16), "h200", store=store, top=4, workers=LocalGpus((0, 1), "runners:paced"))
"""


def test_a_driver_that_is_killed_goes_on_from_the_store(
    pace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trials.sqlite"
    driver = start(_DRIVER, path)
    _until(lambda: len(_lines(pace / "ended")) >= 2)
    (pace / "hold").touch()
    driver.kill()
    driver.communicate()
    before = _lines(pace / "ended")
    with Store(path) as store:
        kept = {trial.source_hash for trial in store.trials(status="measured")}
    assert len(kept) >= len(before) - 2  # but what its workers were about to report
    (pace / "hold").unlink()
    with Store(path) as store:
        result = _tune(store)
        assert {trial.status for trial in result.trials} == {"measured"}
        assert len({trial.source_hash for trial in store.trials(status="measured")}) == TOP
    assert sum(prepared.remembered for prepared in result.prepared_trials) == len(kept)


# ---- the pool by itself ----


class _Played:
    """An evaluator that answers as it is told."""

    def __init__(self, name: str, run: Callable[[Any], Any]) -> None:
        self.name = name
        self.cases: Any = ()
        self._run = run

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...

    def use(self, cases: Any) -> None:
        self.cases = cases

    def run(self, job: Any, seconds: float) -> Any:
        return self._run(job)


def _raise(error: Exception) -> Any:
    raise error


def _cases() -> Future[Any]:
    cases: Future[Any] = Future()
    cases.set_result(("case",))
    return cases


def _pool(*played: _Played, told: list[str] | None = None) -> WorkerPool:
    return WorkerPool(played, _cases(), 1.0, (told if told is not None else []).append)


JOB: Any = object()


def test_a_candidate_that_kills_every_worker_is_a_failure() -> None:
    told: list[str] = []
    found: list[Any] = []
    crash = JobFailed("the worker process was killed by SIGSEGV", "crash")
    with _pool(*(_Played(name, lambda job: _raise(crash)) for name in "ab"), told=told) as pool:
        pool.submit(JOB, found.append).result(PATIENCE)
        assert found == [crash]
        assert len(told) == 1


def test_a_lone_worker_that_is_killed_tries_once_more_and_one_that_crashes_does_not() -> None:
    for reason, often, tries in (("killed", 1, 2), ("killed", 9, 2), ("crash", 1, 1)):
        told: list[str] = []
        found: list[Any] = []
        ran: list[Any] = []
        lost = JobFailed(f"the worker process was {reason}", reason)

        def run(job: Any, ran: list[Any] = ran, lost: JobFailed = lost, often: int = often) -> Any:
            ran.append(job)
            return _raise(lost) if len(ran) <= often else "done"

        with _pool(_Played("a", run), told=told) as pool:
            pool.submit(JOB, found.append).result(PATIENCE)
        assert (found, len(ran)) == (["done"] if tries > often else [lost], tries)
        assert told == [f"a: {lost}; it tries this kernel once more"] * (tries - 1)


def test_a_worker_that_starts_no_more_leaves_its_candidate_to_the_others() -> None:
    told: list[str] = []
    found: list[Any] = []
    lost = _Played("a", lambda job: _raise(LaunchError("no driver")))
    with _pool(lost, _Played("b", lambda job: "done"), told=told) as pool:
        for future in [pool.submit(JOB, found.append) for _ in range(4)]:
            future.result(PATIENCE)
    assert found == ["done"] * 4
    assert told in ([], ["a is lost, the others go on: no driver"])
    with _pool(lost) as pool, pytest.raises(LaunchError, match="no driver"):
        pool.submit(JOB, found.append).result(PATIENCE)
    with _pool(lost) as pool:
        first = pool.submit(JOB, found.append)
        assert isinstance(first.exception(PATIENCE), LaunchError)
        assert isinstance(pool.submit(JOB, found.append).exception(PATIENCE), LaunchError)


def test_what_keeping_a_result_raises_comes_out() -> None:
    with _pool(_Played("a", lambda job: "done")) as pool, pytest.raises(ZeroDivisionError):
        pool.submit(JOB, lambda outcome: 1 // 0).result(PATIENCE)


# ---- workers that are kept ----


class _Counted(_Played):
    """What is started and ended of it, in order."""

    def __init__(self, name: str, run: Callable[[Any], Any], did: list[str], stopped: threading.Event) -> None:
        super().__init__(name, run)
        self.did, self.stopped = did, stopped

    def start(self) -> None:
        self.did.append(f"start {self.name}")

    def stop(self) -> None:
        self.did.append(f"stop {self.name}")
        self.stopped.set()

    def close(self) -> None:
        self.did.append(f"close {self.name}")


def test_kept_workers_stay_from_one_search_to_the_next_but_for_one_that_was_stopped() -> None:
    did: list[str] = []
    made: list[int] = []
    began, stopped = threading.Event(), threading.Event()

    def run(job: Any) -> Any:
        if job == "long":
            began.set()
            assert stopped.wait(PATIENCE)
            raise JobFailed("killed", "crash")
        return job

    def evaluators(profile: Any) -> list[_Counted]:
        made.append(len(made))
        return [_Counted(f"{name}{len(made)}", run, did, stopped) for name in "ab"]

    workers: Any = SimpleNamespace(count=2, evaluators=evaluators, share=lambda place, places: (place, places))
    profile: Any = SimpleNamespace(name="h200")
    kept = KeptWorkers(workers)
    assert (kept.count, kept.share(1, 2)) == (2, (1, 2))
    for _ in range(2):
        found: list[Any] = []
        used = kept.evaluators(profile)
        assert [evaluator.cases for evaluator in used] == [(), ()]
        with WorkerPool(used, _cases(), 1.0) as pool:
            for future in [pool.submit(job, found.append) for job in ("x", "y", "z")]:  # type: ignore[arg-type]
                future.result(PATIENCE)
        assert sorted(found) == ["x", "y", "z"]
    assert made == [0]
    assert set(did) == {"start a1", "start b1"}

    with WorkerPool(kept.evaluators(profile), _cases(), 1.0) as pool:
        future = pool.submit("long", found.append)  # type: ignore[arg-type]
        assert began.wait(PATIENCE)
    assert future.cancelled()
    (lost,) = {name.split()[1] for name in did if name.startswith("stop")}
    assert f"close {lost}" in did
    other = {"a1": "b1", "b1": "a1"}[lost]
    assert {evaluator.name for evaluator in kept.evaluators(profile)} == {other, lost[0] + "2"}
    kept.close()
    assert did.count(f"close {other}") == did.count(f"close {lost[0]}2") == 1


# ---- several kernels ----


def _tasks(folder: Path, count: int, top: int = 1) -> list[Task]:
    cell = load_cell("elman")
    return [
        Task(
            name=f"kernel{number}",
            cell=CellRecord.of(cell, "elman"),
            shape=Shape(2, 4 + number, 1, 16),
            direction="forward",
            profile=load_profile("h200"),
            path=folder / f"kernel{number}.yaml",
            budget=60.0,
            top=top,
        )
        for number in range(1, count + 1)
    ]


def test_a_process_that_is_killed_loses_no_kernel(pace: Path, tmp_path: Path, own_store: Path) -> None:
    """Three kernels by two processes, of which one is killed in the middle of the first."""
    (pace / "hold").touch()

    def kill() -> None:
        _until(lambda: len({number for number, _ in _lines(pace / "began")}) == 2)
        gpu_process = _lines(pace / "began")[0][0]
        tuner = int(Path(f"/proc/{gpu_process}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(tuner, signal.SIGKILL)
        (pace / "hold").unlink()

    killer = threading.Thread(target=kill)
    found: dict[str, TaskResult | str] = {}
    tasks = _tasks(tmp_path / "out", 3)
    work = [Work(load_cell("elman"), task.cell, task.shape, "forward", 3) for task in tasks]
    with TaskProcesses(2, TWO) as processes:
        assert processes.predict(work, tasks[0].profile) == predicted(work, tasks[0].profile)
        killer.start()
        assert processes.tune(tasks, lambda task, outcome: found.update({task.name: outcome})) is False
    killer.join()
    assert found.keys() == {task.name for task in tasks}
    for task in tasks:
        outcome = found[task.name]
        assert isinstance(outcome, TaskResult), outcome
        assert load_config(task.path) == outcome.config
        assert outcome.config.measured is not None
    with Store(own_store) as store:
        assert len({(t.shape, t.source_hash) for t in store.trials(status="measured")}) == 3
    # A process keeps its GPU's worker from one kernel to the next; the one that was killed took its own along.
    assert len({number for number, _ in _lines(pace / "began")}) == 3


_COMMAND = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_workers import TWO, _tasks
from kernelgen.tuning.task_worker import TaskProcesses
found = {}
with TaskProcesses(2, TWO) as processes:
    processes.tune(_tasks(Path(sys.argv[1]), 3, top=2), lambda task, outcome: found.update({task.name: outcome}))
assert len(found) == 3 and not any(isinstance(outcome, str) for outcome in found.values()), found
"""


def test_a_command_that_is_killed_loses_no_trial_and_measures_none_twice(
    pace: Path, tmp_path: Path, own_store: Path
) -> None:
    """Three kernels of two candidates by two processes; killed once three candidates were tried."""
    command = start(_COMMAND, tmp_path, Path(__file__).parent)
    _until(lambda: len(_lines(pace / "ended")) >= 3)
    (pace / "hold").touch()
    workers = {number for number, _ in _lines(pace / "began")}
    command.kill()
    command.communicate()
    _until(lambda: not any(map(_running, workers)))
    (pace / "hold").unlink()
    with Store(own_store) as store:
        kept = {(trial.shape, trial.source_hash): trial for trial in store.trials(status="measured")}
    assert kept
    began = len(_lines(pace / "began"))
    again = start(_COMMAND, tmp_path, Path(__file__).parent)
    output, _ = again.communicate()
    assert again.returncode == 0, output
    with Store(own_store) as store:
        after = {(trial.shape, trial.source_hash): trial for trial in store.trials(status="measured")}
    assert len(after) == 6
    assert all(after[which].measurement == trial.measurement for which, trial in kept.items())
    assert len(_lines(pace / "began")) - began == 6 - len(kept)


def _running(number: int) -> bool:
    """Whether a process runs, rather than waits to be looked after."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_tasks_are_dealt_to_who_planned_them_and_then_to_who_is_free(tmp_path: Path) -> None:
    a, b, c, d = _tasks(tmp_path, 4)
    deal = _Deal([a, b, c, d], [0, 1, 0, 0], 2)
    assert deal.take(0) == (a, 0, c)
    assert deal.take(1) == (b, 0, None)
    assert deal.take(1) == (d, 0, None)  # the last of the other's, which is not the one that it prepares
    deal.lost(1, d, 1)
    assert deal.take(0) == (c, 0, None)
    assert deal.take(0) == (d, 1, None)
    assert deal.take(0) is None


def test_what_was_done_ahead_is_done_once_and_failures_are_told_to_who_asks(
    tmp_path: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    did: list[str] = []

    def noted(name: str) -> None:
        made = getattr(ahead_module, name)

        def make(*given: Any) -> Any:
            did.append(name)
            return made(*given)

        monkeypatch.setattr(ahead_module, name, make)

    for name in ("_planned", "_made", "_compile"):
        noted(name)
    kernel = Kernel(load_cell("elman"), SMALL, load_profile("h200"), "forward")
    ahead = Ahead()
    tilings = ahead.plan(kernel)
    ahead.begin(kernel, 2, 1)
    assert ahead._thread is not None
    ahead._thread.join()
    assert ahead.tilings(kernel) == tilings
    assert [case.shape for case in ahead.cases(kernel)] == [case.shape for case in _made_cases(kernel)]
    assert sorted(did) == ["_compile", "_compile", "_made", "_planned"]
    ahead.tilings(kernel)  # nothing is kept longer
    assert did.count("_planned") == 2
    monkeypatch.setattr(ahead_module, "_planned", lambda kernel: _raise(InfeasibleError("nothing fits")))
    ahead.begin(kernel, 2, 1)
    for _ in range(2):
        with pytest.raises(InfeasibleError, match="nothing fits"):
            ahead.tilings(kernel)


def _made_cases(kernel: Kernel) -> Any:
    return gpu_cases(kernel.cell, kernel.shape, direction=kernel.direction)


def test_ctrl_c_lets_a_task_write_down_its_best(pace: Path, tmp_path: Path, own_store: Path) -> None:
    """The first of two has measured a kernel and tries the next."""

    def interrupt() -> None:
        _until(lambda: len(_lines(pace / "ended")) == 1)
        (pace / "hold").touch()
        _until(lambda: len(_lines(pace / "began")) > len(_lines(pace / "ended")))
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    found: dict[str, TaskResult | str] = {}
    tasks = _tasks(tmp_path / "out", 2, top=3)
    with TaskProcesses(1, LocalGpus((0,), "runners:paced")) as processes:
        assert processes.tune(tasks, lambda task, outcome: found.update({task.name: outcome}))
    assert found.keys() == {"kernel1"}
    outcome = found["kernel1"]
    assert isinstance(outcome, TaskResult), outcome
    assert outcome.interrupted
    assert load_config(tasks[0].path) == outcome.config
    assert not tasks[1].path.exists()


def test_parts_of_the_workers_have_none_in_common() -> None:
    five = LocalGpus((0, 1, 2, 5, 7), "x")
    assert [five.share(place, 2) for place in range(2)] == [LocalGpus((0, 2, 7), "x"), LocalGpus((1, 5), "x")]
    assert [RayGpus("a", 5).share(place, 3).count for place in range(3)] == [2, 2, 1]


# ---- what --workers says ----


def test_workers_are_named() -> None:
    assert named("", (), "h200") is None
    assert named("", (0, 2), "h200") == LocalGpus((0, 2))
    assert named("1", (0, 2), "h200") == LocalGpus((0,))
    with pytest.raises(
        LaunchError, match=r"--workers 3 asks for as many GPUs, and there is 2 GPUs h200 in this machine"
    ):
        named("3", (0, 2), "h200")
    with pytest.raises(LaunchError, match="there is no GPU h200 in this machine"):
        named("1", (), "h200")
    for wrong in ("0", "-1", "x", "1.5", "ra", "²", "9" * 5000):
        with pytest.raises(LaunchError, match="--workers takes a number"):
            named(wrong, (0,), "h200")


# ---- Ray ----


def test_without_ray_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(LaunchError, match="--workers ray needs Ray: pip install"):
        named("ray", (), "h200")


class _FakeRay:
    """What of Ray is used, in this process: a call of an actor is done when its result is asked for."""

    class exceptions:
        class RayError(Exception): ...

        class GetTimeoutError(RayError, TimeoutError): ...

    def __init__(self, gpus: int) -> None:
        self.gpus = gpus
        self.given: dict[str, Any] = {}
        self.killed = 0
        self.fault: Exception | None = None

    def is_initialized(self) -> bool:
        return bool(self.given)

    def init(self, **given: Any) -> None:
        self.given = given

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 4.0, "GPU": float(self.gpus)}

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(gcs_address="10.0.0.1:6379")

    def remote(self, kind: Any) -> Any:
        def made(*arguments: Any) -> Any:
            actor = kind(*arguments)
            calls = {
                name: SimpleNamespace(remote=lambda *given, name=name: lambda: getattr(actor, name)(*given))
                for name in ("begin", "use", "run")
            }
            return SimpleNamespace(**calls, worker=actor)

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=made))

    def get(self, call: Any, timeout: float) -> Any:
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault
        return call()

    def kill(self, actor: Any) -> None:
        self.killed += 1
        actor.worker._worker.close()


def test_a_cluster_tries_candidates_as_local_gpus_do(
    pace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = _FakeRay(2)
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setenv("PACED_GPU", "h200")
    gpus = connect("head:6379", "runners:paced")
    assert fake.given["address"] == "head:6379"
    assert (gpus.address, gpus.count) == ("head:6379", 2)
    assert connect("", "x").address == "10.0.0.1:6379"
    fake.fault = fake.exceptions.RayError("the node died")  # of the first call: that worker is lost, the other is not
    with Store(tmp_path / "trials.sqlite") as store:
        result = _tune(store, gpus)
        assert len(store.trials(status="measured")) == TOP
    assert {trial.status for trial in result.trials} == {"measured"}
    assert fake.killed >= 2


def test_a_cluster_with_other_gpus_or_none_is_refused(pace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", _FakeRay(1))
    monkeypatch.setenv("PACED_GPU", "a100-80gb")
    with pytest.raises(LaunchError, match="has a GPU a100-80gb, not the h200 that is tuned for"):
        _tune(None, connect("head:6379", "runners:paced"))
    monkeypatch.setitem(sys.modules, "ray", _FakeRay(0))
    with pytest.raises(LaunchError, match="has no GPU"):
        connect("")


def test_an_actor_answers_in_plain_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_script(monkeypatch, tmp_path, "wrong crash 0.5")
    job = GpuJob(SimpleNamespace(), ())  # type: ignore[arg-type]
    remote = RemoteGpu("runners:pretend")
    assert remote.run(job, PATIENCE) == ("error", "h differs")
    assert remote.run(job, PATIENCE) == ("crash", "the worker process ended with status 9")
    kind, outcome = remote.run(job, PATIENCE)
    assert (kind, outcome.measurement.median_ms) == ("done", 0.5)
    remote._worker.close()
    kind, message = RemoteGpu("runners:nobody").run(job, PATIENCE)
    assert kind == "lost"
    assert "did not start" in message


def test_ray_itself(pace: Path, tmp_path: Path) -> None:
    """On this machine, with two GPUs that Ray is told of."""
    ray = pytest.importorskip("ray")
    paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ["PYTHONPATH"]])
    environment = {name: os.environ[name] for name in ("PACED", "PACE")} | {"PYTHONPATH": paths}
    try:
        gpus = connect("", "runners:paced", num_gpus=2, num_cpus=2, runtime_env={"env_vars": environment})
        assert gpus.count == 2
        with Store(tmp_path / "trials.sqlite") as store:
            result = _tune(store, gpus)
            assert len(store.trials(status="measured")) == TOP
        assert {trial.status for trial in result.trials} == {"measured"}
        assert len({number for number, _ in _lines(pace / "began")}) == 2
    finally:
        ray.shutdown()
