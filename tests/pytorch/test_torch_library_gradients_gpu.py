"""dR by the library behind recurrences on a GPU: right, the same bits every time, called and in a graph. Skipped
without one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernelgen.cells import load_cell
from kernelgen.device import gpu
from kernelgen.schedules.shared import library_gradients
from kernelgen.torch import rnn

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        gpu.why_no_gpu() is not None or not torch.cuda.is_available(), reason="needs a GPU and PyTorch for it"
    ),
]

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def drawn(*size: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(size, device=DEVICE)


@pytest.mark.parametrize(
    ("cell", "heads", "units", "dtype", "limit"),
    [
        ("lstm", 4, 256, torch.bfloat16, 1e-5),
        ("lstm", 1, 256, torch.bfloat16, 1e-5),
        ("slstm", 3, 128, torch.float16, 1e-5),
        ("lstm", 12, 64, torch.bfloat16, 1e-5),
        ("lstm", 2, 64, torch.float32, 1e-5),
        ("lstm", 2, 32, torch.float64, 1e-13),
    ],
)
def test_gradients_of_all_gates_at_once(
    monkeypatch: pytest.MonkeyPatch, cell: str, heads: int, units: int, dtype: torch.dtype, limit: float
) -> None:
    """Against products in float64 of the gates' gradients that the pass itself gives; results are not rounded."""
    monkeypatch.setattr(library_gradients, "seconds_behind", lambda *given: 0.0)
    torch.manual_seed(0)
    gates, batch, seq = len(load_cell(cell).recurrent_gates), 19, 53
    exact = torch.float64 if dtype is torch.float64 else torch.float32
    wx = drawn(batch, seq, gates, heads, units).to(dtype).requires_grad_()
    r = drawn(gates, heads, units, units, scale=units**-0.5).to(exact).requires_grad_()
    b = drawn(gates, heads, units).to(exact).requires_grad_()
    outside = drawn(batch, seq, heads, units).to(dtype)

    def step() -> tuple[Tensor, ...]:
        h = rnn(wx, r, b, cell=cell, returns="hidden")[0][0]
        return (h.detach(), *torch.autograd.grad(h, [wx, r, b], outside))

    h, d_wx, d_r, d_b = step()
    before = torch.cat([torch.zeros_like(h[:, :1]), h[:, :-1]], 1).double()
    for made, wanted in (
        (d_r, torch.einsum("btghd,bthp->ghdp", d_wx.double(), before)),
        (d_b, d_wx.double().sum((0, 1))),
    ):
        assert made.dtype == exact
        assert float((made - wanted).norm() / wanted.norm()) < limit
    again = step()
    if DEVICE == "cuda":
        graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.graph(graph, stream=side):
            captured = step()
        for _ in range(3):
            graph.replay()
        torch.cuda.synchronize()
        again = tuple(map(torch.clone, captured))
    for made, other in zip((h, d_wx, d_r, d_b), again, strict=True):
        assert torch.equal(made, other)
