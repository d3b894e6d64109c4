"""Measure layers in a wavefront on this GPU against the same layers one after another, in one process.

    python benchmarks/wavefront.py                     # the rows of docs/lab/wavefront.md
    python benchmarks/wavefront.py --row 4x128:64 --chunk 96

A row is LSTM layers x units and the batch, T = 1024, bfloat16, time-major, with as many inputs as units. "eager" is
what a call from Python takes, one after another without waiting; "graph" the same captured in a CUDA graph. Training is
the forward and backward pass with the gradients of the input and all parameters. Errors are relative, against
torch.nn's LSTM in float64: of the output, and the largest of the parameters' gradients. "same" says whether two runs
gave the same bits, and "by" how many chains of kernels the module found (0: PyTorch's calls ran).

Milliseconds, medians of --repeats.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import click
import torch
from peers.calls import milliseconds
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kernelgen.torch import LSTM

ROWS = ("4x128:64", "4x64:16")
CHUNKS = ("none", "64", "128", "256", "auto")
SEQ = 1024
CALLS = 4
MODES = {"none": None, "auto": True}


@click.command(help=__doc__)
@click.option("--row", "rows", multiple=True, default=ROWS, help="LAYERSxUNITS:BATCH")
@click.option("--chunk", "chunks", multiple=True, default=CHUNKS, help="steps, none, or auto for the model's choice")
@click.option("--seq", default=SEQ)
@click.option("--repeats", default=15)
def main(rows: tuple[str, ...], chunks: tuple[str, ...], seq: int, repeats: int) -> None:
    """Measure and print."""
    console = Console(width=170)
    table = Table(
        title=f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, T={seq}, {datetime.date.today()}"
    )
    for column in (
        "layers x units",
        "B",
        "chunk",
        "forward eager",
        "forward graph",
        "training eager",
        "training graph",
    ):
        table.add_column(column, justify="right")
    for column in ("error", "error of gradients", "same", "by"):
        table.add_column(column, justify="right")
    for row in rows:
        sizes, batch = row.split(":")
        layers, units = (int(size) for size in sizes.split("x"))
        wanted = _wanted(layers, units, int(batch), seq)
        for chunk in chunks:
            option = MODES[chunk] if chunk in MODES else int(chunk)
            table.add_row(sizes, batch, chunk, *_measured(wanted, layers, units, option, repeats))
    console.print(table)


def _wanted(layers: int, units: int, batch: int, seq: int) -> tuple[Any, Tensor, Tensor, list[Tensor]]:
    """A peer in float64, its input, its output and its parameters' gradients where the output's is the input."""
    torch.manual_seed(0)
    peer = torch.nn.LSTM(units, units, layers).cuda().bfloat16().double()
    x = torch.randn(seq, batch, units, device="cuda").bfloat16().double()
    output = peer(x)[0]
    gradients = torch.autograd.grad(output, list(peer.parameters()), x)
    return peer, x, output.detach(), list(gradients)


def _measured(
    wanted: tuple[Any, Tensor, Tensor, list[Tensor]], layers: int, units: int, option: int | bool | None, repeats: int
) -> list[str]:
    """The columns of a row for a way of running it."""
    peer, wide, output, gradients = wanted
    module: Any = LSTM(units, units, layers, wavefront=option, device="cuda", dtype=torch.bfloat16)
    module.load_state_dict(peer.state_dict())
    x = wide.bfloat16().requires_grad_()
    given, leaves = x.detach(), [x, *module.parameters()]

    def forward() -> Tensor:
        with torch.no_grad():
            found: Tensor = module(given)[0]
        return found

    def training() -> tuple[Tensor, ...]:
        return torch.autograd.grad(module(x)[0], leaves, given)

    times = []
    for work in (forward, training):
        times += [milliseconds(work, calls=CALLS, rounds=repeats), _replayed(work, repeats)]
    made, found = forward(), training()
    same = torch.equal(made, forward()) and all(map(torch.equal, found, training()))
    errors = [_error(one, other) for one, other in zip(found[1:], gradients, strict=True)]
    chains = sum(len(one.in_waves) for one in module._stacks.values() if any(one.in_waves.values()))
    return [
        *(f"{time:.3f}" for time in times),
        f"{_error(made, output):.1e}",
        f"{max(errors):.1e}",
        "yes" if same else "NO",
        str(chains),
    ]


def _error(made: Tensor, wanted: Tensor) -> float:
    return float((made.double() - wanted).norm() / wanted.norm())


def _replayed(work: Callable[[], Any], repeats: int) -> float:
    """Milliseconds of a replay of the work as a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return milliseconds(graph.replay, calls=CALLS, rounds=repeats)


if __name__ == "__main__":
    main()
