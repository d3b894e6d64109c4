"""Run kernels many times and compare every bit of what they give, alone and beside other work on the GPU.

    python benchmarks/repeats.py                                   # the rows of ROWS, 1,000 training steps each
    python benchmarks/repeats.py --row lstm:1x512:16 --runs 10000
    python benchmarks/repeats.py --row lstm:1x768:16 --forward     # forward alone

A step is forward and backward through PyTorch. beside "nothing"; "a stream" of this process, on which matrices are
multiplied all the while; "a process" that does the same, with which the GPU's time is shared. A kernel that hangs stops
itself after some seconds, and the step that was wrong is said.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kernelgen.cells import load_cell
from kernelgen.torch import rnn

ROWS = ("lstm:12x64:16", "lstm:3x256:16", "lstm:1x512:16", "gru:3x256:16", "slstm:4x192:16")
BESIDE = ("nothing", "a stream", "a process")
BUSY = """
import torch
a = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
print("busy", flush=True)
while True:
    for _ in range(20):
        a @ a
    torch.cuda.synchronize()
"""


@click.command(help=__doc__)
@click.option("--row", "rows", multiple=True, default=ROWS, help="CELL:HEADSxDIM:BATCH")
@click.option("--runs", default=1000, show_default=True, help="of each row and company")
@click.option("--seq", default=64, show_default=True)
@click.option("--forward", is_flag=True, help="forward passes alone")
@click.option("--beside", type=click.Choice(BESIDE), multiple=True, default=BESIDE)
def main(rows: tuple[str, ...], runs: int, seq: int, forward: bool, beside: tuple[str, ...]) -> None:
    """Run, compare, print; status 1 where a bit differed."""
    console = Console()
    table = Table("row", "beside", "runs", "differing", "ms a run", title=torch.cuda.get_device_name())
    wrong = 0
    for row in rows:
        name, size, batch = row.split(":")
        heads, dim = map(int, size.split("x"))
        step = _Step(name, int(batch), seq, heads, dim, forward=forward)
        for company in beside:
            with _beside(company):
                start = time.perf_counter()
                differing = sum(not step.same() for _ in range(runs))
                taken = time.perf_counter() - start
            wrong += differing
            table.add_row(row, company, f"{runs:,}", str(differing), f"{1000 * taken / runs:.2f}")
            console.print(f"{row} beside {company}: {differing} of {runs:,} differ")
    console.print(table)
    raise SystemExit(1 if wrong else 0)


class _Step:
    """A training step of one shape, and what its first run gave."""

    def __init__(self, name: str, batch: int, seq: int, heads: int, dim: int, *, forward: bool) -> None:
        cell = load_cell(name)
        generator = torch.Generator("cuda").manual_seed(0)

        def drawn(*sizes: int, scale: float = 1.0) -> Tensor:
            return (scale * torch.randn(sizes, generator=generator, device="cuda")).to(torch.bfloat16)

        self._name, self._forward = name, forward
        self._leaves = [
            drawn(batch, seq, len(cell.input_gates), heads, dim).requires_grad_(),
            drawn(len(cell.recurrent_gates), heads, dim, dim, scale=cell.gain * dim**-0.5).requires_grad_(),
            drawn(len(cell.bias_gates), heads, dim).requires_grad_(),
        ]
        self._d_h = drawn(1, batch, seq, heads, dim)
        self._first = self._run()

    def same(self) -> bool:
        """Whether another run gives the same bits."""
        return all(
            torch.equal(a.view(torch.int16), b.view(torch.int16)) for a, b in zip(self._run(), self._first, strict=True)
        )

    def _run(self) -> list[Tensor]:
        wx, r, b = self._leaves
        if self._forward:
            with torch.no_grad():
                return list(rnn(wx, r, b, cell=self._name))
        states, _ = rnn(wx, r, b, cell=self._name, returns="hidden")
        return [states.detach(), *torch.autograd.grad(states, self._leaves, self._d_h)]


@contextmanager
def _beside(company: str) -> Iterator[None]:
    """Keep the GPU busy meanwhile."""
    if company == "a process":
        with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            other.stdout.readline()
            try:
                yield
            finally:
                other.kill()
        return
    if company == "nothing":
        yield
        return
    stream = torch.cuda.Stream()
    a = torch.randn(2048, 2048, device="cuda", dtype=torch.bfloat16)
    a @ a  # cuBLAS makes its handle outside of a graph
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for _ in range(2000):
            a @ a
    stop = torch.cuda.Event()
    with torch.cuda.stream(stream):
        for _ in range(40):
            graph.replay()
        stop.record()
    yield
    stop.synchronize()


if __name__ == "__main__":
    main()
