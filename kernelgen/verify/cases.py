"""ValidationCase: random inputs, what the float64 reference makes of them, and how a kernel's outputs compare."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelgen.errors import NotFiniteError, ValidationError
from kernelgen.program import dtypes
from kernelgen.program.arguments import NUMBERS, STEP, arguments_of, known_states
from kernelgen.program.shape import FEATURES
from kernelgen.symbolic.derive import derive

if TYPE_CHECKING:
    from kernelgen.cells.language import Cell
    from kernelgen.program.arguments import Arguments, ArrayArgument
    from kernelgen.program.shape import Shape
    from kernelgen.program.task import Direction

Array = np.ndarray[Any, Any]

POISON = 0xFF
"""Outputs start filled with this byte: a NaN in every type, and a pattern that no arithmetic produces."""


AXES = {"P": 1, "Q": 1, "W": 1, "W_hidden": 1, "W_carried": 1, "W_gates": 1, "W_sums": 1, "W_counters": 1}
AXES |= {"S_kept": 1, "W_scratch": 1}
"""A case expects the sum of partial sums, and nothing of what blocks share."""


def poisoned(argument: ArrayArgument, extents: Mapping[str, int] | None = None) -> Array:
    """A new array for an output or a workspace, every byte poisoned. extents: as of the Program, the sizes of axes that
    it decides."""
    own = extents or {}
    sizes = [own.get(axis, size) for axis, size in zip(argument.axes, argument.shape, strict=True)]
    kind = dtypes.numpy_dtype(argument.dtype)
    return np.full((*sizes[:-1], sizes[-1] * kind.itemsize), POISON, np.uint8).view(kind)


@dataclass(frozen=True)
class ValidationCase:
    """One set of inputs for a kernel and the expected outputs.

    shape: the sizes of this case. states: the names of the cell's states. arguments: what the kernel takes. inputs: its
    arrays by name, in the shape's dtype, None for zeros and for those without elements. expected: its outputs by name,
    but for those without elements; computed in float64, kept in what the dtype is summed in, whose rounding is below
    any tolerance. Of partial sums it has one, their sum. exact: the expected outputs follow a kernel's own roundings
    (see make_case), so that errors count only beyond them, and may be no larger than float32 arithmetic makes them;
    doubt: what roundings that no output shows may add to that, in the norm and of an element, as the tolerances.
    rounds_sums: the kernel rounds parts of R's sums before it adds them, which the reference does not.
    """

    shape: Shape
    direction: Direction
    seed: int
    states: tuple[str, ...]
    arguments: Arguments
    inputs: dict[str, Array | None]
    expected: dict[str, Array]
    exact: bool = False
    doubt: tuple[float, float] = (0.0, 0.0)
    rounds_sums: bool = False

    def allowing(self, names: Collection[str]) -> ValidationCase:
        """This case for a kernel that takes arguments of these names, and may round parts of R's sums on their way."""
        return replace(self, rounds_sums="d_sums" in names)

    @property
    def terms(self) -> int:
        """Of the longest sum: R h, and a state's own, one a step; backward, R's gradient too, over all steps."""
        if self.direction == "forward":
            return max(self.shape.seq, self.shape.head_dim + self.shape.inputs)
        products = self.table["r"].shape[0] if "r" in self.table else 1
        return max(self.shape.batch * self.shape.seq, products * self.shape.head_dim)

    @property
    def tolerance(self) -> float:
        """The largest relative error allowed of an output."""
        info = dtypes.dtype_info(self.shape.dtype)
        of_sums = info.unit_roundoff if self.rounds_sums else 0.0
        if self.exact:
            return info.exact + self.doubt[0] + of_sums
        return math.hypot(dtypes.tolerance(self.shape.dtype, self.shape.seq, self.direction, self.terms), of_sums)

    @property
    def element_tolerance(self) -> float:
        """What a single element may be off by, as a fraction of the largest magnitude in its output."""
        info = dtypes.dtype_info(self.shape.dtype)
        if self.exact:
            return info.exact_element + self.doubt[1] + (4 * info.unit_roundoff if self.rounds_sums else 0.0)
        return dtypes.element_tolerance(self.shape.dtype, self.terms)

    @property
    def table(self) -> Mapping[str, ArrayArgument]:
        """Every array by its name; of partial sums there is one."""
        every = (*self.arguments.inputs, *self.arguments.outputs, *self.arguments.workspaces)
        return {argument.name: argument for argument in every}

    def poisoned(self, names: Iterable[str], extents: Mapping[str, int] | None = None) -> dict[str, Array | None]:
        """New arrays for what a kernel writes, every byte poisoned; None for those without elements. extents: as of the
        Program."""
        table = self.table
        return {name: None if table[name].empty else poisoned(table[name], extents) for name in names}

    def values(
        self, outputs: Mapping[str, Array | None], order: Sequence[str], extents: Mapping[str, int] | None = None
    ) -> dict[str, Array | int | None]:
        """Every argument that ``order`` names: arrays, None for a null pointer, and int. extents: as of the Program.

        Raises ValidationError for a name that a kernel of this direction does not have.
        """
        known: dict[str, Array | int | None] = {**self.inputs, **outputs, **self.arguments.numbers, STEP: 0}
        known |= {name: extents[axis] for name, axis in NUMBERS.items() if extents and axis in extents}
        foreign = [name for name in order if name not in known]
        if foreign:
            raise ValidationError(
                f"the kernel takes {', '.join(foreign)}, which no {self.direction} kernel of this tilesmith does; it "
                "is of another direction or another version. Tune it again."
            )
        return {name: known[name] for name in order}

    def compare(self, outputs: Mapping[str, Array | None]) -> dict[str, float]:
        """Relative errors ``||out - expected|| / ||expected||`` of every given array that a kernel wrote, by its name.

        What a forward kernel gives of each state is compared by itself: the history has an error for every state, by
        the state's name, and "last" the worst of them. Raises ValidationError for an element that was not written or is
        NaN, and for an error above the tolerance (dtypes.tolerance in the norm, element_tolerance of single elements),
        with the first element that differs.
        """
        self.require_numbers(outputs)
        errors: dict[str, float] = {}
        for argument, out in self._written(outputs):
            errors |= self._compare_output(argument, out, self.expected[argument.name])
        return errors

    def require_numbers(self, outputs: Mapping[str, Array | None]) -> None:
        """Raise ValidationError where an element of an output was not written, or is NaN."""
        for argument, out in self._written(outputs):
            self._require_numbers(argument, out)

    def _written(self, outputs: Mapping[str, Array | None]) -> Iterator[tuple[ArrayArgument, Array]]:
        """Those of the given arrays of which the case knows what to expect."""
        for name, argument in self.table.items():
            out = outputs.get(name)
            if name in self.expected and out is not None:
                yield argument, out

    def _compare_output(self, argument: ArrayArgument, out: Array, expected: Array) -> dict[str, float]:
        if argument.axes[0] in AXES:
            out = out.sum(0, dtype=np.float64, keepdims=True)
        if not argument.apart:
            return {argument.name: self._error(argument, (), out, expected)}
        found = {
            state: self._error(argument, (index,), out[index], expected[index])
            for index, state in enumerate(self.states[: len(expected)])
        }
        return found if "T" in argument.axes else {argument.name: max(found.values())}

    def _error(self, argument: ArrayArgument, prefix: tuple[int, ...], out: Array, expected: Array) -> float:
        """The relative error of one array. Raises ValidationError where it is above the tolerance or NaN."""
        largest = max((float(np.max(np.abs(want), initial=0.0)) for want in expected), default=0.0)
        bound = self.element_tolerance * (largest or 1.0)
        square = norm = 0.0
        far = 0
        for got, want in zip(out, expected, strict=True):  # by slices: float copies of a full-size output are large
            difference = self._distance(got, want)
            square += float(np.sum(np.square(difference), dtype=np.float64))
            norm += float(np.sum(np.square(want), dtype=np.float64))
            far += int(np.count_nonzero(~(difference <= bound)))  # NaN is not
        error = float(np.sqrt(square / norm)) if norm else float(np.sqrt(square))
        if not error <= self.tolerance or far > dtypes.far_elements(out.size, self.direction):
            raise ValidationError(self._difference(argument, prefix, out, expected, error, bound))
        return error

    def _distance(self, out: Array, expected: Array) -> Array:
        """How far apart elements are; exactly, beyond what rounding to the type of ``out`` explains."""
        distance: Array = np.abs(out.astype(dtypes.sums_dtype(self.shape.dtype)) - expected)
        if self.exact and out.itemsize == 2:
            distance = np.maximum(distance - dtypes.half_spacing(out.astype(np.float32), self.shape.dtype), 0)
        return distance

    def _difference(
        self,
        argument: ArrayArgument,
        prefix: tuple[int, ...],
        out: Array,
        expected: Array,
        error: float,
        bound: float,
    ) -> str:
        """Say where an array first differs, in the order of time."""
        difference = self._distance(out, expected)
        wrong = ~(difference <= bound)
        if not wrong.any():  # small everywhere, too large together
            wrong = difference == difference.max()
        axes, name = argument.axes[len(prefix) :], argument.name
        time_axis = axes.index("T") if "T" in axes else 0
        first = np.argwhere(np.moveaxis(wrong, time_axis, 0))[0]
        index = tuple(int(i) for i in np.insert(first[1:], time_axis, first[0]))
        place = ", ".join(map(str, (*prefix, *index)))
        return (
            f"{name} differs from the reference: relative error {error:.3g} (at most {self.tolerance:.3g} is "
            f"allowed); first at {name}[{place}] ({argument.in_words}): got {float(out[index]):.6g}, expected "
            f"{float(expected[index]):.6g}; {int(wrong.sum()):,} of {wrong.size:,} elements are far off "
            f"(seed {self.seed}, {self.shape})"
        )

    def _require_numbers(self, argument: ArrayArgument, out: Array) -> None:
        """Raise ValidationError where an element still has the poison, or is NaN."""
        bits = np.dtype(f"u{out.itemsize}")
        poison = np.iinfo(bits).max
        for bad, what in ((out.view(bits) == poison, "were never written"), (np.isnan(out), "are NaN")):
            if bad.any():
                name, index = argument.name, ", ".join(map(str, np.argwhere(bad)[0]))
                raise ValidationError(
                    f"{int(bad.sum()):,} of {bad.size:,} elements of {name} {what}, first {name}[{index}] "
                    f"({argument.in_words}; seed {self.seed}, {self.shape})"
                )


def make_case(
    cell: Cell,
    shape: Shape,
    seed: int,
    *,
    direction: Direction = "forward",
    batch: int | None = None,
    seq: int | None = None,
    optional: bool | Collection[str] = True,
    follow: Mapping[str, Array | None] | None = None,
) -> ValidationCase:
    """Draw inputs for ``cell`` at ``shape`` (with another batch or seq if given) and compute the reference.

    optional: draw the inputs that may be null too (initial states, gradients of the last states), all, none or those
    named; the kernel gets null for the others and takes zeros. The reference rounds what a kernel rounds to the shape's
    dtype: h after every step and, backward, the states that were saved, the gates if they were, and the gates'
    gradients.

    follow: what a kernel made of this case without it. Where a value lies close to the middle between two 16-bit
    numbers, the kernel may round it to another than the reference would, and all later steps differ. The expected
    outputs are then what the reference makes of each step from the rounded h, or gates' gradients, that the kernel
    itself went on from, and are not rounded, and the case is exact.


    Raises NotFiniteError where the reference itself is NaN, infinite or too large for the dtype: no kernel can be right
    then, and it is the cell or its random inputs that are to be changed.
    """
    from kernelgen.verify.inputs import spoil_behind_the_ends

    shape = replace(shape, batch=batch or shape.batch, seq=seq or shape.seq)
    arguments = arguments_of(cell, shape, direction, axes=AXES)
    make = _forward if direction == "forward" else _backward
    names = {argument.name for argument in arguments.inputs if argument.optional}
    absent = names - set(optional) if not isinstance(optional, bool) else set() if optional else names
    with np.errstate(all="ignore"):
        found, outputs, doubt = make(cell, shape, seed, absent, follow)
        if follow is None:
            made_all = found | outputs
            for argument in (*arguments.inputs, *(each for each in arguments.outputs if "B" in each.axes)):
                _require_finite(cell, shape, seed, argument, None if argument.empty else made_all[argument.name])
    inputs = {argument.name: None if argument.empty else found[argument.name] for argument in arguments.inputs}
    if (lengths := inputs.get("lengths")) is not None:
        spoil_behind_the_ends(inputs, lengths)
    written = (*arguments.outputs, *arguments.workspaces)
    expected = {
        argument.name: outputs[argument.name].astype(dtypes.sums_dtype(shape.dtype))
        for argument in written
        if not argument.empty and argument.name in outputs
    }
    return ValidationCase(
        shape, direction, seed, tuple(cell.states), arguments, inputs, expected, follow is not None, doubt
    )


def _require_finite(cell: Cell, shape: Shape, seed: int, argument: ArrayArgument, values: Array | None) -> None:
    """Raise NotFiniteError, with the first element in time, where the reference has no number that a kernel could."""
    if values is None:
        return
    info = dtypes.dtype_info(shape.dtype)
    largest = info.largest if argument.dtype == info.stored else np.inf
    floats = values if values.dtype.itemsize >= 4 else values.astype(np.float32)
    low, high = floats.min(initial=0), floats.max(initial=0)
    if -largest <= low and high <= largest and high < np.inf and low > -np.inf:  # false for a NaN
        return
    values = values.astype(np.float64)
    bad = ~(np.abs(values) <= largest) | np.isinf(values)
    if not bad.any():
        return
    time_axis = argument.axes.index("T") if "T" in argument.axes else 0
    backward = argument.name.startswith("d_")
    order = np.argwhere(np.moveaxis(bad, time_axis, 0))
    first = order[order[:, 0] == (order[:, 0].max() if backward and "T" in argument.axes else order[0, 0])][0]
    index = tuple(int(i) for i in np.insert(first[1:], time_axis, first[0]))
    value = values[index]
    what = "NaN" if np.isnan(value) else f"too large for {shape.dtype} ({value:.3g})"
    state = f"state {cell.states[index[0]]} in " if argument.axes[0] in ("S", "K") else ""
    step = f" at step {first[0]} of {shape.seq}" if "T" in argument.axes else ""
    raise NotFiniteError(
        f"the float64 reference of {cell.name} itself is {what}{step}: {state}{argument.name}"
        f"[{', '.join(map(str, index))}] ({argument.in_words}; seed {seed}, {shape}). No kernel can be right there. "
        f"Let the random inputs suit the cell: a gain= of the Cell below {cell.gain:g}, which it is now, makes random "
        'R smaller, and ranges={"name": (low, high)} says where random initial states and biases may lie; or keep the '
        "equations away from overflow and from powers, logarithms and roots of negative numbers (docs/cells.md)."
    )


def _forward(
    cell: Cell, shape: Shape, seed: int, absent: Collection[str], follow: Mapping[str, Array | None] | None
) -> tuple[dict[str, Array | None], dict[str, Array], tuple[float, float]]:
    """The arrays that a forward kernel reads, those that it should write, and ValidationCase.doubt."""
    from kernelgen.verify import inputs, reference

    drawn: dict[str, Any] = dict(inputs.random_inputs(cell, shape, seed))
    drawn |= dict.fromkeys({*drawn} & {*absent})
    own = inputs.random_own(shape, seed)
    masks: dict[str, Any] = {name: own.get(name) for name in FEATURES}
    if follow is None:
        rounding: dict[str, Any] = {"round_h": dtypes.numpy_dtype(shape.dtype)}
    else:
        states = follow["states"]
        assert states is not None
        rounding = {"follow": states[0]}
    read = dict(drawn)
    if shape.inputs:
        read["wx"] = reference.input_product(read.pop("x"), read.pop("w"), read.pop("input_bias"))
    result = reference.forward(cell, **read, **masks, **rounding, keep_gates=shape.save == "gates")
    made = {"states": result.states[: known_states(cell, shape)], "last": result.last}
    if result.gates is not None:
        made["gates"] = result.gates[list(derive(cell).saved_gates)]
    return drawn | own, made, (0.0, 0.0)


def _backward(
    cell: Cell, shape: Shape, seed: int, absent: Collection[str], follow: Mapping[str, Array | None] | None
) -> tuple[dict[str, Array | None], dict[str, Array], tuple[float, float]]:
    """The arrays that a backward kernel reads, those that it should write, and ValidationCase.doubt."""
    from kernelgen.verify import inputs, reference

    dtype = dtypes.numpy_dtype(shape.dtype)
    drawn: dict[str, Any] = dict(inputs.random_inputs(cell, shape, seed))
    given: dict[str, Any] = dict(inputs.random_gradients(cell, shape, seed))
    drawn |= dict.fromkeys({*drawn} & {*absent})
    given |= dict.fromkeys({*given} & {*absent})
    own = inputs.random_own(shape, seed)
    masks: dict[str, Any] = {name: own.get(name) for name in FEATURES}
    passed = reference.forward(cell, **drawn, **masks, round_h=dtype)
    assert passed.gates is not None
    d_wx = None if follow is None else follow["d_wx"]
    if follow is not None and d_wx is None:  # no gate has an input
        d_wx = np.zeros((shape.batch, shape.seq, 0, shape.heads, shape.head_dim), dtype)
    made = reference.backward(
        cell,
        **drawn,
        **given,
        **masks,
        round_h=dtype,
        round_saved=dtype,
        gates_saved=not shape.recompute,
        round_d_gates=dtype,
        result=passed,
        follow=d_wx,
    )
    kept = passed.gates[list(derive(cell).saved_gates)]
    saved = {"states": passed.states.astype(dtype), "gates": kept.astype(dtype)}
    d_r_partial = made.d_r[[cell.recurrent_gates.index(gate) for gate in cell.inputless_products]]
    d_b_partial = made.d_b[[cell.bias_gates.index(gate) for gate in cell.inputless_biases]]
    expected = {
        "d_wx": made.d_wx,
        "d_r": made.d_r,
        "d_b": made.d_b,
        "d_initial": made.d_initial,
        "d_inputless": np.moveaxis(made.d_gates[list(cell.inputless_products)], 0, 2),
        "d_r_partial": d_r_partial[None],
        "d_b_partial": d_b_partial[None],
    }
    doubt = (0.0, 0.0) if follow is None else _doubt(made.d_gates[list(cell.inputless_products)], shape)
    return drawn | given | saved | own, expected, doubt


UNSURE = 2.0**-20
"""How close to the middle between two 16-bit numbers float32 may come to lie on the other side of it, as a fraction of
the largest value."""


def _doubt(values: Array, shape: Shape) -> tuple[float, float]:
    """ValidationCase.doubt, from the gradients [G, B, T, H, D] of gates that have a product and no input.

    A kernel feeds them back rounded and writes none. Where either neighbour is right, it may have taken the one that
    the reference did not, and all that follows is off by about that much: twice the distance is allowed against what
    one step has in the norm, four times against the largest element.
    """
    rounded = values.astype(dtypes.numpy_dtype(shape.dtype)).astype(dtypes.sums_dtype(shape.dtype))
    half, largest = dtypes.half_spacing(rounded, shape.dtype), float(np.max(np.abs(values), initial=0.0))
    either = half - np.abs(values - rounded) <= UNSURE * largest
    off = 2 * float(np.linalg.norm(half[either]))
    step = float(np.linalg.norm(values)) / math.sqrt(shape.seq)
    return (2 * off / step, 4 * off / largest) if largest else (0.0, 0.0)
