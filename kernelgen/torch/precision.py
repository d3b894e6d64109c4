"""Which dtype kernels compute in for tensors: that of Wx, and of float32 tensors what PyTorch's switch allows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor


@dataclass(frozen=True)
class Precision:
    """How a kernel computes for tensors of one form.

    dtype: in a Shape's words. float_parameters: R or b are float32 where Wx is not: they are rounded to Wx's dtype, and
    their gradients, which are summed in float32, are not.
    """

    dtype: str
    float_parameters: bool


def precision_of(dtype: torch.dtype, r: torch.dtype, b: torch.dtype) -> Precision:
    """For the dtypes of Wx, R and b. PyTorch's switch is read now."""
    name = str(dtype).removeprefix("torch.")
    if dtype is torch.float32 and tf32_allowed():
        name = "tf32"
    return Precision(name, dtype.itemsize == 2 and torch.float32 in (r, b))


def tf32_allowed() -> bool:
    """Whether products of float32 on a GPU may round their factors to TF32: what torch.matmul goes by, which
    torch.backends.cuda.matmul.allow_tf32, its fp32_precision and torch.set_float32_matmul_precision set."""
    switch = torch.backends.cuda.matmul
    try:
        precision: str = switch.fp32_precision
    except AttributeError:  # before PyTorch 2.9
        return bool(switch.allow_tf32)
    return precision == "tf32"


def holding(*dtypes: torch.dtype) -> torch.dtype:
    """The narrowest dtype that holds the values of all: float32 for bfloat16 beside float16."""
    return reduce(torch.promote_types, dtypes)


def as_parameter(tensor: Tensor, dtype: torch.dtype, work: torch.dtype) -> Tensor:
    """R, b or states with the values that ``dtype`` holds, in what a recurrence in ``work`` takes: that dtype, or
    float32 for 16 bits, whose gradients are not rounded."""
    if work.itemsize == 2 and torch.float32 in (tensor.dtype, dtype):
        return tensor.float() if dtype in (work, torch.float32) else tensor.to(dtype).float()
    return tensor.to(dtype).to(work)
