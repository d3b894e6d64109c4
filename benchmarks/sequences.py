"""What resets and lengths cost, and what lengths save: rnn() on one GPU, captured in CUDA graphs.

    python benchmarks/sequences.py
    python benchmarks/sequences.py --row lstm:12x64:16:1024 --mean 0.2

For each row: milliseconds of a forward pass without gradients and of a training step (gradients of Wx, R and b), as
medians, and as multiples of the first line, where every sequence is whole.

- whole: no resets, no lengths.
- resets: one in 16 steps, random; no initial states, as after the end of an episode.
- initial: the same with initial states, which a reset goes back to.
- none: resets that are never set.
- full: lengths, all of T.
- lengths: of mean --mean of T, as one long recording in a batch of short ones; the longest has T steps.
- bounded: the same mean, but no sequence is longer than half of T.

Errors are those of the first 64 steps against the float64 reference: of h, and of the gradient of R.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import click
import numpy as np
import torch
from peers.rows import parse
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kernelgen.cells import load_cell
from kernelgen.program.dtypes import numpy_dtype
from kernelgen.program.shape import Shape
from kernelgen.torch import rnn
from kernelgen.verify import reference
from kernelgen.verify.inputs import random_inputs

ROWS = ("lstm:12x64:16:1024", "lstm:6x128:16:1024", "lstm:4x128:64:1024", "lstm:4x128:1024:1024", "gru:12x64:16:1024")
NAMES = ("wx", "r", "b", "initial")
CHECKED = 64


@click.command(help=__doc__)
@click.option("--row", "rows", multiple=True, default=ROWS, help="CELL:HEADSxDIM:BATCH:STEPS")
@click.option("--only", multiple=True, help="the lines to measure, by these names; every one unless given")
@click.option("--mean", default=0.2, show_default=True, help="of the lengths, as a part of the longest")
def main(rows: tuple[str, ...], only: tuple[str, ...], mean: float) -> None:
    """Measure and print."""
    shown = Table("row", "what", "forward ms", "times", "training ms", "times", "error h", "error dR")
    for text in rows:
        row = parse(text)
        shape = Shape(row.batch, row.seq, row.heads, row.head_dim)
        first: tuple[float, float] | None = None
        for what, own in kinds(shape, mean).items():
            if only and what not in only:
                continue
            forward, training = measured(row.cell, shape, own)
            first = first or (forward, training)
            wrong = errors(row.cell, shape, own)
            times = f"{forward / first[0]:.2f}", f"{training / first[1]:.2f}"
            shown.add_row(
                text, what, f"{forward:.3f}", times[0], f"{training:.3f}", times[1], *(f"{e:.1e}" for e in wrong)
            )
    Console(width=140).print(shown)


def kinds(shape: Shape, mean: float) -> dict[str, dict[str, Any]]:
    """What sequences have of their own, by the names above; "initial" says that there are initial states."""
    random = np.random.default_rng(0)
    resets = random.random((shape.batch, shape.seq)) < 1 / 16
    short = random.uniform(0, 2 * mean * shape.seq, shape.batch)
    lengths = short.astype(np.int64).clip(1, shape.seq)
    longest = lengths.copy()
    longest[0] = shape.seq
    return {
        "whole": {},
        "resets": {"resets": resets},
        "initial": {"resets": resets, "initial": True},
        "none": {"resets": np.zeros_like(resets)},
        "full": {"lengths": np.full(shape.batch, shape.seq)},
        "lengths": {"lengths": longest},
        "bounded": {"lengths": lengths.clip(1, shape.seq // 2)},
    }


def leaves_of(cell: str, shape: Shape, own: dict[str, Any]) -> tuple[list[Tensor], dict[str, Any]]:
    """The tensors, and what sequences have of their own, on the GPU."""
    inputs = random_inputs(load_cell(cell), shape)
    leaves = [torch.from_numpy(inputs[name].astype(np.float32)).bfloat16().cuda().requires_grad_() for name in NAMES]
    given = {name: torch.from_numpy(array).cuda() for name, array in own.items() if name != "initial"}
    return leaves if own.get("initial") else leaves[:3], given


def measured(cell: str, shape: Shape, own: dict[str, Any]) -> tuple[float, float]:
    """Milliseconds of a forward pass and of a training step."""
    leaves, given = leaves_of(cell, shape, own)
    plain = [leaf.detach() for leaf in leaves]

    def forward() -> None:
        rnn(*plain, cell=cell, returns="hidden", **given)

    def train() -> None:
        states, _ = rnn(*leaves, cell=cell, returns="hidden", **given)
        torch.autograd.grad(states, leaves[:3], d_states)

    with torch.no_grad():
        d_states = torch.randn_like(rnn(*plain, cell=cell, returns="hidden", **given)[0])
    return milliseconds(forward), milliseconds(train)


def milliseconds(step: Callable[[], None], runs: int = 25) -> float:
    """The median time of a step that is replayed as a CUDA graph."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    found = []
    for _ in range(runs):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        found.append(begin.elapsed_time(end))
    return statistics.median(found[5:])


def errors(cell: str, shape: Shape, own: dict[str, Any]) -> tuple[float, float]:
    """Relative errors of h and of the gradient of R, of a few sequences and steps of the same kind."""
    small = Shape(min(shape.batch, 8), min(shape.seq, CHECKED), shape.heads, shape.head_dim)
    cut: dict[str, Any] = {name: value for name, value in own.items() if name == "initial"}
    if "resets" in own:
        cut["resets"] = own["resets"][: small.batch, : small.seq]
    if "lengths" in own:
        cut["lengths"] = own["lengths"][: small.batch] * small.seq // shape.seq
    leaves, given = leaves_of(cell, small, cut)
    states, _ = rnn(*leaves, cell=cell, returns="hidden", **given)
    outside = torch.randn_like(states)
    (d_r,) = torch.autograd.grad(states, leaves[1:2], outside)
    arrays = [leaf.detach().double().cpu().numpy() for leaf in leaves]
    masks = {name: value for name, value in cut.items() if name != "initial"}
    kind = numpy_dtype("bfloat16")
    wanted = reference.forward(load_cell(cell), *arrays, round_h=kind, **masks)
    back = reference.backward(
        load_cell(cell), *arrays, d_states=outside.double().cpu().numpy(), round_h=kind, result=wanted, **masks
    )
    return difference(states, wanted.states[:1]), difference(d_r, back.d_r)


def difference(found: Tensor, wanted: Any) -> float:
    """The relative error in the norm."""
    return float(np.linalg.norm(found.detach().double().cpu().numpy() - wanted) / np.linalg.norm(wanted))


if __name__ == "__main__":
    main()
