"""What torch.compile may know of a function that it need not look into."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def constant_result(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Mark ``function`` as one that torch.compile calls once, while it traces; returns it.

    It is what torch.compiler.assume_constant_result does, which however imports the whole compiler: more than half of
    the time that importing kernelgen.torch took.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
