"""A cell's step, and its backward step, as NumPy functions in float64, with the true functions and no overflow on
the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from kernelgen.cells.language import Cell
from kernelgen.emit.printer import ATOM, UNARY, PythonPrinter
from kernelgen.emit.straight_line import backward_function, step_function

Array = npt.NDArray[np.float64]
Step = Callable[[Sequence[Array], Sequence[Array]], list[Array]]
BackwardStep = Callable[[Sequence[Array], Sequence[Array], Sequence[Array]], tuple[list[Array], list[Array]]]


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):  # of exp(-x), where 1 / infinity is right
        return 1.0 / (1.0 + np.exp(-x))


def _log_sigmoid(x: Array) -> Array:
    return np.minimum(x, 0.0) - np.log1p(np.exp(-np.abs(x)))


FUNCTIONS: Mapping[str, Any] = {
    "Abs": np.abs,
    "exp": np.exp,
    "log": np.log,
    "log_sigmoid": _log_sigmoid,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "relu": lambda x: np.maximum(x, 0.0),
    "sigmoid": _sigmoid,
    "sign": np.sign,
    "softplus": lambda x: -_log_sigmoid(-x),
    "tanh": np.tanh,
    "where": np.where,
}


class NumpyPrinter(PythonPrinter):
    """Prints expressions as Python over NumPy arrays; a function of the language is a name in ``FUNCTIONS``."""

    functions: ClassVar[Mapping[str, str]] = {name: f"function_{name}" for name in FUNCTIONS}

    def power(self, base: Any, exponent: Any) -> tuple[int, str]:
        """Python's own power."""
        return UNARY, f"{self.text(base, ATOM)} ** {self.text(exponent, ATOM)}"


@lru_cache(maxsize=64)
def numpy_step(cell: Cell) -> Step:
    """The step as ``step(gates, states) -> new states``: lists of float64 arrays of one shape, in the cell's order.

    The same expressions as the kernel's, to within a few units in the last place of float64.
    """
    step = step_function(NumpyPrinter, FUNCTIONS, cell)

    def in_full(gates: Sequence[Array], states: Sequence[Array]) -> list[Array]:
        return _full(gates[0].shape, step, gates, states)

    return in_full


@lru_cache(maxsize=64)
def numpy_backward(cell: Cell) -> BackwardStep:
    """The backward step as ``backward(gates, states, d_next) -> (d_gates, d_states)``: see derive.Backward.

    Lists of float64 arrays of one shape, in the cell's order: the gates' sums, the previous states and the gradients
    of the new states in; the gradients of the gates' sums and, through the step alone, of the previous states out.
    """
    backward = backward_function(NumpyPrinter, FUNCTIONS, cell)

    def in_full(
        gates: Sequence[Array], states: Sequence[Array], d_next: Sequence[Array]
    ) -> tuple[list[Array], list[Array]]:
        results = _full(gates[0].shape, backward, gates, states, d_next)
        return results[: len(cell.gates)], results[len(cell.gates) :]

    return in_full


def _full(shape: tuple[int, ...], function: Callable[..., list[Any]], *arguments: Sequence[Array]) -> list[Array]:
    with np.errstate(all="ignore"):  # an infinity is a result here, and where() computes both of its values
        return [np.broadcast_to(value, shape) for value in function(*arguments)]
