"""What the schedules share whose kernels are Triton's: their programs, their gradients of R and b, their limits."""

from __future__ import annotations

from collections.abc import Mapping

from constrint import Problem, cdiv, maximum, minimum
from kernelgen.cells.language import Cell
from kernelgen.emit import triton_parameters
from kernelgen.emit.triton_text import TYPES, Options, block_d, source
from kernelgen.hardware.profile import Profile, is_amd
from kernelgen.program.dtypes import dtype_info
from kernelgen.program.launch import LaunchRule
from kernelgen.program.program import KernelCall, Program
from kernelgen.program.shape import Shape
from kernelgen.program.source import Language
from kernelgen.program.task import Direction
from kernelgen.schedules.shared.limits import WARP
from kernelgen.schedules.shared.numbers import Int

LEAST_ROWS, LEAST_COLUMNS = 16, 8
"""Of a matrix instruction's result: warps with fewer would compute each other's."""

WAVE = 64
"""Threads of what Triton calls a warp on AMD's GPUs."""

PARAMETER_WARPS = 4
"""Of the kernels of dR and db."""

MOST_PARTS = 32
LEAST_STEPS = 256
"""Into how many parts the steps are cut for dR, and how many steps a part has at least."""


class TritonSchedule:
    """What every schedule is whose kernels are Triton's: see schedules/base.py."""

    dtypes: tuple[str, ...] = tuple(TYPES)
    language: Language = "triton"
    honours: tuple[str, ...] = ()

    def __init__(self, name: str, direction: Direction) -> None:
        self.name = name
        self.direction: Direction = direction

    def refuses(self, cell: Cell, shape: Shape, profile: Profile) -> str:
        """Why it does not run this, as a sentence: what Triton does not compile for. Else empty."""
        if shape.recompute:
            return (
                f"the {self.name} schedule does not recompute gates. Save the gates in the forward pass, or take a "
                "schedule in CUDA."
            )
        if profile.arch.startswith("sm_") and profile.compute_capability < (8, 0):
            return f"the {self.name} schedule needs sm_80 or newer, as Triton does; {profile.name} is {profile.arch}."
        return ""


def add_tile_rules(problem: Problem, shape: Shape, profile: Profile, *, batch_tile: Int, rows: Int, warps: Int) -> None:
    """Constraints of every product of ``rows`` rows by a tile of the batch."""
    problem.add(
        (batch_tile <= LEAST_COLUMNS) | (batch_tile < shape.batch + LEAST_COLUMNS),
        "a batch tile that the batch can fill",
    )
    tiles = maximum(batch_tile, LEAST_COLUMNS) * rows // (LEAST_ROWS * LEAST_COLUMNS)
    problem.add(warps <= tiles, "every warp has at least a tile of 16 rows by 8 sequences of a product")
    if is_amd(profile.arch):
        problem.add(batch_tile >= LEAST_ROWS, "a batch tile of at least 16, as the matrix instructions of AMD have it")


def lanes(profile: Profile) -> int:
    """Threads of what Triton calls a warp."""
    return WAVE if is_amd(profile.arch) else WARP


def most_parts(cell: Cell, shape: Shape, profile: Profile) -> int:
    """Into how many parts the steps are cut, so that the programs of dR fill the GPU about twice."""
    tile = triton_parameters.constants(shape.head_dim, 1)["BLOCK_M"]
    blocks = shape.heads * len(triton_parameters.members(cell)) * cdiv(shape.head_dim, tile) ** 2
    wanted = cdiv(2 * profile.multiprocessors, blocks)
    return max(1, minimum(minimum(wanted, MOST_PARTS), cdiv(shape.batch * shape.seq, LEAST_STEPS)))


def with_parameter_gradients(
    recurrence: Program, cell: Cell, shape: Shape, profile: Profile, num_partials: str
) -> Program:
    """A backward pass: the recurrence, then two kernels that make the gradients of R and b. num_partials: how many
    partial sums the recurrence leaves of the gradients of biases without an input, as a rule."""
    parts = most_parts(cell, shape, profile)
    sizes = {"HEADS": shape.heads, "D": shape.head_dim}
    values = triton_parameters.constants(shape.head_dim, parts)
    shared = _parameter_shared_memory(values, dtype_info(shape.dtype).itemsize)
    options = Options({**sizes, **values}, PARAMETER_WARPS, values["STAGES"], shared)
    tiles = -(-shape.head_dim // values["BLOCK_M"])
    members = len(triton_parameters.members(cell))
    rule = LaunchRule((f"heads * {members}", str(tiles**2), str(parts)), lanes(profile) * PARAMETER_WARPS, shared)
    entry = "tilesmith_parameter_gradients"
    body = triton_parameters.gradients(cell, shape, entry)
    made = source(cell, shape, profile.arch, "gradients of R and b", entry, body, options)
    entry = "tilesmith_sum_of_parts"
    options = Options(sizes | {"BLOCK": triton_parameters.SUM_BLOCK, "PARTS": parts}, PARAMETER_WARPS, 1, 0)
    added = source(
        cell, shape, profile.arch, "sums of parts", entry, triton_parameters.sums(cell, shape, entry), options
    )
    sums = LaunchRule(
        (triton_parameters.sum_blocks(cell, shape.head_dim), "1", "1"), lanes(profile) * PARAMETER_WARPS, 0
    )
    return Program(
        "backward",
        recurrence.main,
        (KernelCall(made, rule), KernelCall(added, sums)),
        {**recurrence.axes, "P": num_partials, "Q": str(parts)},
        recurrence.num_stages,
    )


def _parameter_shared_memory(values: Mapping[str, int], itemsize: int) -> int:
    """A bound: the stages of both operands, and one more for where they change their layout."""
    operands = (values["BLOCK_M"] + values["BLOCK_N"]) * values["BLOCK_K"] * itemsize
    total = values["BLOCK_M"] * values["BLOCK_N"] * 4
    return values["STAGES"] * operands + 2 * max(operands, total) + 2048


def padded(shape: Shape) -> int:
    """Units of a head with those that masks leave out."""
    return block_d(shape.head_dim)
