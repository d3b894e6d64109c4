"""Program: what runs. The calls of a pass in order, and the arrays that they share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kernelgen.program.arguments import STEP, Arguments, arguments_of, poisoned_bytes
from kernelgen.program.lanes import WHOLE, Turn, Use, in_lanes
from kernelgen.program.launch import LaunchRule
from kernelgen.program.product import ProductCall
from kernelgen.program.rules import Sized, evaluate, sizes_of
from kernelgen.program.source import Source
from kernelgen.program.task import Direction

if TYPE_CHECKING:
    from kernelgen.cells.language import Cell
    from kernelgen.program.shape import Shape


@dataclass(frozen=True)
class KernelCall:
    """One kernel, and how it is started for any batch and seq."""

    source: Source
    launch: LaunchRule


Call = KernelCall | ProductCall
"""What is one of a program's."""

LANES = 5
"""How many calls behind a recurrence run at the same time at most: the products of four gates, and the sums of db."""


@dataclass(frozen=True)
class Program:
    """The calls of one pass, each after the one before has ended.

    main: the recurrence itself, whose needs a tiling predicts; then: what follows it, such as the gradients of R and b.
    between: products that a library makes between two launches of a main call which is launched for every step anew.
    products: those that it makes last, from what all others leave.
    axes: the sizes of those axes of workspaces that the calls decide, as rules (see rules.evaluate). num_stages:
    how many steps of the recurrence are under way at once, such as the stages of a ring of inputs. float_parameters:
    whether the gradients of R and b are float32 whatever the shape's dtype.
    """

    direction: Direction
    main: KernelCall
    then: tuple[KernelCall, ...] = ()
    axes: Mapping[str, str] = field(default_factory=dict)
    num_stages: int = 1
    float_parameters: bool = False
    between: tuple[ProductCall, ...] = ()
    products: tuple[ProductCall, ...] = ()

    @property
    def calls(self) -> tuple[KernelCall, ...]:
        """The kernels, in order: those that have sources and binaries."""
        return (self.main, *self.then)

    @property
    def library(self) -> tuple[ProductCall, ...]:
        """The products that a library makes, in order."""
        return (*self.between, *self.products)

    def launches(self, seq: int) -> Iterator[tuple[Call, int]]:
        """What is started for ``seq`` steps, in order: each call, and the number of its launch.

        A call is launched once or, where it asks for that number (arguments.STEP), for every step; and once more for
        what comes before the first step: backward, or where something comes between.
        """
        yield from self.recurrence(seq)
        yield from self.behind(seq)

    def recurrence(self, seq: int) -> Iterator[tuple[Call, int]]:
        """Those of the main call, and what comes between."""
        for number in range(self._launches(self.main, seq)):
            if number:
                yield from ((product, number) for product in self.between)
            yield self.main, number

    def behind(self, seq: int) -> Iterator[tuple[Call, int]]:
        """Those that follow the recurrence."""
        for call in self.then:
            yield from ((call, number) for number in range(self._launches(call, seq)))
        yield from ((product, 0) for product in self.products)

    def turns(self, shape: Sized, lanes: int = LANES) -> list[Turn]:
        """What may run at the same time: of the recurrence, which is one call here, and of each that follows it, the
        library's calls of a product apart. Products in different lanes must not share the library's workspace."""
        names = dict.fromkeys((*self.main.source.arguments, *(one for call in self.between for one in call.arguments)))
        written = dict.fromkeys((*self.main.source.writes, *(one for call in self.between for one in call.writes)))
        uses = [Use(dict.fromkeys(names, WHOLE), dict.fromkeys(written, WHOLE))]
        for call, _ in self.behind(shape.seq):
            if isinstance(call, ProductCall):
                takes = {call.first.name: WHOLE, call.second.name: WHOLE}
                uses += [Use(takes, {call.result.name: gemm.written}) for gemm in call.at(shape)]
            else:
                takes, writes = (dict.fromkeys(some, WHOLE) for some in (call.source.arguments, call.source.writes))
                uses.append(Use(takes, writes))
        return in_lanes(uses, lanes)

    def _launches(self, call: KernelCall, seq: int) -> int:
        if STEP not in call.source.arguments:
            return 1
        return seq + (self.direction == "backward" or bool(self.between))

    def extents(self, shape: Sized) -> dict[str, int]:
        """The sizes of the axes that the calls decide."""
        sizes = sizes_of(shape)
        return {axis: evaluate(rule, sizes) for axis, rule in self.axes.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all arguments, in the order in which the calls take them first."""
        of_kernels = (name for call in self.calls for name in call.source.arguments)
        return tuple(dict.fromkeys((*of_kernels, *(name for call in self.library for name in call.arguments))))

    @property
    def writes(self) -> tuple[str, ...]:
        """The names of those that some call writes, likewise."""
        of_kernels = (name for call in self.calls for name in call.source.writes)
        return tuple(dict.fromkeys((*of_kernels, *(name for call in self.library for name in call.writes))))

    def poisoned(self, shape: Sized) -> dict[str, int]:
        """The workspaces that must be all 0xFF before every run, and their bytes."""
        return poisoned_bytes(self.direction, self.names, self.extents(shape))

    def arguments(self, cell: Cell, shape: Shape) -> Arguments:
        """What the calls take together at ``shape``: heads, head dimension and dtype must be the program's."""
        found = arguments_of(cell, shape, self.direction, self.names, self.extents(shape))
        return found.with_float_parameters() if self.float_parameters else found
