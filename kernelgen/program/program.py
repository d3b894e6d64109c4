"""Program: what runs. The calls of a pass in order, and the arrays that they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kernelgen.program.arguments import STEP, Arguments, arguments_of, poisoned_bytes
from kernelgen.program.launch import LaunchRule
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


def launches(call: KernelCall, direction: Direction, seq: int) -> int:
    """How often a call is launched: once, or, where it asks for the number of the launch, for every step; backward once
    more, for what comes before the first step."""
    return (seq + (direction == "backward")) if STEP in call.source.arguments else 1


@dataclass(frozen=True)
class Program:
    """The calls of one pass, each after the one before has ended.

    main: the recurrence itself, whose needs a tiling predicts; then: what follows it, such as the gradients of R and b.
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

    @property
    def calls(self) -> tuple[KernelCall, ...]:
        """All calls, in order."""
        return (self.main, *self.then)

    def extents(self, shape: Sized) -> dict[str, int]:
        """The sizes of the axes that the calls decide."""
        sizes = sizes_of(shape)
        return {axis: evaluate(rule, sizes) for axis, rule in self.axes.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all arguments, in the order in which the calls take them first."""
        return tuple(dict.fromkeys(name for call in self.calls for name in call.source.arguments))

    def poisoned(self, shape: Sized) -> dict[str, int]:
        """The workspaces that must be all 0xFF before every run, and their bytes."""
        return poisoned_bytes(self.direction, self.names, self.extents(shape))

    def arguments(self, cell: Cell, shape: Shape) -> Arguments:
        """What the calls take together at ``shape``: heads, head dimension and dtype must be the program's."""
        found = arguments_of(cell, shape, self.direction, self.names, self.extents(shape))
        return found.with_float_parameters() if self.float_parameters else found
