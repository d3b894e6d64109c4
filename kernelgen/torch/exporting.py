"""Who takes a model away: torch.onnx.export, which must find standard nodes, and torch.jit.trace."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

from kernelgen.torch.errors import ExportError
from kernelgen.torch.traced import constant_result

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def tracing() -> bool:
    """Whether torch.jit.trace records what is done."""
    return not torch.compiler.is_compiling() and torch._C._get_tracing_state() is not None


def _to_onnx() -> bool:
    if "torch.onnx" not in sys.modules or not torch.onnx.is_in_onnx_export():
        return False
    if torch._C._get_tracing_state() is not None:
        raise ExportError(
            "torch.onnx.export(dynamo=False) goes by torch.jit.trace, whose ONNX has no node for a recurrence of ours; "
            "leave dynamo=False out"
        )
    return True


to_onnx = constant_result(_to_onnx)
"""Whether torch.onnx.export is at work. Raises ExportError for the exporter by torch.jit.trace."""


def untraced(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Mark a function that looks at sizes and makes no tensor: torch.jit.trace need not warn of it."""

    @wraps(function)
    def run(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        if not tracing():
            return function(*arguments, **options)
        state = torch._C._get_tracing_state()
        torch._C._set_tracing_state(None)
        try:
            return function(*arguments, **options)
        finally:
            torch._C._set_tracing_state(state)

    return run
