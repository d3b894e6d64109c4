"""The resident schedule in Triton, both directions: a program runs a tile of the batch of one head through all steps.

The kernels are those of emit/triton_resident.py. Triton lays out registers and shared memory; the formulas here bound
what it will ask for, and the compiler's report is checked against them.
"""

from __future__ import annotations

from collections.abc import Mapping

from constrint import Problem, cdiv, maximum
from kernelgen.cells.language import Cell
from kernelgen.emit import triton_resident
from kernelgen.emit.triton_text import Options, source
from kernelgen.errors import InfeasibleError
from kernelgen.hardware.profile import Profile, is_amd
from kernelgen.program.arguments import known_states
from kernelgen.program.dtypes import dtype_info
from kernelgen.program.launch import LaunchRule
from kernelgen.program.program import KernelCall, Program
from kernelgen.program.shape import SIXTEEN_BITS, Shape
from kernelgen.program.tiling import Tiling
from kernelgen.schedules.shared import triton as shared
from kernelgen.schedules.shared.cost import SUB_PARTITIONS
from kernelgen.schedules.shared.limits import WARP, add_limits, place
from kernelgen.schedules.shared.numbers import Int, Number, as_int
from kernelgen.schedules.shared.triton import LEAST_COLUMNS, LEAST_ROWS, TritonSchedule
from kernelgen.symbolic.derive import derive
from kernelgen.symbolic.hoist import split_step
from kernelgen.symbolic.instructions import backward_cost, cell_cost

BATCH_TILES = [4, 8, 16, 32]
NUM_WARPS = [1, 2, 4, 8, 16]
NUM_STAGES = [1, 2, 3, 4]


FIXED, SPECIAL, ARITHMETIC, MOVED = 200, 8, 1.5, 4
"""Clocks of a step with nothing in it, and of a warp's instruction: of a special function, of another, and of all that
loads or stores an element. Not fitted to measurements."""

COUNTED_SHORT = 1.4
"""How many times as long a step takes as its parts add up to: on an H200 forward 1.3 at 48 x 16, 1.45 at 12 x 64."""

SHARED_BYTES_PER_CLOCK = 128
"""That a multiprocessor reads from shared memory."""

GROUP_ROWS, FEW_COLUMNS = 64, 16
"""Rows and columns of a tile from which on Triton has groups of four warps multiply together, where a GPU can. A right
side of 64 x 16 that lies in memory by rows (nvmma_shared, 32 bytes, not transposed) makes results that are off by a
third, as seen on an H200 on 2026-11-28."""

ROOMY, CROWDED = 220, 4
"""Registers of a thread up to which nothing spills, by the formula here, and clocks for each beyond."""

ADDRESSES, FURTHER_STEP = 40, 15
"""Registers of a thread for addresses, masks and counters, about; and for each further step in the loop's body."""


class TritonResident(TritonSchedule):
    """See the module. Tile variables: batch_tile, sequences of a program, 4 in half filled tiles; num_warps;
    num_stages, steps whose inputs are in registers ahead of the one that is computed; weights_in_registers, 1 where R
    stays there, 0 where a step reads it from shared memory."""

    def problem(self, cell: Cell, shape: Shape, profile: Profile) -> Problem:
        """Tile variables and constraints. Raises InfeasibleError for what it refuses."""
        if reason := self.refuses(cell, shape, profile):
            raise InfeasibleError(reason)
        problem = Problem(f"{self.name} schedule of {cell.name}, {shape}, on {profile.name}")
        v = {
            "batch_tile": problem.variable("batch_tile", BATCH_TILES),
            "num_warps": problem.variable("num_warps", NUM_WARPS),
            "num_stages": problem.variable("num_stages", NUM_STAGES),
            "weights_in_registers": problem.variable("weights_in_registers", [0, 1]),
        }
        rows = shared.padded(shape)
        shared.add_tile_rules(problem, shape, profile, batch_tile=v["batch_tile"], rows=rows, warps=v["num_warps"])
        in_memory, apart = v["weights_in_registers"] == 0, LEAST_ROWS * v["num_warps"] <= rows
        if shape.dtype not in SIXTEEN_BITS or shape.head_dim % 2 or is_amd(profile.arch):
            problem.add(
                in_memory, "R in registers is for elements of 16 bits, an even head dimension and NVIDIA's GPUs"
            )
        else:
            problem.add(apart, "every warp has 16 rows of the tile for itself, since others would compute the same")
        if rows >= GROUP_ROWS and {"wgmma", "tcgen05"} & profile.features:
            grouped = (v["num_warps"] % 4 == 0) & (v["batch_tile"] >= FEW_COLUMNS)
            problem.add(~grouped, "no products by groups of four warps, which Triton 3.6 gets wrong for so few columns")
        if shape.dtype not in SIXTEEN_BITS:
            problem.add(v["batch_tile"] >= LEAST_COLUMNS, "half filled tiles are for elements of 16 bits")
        problem.add(in_memory | apart, "R in registers: every warp has 16 rows of the tile for itself")
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
        resources, waves = place(profile, blocks, shared.lanes(profile) * values["num_warps"], registers, bytes_)
        alone = self._clocks(cell, shape, profile, values)
        clocks = sum(count * alone * (1 + 0.3 * (together - 1)) for together, count in waves)
        return Tiling(self.name, dict(values), resources, clocks)

    def program(self, cell: Cell, shape: Shape, profile: Profile, tiling: Tiling) -> Program:
        """The kernel of a tiling; backward with what makes the gradients of R and b."""
        v, backward = tiling.values, self.direction == "backward"
        entry = f"tilesmith_{self.direction}"
        make = triton_resident.backward if backward else triton_resident.forward
        body = make(cell, shape, entry, v["num_stages"])
        constants = {"HEADS": shape.heads, "D": shape.head_dim, "BLOCK_B": v["batch_tile"]}
        constants |= {"BLOCK_D": shared.padded(shape), "WEIGHTS_IN_REGISTERS": v["weights_in_registers"]}
        options = Options(constants, v["num_warps"], 1, tiling.resources.shared_memory, warp_groups=False)
        known = known_states(cell, shape)
        what = f"gradients of {known} of {len(cell.states)} states" if backward else f"saves {shape.save}"
        title = f"{self.direction}, {what}, schedule {self.name}"
        made = source(cell, shape, profile.arch, title, entry, body, options)
        tiles = f"cdiv(batch, {v['batch_tile']})"
        rule = LaunchRule(("heads", tiles, "1"), tiling.resources.threads, tiling.resources.shared_memory)
        program = Program(self.direction, KernelCall(made, rule), num_stages=v["num_stages"] + 1)
        return shared.with_parameter_gradients(program, cell, shape, profile, tiles) if backward else program

    def _registers(self, cell: Cell, shape: Shape, profile: Profile, v: Mapping[str, Number]) -> Int:
        """Registers of a thread: what must live at once, of R, of the gates, of the states and of what was loaded."""
        size, width = dtype_info(shape.dtype).itemsize, shared.padded(shape)
        changing = len({*cell.recurrent_gates} | {*cell.input_gates})
        weights = v["weights_in_registers"] * len(cell.recurrent_gates) * width * width * size
        if self.direction == "forward":
            floats, loaded = changing + 2 * len(cell.states), len(cell.input_gates)
        else:
            code = derive(cell)
            floats = changing + len(split_step(cell).ready) + len(cell.states) + len(cell.inputless_biases)
            loaded = len(code.saved_gates) + len(code.states) + known_states(cell, shape)
        given = v["batch_tile"] * width * (4 * floats + size * loaded * v["num_stages"])
        tile = given + (_columns(v) - v["batch_tile"]) * width * 4 * len(cell.recurrent_gates)
        more = ADDRESSES + FURTHER_STEP * (v["num_stages"] - 1)
        return cdiv(weights + tile, 4 * v["num_warps"] * shared.lanes(profile)) + more

    def _shared_memory(self, cell: Cell, shape: Shape, v: Mapping[str, Number]) -> Int:
        """A bound on the bytes of a program: R where it lies there, and tiles that are a product's right side or, in a
        layout that is not foreseen, change it."""
        size, width = dtype_info(shape.dtype).itemsize, shared.padded(shape)
        matrices = (1 - v["weights_in_registers"]) * len(cell.recurrent_gates)
        tiles = len(cell.gates) * size + 4
        return (matrices + 1) * width * width * size + _columns(v) * width * tiles + 1024

    def _clocks(self, cell: Cell, shape: Shape, profile: Profile, v: Mapping[str, int]) -> float:
        """Clocks of a step, roughly: the products' right sides through shared memory, the products, the pointwise step,
        and R on its way where it lies in shared memory."""
        forward, width, warps = self.direction == "forward", shared.padded(shape), v["num_warps"]
        cost, gates = cell_cost(cell) if forward else backward_cost(cell), len(cell.recurrent_gates)
        busiest = -(-warps // SUB_PARTITIONS)
        chain = -(-width // 16)
        products = gates * chain * -(-width * as_int(_columns(v)) // (LEAST_ROWS * LEAST_COLUMNS * warps))
        barrier = profile.latency("barrier", WARP * warps)
        exchange = 2 * (profile.latency("shared_load") + barrier)
        matrix = max(products * busiest * profile.latency("mma_interval"), chain * profile.latency("mma"))
        matrices = (1 - v["weights_in_registers"]) * gates * width * width * dtype_info(shape.dtype).itemsize
        elements = -(-v["batch_tile"] * width // (WARP * warps))
        written = known_states(cell, shape) + len(derive(cell).saved_gates) * (shape.save == "gates")
        moved = len(cell.input_gates) + written if forward else 2 * len(cell.gates) + len(derive(cell).states) + 2
        pointwise = SPECIAL * cost.special + ARITHMETIC * cost.arithmetic + MOVED * moved
        crowded = max(0, as_int(self._registers(cell, shape, profile, v)) - ROOMY) * CROWDED
        multiplied = max(matrix, matrices / SHARED_BYTES_PER_CLOCK)
        step = COUNTED_SHORT * (FIXED + exchange + multiplied + elements * busiest * pointwise + crowded)
        return step + max(0.0, profile.latency("global_load") - multiplied - (v["num_stages"] - 1) * step)


def _columns(v: Mapping[str, Number]) -> Int:
    """Of a product's right side and result: of 4 sequences, twice as many."""
    return maximum(v["batch_tile"], LEAST_COLUMNS)


FORWARD = TritonResident("triton_resident", "forward")
BACKWARD = TritonResident("triton_resident_backward", "backward")
