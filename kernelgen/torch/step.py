"""A cell's step, and its backward step, as PyTorch functions: any float dtype, any device, autograd and torch.func."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from kernelgen.cells.language import Cell
from kernelgen.emit.numpy import NumpyPrinter
from kernelgen.emit.printer import ATOM
from kernelgen.emit.straight_line import backward_function, step_function
from kernelgen.symbolic.lower import is_constant

Step = Callable[[Sequence[Tensor], Sequence[Tensor]], list[Tensor]]
BackwardStep = Callable[[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]], tuple[list[Tensor], list[Tensor]]]


def _maximum(a: Any, b: Any) -> Any:
    if not isinstance(a, Tensor):
        a, b = b, a
    return torch.maximum(a, b) if isinstance(b, Tensor) else torch.clamp(a, min=b)


def _minimum(a: Any, b: Any) -> Any:
    if not isinstance(a, Tensor):
        a, b = b, a
    return torch.minimum(a, b) if isinstance(b, Tensor) else torch.clamp(a, max=b)


FUNCTIONS: Mapping[str, Any] = {
    "Abs": torch.abs,
    "exp": torch.exp,
    "log": torch.log,
    "log_sigmoid": functional.logsigmoid,
    "maximum": _maximum,
    "minimum": _minimum,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "sign": torch.sign,
    "softplus": lambda x: -functional.logsigmoid(-x),  # PyTorch's own becomes x itself above 20
    "tanh": torch.tanh,
    "where": torch.where,
}


class TorchPrinter(NumpyPrinter):
    """Prints expressions as Python over tensors; a function of the language is a name in ``FUNCTIONS``."""

    functions: ClassVar[Mapping[str, str]] = {name: f"function_{name}" for name in FUNCTIONS}

    def where(self, condition: Any, a: Any, b: Any) -> tuple[int, str]:
        """A choice; of two numbers, in the dtype of the gates and not PyTorch's default one."""
        if not (is_constant(a) and is_constant(b)):
            return super().where(condition, a, b)
        numbers = ", ".join(f"gate[0].new_full((), {self.text(value)})" for value in (a, b))
        return ATOM, f"{self.functions['where']}({self.text(condition)}, {numbers})"


@lru_cache(maxsize=64)
def torch_step(cell: Cell) -> Step:
    """The step as ``step(gates, states) -> new states``: lists of tensors of one shape, in the cell's order.

    Autograd differentiates it; at a tie of two values, its maximum and minimum give half the gradient to each.
    """
    step = step_function(TorchPrinter, FUNCTIONS, cell)

    def in_full(gates: Sequence[Tensor], states: Sequence[Tensor]) -> list[Tensor]:
        return _full(states[0], step(gates, states))

    return in_full


@lru_cache(maxsize=64)
def torch_backward(cell: Cell) -> BackwardStep:
    """The backward step as ``backward(gates, states, d_next) -> (d_gates, d_states)``: see derive.Backward.

    Lists of tensors of one shape, in the cell's order: the gates' sums, the previous states and the gradients of the
    new states in; the gradients of the gates' sums and, through the step alone, of the previous states out.
    """
    backward = backward_function(TorchPrinter, FUNCTIONS, cell)

    def in_full(
        gates: Sequence[Tensor], states: Sequence[Tensor], d_next: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        results = _full(states[0], backward(gates, states, d_next))
        return results[: len(cell.gates)], results[len(cell.gates) :]

    return in_full


def _full(like: Tensor, values: Sequence[Any]) -> list[Tensor]:
    """Every value as a tensor of one shape: a number, or a value that comes from biases alone, is spread."""
    return [
        value.expand_as(like) if isinstance(value, Tensor) else torch.full_like(like, float(value)) for value in values
    ]
