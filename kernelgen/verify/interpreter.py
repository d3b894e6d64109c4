"""Run a Triton kernel on the CPU, in Triton's interpreter: the same text, each tile an array of NumPy.

It runs in a process of its own, for Triton is imported there with its interpreter switched on.
"""

from __future__ import annotations

import atexit
import functools
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kernelgen.build.triton import INSTALL, argument_types, installed
from kernelgen.device.worker import JobFailed, Worker
from kernelgen.errors import EmulationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kernelgen.program.launch import Launch
    from kernelgen.program.source import Source

RUNNER = "kernelgen.verify.interpreter_worker:run"

_lock = threading.Lock()


@dataclass(frozen=True)
class InterpreterJob:
    """A kernel to interpret. text: of its module. entry: its name. grid: its programs. arguments: in order; arrays,
    numbers and None for null. constants: values in place of the module's own. types: of each, as Triton has them.
    written: the positions of the arrays that come back."""

    text: str
    entry: str
    grid: tuple[int, int, int]
    arguments: tuple[Any, ...]
    types: tuple[str, ...]
    constants: Mapping[str, int]
    written: tuple[int, ...]


def interpret(
    source: Source,
    launch: Launch,
    arguments: Mapping[str, Any],
    *,
    constants: Mapping[str, int] | None = None,
    seconds: float = 600.0,
) -> None:
    """Run a kernel, and put what it wrote into the arrays of ``arguments``, which are as of emulator.emulate.

    constants: values of the kernel's constants in place of the source's, such as fewer heads.

    Raises EmulationError where Triton is missing, or the kernel cannot be interpreted.
    """
    if not installed():
        raise EmulationError(f"interpreting a Triton kernel needs Triton, which is not installed. {INSTALL}")
    values = tuple(arguments[name] for name in source.arguments)
    written = tuple(
        place for place, name in enumerate(source.arguments) if name in source.writes and values[place] is not None
    )
    types = tuple(argument_types(source).values())
    job = InterpreterJob(source.text, source.entry, launch.grid, values, types, dict(constants or {}), written)
    with _lock:
        try:
            results: list[NDArray[np.generic]] = _worker().run(job, seconds)
        except JobFailed as error:
            raise EmulationError(f"Triton's interpreter stopped {source.entry}: {error}") from error
    for place, result in zip(written, results, strict=True):
        values[place][...] = result


@functools.cache
def _worker() -> Worker:
    worker = Worker(RUNNER)
    atexit.register(worker.close)
    return worker
