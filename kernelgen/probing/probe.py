"""Measure the GPU at hand: every microbenchmark compiled and run, the fastest of its variants kept, the rest said in words."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from kernelgen.build.compile import compile_source
from kernelgen.device.worker import Worker
from kernelgen.errors import ProfileError, TilesmithError, near_names
from kernelgen.hardware.files import LATENCIES
from kernelgen.hardware.profile import Profile
from kernelgen.probing.catalogue import COUNTED, cluster_launch, clusters, lacking, microbenchmarks
from kernelgen.probing.gpu_worker import RUNNER, CountJob, TimeJob
from kernelgen.probing.microbenchmark import Microbenchmark

NAMES = (*LATENCIES, COUNTED)
"""What can be measured."""

JOB_SECONDS = 60.0
"""How long a microbenchmark may take: it takes well under a second where nothing hangs."""

At = tuple[int, ...]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Point:
    """What a microbenchmark gave: the median clocks of an operation, and the least and most of its runs."""

    clocks: float
    least: float
    most: float
    runs: int
    variant: str = ""


@dataclass
class Measured:
    """What was measured: the points of each latency, all variants of them, the fastest first; clusters by size.

    incomplete: the names of which some points are missing. failures: why, in words.
    """

    points: dict[str, dict[At, list[Point]]] = field(default_factory=dict)
    clusters: dict[int, int] = field(default_factory=dict)
    incomplete: set[str] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    interrupted: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """What has a figure, in order."""
        return tuple(name for name in NAMES if self.points.get(name) or (name == COUNTED and self.clusters))


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
    Raises LaunchError where no worker can be started.
    """
    result = Measured()
    for name in only:
        if why := lacking(profile, name):
            on_event(f"{name} is left out: {why}", 0, 0)
    try:
        with Worker(runner) as worker:
            worker.start()
            _measure(profile, only, on_event, result, _Lane(worker, profile.arch, device))
    except KeyboardInterrupt:
        result.interrupted = True
    for name, places in _wanted(profile, only).items():
        if len(result.points.get(name, {})) < len(places):
            result.incomplete.add(name)
    return result


@dataclass(frozen=True)
class _Lane:
    """Where jobs go."""

    worker: Worker
    arch: str
    device: int

    def time(self, bench: Microbenchmark) -> Point:
        """Compile and run a microbenchmark."""
        cubin = compile_source(bench.source(self.arch)).cubin
        runs: list[float] = self.worker.run(TimeJob(bench, cubin, self.arch, self.device), JOB_SECONDS)
        return Point(statistics.median(runs), min(runs), max(runs), len(runs), bench.variant)

    def count(self, profile: Profile, cluster: int) -> int:
        """How many clusters run at a time whose blocks take all shared memory."""
        bench, launch = cluster_launch(profile, cluster)
        source = bench.source(self.arch)
        cubin = compile_source(source).cubin
        return int(self.worker.run(CountJob(launch, cubin, source.entry, self.arch, self.device), JOB_SECONDS))


def _wanted(profile: Profile, only: Collection[str]) -> dict[str, set[At]]:
    """The points of each latency."""
    wanted: dict[str, set[At]] = {}
    for bench in microbenchmarks(profile, only):
        wanted.setdefault(bench.latency, set()).add(bench.at)
    return wanted


def _measure(profile: Profile, only: Collection[str], on_event: OnEvent, result: Measured, lane: _Lane) -> None:
    benches = microbenchmarks(profile, only)
    sizes = clusters(profile) if COUNTED in only else ()
    total = len(sizes) + len(benches)
    for done, cluster in enumerate(sizes):
        on_event("measuring", done, total)
        fit = _try(result, f"{COUNTED}, clusters of {cluster}", partial(lane.count, profile, cluster))
        if fit:
            result.clusters[cluster] = fit
    for done, bench in enumerate(benches, start=len(sizes)):
        on_event("measuring", done, total)
        point = _try(result, in_words(bench.latency, bench.at), partial(lane.time, bench))
        if point is not None:
            points = result.points.setdefault(bench.latency, {}).setdefault(bench.at, [])
            points.append(point)
            points.sort(key=lambda each: each.clocks)
    on_event("measuring", total, total)


def _try(result: Measured, what: str, work: Callable[[], Found]) -> Found | None:
    """What the work gives; None where it fails, and a word about that."""
    try:
        return work()
    except TilesmithError as error:
        result.failures.append(f"{what}: {error}")
        return None


def in_words(name: str, at: At) -> str:
    """A point: "barrier, 128 threads"."""
    axes: Mapping[str, str] = {"cluster": "a cluster of {}", "threads": "{} threads", "blocks": "{} blocks"}
    words = [axes.get(axis, "{} bytes").format(value) for axis, value in zip(LATENCIES[name], at, strict=True)]
    return ", ".join([name, *words])
