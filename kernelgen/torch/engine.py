"""What runs programs on tensors: the contract, which GPUs fulfil (device.py), and tests without one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from torch import Tensor

from kernelgen.cells.language import Cell
from kernelgen.program.program import Program
from kernelgen.program.shape import Shape
from kernelgen.program.task import Direction
from kernelgen.schedules.shared.dropped_elements import DroppedElements
from kernelgen.schedules.shared.matrix_product import MatrixProduct
from kernelgen.schedules.shared.moved_rows import MovedRows

Ready: TypeAlias = object
"""Kernels that are ready to run at one size, in a form that the engine alone knows which made them so."""


Chain: TypeAlias = Callable[[Sequence[Tensor | None]], None]
"""Links that run one after another, as a function of the arrays that are given: see Kernel.bind."""


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


@dataclass(frozen=True)
class Link:
    """One part of a chain. ready: a kernel, or what another method of the engine gave than ``kernel``. arrays: what its
    arrays are called in the chain, by their own names; those that are not named are null pointers. numbers: values of
    its int32 arguments that are not its own. lane: links of one lane run in their order, and beside those of other
    lanes, but after the earlier links, by their places, that ``after`` names. aside: the lane of what a program has
    behind the recurrence itself, such as the gradients of R and b; where it has one, others wait for the recurrence
    alone."""

    ready: Ready
    arrays: Mapping[str, str]
    numbers: Mapping[str, int] = field(default_factory=dict)
    lane: int = 0
    after: tuple[int, ...] = ()
    aside: int | None = None


@dataclass(frozen=True)
class Layout:
    """Where the arrays of a chain lie. given: the names of those that it is called with, in that order. between: those
    that nobody sees, and their sizes in bytes. inside: those that lie in one of either, with its name and where they
    begin there, in bytes."""

    given: tuple[str, ...]
    inside: Mapping[str, tuple[str, int]]
    between: Mapping[str, int]


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

    def multiplies_input(self, cell: Cell, shape: Shape, device: int) -> bool:
        """Whether a forward program for ``shape``, which has inputs, is there and expected to take less than a product
        and the program that takes Wx."""
        ...

    def chunk_of_waves(self, cell: Cell, shape: Shape, layers: int, device: int, *, learning: bool) -> int | None:
        """How many steps each of ``layers`` had best be behind the one before, ``shape`` being a layer's over all
        steps; None where they had better run one after another. learning: whether there is a backward pass."""
        ...

    def beside(self, programs: int) -> Engine:
        """The engine for a program while as many run, all of them alike: its kernels are chosen for a part of the
        device. What it makes goes into the chains of both."""
        ...

    def product(self, product: MatrixProduct, device: int) -> Ready | None:
        """A product of matrices, whose arrays are a, b, bias and out and whose numbers batch, seq and turned; None
        where nothing makes it but PyTorch. What ``chain`` needs of it may still be compiling."""
        ...

    def moved_rows(self, moved: MovedRows, device: int) -> Ready:
        """A copy of rows in another order, whose arrays are from, second (of the second direction, where that is apart)
        and to."""
        ...

    def dropped_elements(self, dropped: DroppedElements, device: int) -> Ready:
        """Dropout by a mask, whose arrays are from, mask (of bytes) and to, which may be from."""
        ...

    def chain(self, links: Sequence[Link], layout: Layout, device: int) -> Chain:
        """What runs the links, one after another but for their lanes, as a function of the arrays that are given: see
        Kernel.bind."""
        ...
