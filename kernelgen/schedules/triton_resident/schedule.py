"""The resident schedule in Triton, both directions: a program runs a tile of the batch of one head through all steps.

The kernels are those of emit/triton_resident.py. Triton lays out registers and shared memory; the formulas here bound
what it will ask for, and the compiler's report is checked against them.
"""

from __future__ import annotations

from collections.abc import Mapping

from constrint import Problem, cdiv
from kernelgen.cells.language import Cell
from kernelgen.emit import triton_resident
from kernelgen.emit.triton_resident import Options
from kernelgen.errors import InfeasibleError
from kernelgen.hardware.profile import Profile
from kernelgen.program.arguments import known_states
from kernelgen.program.dtypes import dtype_info
from kernelgen.program.launch import LaunchRule
from kernelgen.program.program import KernelCall, Program
from kernelgen.program.shape import DTYPES, Shape
from kernelgen.program.source import Language
from kernelgen.program.task import Direction
from kernelgen.program.tiling import Tiling
from kernelgen.schedules.shared import triton as shared
from kernelgen.schedules.shared.forward_step import arrays_written
from kernelgen.schedules.shared.limits import WARP, add_limits, place
from kernelgen.schedules.shared.numbers import Int, Number, as_int
from kernelgen.symbolic.derive import derive
from kernelgen.symbolic.instructions import backward_cost, cell_cost

BATCH_TILES = [16, 32]
NUM_WARPS = [1, 2, 4, 8, 16]
NUM_STAGES = [1, 2, 3]

ADDRESSES = 30
"""Registers of a thread for addresses, masks and counters, about."""


class TritonResident:
    """See the module. Tile variables: batch_tile, sequences of a program; num_warps; num_stages, steps whose inputs are
    in registers ahead of the one that is computed."""

    dtypes: tuple[str, ...] = DTYPES
    language: Language = "triton"

    def __init__(self, name: str, direction: Direction) -> None:
        self.name = name
        self.direction: Direction = direction

    def refuses(self, cell: Cell, shape: Shape, profile: Profile) -> str:
        """Why it does not run this."""
        return shared.refuses(self.name, shape, profile)

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
        shared.add_tile_rules(problem, shape, v["batch_tile"], shared.padded(shape), v["num_warps"])
        add_limits(
            problem,
            profile,
            warps=v["num_warps"],
            registers=self._registers(cell, shape, v),
            shared_memory=self._shared_memory(cell, shape, v),
        )
        return problem

    def tiling(self, cell: Cell, shape: Shape, profile: Profile, values: Mapping[str, int]) -> Tiling:
        """Predicted resources and clocks of one solution."""
        blocks = shape.heads * -(-shape.batch // values["batch_tile"])
        registers = min(profile.registers_per_thread, as_int(self._registers(cell, shape, values)))
        bytes_ = as_int(self._shared_memory(cell, shape, values))
        resources, together, waves = place(profile, blocks, WARP * values["num_warps"], registers, bytes_)
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

    def _registers(self, cell: Cell, shape: Shape, v: Mapping[str, Number]) -> Int:
        """Registers of a thread: what must live at once, of R, of the gates, of the states and of what was loaded."""
        size, width = dtype_info(shape.dtype).itemsize, shared.padded(shape)
        lanes = v["num_warps"] * WARP
        weights = len(cell.recurrent_gates) * width * width * size
        tile = v["batch_tile"] * width
        if self.direction == "forward":
            floats, loaded = len(cell.gates) + len(cell.states), len(cell.input_gates)
        else:
            code = derive(cell)
            floats = len(cell.recurrent_gates) // 2 + len(cell.states) + len(cell.inputless_biases)
            loaded = len(code.saved_gates) + len(code.states) + known_states(cell, shape)
        kept = cdiv(weights, 4 * lanes) + cdiv(tile * (4 * floats + size * loaded * v["num_stages"]), 4 * lanes)
        return kept + ADDRESSES

    def _shared_memory(self, cell: Cell, shape: Shape, v: Mapping[str, Number]) -> Int:
        """A bound on the bytes of a program: R on its way to registers, and tiles that change their layout."""
        size, width = dtype_info(shape.dtype).itemsize, shared.padded(shape)
        weights = len(cell.recurrent_gates) * width * width * size
        return weights + v["batch_tile"] * width * (size + 8) + 1024

    def _clocks(self, cell: Cell, shape: Shape, profile: Profile, v: Mapping[str, int]) -> float:
        """Clocks of a step, roughly: barriers about every change of a layout, products and the pointwise step."""
        forward = self.direction == "forward"
        cost = cell_cost(cell) if forward else backward_cost(cell)
        width, warps = shared.padded(shape), v["num_warps"]
        products = len(cell.recurrent_gates) * (v["batch_tile"] // 16) * (width // 8) * (width // 16)
        elements = v["batch_tile"] * width / (WARP * warps)
        code = derive(cell)
        moved = len(cell.input_gates) + 1 + (arrays_written(cell, shape) if forward else 0)
        if not forward:
            moved += len(code.saved_gates) + len(code.states) + len(cell.recurrent_gates)
        lead = profile.latency("global_load") / 2 / (v["num_stages"] - 0.5)
        issue = -(-warps // 4)
        return (
            150
            + 2 * moved * profile.latency("barrier", WARP * warps)
            + products / warps * issue * profile.latency("mma_interval")
            + width / 16 * profile.latency("mma")
            + elements * issue * (4 * cost.special + 2 * cost.arithmetic)
            + 2 * cost.chain_special * profile.latency("special_function")
            + lead / 4
        )


FORWARD = TritonResident("triton_resident", "forward")
BACKWARD = TritonResident("triton_resident_backward", "backward")
