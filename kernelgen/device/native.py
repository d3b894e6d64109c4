"""The launcher in C++, where it was built and finds the driver: a program's calls at one shape, queued by one call."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from kernelgen.errors import LaunchError
from kernelgen.program.launch import Launch

SOURCES = Path(__file__).parent / "_launcher"
"""What the launcher is built from. A checkout has it; an installed package does not."""

DRIVER = "libcuda.so.1"
"""The library in which the launcher looks the driver up."""

CLUSTER_DIMENSION, COOPERATIVE = 4, 2
"""CUlaunchAttributeID (CUDA driver API)."""


@cache
def launcher() -> Any:
    """The launcher; None where it was not built, has no driver or, with a warning, was built from other sources."""
    try:
        found: Any = importlib.import_module("kernelgen.device._launcher_native")
    except ImportError:
        return None
    if SOURCES.is_dir():
        from constrint.core import sources_digest

        if getattr(found, "SOURCES", "") != sources_digest(SOURCES):
            warnings.warn(
                "the launcher in C++ was built from other sources than these and is not used: launches take longer. "
                "Build it anew: python setup.py build_ext --inplace, or pip install .",
                RuntimeWarning,
                stacklevel=2,
            )
            return None
    return found if found.open(DRIVER) else None


class Queue:
    """Calls at one shape on one GPU, through the launcher, which must be there.

    names: the arrays whose addresses a run is given, in order. steps: for each call its kernel's handle and entry, its
    launch, and its arguments: names, or values of the launch's own. numbers: those of the names that are int32.
    poisoned: the bytes of the arrays that are filled with 0xFF before. kernels: what the handles are of, which lives as
    long.
    """

    def __init__(
        self,
        context: int,
        names: Sequence[str],
        steps: Sequence[tuple[int, str, Launch, Sequence[Any]]],
        numbers: Mapping[str, Any],
        poisoned: Mapping[str, int],
        kernels: Sequence[Any] = (),
    ) -> None:
        self._kernels = kernels
        self._entries = [entry for _, entry, _, _ in steps]
        self._queue = queue = launcher().Queue(context, len(names))
        slots = {name: slot for slot, name in enumerate(names)}
        for name, size in poisoned.items():
            queue.fill(slots[name], size)
        for handle, _, launch, arguments in steps:
            laid = [
                (slots[one], 0) if one in slots else (-1, int(numbers[one] if isinstance(one, str) else one))
                for one in arguments
            ]
            queue.call(handle, launch.grid, launch.block, launch.shared_memory, _attributes(launch), laid)
        self._run = queue.run

    def __call__(self, stream: int, arrays: Sequence[Any]) -> None:
        """Queue the calls on a raw stream. arrays: in the order of names, addresses, None for null pointers or what has
        data_ptr(). Raises LaunchError."""
        code, call = self._run(stream, arrays)
        if code:
            self._refuse(code, call)

    def _refuse(self, code: int, call: int) -> None:
        from kernelgen.device import gpu

        what = "preparing a launch" if call < 0 else f"the launch of {self._entries[call]}"
        gpu.checked((gpu.require_driver().CUresult(code),), what)
        raise LaunchError(f"{what} failed")


def _attributes(launch: Launch) -> list[tuple[int, int, int, int]]:
    """A launch's attributes: number and value in up to three words."""
    found = []
    if launch.cluster > 1:
        if launch.grid[0] % launch.cluster:
            raise LaunchError(f"a grid of {launch.grid[0]} blocks cannot be cut into clusters of {launch.cluster}")
        found.append((CLUSTER_DIMENSION, launch.cluster, 1, 1))
    if launch.cooperative:
        found.append((COOPERATIVE, 1, 0, 0))
    return found
