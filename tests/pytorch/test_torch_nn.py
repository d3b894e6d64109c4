"""The modules on PyTorch's own inputs for its recurrent modules, on the CPU and on a GPU where there is one: results,
gradients and errors beside torch.nn's in float64 on the CPU."""

from __future__ import annotations

import copy
import re
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


def leaves(value: Any, device: str = "cpu", dtype: torch.dtype = torch.float64) -> Any:
    """A copy on a device whose floating-point tensors are leaves of a dtype that require gradients."""
    if isinstance(value, Tensor):
        return value.detach().to(device, dtype).clone().requires_grad_()
    if isinstance(value, PackedSequence):
        return PackedSequence(leaves(value.data, device, dtype), *value[1:])
    return tuple(leaves(part, device, dtype) for part in value) if isinstance(value, (tuple, list)) else value


def floating(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor for tensor in tensors if tensor.is_floating_point()]


def modules(name: str, made_by: Any, device: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """Ours on a device, and torch.nn's in float64 on the CPU, with the same parameters."""
    theirs = getattr(torch.nn, name)(*made_by.args, **made_by.kwargs, dtype=torch.float64)
    ours = getattr(kernelgen.torch, name)(*made_by.args, **made_by.kwargs, dtype=dtype, device=device)
    ours.load_state_dict(theirs.state_dict())
    copy.deepcopy(theirs).load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.filterwarnings("ignore:.*runs as a PyTorch loop:RuntimeWarning")
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_results_and_gradients_on_pytorchs_own_inputs(name: str, device: str) -> None:
    torch.manual_seed(0)
    for made_by, given in module_inputs(name, "cpu", torch.float64):
        found = []
        for module, place in zip(modules(name, made_by, device, torch.float64), (device, "cpu"), strict=True):
            arguments = leaves(given.args, place)
            results = flat(module(*arguments, **given.kwargs))
            wanted = floating(results)
            seeds = [torch.arange(one.numel()).cos().to(one).view(one.shape) for one in wanted]
            gradients = torch.autograd.grad(wanted, [*floating(flat(arguments)), *module.parameters()], seeds)
            found.append([one.cpu() for one in (*results, *gradients)])
        for result, expected in zip(*found, strict=True):
            torch.testing.assert_close(result, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.filterwarnings("ignore:.*runs as a PyTorch loop:RuntimeWarning")
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_other_dtypes_are_near_torch_nn_in_float64(name: str, dtype: torch.dtype, device: str) -> None:
    torch.manual_seed(0)
    limit = 1e-5 if dtype is torch.float32 else 0.05
    for made_by, given in list(module_inputs(name, "cpu", torch.float64))[-6:]:
        ours, theirs = modules(name, made_by, device, dtype)
        results = floating(flat(ours(*leaves(given.args, device, dtype), **given.kwargs)))
        expected = floating(flat(theirs(*leaves(given.args), **given.kwargs)))
        for result, other in zip(results, expected, strict=True):
            assert result.dtype is dtype
            assert (result.cpu().double() - other).norm() <= limit * other.norm()


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
