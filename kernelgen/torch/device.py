"""Programs on CUDA tensors: chosen, compiled and loaded on first use, launched on PyTorch's current stream."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kernelgen.device import cublaslt, gpu, native
from kernelgen.device.executor import Executable, Launches, ProgramTurn, in_a_row, offsets
from kernelgen.device.launcher import DeviceKernel, launch_config
from kernelgen.device.native import NO_MEMORY, Memory
from kernelgen.errors import InfeasibleError, LaunchError, TilesmithError
from kernelgen.hardware.profile import share_of
from kernelgen.program.dtypes import dtype_info
from kernelgen.program.shape import INPUT_PRODUCT, Shape
from kernelgen.schedules.shared import dropped_elements, library_product, matrix_product, moved_rows
from kernelgen.schedules.shared.backward_step import arrays_read
from kernelgen.schedules.shared.dropped_elements import DroppedElements
from kernelgen.schedules.shared.forward_step import arrays_written
from kernelgen.schedules.shared.matrix_product import MatrixProduct
from kernelgen.schedules.shared.moved_rows import MovedRows
from kernelgen.torch.library_links import OfLibrary, Part, faster_by_library
from kernelgen.torch.wave_chunks import OneWay, chosen_chunk

if TYPE_CHECKING:
    from kernelgen.build.compile import Binary
    from kernelgen.cells.language import Cell
    from kernelgen.hardware.profile import Profile
    from kernelgen.program.launch import Launch
    from kernelgen.program.program import Program
    from kernelgen.program.source import Source
    from kernelgen.program.task import Direction
    from kernelgen.torch.engine import Layout, Link


@dataclass(frozen=True)
class Loaded(Part):
    """A program on its GPU, at one shape: see engine.Kernel."""

    program: Program = field(kw_only=True)
    device: int = field(kw_only=True)

    def bind(self, names: tuple[str, ...]) -> Callable[[Sequence[Tensor | None]], None]:
        """See engine.Kernel; the function queues the program on PyTorch's current stream, and raises LaunchError."""
        sizes = {array.name: array.nbytes for array in self.workspaces if not array.empty}
        null = [array.name for array in self.workspaces if array.empty]
        numbers = dict(self.numbers) | dict.fromkeys(null, np.int32(0))
        memory = _memory(sizes, self.device)
        return self.launches.bound(names, numbers, self.device, torch._C._cuda_getCurrentRawStream, memory)


@dataclass(frozen=True)
class Single:
    """A kernel of no recurrence for a GPU, which may still be compiling. numbers: its int32 arguments but for those
    that a link gives."""

    source: Source
    launch: Launch
    binary: Future[Binary]
    numbers: Mapping[str, int]


class DeviceEngine:
    """Runs programs on GPUs through the driver. Nothing is touched before the first one.

    A program is kept for each cell, GPU and shape; those that differ in seq alone share what is loaded. The first run
    of a new one takes about a second, or what compiling takes where the cache has no binary. So is the answer kept
    that there is none. What is expected compiles in a thread of its own, beside what is asked for first.

    programs: how many run at the same time on the multiprocessors that kernels are chosen for.
    """

    def __init__(self, programs: int = 1) -> None:
        self._programs = programs
        self._besides: dict[int, DeviceEngine] = {}
        self._loaded: dict[Any, Executable | str] = {}  # or why there is none: an error would hold its callers' tensors
        self._expected: dict[Any, Future[tuple[Program, tuple[Binary, ...]] | None]] = {}
        self._compiled: dict[Source, Future[Binary]] = {}
        self._kernels: dict[Source, DeviceKernel] = {}
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
            launches = found.at(shape, lanes=native.launcher() is not None)
        numbers = {name: np.int32(value) for name, value in arguments.numbers.items()}
        return Loaded(launches, arguments.workspaces, numbers, program=found.program, device=device)

    def expect(
        self, cell: Cell, shape: Shape, direction: Direction, device: int, *, float_parameters: bool = False
    ) -> None:
        """Compile in the background what will soon be asked for; nothing is done on the GPU there, which may be
        capturing a graph. What goes wrong is raised by ``kernel``."""
        key = _key(cell, shape, direction, device, float_parameters)
        if key in self._loaded or key in self._expected:
            return
        profile = self._profile(device)
        with self._lock:
            if key not in self._loaded and key not in self._expected:
                self._expected[key] = _background().submit(_compiled, cell, shape, profile, direction, float_parameters)

    def multiplies_input(self, cell: Cell, shape: Shape, device: int) -> bool:
        """See engine.Engine. By the model, of schedules that can."""
        from kernelgen.schedules import all_schedules
        from kernelgen.tuning.plan import microseconds_per_step, plan

        profile, taken = gpu.device(device).profile(), replace(shape, inputs=0)
        able = [schedule.name for schedule in all_schedules("forward") if INPUT_PRODUCT in schedule.honours]
        try:
            ours, other = (plan(cell, each, profile, top=1, schedules=able, told=False)[0] for each in (shape, taken))
        except InfeasibleError:
            return False
        columns = len(cell.input_gates) * shape.heads * shape.head_dim
        seconds = _seconds(MatrixProduct(shape.batch * shape.seq, columns, shape.inputs, shape.dtype), profile)
        more = shape.seq * (microseconds_per_step(ours, profile) - microseconds_per_step(other, profile))
        return more * 1e-6 < seconds

    def chunk_of_waves(self, cell: Cell, shape: Shape, layers: int, device: int, *, learning: bool) -> int | None:
        """See engine.Engine; by the model, of layers that have as many inputs as units."""
        from kernelgen.tuning.plan import microseconds_per_step, plan

        whole, columns = gpu.device(device).profile(), len(cell.input_gates) * shape.heads * shape.head_dim
        if layers > whole.multiprocessors:
            return None
        profile = share_of(whole, layers)
        row_bytes = shape.batch * shape.heads * shape.head_dim * dtype_info(shape.dtype).itemsize

        def product(steps: int) -> MatrixProduct:
            return MatrixProduct(shape.batch * steps, columns, shape.heads * shape.head_dim, shape.dtype)

        def into(steps: int) -> float:
            return 1e6 * _seconds(product(steps), whole)

        found = []
        passes: tuple[Direction, ...] = ("forward", "backward") if learning else ("forward",)
        for direction in passes:
            try:
                tiling, alone = (
                    plan(cell, shape, each, top=1, direction=direction, told=False)[0] for each in (profile, whole)
                )
                into(1)
            except InfeasibleError:
                return None
            needs = tiling.resources
            if needs.blocks > profile.multiprocessors * needs.blocks_per_sm:
                return None  # a layer would wait for another one's blocks
            step, at_best = (microseconds_per_step(each, whole) for each in (tiling, alone))
            arrays = len(cell.input_gates)
            arrays += arrays_written(cell, shape) if direction == "forward" else arrays_read(cell, shape)
            moved = 1e6 * arrays * row_bytes / whole.memory_bandwidth
            # R's gradient is made beside.
            found.append(OneWay(step, shape.seq * at_best + into(shape.seq), 2, into, moved))
        return chosen_chunk(shape.seq, layers, found)

    def beside(self, programs: int) -> DeviceEngine:
        """See engine.Engine."""
        return self._besides.setdefault(programs, DeviceEngine(programs)) if programs > 1 else self

    def product(self, product: MatrixProduct, device: int) -> OfLibrary | Single | None:
        """See engine.Engine: the library's where the model says that it is faster, else a kernel of ours."""
        profile = gpu.device(device).profile()
        try:
            ours = matrix_product.predicted_seconds(product, profile)
        except InfeasibleError:  # it has not the instructions
            return None
        if cublaslt.library() is not None and faster_by_library(product, ours, profile):
            return OfLibrary(product)
        return self._own(product, profile)

    def _own(self, product: MatrixProduct, profile: Profile) -> Single:
        """A product by a kernel of ours."""
        source, launch = matrix_product.kernel(product, profile)
        sizes = {"rows": product.rows, "columns": product.columns, "depth": product.depth}
        return self._single(source, launch, sizes)

    def moved_rows(self, moved: MovedRows, device: int) -> Single:
        """See engine.Engine. Raises LaunchError for more rows than a kernel counts."""
        return self._single(*moved_rows.kernel(moved, gpu.device(device).profile()))

    def dropped_elements(self, dropped: DroppedElements, device: int) -> Single:
        """See engine.Engine. Raises LaunchError for more elements than a kernel counts."""
        return self._single(*dropped_elements.kernel(dropped, gpu.device(device).profile()))

    def _single(self, source: Source, launch: Launch, numbers: Mapping[str, int]) -> Single:
        from kernelgen.build.compile import compile_source

        with self._lock:
            if source not in self._compiled:
                self._compiled[source] = _compilers().submit(compile_source, source)
            return Single(source, launch, self._compiled[source], numbers)

    def chain(self, links: Sequence[Link], layout: Layout, device: int) -> Callable[[Sequence[Tensor | None]], None]:
        """See engine.Engine; the function queues all on PyTorch's current stream, and raises LaunchError. Raises
        CompileError and LaunchError."""
        between, parts = dict(layout.between), []
        for place, link in enumerate(links):
            part = self._part(link, device)
            own = {}
            for array in part.workspaces:
                if array.empty:
                    continue
                # What is filled before all begins is one link's own; the rest is shared by the links of a lane.
                # So are those of a program whose later calls may run beside the next one of its lane.
                alone = array.name in part.launches.poisoned or link.aside is not None
                name = own[array.name] = f"{place}.{array.name}" if alone else f"lane {link.lane}.{array.name}"
                between[name] = max(array.nbytes, between.get(name, 0))
            numbers = dict(part.numbers) | {name: np.int32(value) for name, value in link.numbers.items()}
            null = dict.fromkeys(part.launches.names, 0)
            parts.append((part.launches, null | numbers | own | dict(link.arrays)))
        memory = _memory(between, device, layout.inside)
        lanes = any(link.lane or link.aside for link in links)
        turns = [ProgramTurn(link.lane, link.after, link.aside) for link in links] if lanes else None
        return in_a_row(parts, turns).bound(layout.given, {}, device, torch._C._cuda_getCurrentRawStream, memory)

    def _part(self, link: Link, device: int) -> Part:
        """What a link runs, loaded; a product that the library turns out not to make by a kernel of ours."""
        ready = link.ready
        if isinstance(ready, OfLibrary):
            profile = gpu.device(device).profile()
            try:
                return ready.part(profile, device, self._copy(device), link.numbers, bias="bias" in link.arrays)
            except LaunchError:
                ready = self._own(ready.product, profile)
        if isinstance(ready, Single):
            return self._started(ready, device)
        assert isinstance(ready, Loaded)
        return ready

    def _copy(self, device: int) -> Callable[[MovedRows], Part]:
        """What makes a copy of rows, loaded."""
        return lambda moved: self._started(self.moved_rows(moved, device), device)

    def _started(self, single: Single, device: int) -> Part:
        """A kernel of no recurrence, loaded."""
        binary, launch = single.binary.result(), single.launch
        with gpu.selected(device):
            with self._lock:
                kernel = self._kernels.get(single.source)
                if kernel is None:
                    kernel = DeviceKernel(binary.cubin, single.source.entry, single.source.arch, launch)
                    self._kernels[single.source] = kernel
            kernel.prepare(device)
            step = (kernel, launch_config(launch), single.source.arguments)
        numbers = {name: np.int32(value) for name, value in single.numbers.items()}
        return Part(Launches((step,), {}, (launch,)), (), numbers)

    def _profile(self, device: int) -> Profile:
        """Of what a program has of a GPU."""
        return share_of(gpu.device(device).profile(), self._programs)

    def _load(self, cell: Cell, shape: Shape, direction: Direction, device: int, float_parameters: bool) -> Executable:
        from kernelgen.tuning.selection import compiled

        expected = self._expected.pop(_key(cell, shape, direction, device, float_parameters), None)
        found = None if expected is None else expected.result()
        profile = self._profile(device)
        # Where gates would be recomputed and cannot, nobody reads why: they are computed beforehand.
        program, binaries = found or compiled(
            cell, shape, profile, direction, float_parameters=float_parameters, told=not shape.recompute
        )
        executable = Executable(program, [binary.cubin for binary in binaries])
        executable.prepare(device)
        return executable


def _seconds(product: MatrixProduct, profile: Profile) -> float:
    """What a product takes by the model, whoever makes it. Raises InfeasibleError where no kernel of ours could."""
    ours = matrix_product.predicted_seconds(product, profile)
    return min(ours, library_product.predicted_seconds(product, profile))


def _memory(sizes: Mapping[str, int], device: int, inside: Mapping[str, tuple[str, int]] = NO_MEMORY.inside) -> Memory:
    """Memory for arrays of these bytes that a run is not given. inside: those that lie in one of these, or in one that
    is given, with its name and where they begin there."""
    at, size = offsets(sizes)
    at |= {name: at[whole] + offset for name, (whole, offset) in inside.items() if whole in at}
    inside = {name: place for name, place in inside.items() if name not in at}
    allocate = partial(torch.empty, size, dtype=torch.uint8, device=torch.device("cuda", device))
    return Memory(at, allocate if size else NO_MEMORY.allocate, inside)


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
def _compilers() -> ThreadPoolExecutor:
    """Threads for kernels of no recurrence, beside that which is waited for."""
    return ThreadPoolExecutor(4, thread_name_prefix="tilesmith-compile-small")


@cache
def _background() -> ThreadPoolExecutor:
    """A thread for what is expected: the compiler runs without the interpreter's lock."""
    return ThreadPoolExecutor(1, thread_name_prefix="tilesmith-compile")
