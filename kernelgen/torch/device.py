"""Programs on CUDA tensors: chosen, compiled and loaded on first use, launched on PyTorch's current stream."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kernelgen.device import gpu
from kernelgen.device.executor import Executable, Launches, offsets
from kernelgen.device.native import NO_MEMORY, Memory
from kernelgen.errors import InfeasibleError, TilesmithError
from kernelgen.program.arguments import ArrayArgument
from kernelgen.program.shape import Shape

if TYPE_CHECKING:
    from kernelgen.build.compile import Binary
    from kernelgen.cells.language import Cell
    from kernelgen.hardware.profile import Profile
    from kernelgen.program.program import Program
    from kernelgen.program.task import Direction


@dataclass(frozen=True)
class Loaded:
    """A program on its GPU, at one shape: see engine.Kernel. numbers: its int32 arguments."""

    program: Program
    launches: Launches
    workspaces: tuple[ArrayArgument, ...]
    numbers: Mapping[str, np.int32]
    device: int

    def bind(self, names: tuple[str, ...]) -> Callable[[Sequence[Tensor | None]], None]:
        """See engine.Kernel; the function queues the program on PyTorch's current stream, and raises LaunchError."""
        between, size = offsets([array for array in self.workspaces if not array.empty])
        null = [array.name for array in self.workspaces if array.empty]
        numbers = dict(self.numbers) | dict.fromkeys(null, np.int32(0))
        allocate = partial(torch.empty, size, dtype=torch.uint8, device=torch.device("cuda", self.device))
        memory = Memory(between, allocate) if size else NO_MEMORY
        return self.launches.bound(names, numbers, self.device, torch._C._cuda_getCurrentRawStream, memory)


class DeviceEngine:
    """Runs programs on GPUs through the driver. Nothing is touched before the first one.

    A program is kept for each cell, GPU and shape; those that differ in seq alone share what is loaded. The first run
    of a new one takes about a second, or what compiling takes where the cache has no binary. So is the answer kept
    that there is none. What is expected compiles in a thread of its own, beside what is asked for first.
    """

    def __init__(self) -> None:
        self._loaded: dict[Any, Executable | str] = {}  # or why there is none: an error would hold its callers' tensors
        self._expected: dict[Any, Future[tuple[Program, tuple[Binary, ...]] | None]] = {}
        self._lock = threading.Lock()

    def kernel(
        self, cell: Cell, shape: Shape, direction: Direction, device: int, *, float_parameters: bool = False
    ) -> Loaded:
        """The program for a GPU: see engine.Engine.

        Raises InfeasibleError where no schedule has a kernel for the shape, CompileError and LaunchError.
        """
        key = _key(cell, shape, direction, device, float_parameters)
        found = self._loaded.get(key)
        if found is None:
            with self._lock:
                found = self._loaded.get(key)
                if found is None:
                    try:
                        found = self._load(cell, shape, direction, device, float_parameters)
                    except InfeasibleError as error:
                        found = str(error)
                    self._loaded[key] = found
        if isinstance(found, str):
            raise InfeasibleError(found)
        arguments = found.program.arguments(cell, shape)
        with gpu.selected(device):
            launches = found.at(shape)
        numbers = {name: np.int32(value) for name, value in arguments.numbers.items()}
        return Loaded(found.program, launches, arguments.workspaces, numbers, device)

    def expect(
        self, cell: Cell, shape: Shape, direction: Direction, device: int, *, float_parameters: bool = False
    ) -> None:
        """Compile in the background what will soon be asked for; nothing is done on the GPU there, which may be
        capturing a graph. What goes wrong is raised by ``kernel``."""
        key = _key(cell, shape, direction, device, float_parameters)
        if key in self._loaded or key in self._expected:
            return
        profile = gpu.device(device).profile()
        with self._lock:
            if key not in self._loaded and key not in self._expected:
                self._expected[key] = _background().submit(_compiled, cell, shape, profile, direction, float_parameters)

    def _load(self, cell: Cell, shape: Shape, direction: Direction, device: int, float_parameters: bool) -> Executable:
        from kernelgen.tuning.selection import compiled

        expected = self._expected.pop(_key(cell, shape, direction, device, float_parameters), None)
        found = None if expected is None else expected.result()
        profile = gpu.device(device).profile()
        # Where gates would be recomputed and cannot, nobody reads why: they are computed beforehand.
        program, binaries = found or compiled(
            cell, shape, profile, direction, float_parameters=float_parameters, told=not shape.recompute
        )
        executable = Executable(program, [binary.cubin for binary in binaries])
        executable.prepare(device)
        return executable


def _key(cell: Cell, shape: Shape, direction: Direction, device: int, float_parameters: bool) -> Any:
    """What programs are told apart by. How the product for dR is cut depends on the number of steps, but not on every
    single one."""
    steps = shape.seq.bit_length() if direction == "backward" else 0
    return (cell.fingerprint, replace(shape, seq=steps or 1), direction, device, float_parameters)


def _compiled(
    cell: Cell, shape: Shape, profile: Profile, direction: Direction, float_parameters: bool
) -> tuple[Program, tuple[Binary, ...]] | None:
    """What was expected, or None where that failed: who needs it tries again, and gets an error that nobody keeps. A
    future that keeps one would hold its callers' tensors."""
    from kernelgen.tuning.selection import compiled

    try:
        return compiled(cell, shape, profile, direction, float_parameters=float_parameters, told=False)
    except TilesmithError:
        return None


@cache
def _background() -> ThreadPoolExecutor:
    """A thread for what is expected: the compiler runs without the interpreter's lock."""
    return ThreadPoolExecutor(1, thread_name_prefix="tilesmith-compile")
