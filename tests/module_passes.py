"""Passes of modules whose kernels an emulator runs, for tests: which engine runs them, results and gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kernelgen.torch import kernels, passes

if TYPE_CHECKING:
    import pytest
    from emulated_engine import Emulated


def use(monkeypatch: pytest.MonkeyPatch, engine: Emulated) -> Any:
    """Have it run what lies on the CPU."""
    monkeypatch.setitem(passes.ENGINES, "cpu", engine)
    monkeypatch.setattr(kernels, "_warned", set())
    return engine


def results(module: Any, x: Tensor, hx: Any, *, last: bool) -> list[Tensor]:
    """Output, last states, and the gradients of everything; of the output alone where ``last`` is not asked for."""
    output, states = module(x, hx)
    found = [output, *((states,) if torch.is_tensor(states) else states)]
    leaves = [x, *(() if hx is None else (hx,) if torch.is_tensor(hx) else hx), *module.parameters()]
    generator = torch.Generator().manual_seed(2)
    weights = [torch.randn(one.shape, generator=generator).to(one.dtype) for one in found]
    used = len(found) if last else 1
    return found + list(torch.autograd.grad(found[:used], leaves, weights[:used]))


def close(found: list[Tensor], wanted: list[Tensor], limit: float) -> None:
    """Forms, dtypes, and relative errors of at most ``limit``."""
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        error = (one.double() - other.double()).norm() / other.double().norm()
        assert error <= limit
