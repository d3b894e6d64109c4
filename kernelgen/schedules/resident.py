"""The resident schedule: one block holds the recurrent matrix of one head and runs a tile of the batch through time.

R lies in registers and shared memory for the whole sequence, h travels through shared memory, and one barrier a step
is all the synchronisation. The kernel is the template of cuda/resident.cuh; the formulas here are its sizes, and the
generated source asserts that they agree. Every formula works on plain integers and on a Problem's variables alike:
the same text states the constraint and predicts the number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from constrint import Problem, cdiv, minimum
from kernelgen.cells.language import Cell
from kernelgen.cost import StepWork, clocks_per_step
from kernelgen.emit.cost import cell_cost
from kernelgen.emit.kernel import forward_source
from kernelgen.errors import InfeasibleError
from kernelgen.hardware import Profile
from kernelgen.schedules._limits import add_limits
from kernelgen.schedules._registers import ResidentCounts, predicted_registers
from kernelgen.schedules.base import Launch, Resources, Source, Tiling
from kernelgen.shape import Shape

Int = Any
"""An int, or an expression over a Problem's variables."""

CHUNK = 16
"""Bytes of the unit in which shared memory is laid out: 8 elements of 16 bits."""

NEEDS = (("ldmatrix", "ldmatrix"), ("cp_async", "asynchronous copies"))
"""Features a GPU must have, and what to call them."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of cuda/resident.cuh, from a cell, a shape and the tile variables (ints or expressions)."""

    warps: Int
    unit_warps: Int
    octets: Int
    tiles: Int
    groups: Int
    columns: Int
    column_tiles: Int
    elements: Int
    copies: Int
    writes: Int
    matrices: Int
    shared_memory: Int


def sizes(cell: Cell, shape: Shape, v: Mapping[str, Int]) -> Sizes:
    """Compute the sizes for tile variables ``v``."""
    d = shape.head_dim
    recurrent, inputs = len(cell.recurrent_gates), len(cell.input_gates)
    units, rows, k_split = v["units_per_warp"], v["batch_tile"], v["k_split"]
    octets = units // 8
    unit_warps = cdiv(d, units)
    warps = unit_warps * k_split
    groups = cdiv(cdiv(d, 32), k_split)
    tiles = cdiv(recurrent * units, 16)
    columns = minimum(rows // 4, 2)
    column_tiles = cdiv(rows, 8)
    row = (unit_warps * octets // 2 * 2 + 1) * CHUNK
    hidden = 4 * groups * k_split * rows * CHUNK
    staged = (_planes(cell, shape) - 1) * rows * row
    ring = v["prefetch"] * inputs * rows * row
    weights = warps * (groups - v["register_groups"]) * tiles * 2 * 32 * CHUNK
    partial = (k_split - 1) * unit_warps * tiles * column_tiles * 32 * CHUNK
    return Sizes(
        warps=warps,
        unit_warps=unit_warps,
        octets=octets,
        tiles=tiles,
        groups=groups,
        columns=columns,
        column_tiles=column_tiles,
        elements=octets * column_tiles * columns,
        copies=cdiv(inputs * rows * (d // _vector_width(d)), warps * 32),
        writes=cdiv(_planes(cell, shape) * rows * (d // _vector_width(d)), warps * 32),
        matrices=cdiv(inputs, 3 - columns),
        shared_memory=2 * (hidden + staged) + ring + weights + partial,
    )


def _planes(cell: Cell, shape: Shape) -> int:
    """How many arrays of [sequence, unit] are written out for every step."""
    states = len(cell.states)
    return {"hidden": 1, "states": states, "gates": states + len(cell.gates)}[shape.save]


def _vector_width(head_dim: int) -> int:
    return next(width for width in (8, 4, 2, 1) if head_dim % width == 0)


class Resident:
    """See the module."""

    name = "resident"

    def problem(self, cell: Cell, shape: Shape, profile: Profile) -> Problem:
        """Tile variables and constraints. Raises InfeasibleError for a GPU without the instructions it needs."""
        self._check_instructions(shape, profile)
        d = shape.head_dim
        problem = Problem(f"resident schedule of {cell.name}, {shape}, on {profile.name}")
        v = {
            "units_per_warp": problem.variable("units_per_warp", [8, 16]),
            "batch_tile": problem.variable("batch_tile", [4, 8, 16, 24, 32]),
            "k_split": problem.variable("k_split", range(1, min(4, -(-d // 32)) + 1)),
            "register_groups": problem.variable("register_groups", range(0, -(-d // 32) + 1)),
            "chains": problem.variable("chains", [1, 2, 4]),
            "prefetch": problem.variable("prefetch", [2, 3, 4, 6, 8, 12]),
        }
        s = sizes(cell, shape, v)
        problem.add(v["register_groups"] <= s.groups, "no more groups of R in registers than a warp has")
        problem.add((s.groups - 1) * v["k_split"] < -(-d // 32), "every warp of a K split has a part of K")
        problem.add(v["chains"] <= 2 * s.groups, "no more accumulator chains than matrix instructions in a row")
        problem.add(
            (v["batch_tile"] <= 8) | (v["batch_tile"] < shape.batch + 8), "a batch tile that the batch can fill"
        )
        add_limits(
            problem,
            profile,
            warps=s.warps,
            registers=predicted_registers(self.counts(cell, shape, v, s), profile.arch),
            shared_memory=s.shared_memory,
        )
        return problem

    def tiling(self, cell: Cell, shape: Shape, profile: Profile, values: Mapping[str, int]) -> Tiling:
        """Predicted resources and clocks of one solution."""
        s = sizes(cell, shape, values)
        threads = 32 * s.warps
        registers = predicted_registers(self.counts(cell, shape, values, s), profile.arch)
        blocks = shape.heads * -(-shape.batch // values["batch_tile"])
        fit = profile.occupancy(threads, registers, s.shared_memory)
        resources = Resources(registers, s.shared_memory, threads, blocks, fit)
        # Blocks beyond what fits wait for a whole sequence; the busiest multiprocessor decides.
        share = -(-blocks // profile.multiprocessors)
        together = min(share, max(fit, 1))
        waves = -(-share // together)
        clocks = clocks_per_step(self._work(cell, shape, values, s), profile, together - 1, values["prefetch"])
        return Tiling(self.name, dict(values), resources, clocks * waves)

    def source(self, cell: Cell, shape: Shape, profile: Profile, tiling: Tiling) -> Source:
        """The kernel: an instantiation of cuda/resident.cuh."""
        return forward_source("Resident", cell, shape, profile.arch, tiling.values, tiling.resources)

    def launch(self, shape: Shape, tiling: Tiling) -> Launch:
        """One block per head and tile of the batch."""
        grid = (shape.heads, -(-shape.batch // tiling.values["batch_tile"]), 1)
        return Launch(grid, tiling.resources.threads, tiling.resources.shared_memory)

    def _check_instructions(self, shape: Shape, profile: Profile) -> None:
        missing = [words for feature, words in NEEDS if feature not in profile.features]
        if not profile.supports("m16n8k16", shape.dtype):
            missing.insert(0, f"the matrix instruction m16n8k16 for {shape.dtype}")
        if missing:
            raise InfeasibleError(
                f"the resident schedule needs {' and '.join(missing)}, which {profile.name} ({profile.arch}) lacks; "
                "it runs on sm_80 and newer"
            )

    def counts(self, cell: Cell, shape: Shape, v: Mapping[str, Int], s: Sizes) -> ResidentCounts:
        """What lives in a thread's registers, for the register model."""
        return ResidentCounts(
            weights=s.tiles * v["register_groups"] * 8,
            fragments=s.tiles * s.groups,
            loading=minimum(s.groups - v["register_groups"], 1),
            accumulators=s.tiles * s.column_tiles * 4,
            more_chains=(v["chains"] - 1) * s.tiles * s.column_tiles * 4,
            hidden=4 * s.column_tiles * s.groups,
            bias=s.tiles * 2 + s.octets * (len(cell.gates) - len(cell.recurrent_gates)),
            states=s.elements * (len(cell.states) - 1),
            inputs=s.octets * s.column_tiles * s.matrices,
            elements=s.elements,
            saved_gates=s.elements * len(cell.gates) * (shape.save == "gates"),
            live=minimum(s.elements, 4) * cell_cost(cell).live,
            split=minimum(v["k_split"] - 1, 1),
            padded=minimum(s.unit_warps * v["units_per_warp"] - shape.head_dim, 1),
            copies=s.copies,
            writes=s.writes,
        )

    def _work(self, cell: Cell, shape: Shape, v: Mapping[str, int], s: Sizes) -> StepWork:
        cost = cell_cost(cell)
        owners = s.unit_warps
        hidden = s.groups * s.column_tiles * 512 // (3 - s.columns)
        weights = (s.groups - v["register_groups"]) * s.tiles * 2 * 512
        partial = 2 * (v["k_split"] - 1) * s.tiles * s.column_tiles * 512 * owners
        more_chains = (v["chains"] - 1) * s.tiles * s.column_tiles * 4
        planes = _planes(cell, shape)
        values = shape.batch * shape.heads * shape.head_dim * (len(cell.input_gates) + planes)
        return StepWork(
            warps=s.warps,
            owners=owners,
            matrix=s.tiles * s.column_tiles * 2 * s.groups,
            matrix_chain=max(1.0, 2 * s.groups / v["chains"]),
            shared_bytes=s.warps * (hidden + weights) + partial,
            special=s.elements * cost.special,
            arithmetic=s.elements * (cost.arithmetic + 2 * len(cell.input_gates)) + more_chains,
            chain_special=cost.chain_special,
            chain_arithmetic=cost.chain_arithmetic + 1 + v["chains"] // 2,
            staged=s.elements * planes,
            transfers=s.copies + 2 * s.writes,
            device_bytes=2 * values,
            exchanges=min(v["k_split"] - 1, 1),
        )


SCHEDULE = Resident()
