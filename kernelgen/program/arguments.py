"""The arguments of every kernel: one table from a cell, a shape and a direction to what each argument is.

Validation cases, the GPU's worker, the runtime and the poisoning of outputs read it; none of them knows an argument by
name. What the arrays mean is said below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from kernelgen.errors import ConfigError
from kernelgen.symbolic.derive import derive

if TYPE_CHECKING:
    from kernelgen.cells.language import Cell
    from kernelgen.program.shape import Shape
    from kernelgen.program.task import Direction

Value = TypeVar("Value")

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
    "d_r_partial",
    "d_b_partial",
    "d_initial",
    "batch",
    "seq",
)
"""The arguments of every backward kernel, in order; d_ marks the gradient of what follows it. r, initial as forward;
states, others and gates as a forward kernel saved them; wx and b as forward where the shape says recompute, and then
gates is null, else wx is, and b too unless a gate that the step reads is nothing but its bias. d_states
[K, B, T, H, D], K = 1 (h) where the shape saves "hidden", else S; d_last [S, B, H, D] or null for zeros. Outputs: d_wx
[B, T, G_in, H, D] and d_initial [S, B, H, D]; and, of the gates without an input, the gradients of R and b in float32,
d_r_partial [P, G_rec_inputless, H, D, D] and d_b_partial [P, G_bias_inputless, H, D] (null where there is no such
gate): P partial sums, one for each block along y (Launch.num_partials). The gradients of R and b for the other gates
are one product and one sum over all steps of d_wx.
"""

ORDER: Mapping[Direction, tuple[str, ...]] = {"forward": FORWARD_ARGUMENTS, "backward": BACKWARD_ARGUMENTS}
"""The names of the arguments of a kernel generated now, in order."""


@dataclass(frozen=True)
class _Entry:
    """An array argument. axes: the names of their sizes (see _sizes). optional, apart: as ArrayArgument. dtype: where
    it is not the shape's."""

    axes: str
    written: bool = False
    optional: bool = False
    apart: bool = False
    dtype: str | None = None


_ARRAYS: Mapping[Direction, Mapping[str, _Entry]] = {
    "forward": {
        "wx": _Entry("B T G_in H D"),
        "r": _Entry("G_rec H D D"),
        "b": _Entry("G_bias H D"),
        "initial": _Entry("S B H D", optional=True),
        "states": _Entry("K B T H D", written=True, apart=True),
        "others": _Entry("S_apart B T H D", written=True, apart=True),
        "last": _Entry("S B H D", written=True, apart=True),
        "gates": _Entry("G_saved B T H D", written=True),
    },
    "backward": {
        "wx": _Entry("B T G_in_recompute H D"),
        "r": _Entry("G_rec H D D"),
        "b": _Entry("G_bias_recompute H D"),
        "initial": _Entry("S B H D", optional=True),
        "states": _Entry("S B T H D"),
        "others": _Entry("S_apart B T H D", optional=True),
        "gates": _Entry("G_kept B T H D"),
        "d_states": _Entry("K B T H D"),
        "d_last": _Entry("S B H D", optional=True),
        "d_wx": _Entry("B T G_in H D", written=True),
        "d_r_partial": _Entry("P G_rec_inputless H D D", written=True, dtype="float32"),
        "d_b_partial": _Entry("P G_bias_inputless H D", written=True, dtype="float32"),
        "d_initial": _Entry("S B H D", written=True),
    },
}

_NUMBERS: Mapping[str, Callable[[Shape], int]] = {
    "batch": lambda shape: shape.batch,
    "seq": lambda shape: shape.seq,
}
"""The int32 arguments, for a run of the whole sequence."""

_WORDS = {"B": "batch", "T": "step", "H": "head", "D": "unit", "P": "partial sum"}
_WORDS |= dict.fromkeys(("S", "S_apart", "K"), "state")
"""Axes in words; every other is one of gates."""


@dataclass(frozen=True)
class ArrayArgument:
    """An array that a kernel reads or writes.

    axes: the names of its axes: B batch, T steps, H heads, D units, S states, K the states that are saved (forward) or
    have gradients (backward), P partial sums, G and what begins with it gates. shape: their sizes. dtype: of its
    elements. written: an output. optional: an input that may be null, which stands for zeros. apart: the states are of
    different sizes, so each is compared by itself (a gradient is not: that of one state may vanish exactly, as that of
    sLSTM's m does).
    """

    name: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    written: bool
    optional: bool
    apart: bool

    @property
    def partial(self) -> bool:
        """Whether the first axis is one of partial sums, which are to be added."""
        return self.axes[0] == "P"

    @property
    def empty(self) -> bool:
        """Whether it has no elements: the kernel gets a null pointer then."""
        return 0 in self.shape

    @property
    def in_words(self) -> str:
        """The axes for messages, such as "state, batch, step, head, unit"."""
        return ", ".join(_WORDS.get(axis, "gate") for axis in self.axes)


@dataclass(frozen=True)
class Arguments:
    """The arguments of one kernel. order: their names. inputs, outputs: the arrays, in order. numbers: the values of
    the int32 arguments by name."""

    order: tuple[str, ...]
    inputs: tuple[ArrayArgument, ...]
    outputs: tuple[ArrayArgument, ...]
    numbers: Mapping[str, int]

    def ordered(self, values: Mapping[str, Value]) -> list[Value]:
        """Values given by name, in the kernel's order."""
        return [values[name] for name in self.order]


def arguments_of(
    cell: Cell, shape: Shape, direction: Direction, order: Sequence[str] | None = None, num_partials: int = 1
) -> Arguments:
    """What a kernel of ``cell`` takes at ``shape``.

    order: the names of its arguments as the kernel's Source has them, which may be fewer than those of a kernel
    generated now. num_partials: as of its Launch. Raises ConfigError for a name that no kernel of that direction has.
    """
    sizes, entries = _sizes(cell, shape) | {"P": num_partials}, _ARRAYS[direction]
    arrays: list[ArrayArgument] = []
    numbers: dict[str, int] = {}
    for name in ORDER[direction] if order is None else order:
        if name in _NUMBERS:
            numbers[name] = _NUMBERS[name](shape)
        elif name in entries:
            entry = entries[name]
            axes = tuple(entry.axes.split())
            extents = tuple(sizes[axis] for axis in axes)
            dtype = entry.dtype or shape.dtype
            arrays.append(ArrayArgument(name, axes, extents, dtype, entry.written, entry.optional, entry.apart))
        else:
            known = ", ".join((*entries, *_NUMBERS))
            raise ConfigError(f"no {direction} kernel takes an argument {name!r}; those known are {known}")
    return Arguments(
        order=tuple(ORDER[direction] if order is None else order),
        inputs=tuple(array for array in arrays if not array.written),
        outputs=tuple(array for array in arrays if array.written),
        numbers=numbers,
    )


def known_states(cell: Cell, shape: Shape) -> int:
    """K: how many states are known outside, written forward or with gradients backward; h alone, or all."""
    return 1 if shape.save == "hidden" else len(cell.states)


def _sizes(cell: Cell, shape: Shape) -> dict[str, int]:
    """The size of every axis."""
    code, states = derive(cell), len(cell.states)
    saved = len(code.saved_gates)
    reads_biases = shape.recompute or {*code.gates} != {*code.saved_gates}
    return {
        "B": shape.batch,
        "T": shape.seq,
        "H": shape.heads,
        "D": shape.head_dim,
        "S": states,
        "S_apart": 0,  # here all states are in one array
        "K": known_states(cell, shape),
        "G_in": len(cell.input_gates),
        "G_rec": len(cell.recurrent_gates),
        "G_bias": len(cell.bias_gates),
        "G_rec_inputless": len(cell.inputless_products),
        "G_bias_inputless": len(cell.inputless_biases),
        "G_kept": 0 if shape.recompute else saved,
        "G_in_recompute": len(cell.input_gates) if shape.recompute else 0,
        "G_bias_recompute": len(cell.bias_gates) if reads_biases else 0,
        "G_saved": saved if shape.save == "gates" else 0,
    }
