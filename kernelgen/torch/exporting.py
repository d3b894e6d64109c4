"""Who takes a model away: torch.onnx.export, which must find standard nodes, torch.jit and torch.fx."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn, ParamSpec, TypeVar

import torch
from torch import nn

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


class Whole(nn.Module):  # type: ignore[misc]
    """A module that is one thing to who looks into a model, as torch.nn's own are."""

    def __prepare_scriptable__(self) -> NoReturn:
        """What torch.jit.script asks first. Raises ExportError."""
        raise ExportError(
            f"torch.jit.script cannot compile {type(self).__name__} of kernelgen.torch, which is no TorchScript; "
            "record the model by torch.jit.trace, or take torch.export"
        )

    def _node(self, *args: Any, **options: Any) -> Any:
        """A call of this module as one node of the graph of a model that torch.fx traces, where args[0] is a value of
        it, else None."""
        if not isinstance(args[0], torch.fx.Proxy):
            return None
        tracer = args[0].tracer
        return tracer.create_proxy("call_module", tracer.path_of_module(self), args, options)
