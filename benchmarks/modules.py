"""Measure kernelgen.torch.LSTM beside torch.nn.LSTM on this GPU, in one run, in float16 or another dtype.

    python benchmarks/modules.py                        # layers of 64 to 1024 units, one and both directions
    python benchmarks/modules.py --row 512x2:16:64      # UNITSxLAYERS:BATCH:STEPS, "both" behind it for both directions
    python benchmarks/modules.py --host                 # and what a call costs the host
    python benchmarks/modules.py --graphs               # and what ours takes by graphed()
    python benchmarks/modules.py --dtype tf32           # float32 modules, with PyTorch's switch for TF32 products on

A row has as many inputs as units and is time-major. Times are of calls from Python, one after another, medians in
milliseconds: a forward pass without gradients, and a training step with the gradients of the input and all parameters.
--host: microseconds until such a call returns, the least of some rounds. Errors are relative, against torch.nn.LSTM in
float64 with the same weights: of the output, and of the first layer's weight_hh's gradient. --graphs: ours by
kernelgen.torch.graphed(), from Python as before, and whether its results and gradients are the same bits.
"""

from __future__ import annotations

import copy
import datetime
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import torch
from peers.calls import milliseconds
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kernelgen.torch import LSTM, graphed

DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "tf32": torch.float32,
    "float64": torch.float64,
}
ROWS = (
    *(f"{size}:16:{seq}" for seq in (16, 64, 512) for size in ("64x1", "128x1", "128x2", "128x3", "256x2", "512x1")),
    *(f"{size}:16:{seq}" for seq in (64, 512) for size in ("1024x1", "1024x4")),
    *(f"{size}:16:{seq}:both" for seq in (64, 512) for size in ("64x4", "256x2", "512x4")),
    "512x1:32:128",
    "512x1:256:128",
    "256x2:32:512:both",
)
ROUNDS = 5


@dataclass(frozen=True)
class Row:
    """LSTM layers, and over what they run."""

    units: int
    layers: int
    batch: int
    seq: int
    both: bool

    @staticmethod
    def parse(text: str) -> Row:
        """From UNITSxLAYERS:BATCH:STEPS[:both]. Raises BadParameter."""
        try:
            size, batch, seq, *more = text.split(":")
            units, layers = map(int, size.split("x"))
            row = Row(units, layers, int(batch), int(seq), more == ["both"])
        except ValueError as error:
            raise click.BadParameter(f"a row is UNITSxLAYERS:BATCH:STEPS[:both], not {text!r}") from error
        if more not in ([], ["both"]) or min(units, layers, row.batch, row.seq) < 1:
            raise click.BadParameter(f"a row is UNITSxLAYERS:BATCH:STEPS[:both], each at least 1, not {text!r}")
        return row


@dataclass(frozen=True)
class Found:
    """What was measured of a row, ours and torch.nn's: milliseconds, the host's microseconds, and ours' errors."""

    row: Row
    forward: tuple[float, float]
    training: tuple[float, float]
    host_forward: tuple[float, float]
    host_training: tuple[float, float]
    error: float
    error_gradient: float
    graphs: Graphs | None


@dataclass(frozen=True)
class Graphs:
    """What was measured of ours by graphed(), as in Found, and whether it gives the same bits."""

    forward: float
    training: float
    host_forward: float
    host_training: float
    same: bool


@click.command(help=__doc__)
@click.option("--row", "rows", multiple=True, default=ROWS, help="UNITSxLAYERS:BATCH:STEPS[:both]")
@click.option("--dtype", type=click.Choice(tuple(DTYPES)), default="float16", show_default=True)
@click.option("--host", is_flag=True, help="Show the host's time too.")
@click.option("--graphs", is_flag=True, help="Ours by graphed(), too.")
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write every number there.")
def main(rows: tuple[str, ...], dtype: str, host: bool, graphs: bool, file: Path | None) -> None:
    """Measure and print."""
    parsed, console = [Row.parse(text) for text in rows], Console(width=240 if graphs else 160)
    if not torch.cuda.is_available():
        raise click.ClickException("this compares calls on a GPU, and PyTorch finds none")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = dtype == "tf32"
    name = f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, {datetime.date.today()}"
    table = Table(title=f"{name}, {dtype}: ours / torch.nn's")
    for column in ("units x layers", "directions", "B", "T", "forward ms", "", "training ms", ""):
        table.add_column(column, justify="right")
    by_graphs = ("graphs: forward ms", "training ms", "host us", "host us, training", "same bits")
    others = ("host us", "", "host us, training", "") if host else ()
    for column in (*others, "error", "of gradient", *(by_graphs if graphs else ())):
        table.add_column(column, justify="right")
    every = []
    for row in parsed:
        found = measure(row, DTYPES[dtype], graphs)
        every.append(found)
        cells = [f"{row.units} x {row.layers}", "2" if row.both else "1", str(row.batch), str(row.seq)]
        pairs = [(found.forward, ".3f"), (found.training, ".3f")]
        pairs += [(found.host_forward, ".0f"), (found.host_training, ".0f")] if host else []
        for (ours, other), form in pairs:
            cells += [f"{ours:{form}} / {other:{form}}", f"{ours / other:.2f}"]
        cells += [f"{found.error:.1e}", f"{found.error_gradient:.1e}"]
        if found.graphs is not None:
            fast = found.graphs
            cells += [f"{fast.forward:.3f}", f"{fast.training:.3f}"]
            cells += [f"{fast.host_forward:.0f}", f"{fast.host_training:.0f}", str(fast.same)]
        table.add_row(*cells)
        if file is not None:
            file.write_text(
                json.dumps({"machine": name, "dtype": dtype, "rows": [asdict(one) for one in every]}, indent=1) + "\n"
            )
    console.print(table)


def measure(row: Row, dtype: torch.dtype, graphs: bool) -> Found:
    """Both modules with the same weights on the same input. graphs: whether to measure graphed(), too."""
    torch.manual_seed(0)
    options = {"bidirectional": row.both, "device": "cuda", "dtype": dtype}
    other = torch.nn.LSTM(row.units, row.units, row.layers, **options)
    ours = LSTM(row.units, row.units, row.layers, **options)
    ours.load_state_dict(other.state_dict())
    exact = torch.nn.LSTM(row.units, row.units, row.layers, **{**options, "dtype": torch.float64})
    exact.load_state_dict({key: value.double() for key, value in other.state_dict().items()})
    x = torch.randn(row.seq, row.batch, row.units, device="cuda", dtype=dtype)

    def infer(module: torch.nn.Module) -> Callable[[], Tensor]:
        @torch.no_grad()
        def call() -> Tensor:
            output: Tensor = module(x)[0]
            return output

        return call

    def train(module: torch.nn.Module) -> Callable[[], Tensor]:
        given = x.to(next(module.parameters()).dtype).requires_grad_()

        def call() -> Tensor:
            output: Tensor = module(given)[0]
            leaves = [given, *module.parameters()]
            return torch.autograd.grad(output, leaves, torch.ones_like(output))[2]

        return call

    errors = [
        float((run(ours)().double() - run(exact)()).norm() / run(exact)().norm())
        for run in (lambda module: module(x.to(next(module.parameters()).dtype))[0].detach, train)
    ]
    pairs = [(infer(ours), infer(other)), (train(ours), train(other))]
    times = [tuple(milliseconds(call, calls=10, rounds=ROUNDS) for call in pair) for pair in pairs]
    hosts = [tuple(map(host_microseconds, pair)) for pair in pairs]
    by_graphs = None
    if graphs:
        fast = graphed(copy.deepcopy(ours))
        calls = (infer(fast), train(fast))
        for call in calls * 3:
            call()
        same = all(torch.equal(call(), plain()) for call, (plain, _) in zip(calls, pairs, strict=True))
        by_graphs = Graphs(
            *(milliseconds(call, calls=10, rounds=ROUNDS) for call in calls),  # type: ignore[arg-type]
            *map(host_microseconds, calls),
            same=same,
        )
    return Found(row, *times, *hosts, *errors, by_graphs)  # type: ignore[arg-type]


def host_microseconds(call: Callable[[], Tensor], calls: int = 20) -> float:
    """Until a call returns."""
    taken = []
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        taken.append((time.perf_counter() - begin) / calls)
    torch.cuda.synchronize()
    return 1e6 * min(taken)


if __name__ == "__main__":
    main()
