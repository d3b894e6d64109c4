"""What the schedules share whose blocks each run a tile of the batch of one head through all steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic

from constrint import Expr, Problem, cdiv, maximum, minimum
from kernelgen.cells.language import Cell
from kernelgen.emit.kernel import Template, kernel_source
from kernelgen.errors import InfeasibleError
from kernelgen.hardware.profile import Profile
from kernelgen.program.launch import LaunchRule
from kernelgen.program.program import KernelCall, Program
from kernelgen.program.shape import SIXTEEN_BITS, Shape
from kernelgen.program.task import Direction
from kernelgen.program.tiling import Tiling
from kernelgen.schedules.shared.cost import Phases, StepWork, clocks_per_step, own_clocks
from kernelgen.schedules.shared.limits import add_limits, lacks_instructions, place, registers_of_block
from kernelgen.schedules.shared.model import Model, load_model
from kernelgen.schedules.shared.numbers import Int, Number, TileValues, as_int
from kernelgen.schedules.shared.parameter_gradients import with_parameter_gradients

BATCH_TILES = [4, 8, 16, 24, 32]
"""Sequences per block: 4, which half fill a matrix tile (its even columns), or whole tiles of 8."""

MOST_BLOCKS_Y = 65_535
"""Blocks of a grid along y (CUDA C++ Programming Guide, compute capabilities)."""

FEATURE_REGISTERS: Mapping[Direction, int] = {"forward": 15, "backward": 9}
"""What resets and lengths take each, in the middle of compiled kernels of three cells (NVRTC 13.0, sm_90a)."""

CROWDED = 190
"""Registers of a thread from which on the compiler takes what there is: what it likes says little of what it needs."""

NUM_STAGES = [2, 3, 4, 6, 8, 12]
"""Stages of the ring that holds a step's inputs."""


def read_bytes(rows: int, k_tiles: int, accumulators: int) -> int:
    """What the shared memory is busy with while one warp reads the moving matrix of ``rows`` sequences and ``k_tiles``
    tiles of 32 k (StationaryMatrix::multiply), in bytes at its full rate."""
    paired = rows == 4 and k_tiles >= 2 and accumulators >= 2
    return k_tiles * (256 if paired else 512 * -(-rows // 8))


def accumulator_additions(rows: int, tiles: int, accumulators: int) -> int:
    """Additions of a lane that make one sum of the ``accumulators`` of each tile of 16 rows."""
    return (accumulators - 1) * tiles * (2 if rows == 4 else 4 * (rows // 8))


@dataclass(frozen=True)
class Needs(Generic[Number]):
    """What a block needs. warps; shared_memory: bytes. counts: what lives in a thread's registers, by the names of the
    register model's coefficients. least: registers of a thread below which the compiler cannot go, where it is known to
    do with what a block of that many warps may have rather than take what it would like; else None. floor: what it
    takes at least, whatever the model of registers says; 0 where that is not known. crowded: what it takes at least
    where that model says more than CROWDED."""

    warps: Number | int
    shared_memory: Number
    counts: Mapping[str, Int]
    least: Int | None = None
    floor: Int = 0
    crowded: Int | None = None


class BatchTiled(ABC):
    """Tile variables include ``batch_tile`` and, of a ring of inputs, ``num_stages``; a subclass states the others, its
    needs, its work."""

    name: str
    direction: Direction
    dtypes: tuple[str, ...] = SIXTEEN_BITS
    honours: tuple[str, ...] = ()
    package: str
    """The schedule's, where its model.yaml lies."""
    least_batch_tile: int = 8
    """Sequences of a tile that any batch may have."""
    cooperative: bool = False
    """Whether all blocks of a launch run at the same time, wherever; else those that share a head are a cluster."""

    @abstractmethod
    def variables(self, problem: Problem, cell: Cell, shape: Shape, profile: Profile) -> Mapping[str, Expr]:
        """Declare the tile variables, in the order of the template's fields."""

    @abstractmethod
    def rules(self, problem: Problem, cell: Cell, shape: Shape, v: Mapping[str, Expr]) -> None:
        """Add the constraints that come from the template rather than from the GPU."""

    def blocks_per_head(self, v: Mapping[str, int]) -> int:
        """How many blocks share a head and a tile of the batch."""
        return 1

    def cluster_of(self, v: Mapping[str, int]) -> int:
        """How many blocks are a cluster."""
        return 1 if self.cooperative else self.blocks_per_head(v)

    def num_partials(self, shape: Shape, v: Mapping[str, int]) -> str:
        """Backward, how many partial sums it leaves of the gradients of gates without an input, as a rule."""
        return f"cdiv(batch, {v['batch_tile']})"

    def gpu_rules(self, problem: Problem, shape: Shape, profile: Profile, v: Mapping[str, Expr]) -> None:
        """Add what the GPU demands beyond the limits of every block."""
        return

    def axes(self, cell: Cell, shape: Shape, v: Mapping[str, int]) -> Mapping[str, str]:
        """The sizes of the axes of a workspace that the recurrence needs, as rules: see Program."""
        return {}

    @abstractmethod
    def needs(self, cell: Cell, shape: Shape, v: Mapping[str, Number]) -> Needs[Number]:
        """What a block needs, for tile variables ``v``."""

    @abstractmethod
    def work(self, cell: Cell, shape: Shape, profile: Profile, v: Mapping[str, int]) -> StepWork:
        """What a block does in one step, for the cost model."""

    @abstractmethod
    def template(self, cell: Cell, shape: Shape, profile: Profile, tiling: Tiling) -> Template:
        """What instantiates the template of cuda/."""

    def refuses(self, cell: Cell, shape: Shape, profile: Profile) -> str:
        """Why it does not run this; a subclass adds its own reasons."""
        return lacks_instructions(f"{self.name} schedule", shape.dtype, profile)

    def problem(self, cell: Cell, shape: Shape, profile: Profile) -> Problem:
        """Tile variables and constraints. Raises InfeasibleError for what it refuses."""
        if reason := self.refuses(cell, shape, profile):
            raise InfeasibleError(reason)
        problem = Problem(f"{self.name} schedule of {cell.name}, {shape}, on {profile.name}")
        v = self.variables(problem, cell, shape, profile)
        needs = self.needs(cell, shape, v)
        self.rules(problem, cell, shape, v)
        self.gpu_rules(problem, shape, profile, v)
        problem.add(
            (v["batch_tile"] <= self.least_batch_tile) | (v["batch_tile"] < shape.batch + 8),
            "a batch tile that the batch can fill",
        )
        problem.add(
            cdiv(shape.batch, v["batch_tile"]) <= MOST_BLOCKS_Y,
            f"tiles of the batch: at most {MOST_BLOCKS_Y:,}, as many as a grid has blocks along y",
        )
        registers = self._registers(shape, profile, needs)
        add_limits(problem, profile, warps=needs.warps, registers=registers, shared_memory=needs.shared_memory)
        return problem

    def tiling(self, cell: Cell, shape: Shape, profile: Profile, values: Mapping[str, int]) -> Tiling:
        """Predicted resources and clocks of one solution."""
        values = TileValues(values)
        needs, model = self.needs(cell, shape, values), self._model
        registers = as_int(self._registers(shape, profile, needs))
        share = self.blocks_per_head(values)
        cluster = self.cluster_of(values)
        blocks = shape.heads * -(-shape.batch // values["batch_tile"]) * share
        resources, waves = place(profile, blocks, 32 * needs.warps, registers, needs.shared_memory, cluster)
        work, weights = self.work(cell, shape, profile, values), model.weights(shape.dtype)
        clocks = sum(count * clocks_per_step(work, profile, blocks - 1, weights) for blocks, count in waves)
        return Tiling(self.name, dict(values), resources, clocks)

    def phases(self, cell: Cell, shape: Shape, profile: Profile, tiling: Tiling) -> Phases:
        """The model's clocks of a tiling's step by phases, without what it waits for inputs and device memory."""
        values, needs = tiling.values, tiling.resources
        _, waves = place(
            profile, needs.blocks, needs.threads, needs.registers, needs.shared_memory, self.cluster_of(values)
        )
        work = self.work(cell, shape, profile, values)
        return own_clocks(work, profile, waves[0][0] - 1, self._model.weights(shape.dtype))

    def program(self, cell: Cell, shape: Shape, profile: Profile, tiling: Tiling) -> Program:
        """The kernel of a tiling, an instantiation of the template in cuda/; backward with what follows it."""
        batch_tile, share = tiling.values["batch_tile"], self.blocks_per_head(tiling.values)
        resources, backward = tiling.resources, self.direction == "backward"
        tiles = f"cdiv(batch, {batch_tile})"
        blocks = "heads" if share == 1 else f"heads * {share}"
        cluster = self.cluster_of(tiling.values)
        rule = LaunchRule((blocks, tiles, "1"), resources.threads, resources.shared_memory, cluster, self.cooperative)
        text = kernel_source(cell, shape, profile.arch, self.template(cell, shape, profile, tiling), backward=backward)
        main = KernelCall(text, rule)
        recurrence = Program(
            self.direction,
            main,
            axes=self.axes(cell, shape, tiling.values),
            num_stages=tiling.values.get("num_stages", 1),
        )
        if not backward:
            return recurrence
        return with_parameter_gradients(recurrence, cell, shape, profile, self.num_partials(shape, tiling.values))

    def _registers(self, shape: Shape, profile: Profile, needs: Needs[Number]) -> Int:
        """Registers per thread, as the compiler will report them."""
        liked = maximum(self._model.registers_of(shape.dtype).predict(needs.counts, profile.arch), needs.floor)
        if shape.features:
            liked = liked + len(shape.features) * FEATURE_REGISTERS[self.direction]
        expected = liked
        if needs.least is not None:
            expected = minimum(liked, maximum(needs.least, registers_of_block(profile, needs.warps)))
        if needs.crowded is None:
            return expected
        return maximum(expected, needs.crowded * minimum(maximum(liked - CROWDED, 0), 1))

    @property
    def _model(self) -> Model:
        return load_model(self.package, self.direction)
