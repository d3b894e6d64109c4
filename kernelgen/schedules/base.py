"""What a schedule is: the contract between a way of running a recurrence and everything after it.

A schedule is one module in this folder. It states its tile variables and constraints (a constrint Problem),
its cost, its launch and the template it instantiates; compiling, emulating, validating, measuring and exporting
are common to all and know a schedule only through this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from constrint import Problem
    from kernelgen.cells.language import Cell
    from kernelgen.hardware import Profile
    from kernelgen.shape import Shape

FORWARD_ENTRY = "tilesmith_forward"

FORWARD_ARGUMENTS = ("wx", "r", "b", "initial", "states", "others", "last", "gates", "batch", "seq")
"""The arguments of every forward kernel, in order. Sizes: B batch, T seq, H heads, D head dimension; G_in, G_rec,
G_bias gates of the cell with an input, a recurrent product, a bias; G_saved those whose sum a backward pass reads and
that is not a bias alone (derive.Backward.saved_gates); S states of the cell.

wx [B, T, G_in, H, D], r [G_rec, H, D, D] with r[g, h, d, p] from previous unit p to unit d, b [G_bias, H, D]:
inputs. initial [S, B, H, D]: states before the first step, or null for zeros. states [K, B, T, H, D]: output, K = 1
(h) where the shape saves "hidden", else K = S; or h alone with the other states in others [S - 1, B, T, H, D], which
else is null. last [S, B, H, D]: output, states after the last step. gates [G_saved, B, T, H, D]: output where the
shape saves "gates" (the gates' sums before the pointwise step), else null.
batch, seq: int32. All arrays are C-contiguous and of the shape's dtype.
"""


BACKWARD_ENTRY = "tilesmith_backward"

BACKWARD_ARGUMENTS = (
    "wx",
    "r",
    "b",
    "initial",
    "states",
    "others",
    "gates",
    "d_states",
    "d_last",
    "d_wx",
    "d_r_rest",
    "d_b_rest",
    "d_initial",
    "batch",
    "seq",
)
"""The arguments of every backward kernel, in order; d_ marks the gradient of what follows it. r, initial as forward;
states, others and gates as a forward kernel saved them; wx and b as forward where the shape says recompute, and then
gates is null, else wx is, and b too unless a gate that the step reads is nothing but its bias. d_states
[K, B, T, H, D], K = 1 (h) where the shape saves "hidden", else S; d_last [S, B, H, D] or null for zeros. Outputs: d_wx
[B, T, G_in, H, D] and d_initial [S, B, H, D]; and, of the gates without an input, the gradients of R and b in float32,
d_r_rest [P, G_rec_rest, H, D, D] and d_b_rest [P, G_bias_rest, H, D] (null where there is no such gate): P partial
sums, one for each block along y (Launch.partials). The gradients of R and b for the other gates are one product and
one sum over all steps of d_wx.
"""

Direction = Literal["forward", "backward"]


@dataclass(frozen=True)
class Resources:
    """What one tiling is predicted to need.

    registers: per thread, as the compiler reports them. shared_memory: bytes of dynamic shared memory per block.
    threads: per block. blocks: in the grid. blocks_per_sm: that fit on one multiprocessor at a time.
    """

    registers: int
    shared_memory: int
    threads: int
    blocks: int
    blocks_per_sm: int


@dataclass(frozen=True)
class Tiling:
    """One solution of a schedule's Problem: the tile variables' values, what they need, what the model expects.

    clocks_per_step: the cost model's GPU clocks for one step of the recurrence.
    """

    schedule: str
    values: Mapping[str, int]
    resources: Resources
    clocks_per_step: float

    def __str__(self) -> str:
        return self.schedule + "(" + ", ".join(f"{name}={value}" for name, value in self.values.items()) + ")"


@dataclass(frozen=True)
class Launch:
    """How to start a kernel. grid: blocks in x, y, z; block: threads; shared_memory: dynamic bytes per block;
    cluster: blocks per cluster along x; cooperative: whether all blocks must be resident together."""

    grid: tuple[int, int, int]
    block: int
    shared_memory: int
    cluster: int = 1
    cooperative: bool = False

    @property
    def partials(self) -> int:
        """P: partial sums that a backward kernel leaves of what is summed over the batch, one a block along y."""
        return self.grid[1]


@dataclass(frozen=True)
class Source:
    """A generated kernel: CUDA C++ text whose includes are files of cuda/, and the name of its entry.

    arch: the target, such as "sm_90a". arguments: names in the order of the entry's parameters.
    """

    text: str
    entry: str
    arch: str
    arguments: tuple[str, ...] = FORWARD_ARGUMENTS


class Schedule(Protocol):
    """One way of running a recurrence on a GPU."""

    name: str
    direction: Direction

    def problem(self, cell: Cell, shape: Shape, profile: Profile) -> Problem:
        """State the tile variables and the constraints of running ``cell`` at ``shape`` on ``profile``."""
        ...

    def tiling(self, cell: Cell, shape: Shape, profile: Profile, values: Mapping[str, int]) -> Tiling:
        """Attach predicted resources and model cost to one solution of the problem."""
        ...

    def source(self, cell: Cell, shape: Shape, profile: Profile, tiling: Tiling) -> Source:
        """Generate the kernel of a tiling."""
        ...

    def launch(self, shape: Shape, tiling: Tiling) -> Launch:
        """Grid, block and shared memory for the kernel of a tiling at ``shape`` (any batch and seq)."""
        ...
