"""What a workload is, and how one is trained and timed."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import click
import torch
from torch import Tensor, nn

Numbers = dict[str, Any]
Mark: TypeAlias = torch.cuda.Event | float

DTYPES = {"float32": None, "tf32": None, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""What is computed in, and autocast's dtype for it."""

WARM_UP = 10
"""Steps whose times are not counted; at most half of them."""


class Workload(Protocol):
    """A model, its data and its training step. Everything random comes from a step's number.

    name: for people. value: what a step reports, such as a loss. peer: what the twin's recurrence is. dtype,
    peer_dtype: what ours and the twin compute in on a GPU, unless another is asked for.
    """

    name: str
    value: str
    peer: str
    dtype: str
    peer_dtype: str

    def build(self, ours: bool) -> nn.Module:
        """The model on the CPU, with weights of a fixed seed; both have parameters of the same names."""

    def recurrences(self, model: nn.Module) -> Sequence[nn.Module]:
        """The modules that are the recurrence."""

    def step(self, model: nn.Module, update: Update, number: int) -> Tensor:
        """A training step; the value, on the model's device."""


@dataclass(frozen=True)
class Update:
    """Gradients of a loss, clipped, and a step of the optimiser. dtype: autocast's, None for none."""

    device: torch.device
    dtype: torch.dtype | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    parameters: Sequence[Tensor]

    def cast(self) -> torch.autocast:
        """The context in which a loss is computed."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    def __call__(self, loss: Tensor) -> None:
        """Learn from a loss."""
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()


@dataclass(frozen=True)
class Settings:
    """How all are trained. seconds: after which the twin ends, None for never. rate: AdamW's learning rate."""

    device: torch.device
    steps: int
    seconds: float | None
    rate: float
    probes: int


def train(workload: Workload, ours: bool, dtype: str, settings: Settings) -> Numbers:
    """Train on the steps 0, 1, ..., then time the recurrence in a few more.

    Raises ClickException for a value that is not finite.
    """
    with allowed_tf32(dtype == "tf32"):
        model = workload.build(ours).to(settings.device).train()
        parameters = list(model.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=settings.rate, fused=settings.device.type == "cuda")
        scaler = torch.amp.GradScaler(settings.device.type, enabled=dtype == "float16")
        update = Update(settings.device, DTYPES[dtype], optimizer, scaler, parameters)
        values, marks = [], []
        begun = time.perf_counter()
        for number in range(settings.steps):
            begin = mark(settings.device)
            values.append(workload.step(model, update, number))
            marks.append((begin, mark(settings.device)))
            if settings.seconds is not None and number % 5 == 4:
                synchronise(settings.device)
                if time.perf_counter() - begun > settings.seconds:
                    break
        synchronise(settings.device)
        found = torch.stack(values).tolist()
        bad = next((step for step, value in enumerate(found, 1) if not math.isfinite(value)), None)
        system = "kernelgen.torch" if ours else workload.peer
        if bad is not None:
            raise click.ClickException(
                f"{workload.name}, {system} in {dtype}: {workload.value} of step {bad} is {found[bad - 1]}"
            )
        times = sorted(milliseconds(*pair) for pair in marks[min(WARM_UP, len(marks) // 2) :])
        inside, whole = _shares(workload, model, update, settings)
    last = found[-max(5, len(found) // 10) :]
    return {
        "workload": workload.name,
        "system": system,
        "dtype": dtype,
        "parameters": sum(parameter.numel() for parameter in parameters),
        workload.value: found,
        "end": statistics.fmean(last),
        "spread": statistics.pstdev(last),
        "step_ms": statistics.median(times),
        "step_p10_ms": times[round(0.1 * (len(times) - 1))],
        "step_p90_ms": times[round(0.9 * (len(times) - 1))],
        "recurrence_ms": inside,
        "recurrence_share": inside / whole,
    }


def _shares(workload: Workload, model: nn.Module, update: Update, settings: Settings) -> tuple[float, float]:
    """The median time of a few steps more, in milliseconds: within the recurrence, forward and backward, and all."""
    inside, whole = [], []
    for probe in range(settings.probes):
        pairs: list[list[Mark]] = []
        with watched(workload.recurrences(model), pairs, settings.device):
            begin = mark(settings.device)
            workload.step(model, update, settings.steps + probe)
            end = mark(settings.device)
        synchronise(settings.device)
        inside.append(sum(milliseconds(*pair) for pair in pairs if len(pair) == 2))
        whole.append(milliseconds(begin, end))
    return statistics.median(inside), statistics.median(whole)


@contextmanager
def watched(modules: Sequence[nn.Module], pairs: list[list[Mark]], device: torch.device) -> Iterator[None]:
    """Note when the modules begin and end, forward and backward."""
    open_pairs: dict[tuple[nn.Module, bool], list[Mark]] = {}

    def begin(module: nn.Module, backward: bool) -> None:
        open_pairs[module, backward] = [mark(device)]
        pairs.append(open_pairs[module, backward])

    def end(module: nn.Module, backward: bool) -> None:
        if (module, backward) in open_pairs:
            open_pairs.pop((module, backward)).append(mark(device))

    handles: list[Any] = []
    for module in modules:
        handles += [
            module.register_forward_pre_hook(lambda one, *_: begin(one, False)),
            module.register_forward_hook(lambda one, *_: end(one, False)),
            module.register_full_backward_pre_hook(lambda one, *_: begin(one, True)),
            module.register_full_backward_hook(lambda one, *_: end(one, True)),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def allowed_tf32(allowed: bool) -> Iterator[None]:
    """PyTorch's switches for TF32, for a while."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def mark(device: torch.device) -> Mark:
    """A moment: on a GPU, of its queue."""
    if device.type == "cpu":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def milliseconds(begin: Mark, end: Mark) -> float:
    """From one moment to another."""
    if isinstance(begin, float) or isinstance(end, float):
        return 1000 * (float(end) - float(begin))
    return float(begin.elapsed_time(end))


def synchronise(device: torch.device) -> None:
    """Wait for the GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()
