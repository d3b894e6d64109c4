"""Train one model on several GPUs of a host: gradients are one process's, and what a step takes beside the all-reduce.

    python benchmarks/distributed.py                          # every GPU of this host, through NCCL
    python benchmarks/distributed.py --device cpu --processes 2 --hidden 16 --batch 2 --seq 4 --repetitions 1

The model is a projection, LSTM layers (--cell names another) and a readout. Each process has --batch sequences of its
own. Gradients by DistributedDataParallel and by fully_shard (FSDP2) are compared with those that one process finds for
all sequences at once; the error is the largest of a parameter's, relative, in the norm. Times are medians of forward
and backward: of one process alone with its --batch sequences, of both ways, and of the all-reduce of as many float32
numbers as there are gradients, alone. Parameters are float32; --dtype is what is computed in: under autocast, and as
FSDP2's param_dtype, with gradients reduced in float32.

It ends with exit code 1 where an error is larger than --tolerance.
"""

from __future__ import annotations

import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from kernelgen.torch import RNN

TOLERANCES = {"float32": 1e-4, "bfloat16": 3e-2, "float16": 4e-3}
WAYS = ("DistributedDataParallel", "fully_shard")


@dataclass(frozen=True)
class Settings:
    """What is trained. batch: sequences of each process."""

    device: str
    processes: int
    cell: str
    heads: int
    hidden: int
    layers: int
    batch: int
    seq: int
    dtype: str
    repetitions: int


class Model(nn.Module):
    """A projection, recurrent layers and a readout; forward gives the loss."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        size = settings.hidden
        self.project = nn.Linear(size, size)
        self.recurrent = RNN(size, size, settings.layers, cell=settings.cell, heads=settings.heads, batch_first=True)
        self.readout = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        """The mean square error of guessing each next input of x [B, T, D]."""
        output, _ = self.recurrent(self.project(x))
        return nn.functional.mse_loss(self.readout(output[:, :-1]).float(), x[:, 1:].float())


def worker(rank: int, settings: Settings, folder: str) -> None:
    """One process: process 0 writes what it found into the folder."""
    cuda = settings.device == "cuda"
    device = torch.device("cuda", rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if cuda else "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=settings.processes
    )
    try:
        found = _measure(rank, settings, device)
    finally:
        dist.destroy_process_group()
    if rank == 0:
        (Path(folder) / "found.json").write_text(json.dumps(found))


def _measure(rank: int, settings: Settings, device: torch.device) -> dict[str, Any]:
    """The errors of gradients and the times in milliseconds, by what was run."""
    torch.manual_seed(0)
    model = Model(settings).to(device)
    everything = torch.randn(settings.processes * settings.batch, settings.seq, settings.hidden).to(device)
    mine = everything[rank * settings.batch : (rank + 1) * settings.batch]
    kind = getattr(torch, settings.dtype)
    # The same precision where nothing is spread.
    cast = torch.autocast(device.type, kind) if kind is not torch.float32 else nullcontext()

    def step(one: nn.Module, x: Tensor, context: Any) -> None:
        one.zero_grad()
        with context:
            loss = one(x)
        loss.backward()

    step(model, everything, cast)
    wanted = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    times = {"one process": _time(lambda: step(model, mine, cast), settings, device)}
    errors = {}
    for way in WAYS:
        spread, context = _spread(way, copy.deepcopy(model), settings, device), cast
        if way == "fully_shard":
            context = nullcontext()
        step(spread, mine, context)
        found = {name.removeprefix("module."): parameter.grad for name, parameter in spread.named_parameters()}
        whole = {name: one.full_tensor() if isinstance(one, DTensor) else one for name, one in found.items()}
        errors[way] = max(float((whole[name] - other).norm() / other.norm()) for name, other in wanted.items())
        times[way] = _time(lambda: step(spread, mine, context), settings, device)  # noqa: B023  it is run at once
    flat = torch.cat([gradient.flatten() for gradient in wanted.values()])
    times["all-reduce alone"] = _time(lambda: dist.all_reduce(flat), settings, device)
    return {"settings": asdict(settings), "errors": errors, "ms": times, "numbers": flat.numel()}


def _spread(way: str, model: nn.Module, settings: Settings, device: torch.device) -> nn.Module:
    """The model over all processes."""
    if way == "DistributedDataParallel":
        return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)
    kind = getattr(torch, settings.dtype)
    policy = MixedPrecisionPolicy(param_dtype=None if kind is torch.float32 else kind, reduce_dtype=torch.float32)
    mesh = init_device_mesh(device.type, (settings.processes,))
    for part in (model.recurrent, model):
        fully_shard(part, mesh=mesh, mp_policy=policy)
    return model


def _time(run: Callable[[], Any], settings: Settings, device: torch.device) -> float:
    """The median time in milliseconds, all processes beginning at once; two more runs before are not counted."""
    times = []
    early = 2 if settings.repetitions > 1 else 0
    for repetition in range(settings.repetitions + early):
        dist.barrier()
        if device.type == "cuda":
            torch.cuda.synchronize()
        begin = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if repetition >= early:
            times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times)


def run(settings: Settings) -> dict[str, Any]:
    """Start the processes, and wait for what they find."""
    with tempfile.TemporaryDirectory() as folder:
        method = "spawn" if settings.device == "cuda" else "fork"
        torch.multiprocessing.start_processes(
            worker, (settings, folder), nprocs=settings.processes, start_method=method
        )
        found: dict[str, Any] = json.loads((Path(folder) / "found.json").read_text())
    return found


@click.command(help=__doc__)
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda")
@click.option("--processes", type=click.IntRange(1), help="Every GPU, unless it is said.")
@click.option("--cell", default="lstm")
@click.option("--heads", type=click.IntRange(1), default=1)
@click.option("--hidden", type=click.IntRange(1), default=512)
@click.option("--layers", type=click.IntRange(1), default=4)
@click.option("--batch", type=click.IntRange(1), default=16, help="Sequences of each process.")
@click.option("--seq", type=click.IntRange(2), default=512)
@click.option("--dtype", type=click.Choice(list(TOLERANCES)), help="bfloat16 on GPUs, float32 on a CPU.")
@click.option("--repetitions", type=click.IntRange(1), default=20)
@click.option("--tolerance", type=float, help="The largest error; by the dtype, unless it is said.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write what was found there.")
def main(path: Path | None, tolerance: float | None, **options: Any) -> None:
    """Check, measure, print."""
    if options["processes"] is None:
        options["processes"] = torch.cuda.device_count() if options["device"] == "cuda" else 2
    if options["device"] == "cuda" and not 1 <= options["processes"] <= torch.cuda.device_count():
        raise click.ClickException(
            f"{options['processes']} processes need as many GPUs, but this machine has {torch.cuda.device_count()}; "
            "--device cpu runs without"
        )
    options["dtype"] = options["dtype"] or ("bfloat16" if options["device"] == "cuda" else "float32")
    found = run(Settings(**options))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1))
    table = Table("", "error of gradients", "ms a step", "beside one process")
    alone = found["ms"]["one process"]
    for name, ms in found["ms"].items():
        error = found["errors"].get(name)
        table.add_row(name, "" if error is None else f"{error:.1e}", f"{ms:.3f}", f"{ms / alone:.2f}")
    console = Console(width=100)
    console.print(table)
    console.print(f"{options['processes']} processes on {options['device']}, {found['numbers']:,} parameters")
    limit = TOLERANCES[options["dtype"]] if tolerance is None else tolerance
    if max(found["errors"].values()) > limit:
        raise click.ClickException(f"gradients are not those of one process: an error is larger than {limit}")


if __name__ == "__main__":
    main()
