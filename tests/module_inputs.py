"""PyTorch's own inputs for its recurrent modules (torch.testing._internal.common_modules), without what importing them
does to a process."""

from __future__ import annotations

import sys
import unittest
import unittest.mock
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

import torch


@cache
def common_modules() -> Any:
    """PyTorch's module of them. It wants expecttest for tests of its own, which we have none of, and forbids setting
    torch.backends' flags from then on."""
    try:
        import expecttest  # noqa: F401
    except ModuleNotFoundError:
        instead: Any = ModuleType("expecttest")
        instead.TestCase = unittest.TestCase
        sys.modules["expecttest"] = instead
    with unittest.mock.patch.object(torch.backends, "disable_global_flags"):
        from torch.testing._internal import common_modules as found
    return found


@cache
def _info(name: str) -> Any:
    """PyTorch's description of a module of torch.nn."""
    return next(one for one in common_modules().module_db if one.module_cls is getattr(torch.nn, name))


def module_inputs(name: str, device: str, dtype: torch.dtype) -> Iterator[tuple[Any, Any]]:
    """The arguments of a module's constructor and of its forward call, each with args and kwargs; packed too."""
    options = {"with_packed_sequence": True} if name in ("GRU", "RNN") else {}
    for case in _info(name).module_inputs_func(_info(name), device, dtype, True, True, **options):
        yield case.constructor_input, case.forward_input


def module_errors(name: str, device: str, dtype: torch.dtype) -> Iterator[tuple[Any, Any, bool, type, str]]:
    """As ``module_inputs``, for mistakes; then whether the constructor is where it is seen, the type of the error and
    what its message must match."""
    at_once = common_modules().ModuleErrorEnum.CONSTRUCTION_ERROR
    for case in _info(name).module_error_inputs_func(_info(name), device, dtype, False, True):
        given = case.module_error_input
        yield (
            given.constructor_input,
            given.forward_input,
            case.error_on is at_once,
            case.error_type,
            case.error_regex,
        )
