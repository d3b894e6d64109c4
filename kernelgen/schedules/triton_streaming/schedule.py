"""The streaming schedule in Triton, both directions: a launch a step, whose programs each make some units of a head.

The kernels are those of emit/triton_streaming.py. Any head dimension and any batch; what R and h cost is their way from
L2, and a step costs a launch.
"""

from __future__ import annotations

from collections.abc import Mapping

from constrint import Problem, cdiv
from kernelgen.cells.language import Cell
from kernelgen.emit import triton_streaming
from kernelgen.emit.triton_stack import Stack
from kernelgen.emit.triton_text import Options, source
from kernelgen.errors import InfeasibleError
from kernelgen.hardware.profile import Profile
from kernelgen.program.arguments import known_states
from kernelgen.program.dtypes import dtype_info
from kernelgen.program.launch import LaunchRule
from kernelgen.program.program import KernelCall, Program
from kernelgen.program.shape import Shape
from kernelgen.program.tiling import Tiling
from kernelgen.schedules.shared import triton as shared
from kernelgen.schedules.shared.limits import WARP, add_limits, place
from kernelgen.schedules.shared.numbers import Int, Number, as_int
from kernelgen.schedules.shared.triton import TritonSchedule

UNITS = [16, 32, 64]
BATCH_TILES = [8, 16, 32, 64]
PART_K = [32, 64, 128, 256]
NUM_WARPS = [1, 2, 4, 8]
NUM_STAGES = [2, 3, 4]

ADDRESSES = 60
"""Registers of a thread for addresses, masks and counters, about."""

LAUNCH, PART = 10_500, 120
"""Clocks of a launch after another (measured on an H200 machine, 2026-11-27: 5.3 us), and of a part of K beside
its reading."""

L2_BYTES_PER_CLOCK = 40.0
"""That a multiprocessor reads from L2 (probing/catalogue.py knows no such latency; NVIDIA H200, about)."""


class TritonStreaming(TritonSchedule):
    """See the module. Tile variables: units, of a program, with all their gates; batch_tile; part_k, of the units
    before the step, how many are multiplied at a time; num_warps; num_stages of the loop over them."""

    def problem(self, cell: Cell, shape: Shape, profile: Profile) -> Problem:
        """Tile variables and constraints. Raises InfeasibleError for what it refuses."""
        if reason := self.refuses(cell, shape, profile):
            raise InfeasibleError(reason)
        problem = Problem(f"{self.name} schedule of {cell.name}, {shape}, on {profile.name}")
        v = {
            "units": problem.variable("units", UNITS),
            "batch_tile": problem.variable("batch_tile", BATCH_TILES),
            "part_k": problem.variable("part_k", PART_K),
            "num_warps": problem.variable("num_warps", NUM_WARPS),
            "num_stages": problem.variable("num_stages", NUM_STAGES),
        }
        rows = v["units"] * self._gates(cell)
        shared.add_tile_rules(problem, shape, profile, batch_tile=v["batch_tile"], rows=rows, warps=v["num_warps"])
        least, most = min(UNITS), min(PART_K)
        problem.add((v["units"] <= least) | (v["units"] < 2 * shape.head_dim), "units that the head has")
        problem.add((v["part_k"] <= most) | (v["part_k"] < 2 * shape.head_dim), "a part of K that the head has")
        alone = v["part_k"] < shape.head_dim
        problem.add(alone | (v["num_stages"] <= min(NUM_STAGES)), "stages of a loop, where K has more than one part")
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
        tiles = -(-shape.head_dim // values["units"])
        blocks = shape.heads * tiles * -(-shape.batch // values["batch_tile"])
        registers = min(profile.registers_per_thread, as_int(self._registers(cell, shape, profile, values)))
        bytes_ = as_int(self._shared_memory(cell, shape, values))
        resources, waves = place(profile, blocks, shared.lanes(profile) * values["num_warps"], registers, bytes_)
        share = sum(together * count for together, count in waves)
        return Tiling(self.name, dict(values), resources, self._clocks(cell, shape, profile, values, share))

    def program(self, cell: Cell, shape: Shape, profile: Profile, tiling: Tiling) -> Program:
        """The kernel of a tiling; backward with what makes the gradients of R and b."""
        v, backward = tiling.values, self.direction == "backward"
        entry = f"tilesmith_{self.direction}"
        make = triton_streaming.backward if backward else triton_streaming.forward
        constants = {"HEADS": shape.heads, "D": shape.head_dim, "BLOCK_M": v["units"], "BLOCK_B": v["batch_tile"]}
        constants |= {"BLOCK_K": v["part_k"], "STAGES": v["num_stages"]}
        options = Options(constants, v["num_warps"], v["num_stages"], tiling.resources.shared_memory)
        known = known_states(cell, shape)
        what = f"gradients of {known} of {len(cell.states)} states" if backward else f"saves {shape.save}"
        title = f"{self.direction}, {what}, schedule {self.name}"
        made = source(cell, shape, profile.arch, title, entry, make(cell, shape, entry), options)
        tiles = f"cdiv(batch, {v['batch_tile']})"
        blocks = f"heads * {-(-shape.head_dim // v['units'])}"
        rule = LaunchRule((blocks, tiles, "1"), tiling.resources.threads, tiling.resources.shared_memory)
        kept = len(cell.states) - (not backward)
        axes = {"W_carried": f"batch * heads * {kept * shape.head_dim}"} if kept else {}
        program = Program(self.direction, KernelCall(made, rule), axes=axes)
        return shared.with_parameter_gradients(program, cell, shape, profile, tiles) if backward else program

    def _gates(self, cell: Cell) -> int:
        """Of the rows of a product, how many there are for each unit."""
        return Stack(cell).count if self.direction == "forward" else 1

    def _registers(self, cell: Cell, shape: Shape, profile: Profile, v: Mapping[str, Number]) -> Int:
        """Registers of a thread: the sums, and what the step computes with."""
        tile = v["batch_tile"] * v["units"]
        floats = 2 * Stack(cell).count + 2 * len(cell.states)
        return cdiv(tile * floats, v["num_warps"] * shared.lanes(profile)) + ADDRESSES

    def _shared_memory(self, cell: Cell, shape: Shape, v: Mapping[str, Number]) -> Int:
        """A bound on the bytes of a program: the stages of both operands, and tiles that change their layout."""
        size = dtype_info(shape.dtype).itemsize
        if self.direction == "forward":
            # h twice: that of the step before, and the first, which is masked in all other steps.
            rows = v["units"] * self._gates(cell) + 2 * v["batch_tile"]
        else:
            rows = (v["units"] + v["batch_tile"]) * max(1, len(cell.recurrent_gates))
        moved = v["batch_tile"] * v["units"] * 4 * Stack(cell).count
        return v["num_stages"] * rows * v["part_k"] * size + 2 * moved + 2048

    def _clocks(self, cell: Cell, shape: Shape, profile: Profile, v: Mapping[str, int], rounds: int) -> float:
        """Clocks of a step, roughly: a launch, and the operands on their way."""
        size, gates = dtype_info(shape.dtype).itemsize, len(cell.recurrent_gates)
        parts, together = -(-shape.head_dim // v["part_k"]), 1 if self.direction == "forward" else gates
        rows = v["units"] * self._gates(cell)
        read = (rows + v["batch_tile"]) * v["part_k"] * size * parts * together
        waiting = parts * profile.latency("global_load") / 2 / v["num_stages"]
        tiles = -(-rows * v["batch_tile"] // (16 * 8 * 4)) * (v["part_k"] // 16) * together
        issue = tiles * profile.latency("mma_interval")
        return LAUNCH + rounds * (max(read / L2_BYTES_PER_CLOCK, waiting, parts * issue) + parts * PART)


FORWARD = TritonStreaming("triton_streaming", "forward")
BACKWARD = TritonStreaming("triton_streaming_backward", "backward")
