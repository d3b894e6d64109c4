"""The naive schedule (docs/tutorials/add_a_schedule.md): a block for each head and a few sequences, a thread a unit."""

from __future__ import annotations

from collections.abc import Mapping

from constrint import Expr, Problem
from kernelgen.cells.language import Cell
from kernelgen.emit.kernel import Template, kernel_source
from kernelgen.hardware.profile import Profile
from kernelgen.program.arguments import known_states
from kernelgen.program.dtypes import dtype_info
from kernelgen.program.launch import LaunchRule
from kernelgen.program.program import KernelCall, Program
from kernelgen.program.shape import DTYPES, Shape
from kernelgen.program.task import Direction
from kernelgen.program.tiling import Tiling
from kernelgen.schedules.shared.entries import PARTIAL_SUMS, asserted, backward_parameters, forward_parameters
from kernelgen.schedules.shared.limits import CHUNK, WARP, add_limits, place
from kernelgen.schedules.shared.parameter_gradients import with_parameter_gradients

REGISTERS = 64
"""Of a thread, at most: a guess, for nothing depends on it."""


class Naive:
    """See the module. The block has a warp for every 32 units, and shared memory for h and the gates' gradients."""

    dtypes = DTYPES
    honours = ()

    def __init__(self, name: str, direction: Direction) -> None:
        self.name = name
        self.direction: Direction = direction

    def refuses(self, cell: Cell, shape: Shape, profile: Profile) -> str:
        """Nothing: what does not fit is infeasible."""
        return ""

    def problem(self, cell: Cell, shape: Shape, profile: Profile) -> Problem:
        """One tile variable: how many sequences a block runs one after another."""
        problem = Problem(f"{self.name} schedule of {cell.name}, {shape}, on {profile.name}")
        sequences: Expr = problem.variable("sequences", [1, 2, 4])
        problem.add(sequences <= shape.batch, "no more sequences than there are")
        add_limits(
            problem, profile, warps=_warps(shape), registers=REGISTERS, shared_memory=self._shared_memory(cell, shape)
        )
        return problem

    def tiling(self, cell: Cell, shape: Shape, profile: Profile, values: Mapping[str, int]) -> Tiling:
        """Every multiplication waits for two loads of some 30 clocks each, and every sequence for the one before."""
        blocks = shape.heads * -(-shape.batch // values["sequences"])
        memory = self._shared_memory(cell, shape)
        resources, waves = place(profile, blocks, WARP * _warps(shape), REGISTERS, memory)
        clocks = 60.0 * len(cell.recurrent_gates) * shape.head_dim * values["sequences"]
        return Tiling(self.name, dict(values), resources, clocks * sum(count for _, count in waves))

    def program(self, cell: Cell, shape: Shape, profile: Profile, tiling: Tiling) -> Program:
        """The kernel: an instantiation of a template of naive.cuh, and a block for each head and group of sequences."""
        backward = self.direction == "backward"
        if backward:
            options = (str(known_states(cell, shape)), f"Gates::{'recomputed' if shape.recompute else 'saved'}")
        else:
            options = (f"Save::{shape.save}",)
        template = Template(
            header="naive",
            name="NaiveBackward" if backward else "Naive",
            arguments="BackwardArguments" if backward else "ForwardArguments",
            entry=f"tilesmith_{self.name}",
            title=f"{self.direction}, schedule {self.name}",
            parameters=backward_parameters(shape, PARTIAL_SUMS) if backward else forward_parameters(shape),
            tiling_struct="NaiveTiling",
            tiling=tiling.values,
            asserted=asserted(tiling),
            options=options,
        )
        groups = f"cdiv(batch, {tiling.values['sequences']})"
        launch = LaunchRule(("heads", groups, "1"), tiling.resources.threads, tiling.resources.shared_memory)
        main = KernelCall(kernel_source(cell, shape, profile.arch, template, backward=backward), launch)
        if not backward:
            return Program("forward", main)
        return with_parameter_gradients(Program("backward", main), cell, shape, profile, groups)

    def _shared_memory(self, cell: Cell, shape: Shape) -> int:
        """Rows of values, of h and, backward, of every gate's gradients; and the sums of gates without input."""
        backward, dim = self.direction == "backward", shape.head_dim
        info = dtype_info(shape.dtype)
        rows = -(-info.itemsize * (1 + backward * len(cell.gates)) * dim // CHUNK) * CHUNK
        return rows + backward * 4 * info.registers * len(cell.inputless_products) * dim * dim


def _warps(shape: Shape) -> int:
    return -(-shape.head_dim // WARP)


SCHEDULES = (Naive("naive", "forward"), Naive("naive_backward", "backward"))
