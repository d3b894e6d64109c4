"""Kernel: a tuned kernel as a callable on GPU arrays of any library.

    kernel = kernelgen.load("lstm.yaml")
    states, last, gates = kernel(wx, r, b)

Everything that can be worked out once is: a call checks its arrays, allocates the outputs and launches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kernelgen import gpu
from kernelgen.arrays import Library, library_of
from kernelgen.errors import LaunchError
from kernelgen.launcher import DeviceKernel, launch_config, stream_of
from kernelgen.schedules.base import Launch
from kernelgen.shape import Shape

if TYPE_CHECKING:
    from kernelgen.cells.language import Cell
    from kernelgen.config import TunedConfig


REMEMBERED_CALLS = 1024
"""How many shapes of wx a kernel keeps prepared."""


class Forward(NamedTuple):
    """What a forward kernel writes: states [K, B, T, H, D] with K = 1 (h) where the shape saves "hidden", else all
    S states; last [S, B, H, D]; gates [G, B, T, H, D] where the shape saves "gates", else None."""

    states: Any
    last: Any
    gates: Any


@dataclass(frozen=True)
class Sizes:
    """The sizes a cell gives its arrays: gates with an input, a recurrent product, a bias; gates; states."""

    input: int
    recurrent: int
    bias: int
    gates: int
    states: int

    @classmethod
    def of(cls, cell: Cell) -> Sizes:
        """Count a cell's gates and states."""
        return cls(
            len(cell.input_gates), len(cell.recurrent_gates), len(cell.bias_gates), len(cell.gates), len(cell.states)
        )

    def shapes(self, shape: Shape) -> dict[str, tuple[int, ...] | None]:
        """The shape of every array argument (see schedules.base.FORWARD_ARGUMENTS), None for what is not written."""
        batch, seq, heads, dim = shape.batch, shape.seq, shape.heads, shape.head_dim
        saved = 1 if shape.save == "hidden" else self.states
        return {
            "wx": (batch, seq, self.input, heads, dim),
            "r": (self.recurrent, heads, dim, dim),
            "b": (self.bias, heads, dim),
            "initial": (self.states, batch, heads, dim),
            "states": (saved, batch, seq, heads, dim),
            "last": (self.states, batch, heads, dim),
            "gates": (self.gates, batch, seq, heads, dim) if shape.save == "gates" else None,
        }


@dataclass(frozen=True)
class _Call:
    """All of a call that depends on wx's shape, dtype and place alone."""

    library: Library
    device: int
    context: int
    config: Any
    batch: Any
    seq: Any
    shapes: dict[str, tuple[int, ...] | None]


class Kernel:
    """A tuned forward kernel, called as ``kernel(wx, r, b, initial=None, *, out=None, stream=None)``.

    Made by ``load``. The heads, the head dimension and the dtype are those it was tuned for; batch and sequence
    length may be any. It knows nothing of gradients.

    shape: what it was tuned for. launch: gives the Launch for another batch and seq.
    """

    def __init__(
        self, cubin: bytes, entry: str, arch: str, shape: Shape, sizes: Sizes, launch: Callable[[Shape], Launch]
    ) -> None:
        self.shape = shape
        self.sizes = sizes
        self.config: TunedConfig | None = None
        self._launch = launch
        self._kernel = DeviceKernel(cubin, entry, arch, launch(shape))
        self._driver = gpu.require_driver()
        self._calls: dict[Any, _Call] = {}

    def __repr__(self) -> str:
        return f"<tilesmith kernel {self._kernel.entry} for {self.shape}, {self._kernel.arch}>"

    def __call__(self, wx: Any, r: Any, b: Any, initial: Any = None, *, out: Any = None, stream: Any = None) -> Forward:
        """Run the recurrence over all steps; returns as soon as the kernel is queued.

        wx [B, T, G_in, H, D], r [G_rec, H, D, D] (r[g, h, d, p] from previous unit p to unit d), b [G_bias, H, D],
        initial [S, B, H, D] or None for zeros: C-contiguous arrays of the kernel's dtype on one GPU, all of one
        library. out: (states, last, gates) to write into, instead of new arrays of wx's library (which owns them).
        stream: a stream of any library or its raw handle; by default the current stream of wx's library. The
        caller keeps arrays alive while work on a stream of its own runs.

        Raises LaunchError for an array of another shape, dtype or place, and if the launch fails.
        """
        key = (type(wx), getattr(wx, "shape", None))
        call = self._calls.get(key)
        if call is None or not call.library.fits(wx, call.shapes["wx"], call.device):  # type: ignore[arg-type]
            if len(self._calls) >= REMEMBERED_CALLS:
                self._calls.clear()
            call = self._calls[key] = self._prepare(wx)
        library, device, shapes = call.library, call.device, call.shapes
        if out is None:
            out = [None if shapes[name] is None else library.empty(shapes[name], device) for name in _OUTPUTS]  # type: ignore[arg-type]
            given = (("r", r), ("b", b), ("initial", initial))
        else:
            out = _three(out)
            given = (("r", r), ("b", b), ("initial", initial), *zip(_OUTPUTS, out, strict=True))  # type: ignore[assignment]
        for name, array in given:
            expected = shapes[name]
            if array is None or expected is None:
                if (array is None) is not (expected is None) and name != "initial" and 0 not in (expected or ()):
                    raise LaunchError(_missing(name, expected, self.shape))
            elif not library.fits(array, expected, device):
                raise LaunchError(_misfit(library, name, array, expected, call, self.shape))
        pointer = library.pointer
        addresses = [0 if array is None else pointer(array) for array in (wx, r, b, initial, *out)]
        handle = library.stream(device) if stream is None else raw_stream(stream)
        driver = self._driver
        foreign = int(driver.cuCtxGetCurrent()[1]) != call.context
        if foreign:
            gpu.checked(driver.cuCtxPushCurrent(gpu.primary_context(device)), f"selecting GPU {device}")
        try:
            self._kernel.start(stream_of(handle), call.config, *addresses, call.batch, call.seq)
        finally:
            if foreign:
                driver.cuCtxPopCurrent()
        return Forward(*out)

    def _prepare(self, wx: Any) -> _Call:
        """Check wx and work out everything that follows from it."""
        import numpy as np

        library = library_of(wx, self.shape.dtype)
        found = library.describe(wx)
        if len(found.shape) != 5 or 0 in found.shape[:2]:
            raise LaunchError(f"wx must be [B, T, {self.sizes.input}, H, D] with B and T of at least 1, not {found}")
        shape = replace(self.shape, batch=int(found.shape[0]), seq=int(found.shape[1]))
        shapes = self.sizes.shapes(shape)
        if found.device is None:
            raise LaunchError(f"wx must be on a GPU, but it is {found}")
        wanted = shapes["wx"]
        assert wanted is not None
        if not library.fits(wx, wanted, found.device):
            raise LaunchError(f"wx must be a C-contiguous {self.shape.dtype} array {list(wanted)}, not {found}")
        self._kernel.prepare(found.device)
        return _Call(
            library=library,
            device=found.device,
            context=int(gpu.primary_context(found.device)),
            config=launch_config(self._launch(shape)),
            batch=np.int32(shape.batch),
            seq=np.int32(shape.seq),
            shapes=shapes,
        )


_OUTPUTS = ("states", "last", "gates")


def load(path: str | Path) -> Kernel:
    """Load a tuned kernel from its YAML file; the ``.cubin`` lies beside it.

    Raises ConfigError for a file that cannot be used, LaunchError where there is no GPU or the driver refuses it.
    """
    from kernelgen import schedules
    from kernelgen.config import load_config, read_cubin

    path = Path(path)
    config = load_config(path)
    gpu.require_driver()
    schedule = schedules.get(config.schedule)
    tiling = config.to_tiling()
    kernel = Kernel(
        read_cubin(path),
        config.entry,
        config.arch,
        config.shape,
        Sizes.of(config.load_cell()),
        lambda shape: schedule.launch(shape, tiling),
    )
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


def _three(out: Any) -> tuple[Any, Any, Any]:
    """Check that ``out`` is (states, last, gates)."""
    if not isinstance(out, tuple | list) or len(out) != 3:
        raise LaunchError("out must be (states, last, gates); gates is None where the kernel saves none")
    return (out[0], out[1], out[2])


def _missing(name: str, expected: tuple[int, ...] | None, shape: Shape) -> str:
    if expected is None:
        return f"{name} must be None: this kernel saves {shape.save!r}"
    return f"{name} is missing: it must be a {shape.dtype} array {list(expected)}"


def _misfit(library: Library, name: str, array: Any, expected: tuple[int, ...], call: _Call, shape: Shape) -> str:
    """Say what is wrong with an array: name, what is needed, what came."""
    wanted = f"a C-contiguous {shape.dtype} array {list(expected)} on GPU {call.device}, of {library.name} as wx is"
    try:
        found = str(library.describe(array))
    except (AttributeError, TypeError, LaunchError):
        found = f"a {type(array).__module__}.{type(array).__name__}"
    return f"{name} must be {wanted}, not {found}"
