"""Kernels on CUDA tensors: chosen, compiled and loaded on first use, launched on PyTorch's current stream."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kernelgen.errors import InfeasibleError
from kernelgen.schedules.base import Launch
from kernelgen.shape import Shape

if TYPE_CHECKING:
    from torch import Tensor

    from kernelgen.cells.language import Cell
    from kernelgen.launcher import DeviceKernel
    from kernelgen.torch.kernels import Kind


@dataclass(frozen=True)
class _Loaded:
    """A kernel on its GPU, the order of its arguments, and how it is launched, which does not depend on seq."""

    kernel: DeviceKernel
    arguments: tuple[str, ...]
    config: Any
    parts: int = 1


class DeviceEngine:
    """Runs kernels on GPUs through the driver. Nothing is touched before the first run.

    A kernel is kept for each cell, GPU and shape apart from its seq; the first run of a new one takes about a second,
    or what compiling takes where the cache has no binary. So is the answer that there is none.
    """

    def __init__(self) -> None:
        self._loaded: dict[Any, _Loaded | InfeasibleError] = {}
        self._lock = threading.Lock()

    def run(self, cell: Cell, shape: Shape, kind: Kind, arguments: Mapping[str, Tensor | int | None]) -> None:
        """Queue a kernel on the current stream of the tensors' GPU: see kernels.Engine.

        Raises InfeasibleError where no schedule has a kernel for the shape, CompileError and LaunchError.
        """
        import numpy as np
        import torch

        from kernelgen import gpu
        from kernelgen.launcher import stream_of

        device = next(value.get_device() for value in arguments.values() if isinstance(value, torch.Tensor))
        loaded = self._kernel(cell, shape, kind, device)
        values = [arguments[name] for name in loaded.arguments]
        plain = [_plain(value, np.int32) for value in values]
        stream = stream_of(int(torch.cuda.current_stream(device).cuda_stream))
        with gpu.current(device):  # a thread of autograd's has no context of its own
            loaded.kernel.start(stream, loaded.config, *plain)

    def parts(self, cell: Cell, shape: Shape, like: Tensor) -> int:
        """How many partial results the kernel of the gradients of R and b leaves: see kernels.Engine."""
        return self._kernel(cell, shape, "parameters", like.get_device()).parts

    def _kernel(self, cell: Cell, shape: Shape, kind: Kind, device: int) -> _Loaded:
        # How the product for dR is cut depends on the number of steps, but not on every single one.
        steps = shape.seq.bit_length() if kind == "parameters" else 0
        sizes = (shape.batch, steps, shape.heads, shape.head_dim)
        key = (cell.fingerprint, *sizes, shape.dtype, shape.save, kind, device)
        found = self._loaded.get(key)
        if found is None:
            with self._lock:
                found = self._loaded.get(key)
                if found is None:
                    try:
                        found = self._load(cell, shape, kind, device)
                    except InfeasibleError as error:
                        found = error
                    self._loaded[key] = found
        if isinstance(found, InfeasibleError):
            raise InfeasibleError(str(found))
        return found

    def _load(self, cell: Cell, shape: Shape, kind: Kind, device: int) -> _Loaded:
        from kernelgen import gpu
        from kernelgen.compile import compile_source
        from kernelgen.launcher import DeviceKernel, launch_config
        from kernelgen.parameter_gradients import ParameterGradients
        from kernelgen.torch.choice import compiled

        profile = gpu.device(device).profile()
        launch: Callable[[Shape], Launch]
        if kind == "parameters":
            parameters = ParameterGradients(cell, shape, profile)
            source, launch, parts = parameters.source(), parameters.launch, parameters.tiling.parts
            binary = compile_source(source)
        else:
            choice, binary = compiled(cell, shape, profile, kind)
            source, launch, parts = choice.source, choice.launch, 1
        kernel = DeviceKernel(binary.cubin, binary.entry, binary.arch, launch(shape))
        kernel.prepare(device)
        return _Loaded(kernel, source.arguments, launch_config(launch(shape)), parts)


def _plain(value: Tensor | int | None, integer: Any) -> Any:
    """An argument as the driver takes it: an address (0 for null), or an int32."""
    if value is None:
        return 0
    return integer(value) if isinstance(value, int) else int(value.data_ptr())
