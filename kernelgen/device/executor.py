"""Executable: a program's binaries, loaded and started in order. What every caller's arrays end in: addresses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from kernelgen.build.triton import SCRATCH_ARGUMENTS
from kernelgen.device import gpu, native
from kernelgen.device.cublaslt import PlannedProduct, planned
from kernelgen.device.launcher import DeviceKernel, launch_config, stream_of
from kernelgen.errors import LaunchError
from kernelgen.program.arguments import STEP, ArrayArgument
from kernelgen.program.lanes import Turn
from kernelgen.program.launch import Launch
from kernelgen.program.product import SCRATCH_BYTES, ProductCall
from kernelgen.program.program import LANES, KernelCall, Program
from kernelgen.program.shape import Shape

POISON_BYTE = 0xFF
"""What workspaces that must start poisoned are filled with (cuda/ptx.cuh, messages)."""

ALIGNMENT = 256
"""Bytes: where arrays of a workspace begin, as cudaMalloc's do (CUDA C++ Programming Guide)."""


@dataclass(frozen=True)
class Launches:
    """A program's calls at one shape, on a GPU that is prepared: (kernel, or product of a library; cuda-core's
    configuration; arguments: names, or values that are the launch's own).

    poisoned: the bytes of the workspaces that must be all 0xFF, which every run fills anew, for a run leaves anything
    there: runs in a row, or of a CUDA graph that has recorded one, each find them so. launches: the calls' own, for the
    launcher in C++; None of a library's products. turns: what may run at the same time, for it too; without it all run
    in this order. None where they always do.
    """

    steps: tuple[tuple[DeviceKernel | PlannedProduct, Any, tuple[str | int | np.int32, ...]], ...]
    poisoned: Mapping[str, int] = field(default_factory=dict)
    launches: tuple[Launch | None, ...] = ()
    turns: tuple[Turn, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """The names of the calls' arguments."""
        return frozenset(one for _, _, arguments in self.steps for one in arguments if isinstance(one, str))

    def run(self, stream: Any, values: Mapping[str, Any]) -> None:
        """Queue the calls on a cuda-core stream of the GPU, which must be current.

        values: addresses as int (0 for null) and NumPy int32, by the arguments' names. Raises LaunchError.
        """
        for name, size in self.poisoned.items():
            gpu.fill(values[name], POISON_BYTE, size, stream)
        for kernel, config, names in self.steps:
            kernel.start(stream, config, *[values[name] if isinstance(name, str) else name for name in names])

    def bound(
        self,
        names: Sequence[str],
        numbers: Mapping[str, np.int32],
        device: int,
        stream: Callable[[int], int],
        memory: native.Memory = native.NO_MEMORY,
    ) -> Callable[[Sequence[Any]], None]:
        """The calls as a function of the arrays ``names`` on GPU ``device``: addresses, None for null pointers, or what
        has data_ptr(). numbers: the int32 arguments. stream: the raw stream to queue on, of a device. memory: for the
        arrays that are not given.

        In C++ where that was built: Python takes several times as long. The function raises LaunchError.
        """
        if self.launches and native.launcher() is not None:
            steps = [
                (kernel, launch, arguments)
                for (kernel, _, arguments), launch in zip(self.steps, self.launches, strict=True)
            ]
            context = int(gpu.primary_context(device))
            return native.queue(
                device,
                context,
                names,
                steps,
                numbers,
                stream=stream,
                memory=memory,
                poisoned=self.poisoned,
                turns=self.turns,
            )

        def start(arrays: Sequence[Any]) -> None:
            values: dict[str, Any] = {name: _address(array) for name, array in zip(names, arrays, strict=True)}
            values.update(numbers)
            room = memory.allocate() if memory.offsets else None
            values.update((name, _address(room) + offset) for name, offset in memory.offsets.items())
            for name, (whole, offset) in memory.inside.items():
                values[name] = values[whole] and values[whole] + offset
            with gpu.selected(device):  # a thread of autograd's may have none
                self.run(stream_of(stream(device)), values)

        return start


class ProgramTurn(NamedTuple):
    """When a program runs that is one of several: in a lane, after earlier programs of other lanes, by their places.
    aside: the lane of its calls behind the first, which nothing waits for then."""

    lane: int = 0
    after: tuple[int, ...] = ()
    aside: int | None = None


def in_a_row(
    links: Sequence[tuple[Launches, Mapping[str, Any]]], turns: Sequence[ProgramTurn] | None = None
) -> Launches:
    """The calls of several programs, one program after another. links: of each also its arguments' names in the whole,
    or their values. turns: of each program, where some may run at the same time; the calls of each one follow each
    other then, even those that need not."""
    steps: list[Any] = []
    started: list[Launch | None] = []
    poisoned: dict[str, int] = {}
    for program, meaning in links:
        for kernel, config, arguments in program.steps:
            steps.append((kernel, config, tuple(meaning[one] if isinstance(one, str) else one for one in arguments)))
        started += program.launches
        poisoned.update((meaning[name], size) for name, size in program.poisoned.items())
    programs = [program for program, _ in links]
    of_calls = _after_another(programs) if turns is None else _in_lanes(programs, turns)
    return Launches(tuple(steps), poisoned, tuple(started), tuple(of_calls))


def _in_lanes(programs: Sequence[Launches], turns: Sequence[ProgramTurn]) -> list[Turn]:
    """When each call of programs runs that have turns."""
    found: list[Turn] = []
    ends: list[int] = []  # of each program: the call that is waited for
    for program, turn in zip(programs, turns, strict=True):
        begin, count = len(found), len(program.steps)
        found.append(Turn(turn.lane, tuple(ends[other] for other in turn.after)))
        for behind in range(1, count):
            waits = (begin,) if turn.aside is not None and behind == 1 else ()
            found.append(Turn(turn.lane if turn.aside is None else turn.aside, waits))
        ends.append(begin if turn.aside is not None else begin + count - 1)
    return found


def _after_another(programs: Sequence[Launches]) -> list[Turn]:
    """When each call runs of programs that follow each other; nothing where all calls do."""
    found: list[Turn] = []
    before: tuple[int, ...] = ()  # the last calls in each lane of the program before
    for program in programs:
        begin, ends = len(found), dict[int, int]()
        for lane, after in program.turns or [Turn()] * len(program.steps):
            waits = tuple(begin + place for place in after)
            found.append(Turn(lane, waits if waits or lane in ends else before))
            ends[lane] = len(found) - 1
        before = tuple(ends.values()) or before
    return found if any(turn.lane for turn in found) else []


class Executable:
    """A program and the cubins of its calls, in order. Loaded when a GPU is prepared.

    Raises LaunchError where there is no driver.
    """

    def __init__(self, program: Program, cubins: Sequence[bytes]) -> None:
        if len(cubins) != len(program.calls):
            raise LaunchError(f"a program of {len(program.calls)} calls needs as many binaries, not {len(cubins)}")
        self.program = program
        self._kernels = tuple(
            DeviceKernel(cubin, call.source.entry, call.source.arch, call.launch)
            for cubin, call in zip(cubins, program.calls, strict=True)
        )

    def prepare(self, index: int) -> None:
        """Make the program launchable on GPU ``index``. Raises LaunchError, see DeviceKernel.prepare."""
        for kernel in self._kernels:
            kernel.prepare(index)

    def at(self, shape: Shape, *, lanes: bool = False) -> Launches:
        """The calls at a shape. lanes: whether those that may run at the same time do, which takes the launcher in C++.
        A prepared GPU must be current: it is asked whether it has clusters, and room for the blocks of a cooperative
        launch. Raises LaunchError where it does not, and where a library is missing."""
        steps: list[Any] = []
        started: list[Launch | None] = []
        later = self.program.turns(shape, LANES if lanes else 1)[1:]
        laid = self._products(shape, later)  # of each call, which a program has once, what is alike in its launches
        for call, number in self.program.launches(shape.seq):
            if isinstance(call, ProductCall):
                steps += [(one, None, one.arguments) for one in laid[id(call)]]
                started += [None] * len(laid[id(call)])
                continue
            if id(call) not in laid:
                laid[id(call)] = self._laid(call, shape)
            kernel, launch, config, null = laid[id(call)]
            names = (np.int32(number) if name == STEP else name for name in call.source.arguments)
            steps.append((kernel, config, (*names, *null)))
            started.append(launch)
        recurrence = len(steps) - len(later)
        turns = [Turn()] * recurrence
        turns += [Turn(lane, tuple(place + recurrence - 1 for place in after)) for lane, after in later]
        beside = any(turn.lane for turn in turns)
        return Launches(tuple(steps), self.program.poisoned(shape), tuple(started), tuple(turns) if beside else ())

    def _products(self, shape: Shape, later: Sequence[Turn]) -> dict[int, list[Any]]:
        """The library's products by their calls' ids, planned. later: when the calls behind the recurrence run; the
        products of each lane have a part of the library's workspace."""
        if not self.program.library:
            return {}
        context = int(gpu.checked(gpu.require_driver().cuCtxGetCurrent(), "asking for the current GPU"))
        found = {id(call): list(planned(call, call.at(shape), context)) for call in self.program.between}
        last = [(call, gemm) for call in self.program.products for gemm in call.at(shape)]
        lanes = [turn.lane for turn in later[len(later) - len(last) :]]
        beside = max(1, len({*lanes}))
        size = SCRATCH_BYTES // beside // ALIGNMENT * ALIGNMENT
        begins = {lane: place * size for place, lane in enumerate(dict.fromkeys(lanes))}
        for (call, gemm), lane in zip(last, lanes, strict=True):
            part = (begins[lane], begins[lane] + size)
            found.setdefault(id(call), []).extend(planned(call, (gemm,), context, scratch=part, beside=beside))
        return found

    def _laid(self, call: KernelCall, shape: Shape) -> list[Any]:
        """A call's kernel, its launch, cuda-core's configuration of that, and what follows its arguments."""
        kernel, launch = self._kernels[self.program.calls.index(call)], call.launch.at(shape)
        if launch.cooperative:
            kernel.require_room(launch, shape)
        null = [0] * (SCRATCH_ARGUMENTS if call.source.language == "triton" else 0)
        return [kernel, launch, launch_config(launch), null]


def _address(array: Any) -> int:
    """An address as it is, 0 for None, or what data_ptr() says."""
    return array if isinstance(array, int) else 0 if array is None else int(array.data_ptr())


class Workspace:
    """Memory for what lies between the calls of a program: a buffer for each GPU and stream, which only grows.

    What runs on one stream runs in order, so the buffer of a stream can serve every run on it.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[int, int], gpu.DeviceBuffer] = {}

    def place(self, arrays: Sequence[ArrayArgument], device: int, stream: int) -> dict[str, int]:
        """The address of each array by name, for runs on a stream of a GPU that is current."""
        at, size = offsets({array.name: array.nbytes for array in arrays})
        if not size:
            return dict.fromkeys(at, 0)
        buffer = self._buffers.get((device, stream))
        if buffer is None or buffer.size < size:
            if buffer is not None:
                buffer.close()  # waits for whatever still uses it
            buffer = self._buffers[device, stream] = gpu.DeviceBuffer(size)
        return {name: buffer.pointer + offset for name, offset in at.items()}


def offsets(sizes: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """Where each array of so many bytes begins in memory for all of them, by name, and the size of that, in bytes."""
    at: dict[str, int] = {}
    size = 0
    for name, count in sizes.items():
        at[name] = size
        size += -(-count // ALIGNMENT) * ALIGNMENT
    return at, size
