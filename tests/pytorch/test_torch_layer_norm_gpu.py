"""Layer norm of the input's product on a GPU: kernels behind it, against the same module in float64 on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from kernelgen.device import gpu
from kernelgen.torch import GRU, LSTM, RNN, graphed

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        gpu.why_no_gpu() is not None or not torch.cuda.is_available(), reason="needs a GPU and PyTorch for it"
    ),
]

MODULES: dict[str, Callable[[], nn.Module]] = {
    "both directions": lambda: LSTM(40, 64, 2, bidirectional=True, layer_norm=True),
    "gru": lambda: GRU(40, 256, layer_norm=True),
    "slstm": lambda: RNN(40, 128, cell="slstm", heads=2, layer_norm=True),
    "projected": lambda: LSTM(40, 64, proj_size=32, layer_norm=True),
}
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.06}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_results_and_gradients(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    exact = MODULES[name]().double()
    with torch.no_grad():
        for key, one in exact.named_parameters():
            if key.startswith("norm"):
                one.add_(0.2 * torch.randn_like(one))
    x = torch.randn(30, 5, 40, dtype=torch.float64)
    wanted = exact(x)[0]
    wanted.square().mean().backward()
    module = copy.deepcopy(exact).to("cuda", dtype)
    module.zero_grad()
    found = module(x.to("cuda", dtype))[0]
    found.double().square().mean().backward()
    pairs = [(found, wanted), *((a.grad, b.grad) for a, b in zip(module.parameters(), exact.parameters(), strict=True))]
    for made, want in pairs:
        assert float((made.double().cpu() - want).norm() / want.norm()) < TOLERANCES[dtype]


def test_in_graphs() -> None:
    torch.manual_seed(0)
    plain = LSTM(40, 64, 2, layer_norm=True, device="cuda")
    module = graphed(copy.deepcopy(plain))
    for _ in range(4):
        x = torch.randn(16, 8, 40, device="cuda")
        with torch.autocast("cuda", torch.bfloat16):
            outputs = [one(x)[0] for one in (module, plain)]
        assert torch.equal(*outputs)
        gradients = [
            torch.autograd.grad(output.float().square().sum(), list(one.parameters()))
            for one, output in zip((module, plain), outputs, strict=True)
        ]
        torch.testing.assert_close(*gradients, rtol=0, atol=0)
