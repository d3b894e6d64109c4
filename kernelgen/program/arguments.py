"""What the arguments of a pass are: one table from a cell, a shape and a direction to arrays and numbers.

Test cases, the executor, callers' kernels and the poisoning of outputs read it; none of them knows an argument by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from kernelgen.errors import ConfigError
from kernelgen.program.dtypes import dtype_info
from kernelgen.program.shape import DTYPES
from kernelgen.symbolic.derive import derive

if TYPE_CHECKING:
    from kernelgen.cells.language import Cell
    from kernelgen.program.shape import Shape
    from kernelgen.program.task import Direction

Role = Literal["input", "optional", "output", "workspace"]
"""What an array is to the caller. optional: an input that may be null, which stands for zeros. workspace: within a
program only; it need hold nothing before, but for POISONED ones, and holds nothing of use afterwards."""


@dataclass(frozen=True)
class _Entry:
    """An array argument. axes: the names of their sizes (see _sizes). role, apart: as ArrayArgument. dtype: where it is
    not the shape's; SUMS: what that is summed in. use: of a workspace that blocks of one call share, what for: see
    MAIL, COUNTERS and STORED. asked: there is one where the shape has that (Shape.asked) alone. unasked: where it has
    not."""

    axes: str
    role: Role = "input"
    apart: bool = False
    dtype: str | None = None
    use: Literal["mail", "counters", "stored"] | None = None
    asked: Literal["resets", "lengths", "inputs"] | None = None
    unasked: Literal["inputs"] | None = None

    def of(self, shape: Shape) -> bool:
        """Whether a kernel for ``shape`` has it."""
        return (self.asked is None or self.asked in shape.asked) and self.unasked not in shape.asked


SUMS = "sums"
"""The dtype of an entry that is what the shape's dtype is summed in (Dtype.sums)."""

_OWN = {
    "resets": _Entry("B T", dtype="uint8", asked="resets"),
    "lengths": _Entry("B", dtype="int32", asked="lengths"),
    "order": _Entry("B", dtype="int32", asked="lengths"),
}
"""What sequences have of their own, in both directions."""

_ARRAYS: Mapping[Direction, Mapping[str, _Entry]] = {
    "forward": {
        "wx": _Entry("B T G_in H D", unasked="inputs"),
        "x": _Entry("B T I", asked="inputs"),
        "w": _Entry("G_in H D I", asked="inputs"),
        "input_bias": _Entry("G_in H D", "optional", asked="inputs"),
        "r": _Entry("G_rec H D D"),
        "b": _Entry("G_bias H D"),
        "initial": _Entry("S B H D", "optional"),
        **_OWN,
        "states": _Entry("K B T H D", "output", apart=True),
        "others": _Entry("S_apart B T H D", "output", apart=True),
        "last": _Entry("S B H D", "output", apart=True),
        "gates": _Entry("G_saved B T H D", "output"),
        "mail": _Entry("W", "workspace", dtype="int32", use="mail"),
        "hidden": _Entry("W_hidden", "workspace", use="stored"),
        "carried": _Entry("W_carried", "workspace", dtype=SUMS, use="stored"),
        "counters": _Entry("W_counters", "workspace", dtype="int32", use="counters"),
        "multiplied": _Entry("B H D", "workspace"),
        "product": _Entry("B G_rec H D", "workspace", dtype=SUMS),
        "kept": _Entry("S_kept B H D", "workspace", dtype=SUMS),
        "scratch": _Entry("W_scratch", "workspace", dtype="uint8"),
    },
    "backward": {
        "wx": _Entry("B T G_in_recompute H D"),
        "r": _Entry("G_rec H D D"),
        "b": _Entry("G_bias_recompute H D"),
        "initial": _Entry("S B H D", "optional"),
        "states": _Entry("S B T H D"),
        "others": _Entry("S_apart B T H D", "optional"),
        "gates": _Entry("G_kept B T H D"),
        "d_states": _Entry("K B T H D"),
        "d_last": _Entry("S B H D", "optional"),
        **_OWN,
        "d_wx": _Entry("B T G_in H D", "output"),
        "d_r": _Entry("G_rec H D D", "output"),
        "d_b": _Entry("G_bias H D", "output"),
        "d_initial": _Entry("S B H D", "output"),
        "mail": _Entry("W", "workspace", dtype="int32", use="mail"),
        "d_inputless": _Entry("B T G_rec_inputless H D", "workspace"),
        "d_r_partial": _Entry("P G_rec_inputless H D D", "workspace", dtype=SUMS),
        "d_b_partial": _Entry("P G_bias_inputless H D", "workspace", dtype=SUMS),
        "d_r_parts": _Entry("Q G_rec H D D", "workspace", dtype=SUMS),
        "d_b_parts": _Entry("Q G_bias H D", "workspace", dtype=SUMS),
        "d_gates": _Entry("W_gates", "workspace", use="stored"),
        "d_sums": _Entry("W_sums", "workspace", use="stored"),
        "d_carried": _Entry("W_carried", "workspace", dtype=SUMS, use="stored"),
        "counters": _Entry("W_counters", "workspace", dtype="int32", use="counters"),
        "multiplied": _Entry("B G_rec H D", "workspace"),
        "product": _Entry("B H D", "workspace", dtype=SUMS),
        "kept": _Entry("S_kept B H D", "workspace", dtype=SUMS),
        "hidden_before": _Entry("B T H D", "workspace"),
        "scratch": _Entry("W_scratch", "workspace", dtype="uint8"),
    },
}
"""The arrays of a pass, in the order in which outputs are returned. Sizes: B batch, T seq, H heads, D head dimension,
I inputs; G_in, G_rec, G_bias gates of the cell with an input, a recurrent product, a bias; G_saved those whose sum a
backward pass reads and that is not a bias alone (derive.Backward.saved_gates); S states of the cell.

Both, where the shape asks for them. resets: 1 where the states before a step are the initial ones, else 0; lengths: how
many steps each sequence has, 0 to T; order: the numbers of the sequences, each once, in the order in which they fill
tiles of the batch: the longest first.

Forward. wx, r (r[g, h, d, p] from previous unit p to unit d), b, initial (the states before the first step): inputs.
Where the shape has inputs, not wx but x, w and input_bias, of which the kernel makes it: W x + input_bias.
states: K = 1 (h) where the shape saves "hidden", else K = S; or h alone with the other states in others, which else is
null. last: states after the last step. gates: where the shape saves "gates" (the gates' sums before the pointwise
step), else null.

Backward; d_ marks the gradient of what follows it. r, initial as forward; states, others and gates as a forward program
saved them; wx and b as forward where the shape says recompute, and then gates is null, else wx is, and b too unless a
gate that the step reads is nothing but its bias. d_states: K = 1 (h) where the shape saves "hidden", else S.
Workspaces, which one call writes and a later one reads: of the gates without an input, d_inputless, the gradients of
those with a recurrent product, or d_r_partial, P partial sums of their gradients of R; d_b_partial, likewise of b;
d_r_parts and d_b_parts, where the steps are cut into Q parts that are not added on the way.

Workspaces of blocks that run at the same time. mail: W words in which they send each other h, backward the gates'
gradients; or hidden (d_gates), where they store them, or d_sums, where they store their parts of the gradients of h,
carried (d_carried), the states of what a block runs in turn, and counters, by which they say that what they have stored
is there.

Workspaces between the launches of a step and a library's products (program/product.py). multiplied: what the next
step's product multiplies, h or the gates' gradients; product: what it makes of it; kept: S_kept of the states, or of
their gradients; hidden_before: h before every step; scratch: the library's own.

All arrays are C-contiguous and, but for the workspaces and what sequences have of their own, of the shape's dtype.
"""


def _dtype_of(entry: _Entry, shape: Shape) -> str:
    """The dtype of an array's elements."""
    info = dtype_info(shape.dtype)
    return info.sums if entry.dtype == SUMS else entry.dtype or info.stored


def _used_for(use: str) -> frozenset[str]:
    return frozenset(name for entries in _ARRAYS.values() for name, entry in entries.items() if entry.use == use)


MAIL = _used_for("mail")
"""The workspaces for messages between blocks (cuda/ptx/messages.cuh)."""

COUNTERS = _used_for("counters")
"""Those whose words blocks count up to say what is done."""

STORED = _used_for("stored")
"""Those that blocks store in for each other, or for themselves."""

POISONED = MAIL | COUNTERS
"""The workspaces of which every byte must be 0xFF before every run of a program: the executor sees to it. Their sizes
are the program's own."""

ITEMSIZE: Mapping[str, int] = {name: dtype_info(name).itemsize for name in DTYPES} | {"int32": 4, "uint8": 1}
"""Bytes of an element."""

NUMBERS: Mapping[str, str] = {"batch": "B", "seq": "T", "num_partials": "P"}
"""The int32 arguments, by the axis whose size they are."""

STEP = "step"
"""The int32 argument that counts the launches of a call which is launched for every step anew (program.launches)."""

_WORDS = {"B": "batch", "T": "step", "H": "head", "D": "unit", "I": "input", "W": "word"}
_WORDS |= dict.fromkeys(("W_hidden", "W_carried", "W_gates", "W_sums"), "element") | {"W_counters": "word"}
_WORDS |= {"S_kept": "state", "W_scratch": "byte"}
_WORDS |= dict.fromkeys(("S", "S_apart", "K"), "state") | dict.fromkeys(("P", "Q"), "partial sum")
"""Axes in words; every other is one of gates."""


@dataclass(frozen=True)
class ArrayArgument:
    """An array that a kernel reads or writes.

    axes: the names of its axes: B batch, T steps, H heads, D units, I inputs, S states, K the states that are saved
    (forward) or have gradients (backward), P and Q sums that are to be added, W and what begins with it words or
    elements, G and what begins with it gates. shape: their sizes. dtype: of its elements. apart: the states are of
    different sizes, so each is compared by itself (a gradient is not: that of one state may vanish exactly, as that of
    sLSTM's m does).
    """

    name: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    role: Role
    apart: bool

    @property
    def optional(self) -> bool:
        """Whether it is an input that may be null, which stands for zeros."""
        return self.role == "optional"

    @property
    def empty(self) -> bool:
        """Whether it has no elements: the kernel gets a null pointer then."""
        return 0 in self.shape

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return math.prod(self.shape) * ITEMSIZE[self.dtype]

    @property
    def in_words(self) -> str:
        """The axes for messages, such as "state, batch, step, head, unit"."""
        return ", ".join(_WORDS.get(axis, "gate") for axis in self.axes)


@dataclass(frozen=True)
class Arguments:
    """The arguments of a program. inputs, outputs, workspaces: its arrays, in order. numbers: the values of the int32
    arguments by name."""

    inputs: tuple[ArrayArgument, ...]
    outputs: tuple[ArrayArgument, ...]
    workspaces: tuple[ArrayArgument, ...]
    numbers: Mapping[str, int]

    def with_float_parameters(self) -> Arguments:
        """The same with gradients of R and b in float32."""
        outputs = tuple(
            replace(array, dtype="float32") if array.name in ("d_r", "d_b") else array for array in self.outputs
        )
        return replace(self, outputs=outputs)


def arguments_of(
    cell: Cell,
    shape: Shape,
    direction: Direction,
    names: Iterable[str] | None = None,
    axes: Mapping[str, int] | None = None,
) -> Arguments:
    """What a program of ``cell`` takes at ``shape``.

    names: of the arguments, those of all its calls together; where they are None, every array whose size is known.
    axes: the sizes of those axes that the program decides, such as P. Raises ConfigError for a name that no program of
    that direction has, and for an axis whose size nobody says.
    """
    every = _ARRAYS[direction]
    entries = {name: entry for name, entry in every.items() if entry.of(shape)}
    sizes = _sizes(cell, shape) | dict(axes or {})
    if names is None:
        axes_of = {name: entry.axes for name, entry in entries.items()} | dict(NUMBERS)
        names = [name for name, needed in axes_of.items() if sizes.keys() >= set(needed.split())]
    wanted = {*names}
    foreign = wanted - {*entries} - {*NUMBERS, STEP}
    if foreign:
        if min(foreign) in every:
            raise ConfigError(f"a kernel for {shape} takes no {min(foreign)}: the shape does not ask for any")
        known = ", ".join((*entries, *NUMBERS, STEP))
        raise ConfigError(f"no {direction} kernel takes an argument {min(foreign)!r}; those known are {known}")

    def sized(axis: str) -> int:
        if axis not in sizes:
            raise ConfigError(
                f"a {direction} program must say the size of its axis {axis}; it says those of {list(axes or {})}"
            )
        return sizes[axis]

    arrays = [
        ArrayArgument(
            name,
            tuple(entry.axes.split()),
            tuple(sized(axis) for axis in entry.axes.split()),
            _dtype_of(entry, shape),
            entry.role,
            entry.apart,
        )
        for name, entry in entries.items()
        if name in wanted
    ]
    return Arguments(
        inputs=tuple(array for array in arrays if array.role in ("input", "optional")),
        outputs=tuple(array for array in arrays if array.role == "output"),
        workspaces=tuple(array for array in arrays if array.role == "workspace"),
        numbers={name: sized(axis) for name, axis in NUMBERS.items() if name in wanted}
        | dict.fromkeys(wanted & {STEP}, 0),
    )


def poisoned_bytes(direction: Direction, names: Iterable[str], axes: Mapping[str, int]) -> dict[str, int]:
    """The bytes of those of the named arrays that are POISONED. axes: as of arguments_of."""
    entries = {name: _ARRAYS[direction][name] for name in names if name in POISONED}
    return {
        name: math.prod(axes[axis] for axis in entry.axes.split()) * ITEMSIZE[entry.dtype or ""]
        for name, entry in entries.items()
    }


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
        "I": shape.inputs,
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
