"""Products of cuBLASLt as links of chains on a GPU: right, the same bits every time, in a graph, with either launcher;
and whole passes of long products. Skipped without a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kernelgen.device import cublaslt, gpu, native
from kernelgen.program.dtypes import dtype_info
from kernelgen.schedules.shared.matrix_product import TURNED_A, TURNED_B, TURNED_OUT, MatrixProduct
from kernelgen.torch import GRU, LSTM
from kernelgen.torch.device import DeviceEngine
from kernelgen.torch.engine import Layout, Link
from kernelgen.torch.library_links import OfLibrary

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        gpu.why_no_gpu() is not None or not torch.cuda.is_available(), reason="needs a GPU and PyTorch for it"
    ),
]

LIMITS = {"bfloat16": 4e-3, "float16": 5e-4, "float32": 2e-6, "tf32": 1e-3, "float64": 1e-14}

INPUT, WEIGHT = (False, True), (True, True)

PRODUCTS = [
    (MatrixProduct(4096, 512, 128, "bfloat16"), 0, True),
    (MatrixProduct(4096, 512, 128, "float16"), TURNED_A, True),
    (MatrixProduct(4096, 512, 128, "float32"), TURNED_A, True),
    (MatrixProduct(4096, 512, 128, "tf32"), 0, True),
    (MatrixProduct(4096, 512, 128, "float64"), TURNED_A, True),
    (MatrixProduct(4096, 128, 512, "bfloat16", *INPUT), TURNED_OUT, False),
    (MatrixProduct(4096, 75, 512, "float16", *INPUT), 0, False),
    (MatrixProduct(512, 128, 4096, "bfloat16", *WEIGHT), TURNED_B, False),
    (MatrixProduct(512, 127, 4096, "bfloat16", *WEIGHT, True), 0, False),
    (MatrixProduct(512, 1, 4096, "float32", *WEIGHT), TURNED_A, True),
]


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def laid(rows: Tensor, batch: int, *, turned: int) -> Tensor:
    """Steps [B T, ...] as they lie in memory."""
    if not turned:
        return rows.contiguous()
    return rows.view(batch, -1, rows.shape[1]).transpose(0, 1).reshape(rows.shape).contiguous()


@pytest.mark.parametrize("native_launcher", [True, False])
@pytest.mark.parametrize(("product", "turned", "with_bias"), PRODUCTS, ids=lambda value: str(value))
@pytest.mark.parametrize("batch", [32, 512])
def test_the_library_makes_products(
    product: MatrixProduct,
    turned: int,
    with_bias: bool,
    batch: int,
    native_launcher: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert cublaslt.library() is not None
    if not native_launcher:
        monkeypatch.setattr(native, "launcher", lambda: None)
    torch.manual_seed(0)
    kind = getattr(torch, dtype_info(product.dtype).stored)
    written = torch.float32 if product.floats else kind
    a, b = (torch.randn(rows, product.depth, device="cuda").to(kind) for rows in (product.rows, product.columns))
    bias = torch.randn(product.columns, device="cuda").to(written) if with_bias else None
    wanted = a.double() @ b.double().t() + (0 if bias is None else bias.double())
    given = [
        laid(a.t() if product.a_transposed else a, batch, turned=turned & TURNED_A),
        laid(b.t() if product.b_transposed else b, batch, turned=turned & TURNED_B),
        bias,
        torch.full((product.rows, product.columns), float("nan"), device="cuda", dtype=written),
    ]
    names = {name: name for name in ("a", "b", "bias", "out") if name != "bias" or with_bias}
    steps = product.depth if product.a_transposed else product.rows
    numbers = {"batch": batch, "seq": steps // batch, "turned": turned}
    run = DeviceEngine().chain(
        [Link(OfLibrary(product), names, numbers)],
        Layout(("a", "b", "bias", "out"), {}, {}),
        torch.cuda.current_device(),
    )
    run(given)
    out = given[3]
    assert out is not None
    first = out.clone()
    assert error(first, laid(wanted, batch, turned=turned & TURNED_OUT)) < LIMITS[product.dtype]
    out.fill_(float("nan"))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run(given)
    stream.synchronize()
    assert torch.equal(out, first)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run(given)
    out.fill_(float("nan"))
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(out, first)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (LSTM, {"num_layers": 2}),
        (LSTM, {"num_layers": 2, "batch_first": True, "dropout": 0.0}),
        (LSTM, {"bias": False}),
        (GRU, {"num_layers": 2, "bidirectional": True}),
    ],
)
def test_whole_passes_of_long_products_are_one_chain(kind: Any, options: Any, dtype: torch.dtype) -> None:
    """Against torch.nn's in float64; and the same bits every time."""
    torch.manual_seed(1)
    units, batch, seq = 128, 64, 512
    module = kind(units, units, device="cuda", dtype=dtype, **options)
    peer = getattr(torch.nn, kind.__name__)(units, units, **options).cuda().double()
    peer.load_state_dict(module.state_dict())
    x = torch.randn(*((batch, seq) if module.batch_first else (seq, batch)), units, device="cuda", dtype=dtype)
    outside = torch.randn_like(x.new_empty(*x.shape[:2], units * (1 + module.bidirectional)))  # sums that do not cancel
    x.requires_grad_()

    def run(one: Any, given: Tensor) -> list[Tensor]:
        output = one(given)[0]
        return [output.detach(), *torch.autograd.grad(output, [given, *one.parameters()], outside.to(output.dtype))]

    found, again, wanted = run(module, x), run(module, x), run(peer, x.detach().double().requires_grad_())
    plans = [plan for stack in module._stacks.values() for plan in stack.plans.values()]
    assert plans
    for plan in plans:
        assert plan is not None
        assert plan.whole is not None
        if dtype is torch.bfloat16:
            products = [layer.products for layer in plan.whole._layers]
            assert all(isinstance(each.of_weight, OfLibrary) for each in products)
    for made, other, want in zip(found, again, wanted, strict=True):
        assert torch.equal(made, other)
        assert error(made, want) < (5e-2 if dtype is torch.bfloat16 else 5e-5)
