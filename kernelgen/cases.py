"""Case: random inputs, what the float64 reference makes of them, and how a kernel's outputs compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelgen import dtypes
from kernelgen.errors import ValidationError

if TYPE_CHECKING:
    from kernelgen.cells.language import Cell
    from kernelgen.shape import Shape

Array = np.ndarray[Any, Any]

POISON = 0xFF
"""Outputs start filled with this byte: a NaN in either 16-bit type, and a pattern that no arithmetic produces."""

_POISON_16 = np.uint16(0xFFFF)


@dataclass(frozen=True)
class Case:
    """One set of inputs for a forward kernel and the expected outputs.

    shape: the sizes of this case. states: the names of the cell's states. inputs: wx, r, b and initial (None for
    zeros) in the shape's dtype. expected: states [K, B, T, H, D], last [S, B, H, D] and, where the shape saves them,
    gates [G, B, T, H, D]; computed in float64, kept in float32, whose rounding (2^-24) is far
    below any tolerance.
    """

    shape: Shape
    seed: int
    states: tuple[str, ...]
    inputs: dict[str, Array | None]
    expected: dict[str, Array]

    @property
    def tolerance(self) -> float:
        """The largest relative error allowed of an output."""
        return dtypes.tolerance(self.shape.dtype, self.shape.seq)

    def poisoned_outputs(self) -> dict[str, Array | None]:
        """New output arrays, every byte poisoned; None for gates that are not saved."""

        def poisoned(like: Array) -> Array:
            return np.full(like.shape, _POISON_16).view(dtypes.numpy_dtype(self.shape.dtype))

        return {name: poisoned(self.expected[name]) if name in self.expected else None for name in OUTPUTS}

    def compare(self, outputs: Mapping[str, Array | None]) -> dict[str, float]:
        """Relative errors ``||out - expected|| / ||expected||`` of every state's history, of last and of gates.

        last gives the worst of the states. Raises ValidationError for an element that was not written or is NaN,
        and for an error above the tolerance (dtypes.tolerance in the norm, element_tolerance of any single element),
        with the first element that differs.
        """
        errors: dict[str, float] = {}
        for name, expected in self.expected.items():
            out = outputs[name]
            assert out is not None
            errors |= self._compare_output(name, out, expected)
        return errors

    def _compare_output(self, name: str, out: Array, expected: Array) -> dict[str, float]:
        _all_written(name, out, self)
        if name == "gates":
            return {"gates": self._error(name, (), out, expected)}
        found = {
            state: self._error(name, (index,), out[index], expected[index])
            for index, state in enumerate(self.states[: len(expected)])
        }
        return found if name == "states" else {name: max(found.values())}

    def _error(self, name: str, prefix: tuple[int, ...], out: Array, expected: Array) -> float:
        """The relative error of one array. Raises ValidationError where it is above the tolerance or NaN."""
        square = norm = off = largest = 0.0
        for got, want in zip(out, expected, strict=True):  # by slices: float copies of a full-size output are large
            difference = got.astype(np.float32) - want
            square += float(np.sum(np.square(difference), dtype=np.float64))
            norm += float(np.sum(np.square(want), dtype=np.float64))
            off = max(off, float(np.max(np.abs(difference), initial=0.0)))
            largest = max(largest, float(np.max(np.abs(want), initial=0.0)))
        error = float(np.sqrt(square / norm)) if norm else float(np.sqrt(square))
        bound = dtypes.element_tolerance(self.shape.dtype) * (largest or 1.0)
        if not (error <= self.tolerance and off <= bound):  # NaN is not
            raise ValidationError(self._difference(name, prefix, out, expected, error, bound))
        return error

    def _difference(
        self, name: str, prefix: tuple[int, ...], out: Array, expected: Array, error: float, bound: float
    ) -> str:
        """Say where an array first differs, in the order of time."""
        difference = np.abs(out.astype(np.float32) - expected)
        wrong = ~(difference <= bound)
        if not wrong.any():  # small everywhere, too large together
            wrong = difference == difference.max()
        time_axis = 2 if name == "gates" else 1 if name == "states" else 0
        first = np.argwhere(np.moveaxis(wrong, time_axis, 0))[0]
        index = tuple(int(i) for i in np.insert(first[1:], time_axis, first[0]))
        place = ", ".join(map(str, (*prefix, *index)))
        return (
            f"{name} differs from the reference: relative error {error:.3g} (at most {self.tolerance:.3g} is "
            f"allowed); first at {name}[{place}] ({_axes(name)}): got {float(out[index]):.6g}, expected "
            f"{float(expected[index]):.6g}; {int(wrong.sum()):,} of {wrong.size:,} elements are far off "
            f"(seed {self.seed}, {self.shape})"
        )


OUTPUTS = ("states", "last", "gates")


def make_case(
    cell: Cell, shape: Shape, seed: int, *, batch: int | None = None, seq: int | None = None, initial: bool = True
) -> Case:
    """Draw inputs for ``cell`` at ``shape`` (with another batch or seq if given) and compute the reference.

    initial: draw random initial states; else the kernel gets none and starts from zeros. The reference rounds h to
    the shape's dtype after every step, as the kernels do.
    """
    from kernelgen import inputs, reference

    shape = replace(shape, batch=batch or shape.batch, seq=seq or shape.seq)
    drawn = inputs.random_inputs(cell, shape, seed)
    start = drawn["initial"] if initial else None
    result = reference.forward(
        cell,
        drawn["wx"],
        drawn["r"],
        drawn["b"],
        start,
        round_h=dtypes.numpy_dtype(shape.dtype),
        keep_gates=shape.save == "gates",
    )
    saved = 1 if shape.save == "hidden" else len(cell.states)
    expected = {"states": result.states[:saved].astype(np.float32), "last": result.last.astype(np.float32)}
    if result.gates is not None:
        expected["gates"] = result.gates.astype(np.float32)
    arguments: dict[str, Array | None] = {**drawn, "initial": start}
    return Case(shape, seed, tuple(cell.states), arguments, expected)


def _all_written(name: str, out: Array, case: Case) -> None:
    """Raise ValidationError where an element still has the poison, or is NaN."""
    words = out.view(np.uint16)
    untouched = words == _POISON_16
    if untouched.any():
        index = np.argwhere(untouched)[0]
        raise ValidationError(
            f"{int(untouched.sum()):,} of {untouched.size:,} elements of {name} were never written, first "
            f"{name}[{', '.join(map(str, index))}] ({_axes(name)}; seed {case.seed}, {case.shape})"
        )
    nan = np.isnan(out)
    if nan.any():
        index = np.argwhere(nan)[0]
        raise ValidationError(
            f"{int(nan.sum()):,} of {nan.size:,} elements of {name} are NaN, first "
            f"{name}[{', '.join(map(str, index))}] ({_axes(name)}; seed {case.seed}, {case.shape})"
        )


def _axes(name: str) -> str:
    """The names of an output's axes, for messages."""
    return {"states": "state, batch, step, head, unit", "last": "state, batch, head, unit"}.get(
        name, "gate, batch, step, head, unit"
    )
