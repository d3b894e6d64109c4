"""Workers on the GPUs of a Ray cluster: an actor for each, which keeps a worker process as a local GPU has one.

The search, the compiler and the store stay with whoever tunes; an actor gets programs, cubins and cases, and gives back
numbers. Every machine of the cluster needs the same tilesmith.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kernelgen.device.worker import JobFailed
from kernelgen.errors import LaunchError
from kernelgen.verify.gpu_worker import RUNNER, GpuJob, GpuWorker, Outcome

if TYPE_CHECKING:
    from kernelgen.hardware.profile import Profile
    from kernelgen.tuning.workers import Evaluator
    from kernelgen.verify.cases import ValidationCase

START_SECONDS = 180.0
"""How long an actor may take to start: Ray, Python and CUDA on a machine that has them in no cache."""

GRACE_SECONDS = 30.0
"""How much later than the worker process Ray gives a candidate up: the process has its own time limit."""

INSTALL = "pip install 'tilesmith[ray]', at the same version on every machine of the cluster"


class RemoteGpu:
    """What an actor is: a GPU's worker process on another machine. It answers in plain values."""

    def __init__(self, runner: str) -> None:
        self._worker = GpuWorker(0, runner)  # Ray shows an actor its own GPU alone

    def begin(self) -> str | None:
        """Start the process; the name of its GPU's profile, None where a runner for tests has none."""
        return self._worker.describe()

    def use(self, cases: Sequence[ValidationCase]) -> None:
        """Set the cases that every candidate is tried on."""
        self._worker.use(cases)

    def run(self, job: GpuJob, seconds: float) -> tuple[str, Any]:
        """Try a candidate: ("done", outcome), ("error" | "timeout" | "crash", message), or ("lost", message)."""
        try:
            return "done", self._worker.run(job, seconds)
        except JobFailed as error:
            return error.reason, str(error)
        except LaunchError as error:
            return "lost", str(error)


class RayGpu:
    """The driver's side of an actor; a new one takes the place of one that dies."""

    def __init__(self, ray: Any, name: str, profile: str, runner: str) -> None:
        self.name = name
        self.cases: tuple[ValidationCase, ...] = ()
        self._ray = ray
        self._profile = profile
        self._runner = runner
        self._actor: Any = None
        self._ready = False
        self._stopped = threading.Event()

    def start(self) -> None:
        """Ask Ray for the actor; it gets ready in the background."""
        if self._actor is None and not self._stopped.is_set():
            remote = self._ray.remote(RemoteGpu)
            self._actor = remote.options(num_gpus=1, num_cpus=1, max_restarts=0).remote(self._runner)
            self._ready = False

    def use(self, cases: Sequence[ValidationCase]) -> None:
        """Set the cases that every candidate is tried on."""
        self.cases = tuple(cases)
        self._ready = False

    def run(self, job: GpuJob, seconds: float) -> Outcome:
        """Try a candidate. Raises JobFailed, and LaunchError where no actor starts."""
        self.start()
        self._prepare()
        try:
            kind, value = self._ray.get(self._actor.run.remote(job, seconds), timeout=seconds + GRACE_SECONDS)
        except self._ray.exceptions.GetTimeoutError:
            self.close()
            raise JobFailed(f"{self.name} gave no answer within {seconds + GRACE_SECONDS:.0f} s", "timeout") from None
        except self._ray.exceptions.RayError as error:
            self.close()
            raise JobFailed(f"the Ray worker was lost: {_first_line(error)}", "crash") from error
        if kind == "lost":
            self.close()
            raise LaunchError(str(value))
        if kind != "done":
            raise JobFailed(str(value), kind)
        outcome: Outcome = value
        return outcome

    def stop(self) -> None:
        """End the actor, from another thread."""
        self._stopped.set()
        self._kill(self._actor)

    def close(self) -> None:
        """End the actor; a new one is asked for with the next candidate."""
        actor, self._actor = self._actor, None
        self._kill(actor)

    def _kill(self, actor: Any) -> None:
        if actor is not None:
            with contextlib.suppress(Exception):  # it may be gone, and so may Ray
                self._ray.kill(actor)

    def _prepare(self) -> None:
        """Wait for the actor, and hand it the cases. Raises LaunchError."""
        if self._ready or self._actor is None:
            return
        try:
            found = self._ray.get(self._actor.begin.remote(), timeout=START_SECONDS)
            if found is not None and found != self._profile:
                raise LaunchError(f"{self.name} has a GPU {found}, not the {self._profile} that is tuned for")
            self._ray.get(self._actor.use.remote(self.cases), timeout=START_SECONDS)
        except self._ray.exceptions.RayError as error:
            self.close()
            raise LaunchError(f"{self.name} did not start: {_first_line(error)}") from error
        self._ready = True


@dataclass(frozen=True)
class RayGpus:
    """GPUs of a Ray cluster. address: where another process finds it. count: how many. runner: see GpuWorker."""

    address: str
    count: int
    runner: str = RUNNER

    def evaluators(self, profile: Profile) -> Sequence[Evaluator]:
        """An actor for each GPU, in a cluster that this process is then a driver of. Raises LaunchError."""
        ray = _joined(self.address)
        return [RayGpu(ray, f"Ray worker {place}", profile.name, self.runner) for place in range(self.count)]

    def share(self, place: int, places: int) -> RayGpus:
        """As many of them; which they are, Ray says."""
        return RayGpus(self.address, len(range(place, self.count, places)), self.runner)


def connect(address: str = "", runner: str = RUNNER, **options: Any) -> RayGpus:
    """The GPUs of the cluster at an address, or where it is empty of this machine, on which Ray is then started.

    options: for ray.init. Raises LaunchError where there is no Ray, no cluster or no GPU in it.
    """
    ray = _joined(address, **options)
    count = int(ray.cluster_resources().get("GPU", 0))
    if not count:
        raise LaunchError(
            f"the Ray cluster {address or 'on this machine'} has no GPU; start its nodes where there are some "
            "(`ray start --num-gpus=N`), or leave --workers out"
        )
    return RayGpus(address or str(ray.get_runtime_context().gcs_address), count, runner)


def _joined(address: str, **options: Any) -> Any:
    """Ray, with this process a driver of the cluster. Raises LaunchError."""
    try:
        import ray
    except ImportError as error:
        raise LaunchError(f"--workers ray needs Ray: {INSTALL}") from error
    if not ray.is_initialized():
        more = {"address": address} if address else {"include_dashboard": False}
        try:
            ray.init(**more, **options, log_to_driver=False, logging_level="ERROR")
        except Exception as error:  # Ray raises what the network, its daemons and their versions make of it
            where = f"joins no cluster at {address}" if address else "does not start"
            raise LaunchError(f"Ray {where}: {_first_line(error)}") from error
    return ray


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
