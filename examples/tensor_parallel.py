"""Heads over several GPUs: every process has some heads of each layer, and the results are one process's.

    python examples/tensor_parallel.py                          # every GPU of this host, through NCCL
    python examples/tensor_parallel.py --device cpu --processes 2

Heads do not see each other, so that a process runs its own over all steps without a word to the others. They speak
between layers: the output of all heads is gathered where the next layer reads it, or multiplied by each process's
columns of a readout and summed. Backward it is the other way round: what every process read has the sum of all
processes' gradients, and of what was gathered each takes its own part.

It compares outputs and gradients with those of the same model in one process, in float64 on a CPU, and says how long a
training step takes. Exit code 1 where an error, relative in the norm, is larger than 1e-6 (2e-2 in bfloat16 on GPUs).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from kernelgen.torch import RNN

SIZES = {"units": (2048, 8), "heads": (16, 4), "batch": (64, 2), "seq": (512, 5)}
"""On GPUs, and on a CPU."""


class Replicated(torch.autograd.Function):
    """What every process has whole and reads for its own heads: the gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient


class Gathered(torch.autograd.Function):
    """Every process's heads side by side, [T, B, D] of [T, B, D / N] each."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own.contiguous())
        return torch.cat(parts, -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.chunk(dist.get_world_size(), -1)[dist.get_rank()]


class Summed(torch.autograd.Function):
    """The sum of what the processes have; each has its gradient whole."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        whole = own.clone()
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Model(nn.Module):
    """Two layers and a readout, in one process."""

    def __init__(self, units: int, heads: int, cell: str, layer_norm: bool, **options: Any) -> None:
        super().__init__()
        recurrent = {"cell": cell, "heads": heads, "layer_norm": layer_norm}
        self.first = RNN(units, units, **recurrent, **options)
        self.second = RNN(units, units, **recurrent, **options)
        self.readout = nn.Linear(units, units, **options)

    def forward(self, x: Tensor) -> Tensor:
        """x [T, B, D] to [T, B, D]."""
        return self.readout(self.second(self.first(x)[0])[0])


class HeadParallel(nn.Module):
    """The same, with this process's heads, and its columns of the readout, of a model that every process has."""

    def __init__(self, whole: Model) -> None:
        super().__init__()
        units, like = whole.first.hidden_size, whole.readout.weight
        own = units // dist.get_world_size()
        options = {"device": like.device, "dtype": like.dtype}
        self.first, self.second = (
            RNN(units, own, cell=one.cell, heads=one.heads * own // units, layer_norm=one.layer_norm, **options)
            for one in (whole.first, whole.second)
        )
        self.readout = nn.Linear(own, units, **options)
        self.load_state_dict({name: own_part(name, value, units) for name, value in whole.state_dict().items()})

    def forward(self, x: Tensor) -> Tensor:
        """x [T, B, D], in every process, to [T, B, D], likewise."""
        h = Gathered.apply(self.first(Replicated.apply(x))[0])
        own = self.second(Replicated.apply(h))[0]
        return Summed.apply(functional.linear(own, self.readout.weight)) + self.readout.bias


def own_rows(whole: Tensor, units: int) -> Tensor:
    """This process's rows of a weight, a bias or a gradient [G D, ...], whose rows go by gate, head and unit."""
    count = dist.get_world_size()
    return whole.unflatten(0, (-1, count, units // count))[:, dist.get_rank()].flatten(0, 1)


def own_part(name: str, whole: Tensor, units: int) -> Tensor:
    """What this process has of a parameter of Model, or of its gradient. units: of a layer."""
    if name == "readout.weight":
        return whole.chunk(dist.get_world_size(), 1)[dist.get_rank()]
    return whole if name == "readout.bias" else own_rows(whole, units)


def worker(rank: int, settings: argparse.Namespace, folder: str) -> None:
    """One process; process 0 says what was found."""
    cuda = settings.device == "cuda"
    device, dtype = torch.device("cuda", rank) if cuda else torch.device("cpu"), getattr(torch, settings.dtype)
    if cuda:
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    backend = "nccl" if cuda else "gloo"
    dist.init_process_group(backend, init_method=f"file://{folder}/meet", rank=rank, world_size=settings.processes)
    try:
        found = compare(settings, device, dtype)
    finally:
        dist.destroy_process_group()
    if rank == 0:
        print(*(f"{name} {value:.3g}" for name, value in found.items()), sep="\n")
    limit = 1e-6 if dtype is torch.float64 else 2e-2
    if max(value for name, value in found.items() if name.startswith("error")) > limit:
        raise SystemExit(1)


def compare(settings: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """The largest errors of all processes, and milliseconds."""
    torch.manual_seed(0)
    sizes = (settings.units, settings.heads, settings.cell, settings.layer_norm)
    whole = Model(*sizes, device=device, dtype=dtype)
    x = torch.randn(settings.seq, settings.batch, settings.units, dtype=torch.float64).to(device, dtype)
    given = torch.randn(x.shape, dtype=torch.float64).to(device, dtype)
    parted = HeadParallel(whole)

    def step(model: nn.Module) -> list[Tensor]:
        leaf = x.clone().requires_grad_()
        output = model(leaf)
        return [output.detach(), *torch.autograd.grad(output, [leaf, *model.parameters()], given)]

    wanted, found = step(whole), step(parted)
    names = ["output", "x", *(name for name, _ in whole.named_parameters())]
    errors = {"output": 0.0, "gradients": 0.0}
    for name, made, all_of_it in zip(names, found, wanted, strict=True):
        want = all_of_it if name in ("output", "x") else own_part(name, all_of_it, settings.units)
        kind = "output" if name == "output" else "gradients"
        errors[kind] = max(errors[kind], float((made - want).norm() / want.norm()))
    largest = torch.tensor(list(errors.values()), device=device)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    result = {f"error of {name}": float(value) for name, value in zip(errors, largest, strict=True)}
    for name, model in (("one process", whole), (f"{settings.processes} processes", parted)):
        result[f"ms of a training step, {name}"] = milliseconds(lambda: step(model), settings, device)  # noqa: B023
    return result


def milliseconds(run: Any, settings: argparse.Namespace, device: torch.device) -> float:
    """The median, all processes beginning at once."""
    times = []
    for _ in range(settings.repetitions):
        dist.barrier()
        if device.type == "cuda":
            torch.cuda.synchronize()
        begin = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times)


def main() -> None:
    """Read the options, and start the processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--processes", type=int, help="every GPU, or 2 on a CPU")
    parser.add_argument("--cell", default="lstm")
    parser.add_argument("--layer-norm", action="store_true")
    for name, (cuda, cpu) in SIZES.items():
        parser.add_argument(f"--{name}", type=int, help=f"{cuda} on GPUs, {cpu} on a CPU")
    parser.add_argument("--dtype", choices=("float64", "bfloat16"), help="bfloat16 on GPUs, float64 on a CPU")
    parser.add_argument("--repetitions", type=int, default=10, help="training steps that are timed")
    settings = parser.parse_args()
    on_cpu = settings.device == "cpu"
    for name, sizes in SIZES.items():
        setattr(settings, name, getattr(settings, name) or sizes[on_cpu])
    settings.dtype = settings.dtype or ("float64" if on_cpu else "bfloat16")
    settings.processes = settings.processes or (2 if on_cpu else torch.cuda.device_count())
    if settings.heads % settings.processes:
        parser.error(f"{settings.heads} heads are not the same number for each of {settings.processes} processes")
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(
            worker, (settings, folder), settings.processes, start_method="fork" if on_cpu else "spawn"
        )


if __name__ == "__main__":
    main()
