"""The resident schedule in Triton, both directions: a program runs a tile of the batch of one head through all steps.

The kernels are those of emit/triton_resident.py. Triton lays out registers and shared memory; the formulas here bound
what it will ask for, and the compiler's report is checked against them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from constrint import Problem, cdiv
from kernelgen.cells.language import Cell
from kernelgen.emit import triton_resident
from kernelgen.emit.triton_resident import Options, Stack
from kernelgen.errors import InfeasibleError
from kernelgen.hardware.profile import Profile
from kernelgen.program.arguments import known_states
from kernelgen.program.dtypes import dtype_info
from kernelgen.program.launch import LaunchRule
from kernelgen.program.program import KernelCall, Program
from kernelgen.program.shape import Shape
from kernelgen.program.task import Direction
from kernelgen.program.tiling import Tiling
from kernelgen.schedules.shared import triton as shared
from kernelgen.schedules.shared.cost import SUB_PARTITIONS
from kernelgen.schedules.shared.limits import WARP, add_limits, place
from kernelgen.schedules.shared.numbers import Int, Number, as_int
from kernelgen.schedules.shared.triton import LEAST_COLUMNS, LEAST_ROWS, TritonSchedule
from kernelgen.symbolic.derive import derive
from kernelgen.symbolic.instructions import backward_cost, cell_cost

BATCH_TILES = [8, 16, 32]
NUM_WARPS = [1, 2, 4, 8, 16]
NUM_STAGES = [1, 2, 3]


@dataclass(frozen=True)
class Weights:
    """Clocks of a step with nothing in it; of a change of a layout, and in barriers' latencies; how much of the matrix
    instructions is exposed; of a float instruction with those that Triton makes around it."""

    fixed: float
    change: float
    barriers: float
    matrix: float
    instruction: float


WEIGHTS: Mapping[Direction, Weights] = {
    "forward": Weights(fixed=700, change=80, barriers=0, matrix=2.1, instruction=5.9),
    "backward": Weights(fixed=0, change=0, barriers=8.6, matrix=2.65, instruction=8.4),
}
"""Fitted to 59 tilings of the LSTM at 48 x 16, 24 x 32, 12 x 64 and 6 x 128, measured on one H200 with Triton 3.6 on
2026-11-27; off by 16 and 7 % in the mean."""

ROOMY, CROWDED = 128, 4
"""Registers of a thread up to which Triton orders a step well, and clocks for each beyond."""

ADDRESSES = 30
"""Registers of a thread for addresses, masks and counters, about."""


class TritonResident(TritonSchedule):
    """See the module. Tile variables: batch_tile, sequences of a program; num_warps; num_stages, steps whose inputs are
    in registers ahead of the one that is computed."""

    def problem(self, cell: Cell, shape: Shape, profile: Profile) -> Problem:
        """Tile variables and constraints. Raises InfeasibleError for what it refuses."""
        if reason := self.refuses(cell, shape, profile):
            raise InfeasibleError(reason)
        problem = Problem(f"{self.name} schedule of {cell.name}, {shape}, on {profile.name}")
        v = {
            "batch_tile": problem.variable("batch_tile", BATCH_TILES),
            "num_warps": problem.variable("num_warps", NUM_WARPS),
            "num_stages": problem.variable("num_stages", NUM_STAGES),
        }
        rows = self._rows(cell, shape)
        shared.add_tile_rules(problem, shape, profile, batch_tile=v["batch_tile"], rows=rows, warps=v["num_warps"])
        add_limits(
            problem,
            profile,
            warps=v["num_warps"] * (shared.lanes(profile) // WARP),
            registers=self._registers(cell, shape, profile, v),
            shared_memory=self._shared_memory(cell, shape, v),
        )
        return problem

    def tiling(self, cell: Cell, shape: Shape, profile: Profile, values: Mapping[str, int]) -> Tiling:
        """Predicted resources and clocks of one solution."""
        blocks = shape.heads * -(-shape.batch // values["batch_tile"])
        registers = min(profile.registers_per_thread, as_int(self._registers(cell, shape, profile, values)))
        bytes_ = as_int(self._shared_memory(cell, shape, values))
        resources, together, waves = place(
            profile, blocks, shared.lanes(profile) * values["num_warps"], registers, bytes_
        )
        clocks = self._clocks(cell, shape, profile, values) * (1 + 0.3 * (together - 1))
        return Tiling(self.name, dict(values), resources, clocks * waves)

    def program(self, cell: Cell, shape: Shape, profile: Profile, tiling: Tiling) -> Program:
        """The kernel of a tiling; backward with what makes the gradients of R and b."""
        v, backward = tiling.values, self.direction == "backward"
        entry = f"tilesmith_{self.direction}"
        make = triton_resident.backward if backward else triton_resident.forward
        body = make(cell, shape, entry, v["num_stages"])
        constants = {"HEADS": shape.heads, "D": shape.head_dim, "BLOCK_B": v["batch_tile"]}
        constants["BLOCK_D"] = shared.padded(shape)
        options = Options(constants, v["num_warps"], 1, tiling.resources.shared_memory)
        known = known_states(cell, shape)
        what = f"gradients of {known} of {len(cell.states)} states" if backward else f"saves {shape.save}"
        title = f"{self.direction}, {what}, schedule {self.name}"
        made = triton_resident.source(cell, shape, profile.arch, title, entry, body, options)
        tiles = f"cdiv(batch, {v['batch_tile']})"
        rule = LaunchRule(("heads", tiles, "1"), tiling.resources.threads, tiling.resources.shared_memory)
        program = Program(self.direction, KernelCall(made, rule), num_stages=v["num_stages"] + 1)
        return shared.with_parameter_gradients(program, cell, shape, profile, tiles) if backward else program

    def _rows(self, cell: Cell, shape: Shape) -> int:
        """Of the product of a step: all gates' units forward, the units before the step backward."""
        width = shared.padded(shape)
        return Stack(cell).count * width if self.direction == "forward" else width

    def _registers(self, cell: Cell, shape: Shape, profile: Profile, v: Mapping[str, Number]) -> Int:
        """Registers of a thread: what must live at once, of R, of the gates, of the states and of what was loaded."""
        size, width, stacked = dtype_info(shape.dtype).itemsize, shared.padded(shape), Stack(cell).count
        lanes = v["num_warps"] * shared.lanes(profile)
        in_registers = 1 - shared.in_groups(profile, shape, self._rows(cell, shape), v["num_warps"])
        weights = in_registers * stacked * width * width * size
        tile = v["batch_tile"] * width
        if self.direction == "forward":
            floats, loaded = 2 * stacked + len(cell.states), stacked if cell.input_gates else 0
        else:
            code = derive(cell)
            floats = stacked + len(cell.states) + len(cell.inputless_biases)
            loaded = stacked + len(code.states) + known_states(cell, shape)
        return cdiv(weights + tile * (4 * floats + size * loaded * v["num_stages"]), 4 * lanes) + ADDRESSES

    def _shared_memory(self, cell: Cell, shape: Shape, v: Mapping[str, Number]) -> Int:
        """A bound on the bytes of a program: R, and tiles that change their layout or are a product's operand."""
        size, width, stacked = dtype_info(shape.dtype).itemsize, shared.padded(shape), Stack(cell).count
        return stacked * width * width * size + v["batch_tile"] * width * (4 * stacked + 2 * size) + 1024

    def _clocks(self, cell: Cell, shape: Shape, profile: Profile, v: Mapping[str, int]) -> float:
        """Clocks of a step, roughly: two barriers about every change of a layout, the product, the pointwise step."""
        forward = self.direction == "forward"
        cost = cell_cost(cell) if forward else backward_cost(cell)
        width, warps, stacked = shared.padded(shape), v["num_warps"], Stack(cell).count
        busiest = -(-warps // SUB_PARTITIONS)
        rows, inner = (stacked * width, width) if forward else (width, stacked * width)
        chain = -(-inner // 16)
        products = -(-rows * v["batch_tile"] // (LEAST_ROWS * LEAST_COLUMNS * warps)) * chain
        elements = -(-v["batch_tile"] * width // (WARP * warps))
        written = known_states(cell, shape) + (shape.save == "gates")
        moved = 2 + written if forward else 4 + len(derive(cell).states)
        barrier = profile.latency("barrier", WARP * warps) if warps > 1 else 10
        crowded = max(0, as_int(self._registers(cell, shape, profile, v)) - ROOMY) * CROWDED
        weights = WEIGHTS[self.direction]
        matrix = max(products * busiest * profile.latency("mma_interval"), chain * profile.latency("mma"))
        return (
            weights.fixed
            + moved * (weights.change + weights.barriers * barrier)
            + weights.matrix * matrix
            + elements * busiest * weights.instruction * (cost.special + cost.arithmetic)
            + profile.latency("global_load") / 8 / v["num_stages"]
            + crowded
        )


FORWARD = TritonResident("triton_resident", "forward")
BACKWARD = TritonResident("triton_resident_backward", "backward")
