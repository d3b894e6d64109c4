"""Measure the forward pass of the library's cells on this GPU, beside cuDNN where PyTorch is installed.

    python benchmarks/forward.py                       # four cells, three head dimensions, three batch sizes
    python benchmarks/forward.py --cell lstm --batch 16 --budget 30

Every row is tuned for `--budget` seconds first, validated at full size against float64, and measured as `tilesmith
tune` measures. cuDNN runs through torch.nn in float16 with one head of D units, its input product included, since it
knows no heads: the same D, and with H heads one H-th of our work. Writes --out (JSON) besides the table.
"""

from __future__ import annotations

import datetime
import json
import statistics
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from kernelgen.cells import load_cell
from kernelgen.device import gpu
from kernelgen.errors import TilesmithError
from kernelgen.program.shape import Shape
from kernelgen.tuning.tune import tune

HEADS = {32: 24, 64: 12, 128: 6}
MODULES = {"lstm": "LSTM", "gru": "GRU", "elman": "RNN"}


@click.command(help=__doc__)
@click.option("--cell", "cells", multiple=True, default=("lstm", "gru", "elman", "slstm"))
@click.option("--head-dim", "head_dims", type=int, multiple=True, default=tuple(HEADS))
@click.option("--batch", "batches", type=int, multiple=True, default=(1, 16, 128))
@click.option("--seq", default=1024)
@click.option("--budget", default=8.0, help="seconds of tuning per row")
@click.option("--save", default="hidden")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/forward.json"))
def main(
    cells: tuple[str, ...],
    head_dims: tuple[int, ...],
    batches: tuple[int, ...],
    seq: int,
    budget: float,
    save: str,
    out: Path,
) -> None:
    """Tune, measure, print and write."""
    console, rows = Console(width=160), []
    device = gpu.device(0)
    title = f"{device}, forward, T={seq}, bfloat16, saves {save}, {datetime.date.today()}"
    shown = Table(
        "cell", "heads x D", "B", "ms", "p10..p90", "us/step", "rel. error of h", "model us", "tiling", title=title
    )
    shown.add_column("cuDNN ms")
    shown.add_column("first valid s")
    for name in cells:
        for head_dim in head_dims:
            for batch in batches:
                shape = Shape(batch, seq, HEADS.get(head_dim, 768 // head_dim or 1), head_dim, "bfloat16", save)
                try:
                    result = tune(load_cell(name), shape, "auto", budget=budget, again=True)
                except TilesmithError as error:
                    console.print(f"{name} {shape}: {error}")
                    continue
                trial, tiling = result.best.trial, result.best.tiling
                assert trial.measurement is not None
                assert trial.validation is not None
                measured = trial.measurement
                row = {
                    "cell": name,
                    "heads": shape.heads,
                    "head_dim": head_dim,
                    "batch": batch,
                    "seq": seq,
                    "ms": measured.median_ms,
                    "p10_ms": measured.p10_ms,
                    "p90_ms": measured.p90_ms,
                    "h_error": trial.validation.errors["h"],
                    "model_us": tiling.clocks_per_step / result.profile.clock_mhz,
                    "tiling": dict(tiling.values),
                    "first_valid_s": result.first_valid,
                    "tried": len(result.prepared_trials),
                    "cudnn_ms": _cudnn(name, head_dim, batch, seq),
                }
                rows.append(row)
                short = "/".join(str(value) for value in tiling.values.values())
                shown.add_row(
                    name,
                    f"{shape.heads} x {head_dim}",
                    str(batch),
                    f"{measured.median_ms:.3f}",
                    f"{measured.p10_ms:.3f}..{measured.p90_ms:.3f}",
                    f"{1000 * measured.median_ms / seq:.3f}",
                    f"{row['h_error']:.1e}",
                    f"{row['model_us']:.3f}",
                    short,
                    "" if row["cudnn_ms"] is None else f"{row['cudnn_ms']:.3f}",
                    f"{row['first_valid_s']:.1f}",
                )
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_text(json.dumps({"title": title, "rows": rows}, indent=1))
    console.print(shown)


def _cudnn(cell: str, head_dim: int, batch: int, seq: int) -> float | None:
    """Median milliseconds of torch.nn's module in float16, without gradients; None where there is none."""
    if cell not in MODULES:
        return None
    try:
        import torch
    except ImportError:
        return None
    module: Any = getattr(torch.nn, MODULES[cell])(head_dim, head_dim).cuda().half().eval()
    x = torch.randn(seq, batch, head_dim, device="cuda", dtype=torch.float16)
    times = []
    with torch.no_grad():
        for _ in range(23):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            module(x)
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
    return statistics.median(times[3:])


if __name__ == "__main__":
    main()
