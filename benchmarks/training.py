"""Measure training steps through PyTorch on this GPU: time, memory, and whether gradients are the same every time.

    python benchmarks/training.py                               # the rows of docs/torch_performance.md
    python benchmarks/training.py --row lstm:12x64:16 --row slstm:12x64:16 --peers peers.json

A step is the forward and backward pass of one recurrence, T = 1024, bfloat16, with gradients of Wx, R and b. Columns:

- forward: `rnn` without gradients, h alone.
- training: `rnn(returns="hidden")`, the gradient of h given; recompute: the same with recompute=True.
- host: what a training step costs the host. Where that is more than the GPU needs, the GPU waits for it.
- graph: the training step captured in a CUDA graph and replayed, which costs the host next to nothing.
- flashrnn: the step called as FlashRNN's users call it, `flashrnn(Wx, R, b, function=cell)`, the sum of h as the loss.
- of --peers (a JSON file whose "rows" have system, cell, heads, head_dim, batch, dtype, forward_ms and
  forward_backward_ms): how many times as long FlashRNN's fused kernels take for that.
- memory: the most that a training step allocates beyond Wx, R, b and the gradients of these and of h, over the states
  and gates after every step (FlashRNN's formula; not the gates that are nothing but a bias), and with recompute over
  the states alone.

Times are medians of triton.testing.do_bench, which empties the L2 cache before each run. Writes --out (JSON) too.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from triton.testing import do_bench

from kernelgen.cells import load_cell
from kernelgen.torch import flashrnn, rnn

ROWS = (
    "lstm:24x32:16",
    "lstm:12x64:16",
    "lstm:12x64:128",
    "lstm:6x128:16",
    "slstm:12x64:16",
    "gru:12x64:16",
    "gru:6x128:16",
    "elman:12x64:16",
    "lstm_peephole:12x64:16",
)
SEQ = 1024
FUSED = "FlashRNN cuda_fused"
REPEATS = 5


@click.command(help=__doc__)
@click.option("--row", "rows", multiple=True, default=ROWS, help="CELL:HEADSxDIM:BATCH")
@click.option("--peers", type=click.Path(path_type=Path, exists=True), default=None)
@click.option("--seq", default=SEQ)
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/training.json"))
def main(rows: tuple[str, ...], peers: Path | None, seq: int, out: Path) -> None:
    """Measure, print and write."""
    console = Console(width=180)
    known = json.loads(peers.read_text())["rows"] if peers else []
    title = f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, T={seq}, {datetime.date.today()}"
    shown = Table("cell", "heads x D", "B", title=title)
    for column in (
        "forward ms",
        "training ms",
        "host ms",
        "graph ms",
        "recompute ms",
        "flashrnn ms",
        "FlashRNN ms",
        "times",
    ):
        shown.add_column(column, justify="right")
    for column in ("memory / states + gates", "recompute / states", "same bits"):
        shown.add_column(column, justify="right")
    results = []
    for text in rows:
        name, sizes, batch = text.split(":")
        heads, dim = map(int, sizes.split("x"))
        row = measure(name, int(batch), seq, heads, dim)
        row["flashrnn_peer_ms"] = _peer(known, name, heads, dim, int(batch))
        results.append(row)
        peer = row["flashrnn_peer_ms"]
        shown.add_row(
            name,
            f"{heads} x {dim}",
            batch,
            *(f"{row[key]:.3f}" for key in ("forward_ms", "training_ms", "host_ms", "graph_ms", "recompute_ms")),
            "" if row["flashrnn_ms"] is None else f"{row['flashrnn_ms']:.3f}",
            "" if peer is None else f"{peer:.2f}",
            "" if peer is None else f"{peer / row['training_ms']:.1f}",
            f"{row['memory']:.3f}",
            f"{row['recompute_memory']:.3f}",
            "yes" if row["same_bits"] else "NO",
        )
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"title": title, "rows": results}, indent=1))
    console.print(shown)


def measure(name: str, batch: int, seq: int, heads: int, dim: int) -> dict[str, Any]:
    """One row: milliseconds, memory as a multiple, and whether repeated gradients have the same bits."""
    cell = load_cell(name)
    generator = torch.Generator("cuda").manual_seed(0)

    def drawn(*sizes: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(sizes, generator=generator, device="cuda")).to(torch.bfloat16)

    wx = drawn(batch, seq, len(cell.input_gates), heads, dim).requires_grad_()
    r = drawn(len(cell.recurrent_gates), heads, dim, dim, scale=cell.gain * dim**-0.5).requires_grad_()
    b = drawn(len(cell.bias_gates), heads, dim).requires_grad_()
    d_h = drawn(1, batch, seq, heads, dim)
    leaves = [wx, r, b]

    def train(recompute: bool = False) -> None:
        rnn(wx, r, b, cell=name, returns="hidden", recompute=recompute)[0].backward(d_h)

    def as_flashrnn() -> None:
        flashrnn(wx, r, b, function=name)[0][0].sum().backward()

    with torch.no_grad():
        forward_ms = do_bench(lambda: rnn(wx, r, b, cell=name, returns="hidden"), rep=150, return_mode="median")
    plane, gates = batch * seq * heads * dim * 2, len({*cell.recurrent_gates, *cell.input_gates})
    row: dict[str, Any] = {"cell": name, "heads": heads, "head_dim": dim, "batch": batch, "forward_ms": forward_ms}
    row["memory"] = _peak(train, leaves) / (plane * (len(cell.states) + gates))
    row["recompute_memory"] = _peak(lambda: train(True), leaves) / (plane * len(cell.states))
    row["same_bits"] = _same(train, leaves)
    row["training_ms"] = do_bench(train, rep=150, grad_to_none=leaves, return_mode="median")
    row["host_ms"] = _host(train, leaves)
    row["graph_ms"] = do_bench(_graph(train, leaves).replay, rep=150, return_mode="median")
    _clear(leaves)
    row["recompute_ms"] = do_bench(lambda: train(True), rep=150, grad_to_none=leaves, return_mode="median")
    row["flashrnn_ms"] = None
    if name in ("lstm", "slstm", "elman"):  # FlashRNN's gru has another order of gates
        row["flashrnn_ms"] = do_bench(as_flashrnn, rep=150, grad_to_none=leaves, return_mode="median")
    return row


def _clear(leaves: list[Tensor]) -> None:
    for leaf in leaves:
        leaf.grad = None


def _host(step: Callable[[], None], leaves: list[Tensor], steps: int = 20) -> float:
    """Milliseconds of the host's time for a step: the best of several rounds, each queued at once."""
    best = float("inf")
    for _ in range(10):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            _clear(leaves)
            step()
        best = min(best, (time.perf_counter() - start) / steps)
    return 1000 * best


def _graph(step: Callable[[], None], leaves: list[Tensor]) -> torch.cuda.CUDAGraph:
    """The step as a CUDA graph, captured after a run on the stream that capturing needs."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    _clear(leaves)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


def _peak(step: Callable[[], None], leaves: list[Tensor]) -> int:
    """Bytes a step takes at its peak beyond what was there before and the gradients it leaves."""
    step()
    _clear(leaves)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    gradients = sum(leaf.grad.numel() * leaf.grad.element_size() for leaf in leaves if leaf.grad is not None)
    peak = torch.cuda.max_memory_allocated() - before - gradients
    _clear(leaves)
    return peak


def _same(step: Callable[[], None], leaves: list[Tensor]) -> bool:
    """Whether repeated steps give gradients of the same bits."""
    found: list[list[Tensor]] = []
    for _ in range(REPEATS):
        _clear(leaves)
        step()
        found.append([leaf.grad.clone() for leaf in leaves if leaf.grad is not None])
    _clear(leaves)
    return all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def _peer(rows: list[dict[str, Any]], cell: str, heads: int, dim: int, batch: int) -> float | None:
    """FlashRNN's milliseconds for a training step, where the file has them."""
    for row in rows:
        sizes = (row["cell"], row["heads"], row["head_dim"], row["batch"], row["dtype"])
        if row["system"] == FUSED and sizes == (cell, heads, dim, batch, "bfloat16"):
            return float(row["forward_backward_ms"])
    return None


if __name__ == "__main__":
    main()
