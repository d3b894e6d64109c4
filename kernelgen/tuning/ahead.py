"""What can be done for a kernel before it is tuned, while the GPU is busy with the one before: its plan, what its
candidates are tried on, and the binaries of the first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from kernelgen.errors import TilesmithError

if TYPE_CHECKING:
    from kernelgen.cells.language import Cell
    from kernelgen.hardware.profile import Profile
    from kernelgen.program.program import Program
    from kernelgen.program.shape import Shape
    from kernelgen.program.source import Language
    from kernelgen.program.task import Direction
    from kernelgen.program.tiling import Tiling
    from kernelgen.tuning.workers import Cases

FIRST = 8
"""Candidates to compile ahead: those that the first minutes of a search come to."""

T = TypeVar("T")


@dataclass(frozen=True)
class Kernel:
    """What kernel is meant. language: None for any."""

    cell: Cell
    shape: Shape
    profile: Profile
    direction: Direction
    language: Language | None = "cuda"

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for the same kernel."""
        return self.cell.fingerprint, self.shape, self.profile.name, self.direction, self.language


@dataclass
class Ahead:
    """What one process has done ahead. Thread-safe: who asks for what is being done waits for it."""

    _plans: dict[tuple[object, ...], Future[list[Tiling]]] = field(default_factory=dict)
    _cases: dict[tuple[object, ...], Future[Cases]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None

    def plan(self, kernel: Kernel) -> list[Tiling]:
        """The tilings, fastest first by the model, which are kept for ``tilings``. Raises InfeasibleError."""
        return self._once(self._plans, kernel, lambda: _planned(kernel))

    def tilings(self, kernel: Kernel) -> list[Tiling]:
        """What ``plan`` gives; kept no longer."""
        return self._taken(self._plans, kernel, lambda: _planned(kernel))

    def cases(self, kernel: Kernel) -> Cases:
        """What candidates are tried on; kept no longer."""
        return self._taken(self._cases, kernel, lambda: _made(kernel))

    def begin(self, kernel: Kernel, top: int, compilers: int) -> None:
        """Do what can be done for a kernel, in a thread. top: candidates that will be tried, of which the first are
        compiled by so many threads. Nothing where another kernel's is not done yet."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._prepare, args=(kernel, top, compilers), daemon=True)
            self._thread.start()

    def _prepare(self, kernel: Kernel, top: int, compilers: int) -> None:
        from kernelgen.tuning.plan import spread

        with self._lock:  # cases are large: those that nobody came for go
            self._cases.clear()
        with suppress(TilesmithError), ThreadPoolExecutor(compilers) as pool:  # whoever tunes it is told
            tilings = spread(self.plan(kernel))[: min(top, FIRST)]
            compiled = [pool.submit(_compile, kernel, tiling) for tiling in tilings]
            self._once(self._cases, kernel, lambda: _made(kernel))
            for future in compiled:
                future.result()

    def _once(self, kept: dict[tuple[object, ...], Future[T]], kernel: Kernel, make: Callable[[], T]) -> T:
        """What is kept, or being made, or else is made here."""
        with self._lock:
            future = kept.get(kernel.key)
            mine = future is None
            if future is None:
                future = kept[kernel.key] = Future()
        if mine:
            try:
                future.set_result(make())
            except BaseException as error:
                with self._lock:
                    kept.pop(kernel.key, None)
                future.set_exception(error)
        return future.result()

    def _taken(self, kept: dict[tuple[object, ...], Future[T]], kernel: Kernel, make: Callable[[], T]) -> T:
        with self._lock:
            future = kept.pop(kernel.key, None)
        return make() if future is None else future.result()


def _planned(kernel: Kernel) -> list[Tiling]:
    from kernelgen.tuning.plan import plan

    return plan(kernel.cell, kernel.shape, kernel.profile, direction=kernel.direction, language=kernel.language)


def _made(kernel: Kernel) -> Cases:
    from kernelgen.verify.validate import gpu_cases

    return gpu_cases(kernel.cell, kernel.shape, direction=kernel.direction)


def _compile(kernel: Kernel, tiling: Tiling) -> None:
    """Into the cache, from which the search takes it."""
    from kernelgen import schedules
    from kernelgen.build.compile import compile_program

    program: Program = schedules.get(tiling.schedule).program(kernel.cell, kernel.shape, kernel.profile, tiling)
    compile_program(program)
