"""Kernel: a tuned kernel as a callable on GPU arrays of any library.

    kernel = kernelgen.load("lstm.yaml")
    states, last, gates = kernel(wx, r, b)

    kernel = kernelgen.load("lstm_backward.yaml")
    d_wx, d_r, d_b, d_initial = kernel(r, None, states, gates, d_states)

Everything that can be worked out once is: a call checks its arrays, allocates the outputs and launches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kernelgen.device import gpu
from kernelgen.device.arrays import Library, library_of
from kernelgen.device.executor import Executable, Launches, Workspace
from kernelgen.device.launcher import stream_of
from kernelgen.errors import LaunchError
from kernelgen.program.arguments import Arguments, ArrayArgument
from kernelgen.program.dtypes import dtype_info
from kernelgen.program.program import Program
from kernelgen.program.shape import Shape
from kernelgen.program.task import Direction

if TYPE_CHECKING:
    from kernelgen.cells.language import Cell
    from kernelgen.records.config import TunedConfig


OWN = ("w", "input_bias", "resets", "lengths", "order")
"""What a kernel takes where its shape says so: the weights of its input, and what sequences have of their own."""

REMEMBERED_CALLS = 1024
"""How many shapes of its leading array a kernel keeps prepared."""


class Forward(NamedTuple):
    """What a forward kernel writes: states [K, B, T, H, D] with K = 1 (h) where the shape saves "hidden", else all
    S states; last [S, B, H, D]; gates [G_saved, B, T, H, D], the sums that a backward pass needs, where the shape saves
    "gates", else None."""

    states: Any
    last: Any
    gates: Any


class Backward(NamedTuple):
    """What a backward program writes: the gradients d_wx [B, T, G_in, H, D], d_r [G_rec, H, D, D], d_b [G_bias, H, D]
    and d_initial [S, B, H, D]. None where there is no such gate."""

    d_wx: Any
    d_r: Any
    d_b: Any
    d_initial: Any


@dataclass(frozen=True)
class _Call:
    """All of a call that depends on the leading array's shape, dtype and place alone.

    defaults: every argument by name, the numbers as they are and null pointers for the arrays.
    """

    library: Library
    device: int
    context: int
    launches: Launches
    lead: ArrayArgument
    inputs: tuple[ArrayArgument, ...]
    outputs: tuple[ArrayArgument, ...]
    workspaces: tuple[ArrayArgument, ...]
    defaults: dict[str, Any]


class Kernel(ABC):
    """A tuned kernel; ``load`` makes a ForwardKernel or a BackwardKernel, whose __call__ says what it takes.

    The heads, the head dimension and the dtype are those it was tuned for; batch and sequence length may be any. It
    knows nothing of autograd.

    shape: what it was tuned for. config: the configuration it was loaded from, if any.
    """

    direction: Direction
    results: tuple[str, ...]
    """The names of the outputs, in the order in which they are returned."""

    def __init__(self, program: Program, cubins: Sequence[bytes], cell: Cell, shape: Shape) -> None:
        self.shape = shape
        self.config: TunedConfig | None = None
        self._cell = cell
        self._program = program
        self._executable = Executable(program, cubins)
        self._workspace = Workspace()
        self._driver = gpu.require_driver()
        self._calls: dict[Any, _Call] = {}
        inputs = self.arguments(shape).inputs
        self._lead = next(array.name for array in inputs if {"B", "T"} <= set(array.axes) and not array.empty)

    def arguments(self, shape: Shape) -> Arguments:
        """What it takes at another batch and seq."""
        return self._program.arguments(self._cell, shape)

    def __repr__(self) -> str:
        arch = self._program.main.source.arch
        return f"<tilesmith {self.direction} kernel of {self._cell.name} for {self.shape}, {arch}>"

    @abstractmethod
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Run the recurrence over all steps; returns as soon as the kernel is queued."""

    def _run(self, given: Mapping[str, Any], out: Any, stream: Any) -> list[Any]:
        """Check the inputs, given by name, allocate the outputs unless they are given too, and launch; the outputs."""
        lead = given[self._lead]
        key = (type(lead), getattr(lead, "shape", None))
        call = self._calls.get(key)
        if call is None or not call.library.fits(lead, call.lead.shape, call.device):
            if len(self._calls) >= REMEMBERED_CALLS:
                self._calls.clear()
            call = self._calls[key] = self._prepare(lead)
        library, device, pointer = call.library, call.device, call.library.pointer
        for name in OWN:
            if given.get(name) is not None and name not in call.defaults:
                raise LaunchError(f"this kernel takes no {name}: its shape, {self.shape}, does not ask for any")
        values = call.defaults.copy()
        for argument in call.inputs:
            array = given.get(argument.name)
            if array is None:
                if not (argument.optional or argument.empty):
                    raise LaunchError(_missing(argument))
                continue
            kind = library if argument.dtype == self.shape.dtype else library.of(argument.dtype)
            if array is not lead and not kind.fits(array, argument.shape, device):
                raise LaunchError(_misfit(argument, array, call))
            values[argument.name] = pointer(array)
        if out is None:
            made = [None if argument.empty else library.empty(argument.shape, device) for argument in call.outputs]
        else:
            made = self._given(out, call)
        for argument, array in zip(call.outputs, made, strict=True):
            if array is not None:
                values[argument.name] = pointer(array)
        handle = library.stream(device) if stream is None else raw_stream(stream)
        driver = self._driver
        foreign = int(driver.cuCtxGetCurrent()[1]) != call.context
        if foreign:
            gpu.checked(driver.cuCtxPushCurrent(gpu.primary_context(device)), f"selecting GPU {device}")
        try:
            if call.workspaces:
                values |= self._workspace.place(call.workspaces, device, handle)
            call.launches.run(stream_of(handle), values)
        finally:
            if foreign:
                driver.cuCtxPopCurrent()
        return made

    def _given(self, out: Any, call: _Call) -> list[Any]:
        """Check the outputs to write into."""
        if not isinstance(out, tuple | list) or len(out) != len(call.outputs):
            raise LaunchError(f"out must be ({', '.join(self.results)}), with None for what this kernel does not write")
        library = call.library
        for argument, array in zip(call.outputs, out, strict=True):
            if argument.empty:
                if array is not None:
                    raise LaunchError(f"{argument.name} must be None: this kernel writes none")
            elif array is None:
                raise LaunchError(_missing(argument))
            elif not library.fits(array, argument.shape, call.device):
                raise LaunchError(_misfit(argument, array, call))
        return list(out)

    def _prepare(self, lead: Any) -> _Call:
        """Check the leading array, whose sizes say the batch and the number of steps, and work out what follows."""
        import numpy as np

        library = library_of(lead, dtype_info(self.shape.dtype).stored)
        found = library.describe(lead)
        wanted = self._leading(self.arguments(self.shape))
        batch_axis, step_axis = wanted.axes.index("B"), wanted.axes.index("T")
        if len(found.shape) != len(wanted.axes) or 0 in (found.shape[batch_axis], found.shape[step_axis]):
            free = ("B", "T", "H", "D")
            sizes = [axis if axis in free else str(size) for axis, size in zip(wanted.axes, wanted.shape, strict=True)]
            raise LaunchError(f"{wanted.name} must be [{', '.join(sizes)}] with B and T of at least 1, not {found}")
        shape = replace(self.shape, batch=int(found.shape[batch_axis]), seq=int(found.shape[step_axis]))
        arguments = self.arguments(shape)
        wanted = self._leading(arguments)
        if found.device is None:
            raise LaunchError(f"{wanted.name} must be on a GPU, but it is {found}")
        if not library.fits(lead, wanted.shape, found.device):
            needed = f"a C-contiguous {wanted.dtype} array {list(wanted.shape)}"
            raise LaunchError(f"{wanted.name} must be {needed}, not {found}")
        self._executable.prepare(found.device)
        with gpu.current(found.device):
            launches = self._executable.at(shape)
        named = {array.name: array for array in arguments.outputs}
        arrays = (*arguments.inputs, *arguments.outputs, *arguments.workspaces)
        numbers = {name: np.int32(value) for name, value in arguments.numbers.items()}
        return _Call(
            library=library,
            device=found.device,
            context=int(gpu.primary_context(found.device)),
            launches=launches,
            lead=wanted,
            inputs=arguments.inputs,
            outputs=tuple(named[name] for name in self.results),
            workspaces=tuple(array for array in arguments.workspaces if not array.empty),
            defaults=dict.fromkeys((array.name for array in arrays), 0) | numbers,
        )

    def _leading(self, arguments: Arguments) -> ArrayArgument:
        """The leading array among the inputs."""
        return next(array for array in arguments.inputs if array.name == self._lead)


class ForwardKernel(Kernel):
    """A tuned forward kernel, called as ``kernel(wx, r, b, initial=None, *, out=None, stream=None)``, with resets,
    lengths and order where its shape has resets or lengths; where it has inputs, as ``kernel(x, r, b, initial=None, *,
    w, input_bias=None, ...)``."""

    direction: Direction = "forward"
    results = Forward._fields

    def __call__(
        self,
        wx: Any,
        r: Any,
        b: Any,
        initial: Any = None,
        *,
        w: Any = None,
        input_bias: Any = None,
        resets: Any = None,
        lengths: Any = None,
        order: Any = None,
        out: Any = None,
        stream: Any = None,
    ) -> Forward:
        """Run the recurrence over all steps; returns (states, last, gates) as soon as the kernel is queued.

        wx [B, T, G_in, H, D], r [G_rec, H, D, D] (r[g, h, d, p] from previous unit p to unit d), b [G_bias, H, D],
        initial [S, B, H, D] or None for zeros: C-contiguous arrays of the kernel's dtype on one GPU, all of one
        library. Of a kernel whose shape says so, and of no other: in the place of wx, x [B, T, I], with w
        [G_in, H, D, I] and input_bias [G_in, H, D] or None for zeros; resets [B, T] (uint8), 1 where the states before
        a step are the initial ones; lengths [B] (int32), the steps of each sequence, 0 to T, and order [B] (int32), the
        numbers of the sequences, the longest first. out: (states, last, gates) to write into, instead of new arrays of
        wx's library (which owns them). stream: a stream of any library or its raw handle; by default the current stream
        of wx's library. The caller keeps arrays alive while work on a stream of its own runs.

        Raises LaunchError for an array of another shape, dtype or place, and if the launch fails.
        """
        own = {"w": w, "input_bias": input_bias, "resets": resets, "lengths": lengths, "order": order}
        first = "x" if self.shape.inputs else "wx"
        return Forward(*self._run({first: wx, "r": r, "b": b, "initial": initial, **own}, out, stream))


class BackwardKernel(Kernel):
    """A tuned backward kernel, called as
    ``kernel(r, initial, states, gates, d_states, d_last=None, *, wx=None, b=None, out=None, stream=None)``."""

    direction: Direction = "backward"
    results = Backward._fields

    def __call__(
        self,
        r: Any,
        initial: Any,
        states: Any,
        gates: Any,
        d_states: Any,
        d_last: Any = None,
        *,
        wx: Any = None,
        b: Any = None,
        resets: Any = None,
        lengths: Any = None,
        order: Any = None,
        out: Any = None,
        stream: Any = None,
    ) -> Backward:
        """Run the gradients back over all steps; returns (d_wx, d_r, d_b, d_initial) as soon as the kernels are
        queued.

        r [G_rec, H, D, D] and initial [S, B, H, D] (None for zeros) as the forward kernel took them; states
        [S, B, T, H, D] and gates [G_saved, B, T, H, D] as it saved them with save "gates". A kernel whose shape says
        recompute takes None for gates, but wx [B, T, G_in, H, D] and b [G_bias, H, D]; b alone is needed where a gate
        is nothing but its bias. d_states [K, B, T, H, D]: the gradients of the states after every step, K = 1 (h) where
        the shape saves "hidden", else all S; d_last [S, B, H, D]: those of the states after the last step, None for
        zeros. C-contiguous arrays of the kernel's dtype on one GPU, all of one library. out: (d_wx, d_r, d_b,
        d_initial) to write into, instead of new arrays of states' library. resets, lengths, order and stream: as of a
        forward kernel.

        Raises LaunchError for an array of another shape, dtype or place, and if the launch fails.
        """
        saved = {"wx": wx, "r": r, "b": b, "initial": initial, "states": states, "gates": gates}
        own = {"resets": resets, "lengths": lengths, "order": order}
        return Backward(*self._run({**saved, "d_states": d_states, "d_last": d_last, **own}, out, stream))


KERNELS: Mapping[Direction, type[ForwardKernel] | type[BackwardKernel]] = {
    "forward": ForwardKernel,
    "backward": BackwardKernel,
}
"""The class of a configuration's kernel."""


def load(path: str | Path) -> Kernel:
    """Load a tuned kernel from its YAML file; the ``.cubin`` lies beside it.

    Returns a ForwardKernel or a BackwardKernel, as the configuration's direction says. Raises ConfigError for a file
    that cannot be used, LaunchError where there is no GPU or the driver refuses it.
    """
    from kernelgen.records.config_reading import load_config, read_cubins, read_program

    path = Path(path)
    config = load_config(path)
    gpu.require_driver()
    kernel = KERNELS[config.direction](read_program(path), read_cubins(path), config.load_cell(), config.shape)
    kernel.config = config
    return kernel


def raw_stream(stream: Any) -> int:
    """The handle of a stream of any library: an int, or an object with cuda_stream, ptr or __cuda_stream__."""
    if isinstance(stream, int):
        return stream
    for name in ("cuda_stream", "ptr"):  # PyTorch, CuPy
        value = getattr(stream, name, None)
        if isinstance(value, int):
            return value
    protocol = getattr(stream, "__cuda_stream__", None)
    if protocol is None:
        raise LaunchError(f"stream must be a CUDA stream or its handle, not {type(stream).__name__}")
    version_and_handle = protocol() if callable(protocol) else protocol
    return int(version_and_handle[1])


def _missing(argument: ArrayArgument) -> str:
    return f"{argument.name} is missing: it must be a {argument.dtype} array {list(argument.shape)}"


def _misfit(argument: ArrayArgument, array: Any, call: _Call) -> str:
    """Say what is wrong with an array: name, what is needed, what came."""
    library = call.library
    needed = f"a C-contiguous {argument.dtype} array {list(argument.shape)} on GPU {call.device}"
    try:
        found = str(library.describe(array))
    except (AttributeError, TypeError, LaunchError):
        found = f"a {type(array).__module__}.{type(array).__name__}"
    return f"{argument.name} must be {needed}, of {library.name} as {call.lead.name} is, not {found}"
