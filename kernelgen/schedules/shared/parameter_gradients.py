"""The kernel that makes the gradients of R and b from those of the gates, for all steps at once.

It is the template of cuda/parameter_gradients.cuh. No tiling is searched for: the kernel is bound by what its blocks
read, and one shape of tile came within 13 % of the best for LSTM and GRU with several heads, within 44 % elsewhere
(docs/lab/resident_backward.md, 12; of large heads docs/lab/cluster_backward.md, 3). Steps are cut into parts: where a
GPU has clusters, the blocks of one add theirs; elsewhere the results of the parts are float32, to be added afterwards,
and MEMORY limits how many there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from kernelgen.cells.language import Cell
from kernelgen.emit.kernel import Parameter, Template, kernel_source
from kernelgen.hardware.profile import Profile
from kernelgen.program.launch import LaunchRule
from kernelgen.program.program import KernelCall, Program
from kernelgen.program.shape import Shape
from kernelgen.symbolic.derive import derive

ENTRY = "tilesmith_parameter_gradients"

COLUMNS = 64
"""Columns of a tile of the product at most: a thread keeps 64 float32 sums then."""

WIDE, WIDE_UP_TO = 128, 256
"""Where as many columns cut the product evenly, BLOCKS of such tiles fit a multiprocessor and blocks may share the
steps, a tile has these: it reads half as much. Larger products have tiles enough without."""

ROWS = 128
"""Rows of a tile at most."""

WARPS = 4
"""Of a block: those that a tile does not need share its steps."""

DEPTH, NUM_STAGES = 64, 3
"""Steps of a stage, and stages: two blocks fit on a multiprocessor, each with two stages on their way."""

BLOCKS = 2
"""Blocks a multiprocessor that cutting the steps into parts aims at, where they fit."""

SUM_THREADS = 256
"""Of a block that adds the results of parts."""

REGISTERS, WIDE_REGISTERS = 176, 232
"""Of a thread, at most, in tiles of COLUMNS and of WIDE columns."""

SHORTEST = 4
"""Stages that a part has at least."""

MEMORY = 0.03
"""What the results of parts may take where they are apart, as a share of what a backward pass keeps."""


@dataclass(frozen=True)
class Tiling:
    """The tile variables of cuda/parameter_gradients.cuh."""

    row_warps: int
    warp_tiles: int
    columns: int
    step_groups: int
    depth: int
    num_stages: int
    parts: int
    inputless: bool
    cluster: bool

    @property
    def rows(self) -> int:
        """Rows of the product that a block makes."""
        return 16 * self.row_warps * self.warp_tiles

    @property
    def threads(self) -> int:
        """Of a block."""
        return 32 * self.row_warps * self.step_groups

    @property
    def shared_memory(self) -> int:
        """Bytes of shared memory of a block."""
        exchanging = max(self.step_groups - 1, int(self.cluster and self.parts > 1))
        exchange = exchanging * self.row_warps * self.warp_tiles * (self.columns // 8 + 1) * 512
        return max(self.num_stages * self.depth * _step_bytes(self.rows, self.columns), exchange)


@dataclass(frozen=True)
class ParameterGradients:
    """The kernel for one cell, shape and GPU. It is right for any batch and seq, and made for those of the shape.

    inputless: whether the recurrence has left the gradients of gates without an input, rather than partial sums.
    """

    cell: Cell
    shape: Shape
    profile: Profile
    inputless: bool = False

    @property
    def tiling(self) -> Tiling:
        """A tile twice as high as wide, up to ROWS, and as many parts of the steps as fill the GPU with its blocks."""
        columns, cluster = self._padded, self.profile.portable_cluster > 1
        whole = self._tile(16 * -(-columns // (16 * -(-columns // COLUMNS))))
        fit = self.profile.occupancy(whole.threads, REGISTERS, whole.shared_memory)
        if cluster and columns % WIDE == 0 and columns <= WIDE_UP_TO:
            wide = self._tile(WIDE)
            wide_fit = self.profile.occupancy(wide.threads, WIDE_REGISTERS, wide.shared_memory)
            if wide_fit >= BLOCKS:
                whole, fit = wide, wide_fit
        blocks = self.shape.heads * self._blocks(whole)
        wanted = min(max(1, min(BLOCKS, fit)) * self.profile.multiprocessors / blocks, self._steps / (SHORTEST * DEPTH))
        if not cluster:
            return replace(whole, parts=max(1, min(int(wanted), self._affordable)))
        parts = 1 << max(0, round(math.log2(wanted)))  # others than powers of two leave multiprocessors idle
        return replace(whole, parts=min(parts, self.profile.portable_cluster), cluster=True)

    def _tile(self, columns: int) -> Tiling:
        """A tile of that many columns, of all steps."""
        row_warps = -(-min(2 * columns, self._rows, ROWS) // 32)
        return Tiling(
            row_warps=row_warps,
            warp_tiles=2,  # half the loads of h for a product that one would take
            columns=columns,
            step_groups=max(1, WARPS // row_warps),
            depth=DEPTH,
            num_stages=NUM_STAGES,
            parts=1,
            inputless=self.inputless,
            cluster=False,
        )

    @property
    def results(self) -> int:
        """How many results of d_r and d_b the kernel writes, to be added where they are several."""
        return 1 if self.tiling.cluster else self.tiling.parts

    def calls(self) -> tuple[KernelCall, ...]:
        """The kernel; where it leaves several results, one that adds them."""
        chosen, apart = self.tiling, self.results > 1
        grid = (f"heads * {chosen.parts}", str(self._blocks(chosen)), "1")
        rule = LaunchRule(grid, chosen.threads, chosen.shared_memory, chosen.parts if chosen.cluster else 1)
        suffix = "_parts" if apart else ""
        template = Template(
            header="parameter_gradients",
            name="ParameterGradients",
            arguments="ParameterGradientArguments",
            entry=ENTRY,
            title="gradients of R and b",
            parameters=(
                Parameter("const unsigned short*", "d_wx"),
                *((Parameter("const unsigned short*", "d_inputless"),) if self.inputless else ()),
                *(() if self.inputless else (Parameter("const float*", "d_r_partial"),)),
                Parameter("const float*", "d_b_partial"),
                Parameter("const unsigned short*", "states", "hidden"),
                Parameter("const unsigned short*", "initial"),
                Parameter("void*", f"d_r{suffix}", "d_r"),
                Parameter("void*", f"d_b{suffix}", "d_b"),
                *(Parameter("int", name) for name in ("batch", "seq", "num_partials")),
            ),
            tiling_struct="ParameterGradientTiling",
            tiling={field.name: int(getattr(chosen, field.name)) for field in fields(Tiling)},
            asserted={"blocks": self._blocks(chosen), "threads": chosen.threads, "shared_bytes": chosen.shared_memory},
        )
        made = KernelCall(kernel_source(self.cell, self.shape, self.profile.arch, template), rule)
        return (made, self._sum()) if apart else (made,)

    def _sum(self) -> KernelCall:
        """The kernel that adds the results of parts that are apart."""
        elements = self.shape.heads * self.shape.head_dim
        elements *= len(self.cell.recurrent_gates) * self.shape.head_dim + len(self.cell.bias_gates)
        rule = LaunchRule((str(-(-elements // SUM_THREADS)), "1", "1"), SUM_THREADS, 0)
        template = Template(
            header="sum_of_parts",
            name="SumOfParts",
            arguments="SumOfPartsArguments",
            entry="tilesmith_sum_of_parts",
            title="the gradients of R and b from those of parts of the steps",
            parameters=(
                Parameter("const float*", "d_r_parts"),
                Parameter("const float*", "d_b_parts"),
                Parameter("unsigned short*", "d_r"),
                Parameter("unsigned short*", "d_b"),
            ),
            tiling_struct="SumOfPartsTiling",
            tiling={"parts": self.results},
            asserted={"elements": elements, "threads": SUM_THREADS},
        )
        return KernelCall(kernel_source(self.cell, self.shape, self.profile.arch, template), rule)

    @property
    def _padded(self) -> int:
        return -(-self.shape.head_dim // 16) * 16

    @property
    def _members(self) -> int:
        gates = {*self.cell.recurrent_gates, *self.cell.bias_gates} & {*self.cell.input_gates}
        return len(gates | {*self.cell.inputless_products} if self.inputless else gates)

    @property
    def _rows(self) -> int:
        """Of the product, per head; where there is nothing to be made, those of one gate all the same."""
        return max(1, self._members) * self._padded

    @property
    def _steps(self) -> int:
        return self.shape.batch * self.shape.seq

    @property
    def _affordable(self) -> int:
        """How many results apart MEMORY allows."""
        kept = self._steps * self.shape.head_dim * (len(self.cell.states) + len(derive(self.cell).saved_gates)) * 2
        return int(MEMORY * kept / (self._rows * self._padded * 4))

    def _blocks(self, chosen: Tiling) -> int:
        return -(-self._rows // chosen.rows) * -(-self._padded // chosen.columns)


def _step_bytes(rows: int, columns: int) -> int:
    """Bytes of one step in a stage: rows and columns, each an odd number of 16-byte chunks."""
    return 16 * ((rows // 8 | 1) + (columns // 8 | 1))


def with_parameter_gradients(
    recurrence: Program, cell: Cell, shape: Shape, profile: Profile, num_partials: str
) -> Program:
    """A backward pass: the recurrence, then the gradients of R and b from what it leaves.

    num_partials: how many partial sums the recurrence leaves of the gradients of gates without an input, as a rule. The
    second kernel is made for the number of steps of ``shape``, and right for any.
    """
    inputless = "d_inputless" in recurrence.main.source.arguments
    parameters = ParameterGradients(cell, shape, profile, inputless=inputless)
    axes = {**recurrence.axes, "P": num_partials, "Q": str(parameters.results)}
    return replace(recurrence, then=parameters.calls(), axes=axes)
