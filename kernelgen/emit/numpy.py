"""A cell's step as a NumPy function in float64, with the true functions and no overflow on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from kernelgen.cells.language import Cell
from kernelgen.emit.lower import lower
from kernelgen.emit.printer import ATOM, UNARY, Printer

Array = npt.NDArray[np.float64]
Step = Callable[[Sequence[Array], Sequence[Array]], list[Array]]


def _sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1.0) / (1.0 + small)


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


class NumpyPrinter(Printer):
    """Prints expressions as Python over NumPy arrays; a function of the language is a name in ``FUNCTIONS``."""

    functions: ClassVar[Mapping[str, str]] = {name: f"function_{name}" for name in FUNCTIONS}
    words: ClassVar[Mapping[str, str]] = {"and": "&", "or": "|", "not": "~"}

    def text(self, expression: Any, binding: int = 0) -> str:
        """As any printer, but with parentheses around every comparison, which & and | would tear apart."""
        text = super().text(expression, binding)
        return f"({text})" if getattr(expression, "is_Relational", False) else text

    def power(self, base: Any, exponent: Any) -> tuple[int, str]:
        """Python's own power."""
        return UNARY, f"{self.text(base, ATOM)} ** {self.text(exponent, ATOM)}"


@lru_cache(maxsize=64)
def numpy_step(cell: Cell) -> Step:
    """The step as ``step(gates, states) -> new states``: lists of float64 arrays of one shape, in the cell's order.

    The same expressions as the kernel's, to within a few units in the last place of float64.
    """
    code = lower(cell)
    gates = {gate.name: f"gate[{index}]" for index, gate in enumerate(cell.gates)}
    printer = NumpyPrinter(gates | {name: f"state[{index}]" for index, name in enumerate(cell.states)})
    lines = [f"    {symbol.name} = {printer.text(expression)}" for symbol, expression in code.temporaries]
    results = ", ".join(printer.text(expression) for expression in code.next_states)
    source = "\n".join(["def step(gate, state):", *lines, f"    return [{results}]"])
    space: dict[str, Any] = {printer.functions[name]: function for name, function in FUNCTIONS.items()}
    exec(compile(source, f"<step of {cell.name}>", "exec"), space)  # text made from checked expressions only
    step = space["step"]

    def in_full(gates: Sequence[Array], states: Sequence[Array]) -> list[Array]:
        shape = gates[0].shape
        with np.errstate(all="ignore"):  # an infinity is a result here, and where() computes both of its values
            return [np.broadcast_to(value, shape) for value in step(gates, states)]

    return in_full
