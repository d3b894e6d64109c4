"""graphed() on a GPU: the bits of a call without it, in training and without gradients. Skipped without a GPU."""

from __future__ import annotations

import copy
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kernelgen.device import gpu
from kernelgen.torch import GRU, LSTM, RNN, graphed, rnn, step
from kernelgen.torch.graphs import GraphedForward

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        gpu.why_no_gpu() is not None or not torch.cuda.is_available(), reason="needs a GPU and PyTorch for it"
    ),
]

HALF = {"device": "cuda", "dtype": torch.bfloat16}
MODULES: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: LSTM(64, 64, 2, **HALF),
    "both directions": lambda: LSTM(64, 64, 2, bidirectional=True, batch_first=True, **HALF),
    "cluster": lambda: GRU(64, 256, **HALF),
    "grid": lambda: LSTM(64, 768, **HALF),
    "projected": lambda: LSTM(64, 128, proj_size=32, **HALF),
    "checkpoint": lambda: LSTM(64, 64, 2, checkpoint=8, **HALF),
    "waves": lambda: LSTM(64, 64, 3, wavefront=8, **HALF),
    "slstm": lambda: RNN(64, 64, cell="slstm", heads=2, **HALF),
    "float32": lambda: LSTM(64, 64, device="cuda"),
}


def pair(make: Callable[[], nn.Module], **options: Any) -> tuple[nn.Module, nn.Module]:
    """A graphed module and the same without."""
    torch.manual_seed(0)
    plain = make()
    return graphed(copy.deepcopy(plain), **options), plain


def graphs_of(module: nn.Module) -> int:
    """How many forward passes were captured."""
    forward = vars(module)["forward"]
    assert isinstance(forward, GraphedForward)
    return 0 if forward._graphs is None else sum(len(one.slots) for one in forward._graphs._forms.values())


def equal(found: Any, wanted: Any) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("name", MODULES)
def test_training_is_the_same_bit_for_bit(name: str) -> None:
    """Two shapes in turn, an optimizer's steps, gradients added up over two of them."""
    modules = pair(MODULES[name])
    dtype = next(modules[0].parameters()).dtype
    steps = [torch.optim.SGD(one.parameters(), 0.1) for one in modules]
    for turn in range(6):
        for shape in ((16, 16, 64), (32, 16, 64)):
            x = torch.randn(*shape, device="cuda", dtype=dtype)
            xs = [x.clone().requires_grad_() for _ in range(2)]
            results = [module(one) for module, one in zip(modules, xs, strict=True)]
            equal(*results)
            for output, _ in results:
                output.float().square().sum().backward()
            equal(xs[0].grad, xs[1].grad)
            equal(*([one.grad for one in module.parameters()] for module in modules))
        for one in steps:
            one.step()
            if turn % 2:
                one.zero_grad()
    assert graphs_of(modules[0]) == 2


def test_without_gradients_and_with_autocast() -> None:
    modules = pair(lambda: LSTM(64, 64, 2, device="cuda"))
    hx = tuple(torch.randn(2, 16, 64, device="cuda") for _ in range(2))
    for _ in range(4):
        x = torch.randn(16, 16, 64, device="cuda")
        with torch.no_grad():
            equal(*(module(x, hx) for module in modules))
        with torch.autocast("cuda", torch.bfloat16):
            results = [module(x, hx)[0] for module in modules]
            equal(*results)
        for module, output in zip(modules, results, strict=True):
            module.zero_grad()
            output.float().square().sum().backward()
        equal(*([one.grad for one in module.parameters()] for module in modules))
    assert graphs_of(modules[0]) == 2


def test_dropout_is_drawn_anew_and_by_the_seed() -> None:
    module, plain = pair(lambda: LSTM(64, 64, 2, dropout=0.5, **HALF))
    x = torch.randn(16, 16, 64, **HALF)
    outputs = [module(x)[0].detach() for _ in range(5)]
    assert graphs_of(module) == 1
    assert not torch.equal(outputs[3], outputs[4])
    found = []
    for one in (module, module, plain):
        torch.manual_seed(1)
        output = one(x)[0]
        one.zero_grad()
        output.float().square().sum().backward()
        found.append([output, *(p.grad.clone() for p in one.parameters())])
    equal(found[0], found[1])
    equal(found[0], found[2])


def test_calls_whose_backward_passes_are_to_come_share_no_memory() -> None:
    modules = pair(MODULES["lstm"])
    for _ in range(4):
        xs = [torch.randn(16, 16, 64, **HALF) for _ in range(3)]
        for module in modules:
            module.zero_grad()
            sum((k + 1) * module(x)[0].float().square().sum() for k, x in enumerate(xs)).backward()
        equal(*([one.grad for one in module.parameters()] for module in modules))
    assert graphs_of(modules[0]) == 3


def test_gradients_of_any_results() -> None:
    modules = pair(MODULES["both directions"])
    losses: list[Callable[..., Tensor]] = [
        lambda output, states: states[1].float().sum(),
        lambda output, states: output.float().square().sum(),
        lambda output, states: output.float().square().sum() + states[0].float().sum() + states[1].float().sum(),
    ]
    for _ in range(3):
        x = torch.randn(16, 16, 64, **HALF)
        for loss in losses:
            equal(*(
                torch.autograd.grad(loss(*module(x)), list(module.parameters()), allow_unused=True)
                for module in modules
            ))  # fmt: skip


def test_lengths_and_resets_are_read_anew() -> None:
    modules = pair(lambda: LSTM(64, 64, **HALF))
    for _ in range(4):
        x = torch.randn(24, 16, 64, **HALF)
        own = {"lengths": torch.randint(0, 25, (16,), device="cuda"), "resets": torch.rand(16, 24, device="cuda") < 0.1}
        results = [module(x, **own)[0] for module in modules]
        equal(*results)
        gradients = [
            torch.autograd.grad(output.float().square().sum(), list(module.parameters()))
            for module, output in zip(modules, results, strict=True)
        ]
        equal(*gradients)
    assert graphs_of(modules[0]) == 1


def test_functions() -> None:
    r, b = (nn.Parameter(torch.randn(*size, **HALF)) for size in ((4, 4, 64, 64), (4, 4, 64)))
    fast, fast_step = graphed(rnn), graphed(step)
    states = torch.zeros(2, 8, 4, 64, **HALF)
    for _ in range(4):
        wx = torch.randn(8, 16, 4, 4, 64, **HALF).requires_grad_()
        found = []
        for function in (fast, rnn):
            hidden, _ = function(wx, r, b, returns="hidden")
            found.append([hidden, *torch.autograd.grad(hidden.float().square().sum(), (wx, r, b))])
        equal(*found)
        with torch.no_grad():
            equal(fast_step(wx[:, 0], r, b, states), step(wx[:, 0], r, b, states))
            states = step(wx[:, 0], r, b, states)
            r.mul_(0.9)


def test_any_stream_and_other_threads() -> None:
    """Another thread may allocate memory while a graph is captured."""
    modules = pair(MODULES["lstm"])
    stop, x, late = threading.Event(), torch.randn(16, 16, 64, **HALF), torch.zeros(16, 16, 64, **HALF)

    def load() -> None:
        while not stop.is_set():
            torch.empty(1 << 16).pin_memory()
            time.sleep(0.001)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        stream = torch.cuda.Stream()
        torch.cuda.synchronize()
        for _ in range(4):
            found = []
            for module in modules:
                with torch.cuda.stream(stream):
                    late.zero_()
                    torch.cuda._sleep(5_000_000)
                    late.copy_(x)
                    module.zero_grad()
                    output = module(late)[0]
                    output.float().square().sum().backward()
                stream.synchronize()
                found.append([output, *(p.grad for p in module.parameters())])
            equal(*found)
        assert graphs_of(modules[0]) == 1
    finally:
        stop.set()
        thread.join()


def test_within_a_capture_of_somebody_elses() -> None:
    modules = pair(MODULES["lstm"])
    x = torch.randn(16, 16, 64, **HALF)
    with torch.no_grad():
        for _ in range(3):
            equal(*(module(x) for module in modules))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = modules[0](x)[0]
        x.normal_()
        graph.replay()
        equal(output, modules[1](x)[0])


def test_what_asks_for_values_is_refused() -> None:
    """In a process of its own: a capture that failed leaves PyTorch's generator of random numbers unusable."""
    script = (
        "import torch; from kernelgen.torch import graphed\n"
        "asks, x = graphed(lambda x: x * x.sum().item()), torch.ones(2, device='cuda')\n"
        "asks(x), asks(x)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "GraphError" in done.stderr
    assert "cannot be captured as a CUDA graph" in done.stderr


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_gpu_that_is_not_the_current_one() -> None:
    modules = pair(lambda: LSTM(64, 64, device="cuda:1", dtype=torch.bfloat16))
    for _ in range(4):
        x = torch.randn(16, 16, 64, device="cuda:1", dtype=torch.bfloat16)
        results = [module(x)[0] for module in modules]
        equal(*results)
        for module, output in zip(modules, results, strict=True):
            module.zero_grad()
            output.float().square().sum().backward()
        equal(*([one.grad for one in module.parameters()] for module in modules))
    assert graphs_of(modules[0]) == 1
