"""What runs kernels on tensors: the contract, which GPUs fulfil (device.py), and tests without one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Literal, Protocol

import numpy as np
from torch import Tensor

from kernelgen.cells.language import Cell
from kernelgen.program.shape import Shape
from kernelgen.program.task import Direction

Kind = Direction | Literal["parameters"]
"""A schedule's kernel of that direction, or the one that makes the gradients of R and b."""


class Kernel(Protocol):
    """A kernel, ready to run."""

    @property
    def num_partials(self) -> int:
        """How many partial results, to be added, it leaves: a backward kernel of the gates without an input, the
        kernel of the gradients of R and b of all its outputs."""
        ...

    def run(self, arguments: Mapping[str, Tensor | np.int32 | None]) -> None:
        """Run it; arguments by the names of FORWARD_ARGUMENTS and BACKWARD_ARGUMENTS of program.arguments, and those of
        parameter_gradients. An empty tensor is a null pointer, as None is. Outputs are written in place."""
        ...


class Engine(Hashable, Protocol):
    """What runs kernels on the tensors of one type of device."""

    def kernel(self, cell: Cell, shape: Shape, kind: Kind, device: int) -> Kernel:
        """The kernel for a cell and a shape on a device, by its index (-1 for the CPU).

        Raises InfeasibleError where no schedule has a kernel for the shape.
        """
        ...
