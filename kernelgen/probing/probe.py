"""Measure the GPU at hand: every microbenchmark compiled and run, the fastest of its variants first."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from kernelgen.build.compile import compile_source
from kernelgen.device.worker import Worker
from kernelgen.errors import ProfileError, TilesmithError, near_names
from kernelgen.hardware.files import LATENCIES
from kernelgen.hardware.profile import Profile
from kernelgen.probing.catalogue import COUNTED, cluster_launch, clusters, lacking, microbenchmarks
from kernelgen.probing.gpu_worker import RUNNER, Job
from kernelgen.probing.microbenchmark import Microbenchmark

NAMES = (*LATENCIES, COUNTED)
"""What can be measured."""

JOB_SECONDS = 60.0
"""How long a microbenchmark may take: it takes well under a second where nothing hangs."""

At = tuple[int, ...]


@dataclass(frozen=True)
class Point:
    """What a microbenchmark gave: median clocks of an operation, or a count; and the least and most of its runs."""

    value: float
    least: float
    most: float
    runs: int
    variant: str = ""


@dataclass
class Measured:
    """What was measured: of each name the points, of each point all its variants, the fastest first.

    incomplete: the names of which points are missing. failures: why, in words. interrupted: by Ctrl-C.
    """

    points: dict[str, dict[At, list[Point]]] = field(default_factory=dict)
    incomplete: set[str] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    interrupted: bool = False


OnEvent = Callable[[str, int, int], None]
"""Told of a stage, how far it is and how far it goes; and of a remark, with 0 and 0."""


def check_names(names: Collection[str]) -> tuple[str, ...]:
    """The names in order, all where there are none. Raises ProfileError for one that is nothing to measure."""
    for name in names:
        if name not in NAMES:
            raise ProfileError(f"there is nothing called {name!r} to measure; {near_names(name, NAMES)}")
    return tuple(name for name in NAMES if not names or name in names)


def measure(
    profile: Profile, only: Collection[str], on_event: OnEvent, *, device: int = 0, runner: str = RUNNER
) -> Measured:
    """Measure the names ``only`` on GPU ``device``, whose profile is given, as far as it has what they need.

    Ctrl-C ends it with what there is. A microbenchmark that fails is written down, and the next one runs in a new
    process. runner: what the worker calls; another one serves for tests without a GPU.
    """
    tasks = {name: _tasks(profile, name) for name in only}
    result = Measured(incomplete={name for name, some in tasks.items() if some})
    total, done = sum(map(len, tasks.values())), 0
    try:
        with Worker(runner) as worker:
            for name, some in tasks.items():
                if why := lacking(profile, name):
                    on_event(f"{name} is left out: {why}", 0, 0)
                for task in some:
                    on_event("measuring", done, total)
                    _do(result, name, task, lambda job: worker.run(job, JOB_SECONDS), profile.arch, device)
                    done += 1
                if {task.at for task in some} == result.points.get(name, {}).keys():
                    result.incomplete.discard(name)
    except KeyboardInterrupt:
        result.interrupted = True
    return result


@dataclass(frozen=True)
class _Task:
    """A point to measure, one way. cluster: count how many of that size run at a time, rather than time anything."""

    at: At
    microbenchmark: Microbenchmark
    cluster: int = 0


def _tasks(profile: Profile, name: str) -> tuple[_Task, ...]:
    if name == COUNTED:
        return tuple(_Task((size,), cluster_launch(profile, size), size) for size in clusters(profile))
    return tuple(_Task(bench.at, bench) for bench in microbenchmarks(profile, [name]))


def _do(result: Measured, name: str, task: _Task, run: Callable[[Job], list[float]], arch: str, device: int) -> None:
    """Compile and run; a failure is a word about it."""
    bench = task.microbenchmark
    try:
        cubin = compile_source(bench.source(arch)).cubin
        runs = run(Job(bench, cubin, arch, device, count=task.cluster > 0))
    except TilesmithError as error:
        result.failures.append(f"{in_words(name, task.at)}: {error}")
        return
    points = result.points.setdefault(name, {}).setdefault(task.at, [])
    points.append(Point(statistics.median(runs), min(runs), max(runs), len(runs), bench.variant))
    points.sort(key=lambda point: point.value)


_IN_WORDS: Mapping[str, str] = {"cluster": "a cluster of {}", "threads": "{} threads", "blocks": "{} blocks"}


def axes_of(name: str) -> tuple[str, ...]:
    """What the points of a name depend on."""
    return LATENCIES.get(name, ("cluster",))


def in_words(name: str, at: At) -> str:
    """A point: "barrier, 128 threads"."""
    return ", ".join(
        [name, *(_IN_WORDS.get(axis, "{} bytes").format(n) for axis, n in zip(axes_of(name), at, strict=True))]
    )
