"""The modules on PyTorch's own inputs for its recurrent modules, on the CPU and on a GPU where there is one: results,
gradients and errors beside torch.nn's."""

from __future__ import annotations

import copy
import re
import warnings
from typing import Any

import pytest
import torch
from module_inputs import module_errors, module_inputs
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

import kernelgen.torch
from kernelgen.device import gpu
from kernelgen.errors import TilesmithError

pytestmark = pytest.mark.unit

NAMES = ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell")
ON_GPU = gpu.why_no_gpu() is None and torch.cuda.is_available()
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not ON_GPU, reason="needs a GPU")])]


def flat(result: Any) -> list[Tensor]:
    """All tensors of a nested result; of a PackedSequence those that are there."""
    if result is None or isinstance(result, Tensor):
        return [] if result is None else [result]
    return [tensor for part in result for tensor in flat(part)]


def leaves(value: Any, dtype: torch.dtype | None = None) -> Any:
    """A copy whose floating-point tensors are leaves that require gradients."""
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            return value
        return value.detach().to(dtype or value.dtype).clone().requires_grad_()
    if isinstance(value, PackedSequence):
        return PackedSequence(leaves(value.data, dtype), *value[1:])
    return tuple(leaves(part, dtype) for part in value) if isinstance(value, (tuple, list)) else value


def floating(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor for tensor in tensors if tensor.is_floating_point()]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_results_and_gradients_on_pytorchs_own_inputs(name: str, device: str) -> None:
    torch.manual_seed(0)
    for made_by, given in module_inputs(name, device, torch.float64):
        theirs = getattr(torch.nn, name)(*made_by.args, **made_by.kwargs, dtype=torch.float64, device=device)
        ours = getattr(kernelgen.torch, name)(*made_by.args, **made_by.kwargs, dtype=torch.float64, device=device)
        ours.load_state_dict(theirs.state_dict())
        copy.deepcopy(theirs).load_state_dict(ours.state_dict())
        found = []
        for module in (ours, theirs):
            arguments = leaves(given.args)
            results = flat(module(*arguments, **given.kwargs))
            wanted = floating(results)
            seeds = [torch.arange(value.numel(), device=device).cos().to(value).view(value.shape) for value in wanted]
            parameters = [*floating(flat(arguments)), *module.parameters()]
            found.append((results, torch.autograd.grad(wanted, parameters, seeds)))
        for result, expected in zip(found[0][0], found[1][0], strict=True):
            torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-11)
        for result, expected in zip(found[0][1], found[1][1], strict=True):
            torch.testing.assert_close(result, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_other_dtypes_are_near_torch_nn_in_float64(name: str, dtype: torch.dtype, device: str) -> None:
    torch.manual_seed(0)
    limit = 1e-5 if dtype is torch.float32 else 0.05
    for made_by, given in list(module_inputs(name, device, torch.float64))[-6:]:
        theirs = getattr(torch.nn, name)(*made_by.args, **made_by.kwargs, dtype=torch.float64, device=device)
        ours = getattr(kernelgen.torch, name)(*made_by.args, **made_by.kwargs, dtype=dtype, device=device)
        ours.load_state_dict(theirs.state_dict())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # on a GPU: heads of 3 units have no kernel
            results = floating(flat(ours(*leaves(given.args, dtype), **given.kwargs)))
        expected = floating(flat(theirs(*leaves(given.args), **given.kwargs)))
        for result, other in zip(results, expected, strict=True):
            assert result.dtype is dtype
            assert (result.double() - other).norm() <= limit * other.norm()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_mistakes_raise_what_pytorchs_own_error_inputs_ask_for(name: str, device: str) -> None:
    ours = getattr(kernelgen.torch, name)
    for made_by, given, at_once, kind, message in module_errors(name, device, torch.float32):
        module = None if at_once else ours(*made_by.args, **{"device": device, **made_by.kwargs})
        with pytest.raises(kind) as caught:
            ours(*made_by.args, **made_by.kwargs) if at_once else module(*given.args, **given.kwargs)
        assert isinstance(caught.value, TilesmithError)
        assert re.search(message, str(caught.value)), str(caught.value)
