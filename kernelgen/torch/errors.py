"""What is wrong with tensors and arguments, in the exception types that torch.nn raises for the same mistake."""

from __future__ import annotations

from typing import Any

from kernelgen.errors import ShapeError, TilesmithError


class ArgumentTypeError(TilesmithError, TypeError):
    """An argument of the wrong type, such as None or a NumPy array for a tensor."""


class ArgumentError(ShapeError, ValueError):
    """A size that makes no sense, or an input of the wrong rank or dtype."""


class TensorShapeError(ShapeError, RuntimeError):
    """A tensor of the wrong shape."""


class DifferentiationError(TilesmithError, RuntimeError):
    """A derivative that there is none of; the message says which."""


class DoubleBackwardError(DifferentiationError):
    """The gradient of a gradient was asked for."""


class GraphError(TilesmithError, RuntimeError):
    """A call that a CUDA graph cannot repeat; the message says why."""


class ExportError(TilesmithError, RuntimeError):
    """A model cannot be taken where it should go; the message says why."""


def refuse_second_derivative(ctx: Any, *_: Any) -> tuple[Any, ...]:
    """The derivative of a backward operator: there is none. Raises DoubleBackwardError."""
    raise DoubleBackwardError(
        "rnn() cannot be differentiated twice here: its backward pass is a kernel without a gradient of its own. "
        "Call kernelgen.torch.double_backward(True) before the forward pass: gradients of gradients then come from the "
        "reference in PyTorch, which is slow."
    )
