"""Kernels on CUDA tensors: chosen, compiled and loaded on first use, launched on PyTorch's current stream."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kernelgen.device import gpu
from kernelgen.device.launcher import stream_of
from kernelgen.errors import InfeasibleError
from kernelgen.program.shape import Shape

if TYPE_CHECKING:
    import numpy as np

    from kernelgen.cells.language import Cell
    from kernelgen.device.launcher import DeviceKernel
    from kernelgen.torch.engine import Kind


@dataclass(frozen=True)
class Loaded:
    """A kernel on its GPU: see engine.Kernel. arguments: their order. config: how it is launched, for any seq."""

    kernel: DeviceKernel
    arguments: tuple[str, ...]
    config: Any
    device: int
    num_partials: int = 1

    def run(self, arguments: Mapping[str, Tensor | np.int32 | None]) -> None:
        """Queue the kernel on PyTorch's current stream. Raises LaunchError."""
        plain: list[Any] = []
        for name in self.arguments:
            value = arguments[name]
            plain.append(value.data_ptr() if isinstance(value, Tensor) else 0 if value is None else value)
        stream = stream_of(torch._C._cuda_getCurrentRawStream(self.device))
        with gpu.selected(self.device):  # a thread of autograd's may have none
            self.kernel.start(stream, self.config, *plain)


class DeviceEngine:
    """Runs kernels on GPUs through the driver. Nothing is touched before the first one.

    A kernel is kept for each cell, GPU and shape apart from its seq; the first run of a new one takes about a second,
    or what compiling takes where the cache has no binary. So is the answer that there is none.
    """

    def __init__(self) -> None:
        self._loaded: dict[Any, Loaded | InfeasibleError] = {}
        self._lock = threading.Lock()

    def kernel(self, cell: Cell, shape: Shape, kind: Kind, device: int) -> Loaded:
        """The kernel for a GPU: see engine.Engine.

        Raises InfeasibleError where no schedule has a kernel for the shape, CompileError and LaunchError.
        """
        # How the product for dR is cut depends on the number of steps, but not on every single one.
        steps = shape.seq.bit_length() if kind == "parameters" else 0
        sizes = (shape.batch, steps, shape.heads, shape.head_dim)
        key = (cell.fingerprint, *sizes, shape.dtype, shape.save, shape.recompute, kind, device)
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

    def _load(self, cell: Cell, shape: Shape, kind: Kind, device: int) -> Loaded:
        from kernelgen.build.compile import compile_source
        from kernelgen.device.launcher import DeviceKernel, launch_config
        from kernelgen.schedules.shared.parameter_gradients import ParameterGradients
        from kernelgen.tuning.selection import compiled

        profile = gpu.device(device).profile()
        if kind == "parameters":
            parameters = ParameterGradients(cell, shape, profile)
            source, start, num_partials = parameters.source(), parameters.launch(shape), parameters.results
            binary = compile_source(source)
        else:
            selection, binary = compiled(cell, shape, profile, kind)
            source, start = selection.source, selection.launch(shape)
            num_partials = start.num_partials
        kernel = DeviceKernel(binary.cubin, binary.entry, binary.arch, start)
        kernel.prepare(device)
        with gpu.selected(device):  # a thread of autograd's may have none
            config = launch_config(start)
        return Loaded(kernel, source.arguments, config, device, num_partials)
