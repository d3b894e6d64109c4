"""What runs programs on tensors: the contract, which GPUs fulfil (device.py), and tests without one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

from torch import Tensor

from kernelgen.cells.language import Cell
from kernelgen.program.program import Program
from kernelgen.program.shape import Shape
from kernelgen.program.task import Direction


class Kernel(Protocol):
    """A program, ready to run at one shape."""

    @property
    def program(self) -> Program:
        """What it runs."""
        ...

    def bind(self, names: tuple[str, ...]) -> Callable[[Sequence[Tensor | None]], None]:
        """The program as a function of the arrays ``names``, by the names of program/arguments.py, which it is called
        with in that order. An empty tensor is a null pointer, as None is. Outputs are written in place; memory between
        its calls is the program's own."""
        ...


class Engine(Hashable, Protocol):
    """What runs programs on the tensors of one type of device."""

    def kernel(
        self, cell: Cell, shape: Shape, direction: Direction, device: int, *, float_parameters: bool = False
    ) -> Kernel:
        """The program for a cell and a shape on a device, by its index (-1 for the CPU). float_parameters: backward,
        the gradients of R and b are float32 whatever the dtype.

        Raises InfeasibleError where no schedule has one for the shape.
        """
        ...

    def expect(
        self, cell: Cell, shape: Shape, direction: Direction, device: int, *, float_parameters: bool = False
    ) -> None:
        """Be told that ``kernel`` will soon be asked for the same: what it needs may be made meanwhile. Raises nothing
        that ``kernel`` would not."""
        ...
