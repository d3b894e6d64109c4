"""That what should be a tensor is one, and what autocast makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kernelgen.torch.errors import ArgumentTypeError


def require_tensors(optional: str = "", **arguments: Any) -> None:
    """Raise ArgumentTypeError for what is no tensor. optional: the name of the argument that may be None."""
    for name, value in arguments.items():
        if isinstance(value, Tensor) or (value is None and name == optional):
            continue
        if value is not None:
            hint = "torch.as_tensor(...) makes one of an array or of numbers"
        elif name == "b":
            hint = "for no bias give zeros, torch.zeros(G_bias, H, D)"
        else:
            hint = "it cannot be left out"
        raise ArgumentTypeError(f"{name} must be a torch.Tensor, not {type(value).__name__}; {hint}")


_AUTOCAST = frozenset(kind for kind in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(kind))
"""Types of device that have an autocast; looked up once, for torch.compile of PyTorch 2.11 cannot."""

any_autocast: Callable[[], bool] = torch._C._is_any_autocast_enabled
"""Whether autocast is on for any type of device."""


def autocast_dtype(kind: str) -> torch.dtype | None:
    """What autocast casts tensors on a type of device to, None where it is off or there is none (as for "meta")."""
    if kind not in _AUTOCAST or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


def autocast_parameter(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """What becomes of R, b and states inside torch.autocast: float32 stays, for its gradients."""
    return tensor if tensor.dtype is torch.float32 and dtype.itemsize == 2 else tensor.to(dtype)
