"""Gradients that have no gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kernelgen.torch.errors import refuse_second_derivative


class Once(torch.autograd.Function):  # type: ignore[misc]
    """Gradients that cannot be differentiated again: trying to raises DoubleBackwardError, where without a node there
    would be zeros."""

    @staticmethod
    def refusing(gradients: Sequence[Tensor | None], *of: Any) -> list[Tensor | None]:
        """The same gradients, with the node, as functions of the tensors that they are computed from."""
        there = [gradient for gradient in gradients if gradient is not None]
        marked = iter(Once.apply(len(there), *there, *of))
        return [None if gradient is None else next(marked) for gradient in gradients]

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Any) -> tuple[Tensor, ...]:
        """The gradients, which stand first, as they are."""
        return tuple(gradient.view_as(gradient) for gradient in tensors[:count])

    backward = staticmethod(refuse_second_derivative)
