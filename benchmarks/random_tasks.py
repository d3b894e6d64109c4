"""Random recurrences through kernelgen.torch.rnn on a GPU, each against a float64 loop on the CPU that autograd
differentiates. Counts what was refused, what ran as a loop and what was wrong, each with its seed.

    python benchmarks/random_tasks.py                # 300 tasks, a worker process for each core
    python benchmarks/random_tasks.py --seed 1234    # one task, in words
    python benchmarks/random_tasks.py --device cpu   # the loop itself

Tasks come in families: those of one family need the same kernels, which are planned and compiled once, and differ in
all else. A worker has a family at a time: it plans, compiles, runs and compares, so that all cores compile at once.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kernelgen.cells import cell_names, load_cell
from kernelgen.cells.language import Cell
from kernelgen.errors import TilesmithError
from kernelgen.program.shape import DTYPES
from kernelgen.torch import reference, rnn
from kernelgen.torch.recording import recording
from kernelgen.torch.sequences import own_of

FAMILY = 3
"""Tasks of a family: their seeds follow each other."""

LAYOUTS = ("plain", "transposed", "expanded", "misaligned")
"""How a tensor lies in memory. expanded: its sequences, or its heads, are one."""

TENSORS = ("wx", "r", "b", "states")

WORK = 3e9
"""Multiplications of a pass at most: batch and steps of large heads are fewer."""

ALLOWED: Mapping[str, tuple[float, float]] = {
    "bfloat16": (2e-2, 6e-2),
    "float16": (3e-3, 1e-2),
    "float32": (1e-4, 3e-4),
    "tf32": (4e-3, 1e-2),
    "float64": (1e-11, 1e-10),
}
"""Relative errors, forward and backward, in the norm: the float64 loop does not round h, so that roundings add up."""

FLOOR = 0.02
"""And where a gradient almost vanishes: what elements may be off by, as a fraction of those given from outside, times
the relative error."""


SHOWN = 8
"""Tasks that took longest."""

ROUNDING: Mapping[str, float] = {"bfloat16": 2e-3, "float16": 2.5e-4, "float32": 3e-8, "tf32": 2.5e-4, "float64": 5e-17}
"""What a product's factors are off by, relative, about."""

KINKED = 4.0
"""How far off a gradient may be, in what it changes by when R and Wx change by a rounding. That is much where a cell
has a maximum: an element on its other side has another gradient. Of sLSTM's 2.7 million elements at 1 x 862, 100 of
them make 99 % of that."""

CHANGES = 3
"""How often R and Wx are changed: elements so close to each other are few, and one change may pass them all by."""


@dataclass(frozen=True)
class Task:
    """A recurrence and how it is asked for. parameters: the dtype of R, b and the states. layouts: of wx, r, b and the
    states. needs: which of them require a gradient. given: which results have gradients from outside."""

    seed: int
    cell: str
    batch: int
    seq: int
    heads: int
    dim: int
    dtype: str
    parameters: str
    returns: str
    recompute: bool
    checkpoint: int | None
    resets: bool
    lengths: str
    initial: bool
    layouts: tuple[str, ...]
    needs: tuple[str, ...]
    given: tuple[str, ...]

    def __str__(self) -> str:
        fields = (f"{field.name}={getattr(self, field.name)}" for field in dataclasses.fields(self))
        return " ".join(fields)


@dataclass(frozen=True)
class Outcome:
    """What became of a task. loops: passes for which there was no kernel. error: why it was refused, or failed.
    seconds: that it took with its kernels, without the reference."""

    task: Task
    kind: str
    loops: int = 0
    error: str = ""
    seconds: float = 0.0


def draw(seed: int, *, largest: int = 8192) -> Task:
    """The task of a seed. largest: units of a head, at most."""
    family = random.Random(f"family {seed // FAMILY}")
    cell = load_cell(family.choice(cell_names()))
    dtype = family.choice(DTYPES)
    sixteen = dtype in ("bfloat16", "float16")
    dim = family.choice([family.randint(1, 600)] * 10 + [family.randint(601, 4096), 2 * family.randint(301, 2048)])
    if family.random() < 0.01:
        dim = 8192
    dim = dim if dim <= largest else 1 + dim % largest
    batch, heads = family.choice([0, 1, 2, 3] + [family.randint(1, 70)] * 12), family.choice([1, 1, 2, 3, 5])
    heads = 1 if dim > 600 else heads
    products = max(1, len(cell.recurrent_gates)) * dim * dim * heads
    batch = min(batch, max(1, int(WORK / 8 / products)))
    how = family.choice(["nothing", "gates", "gates", "gates", "recompute", "checkpoint"])
    own = random.Random(f"task {seed}")
    seq = min(own.randint(1, 40), max(1, int(WORK / max(1, batch) / products)))
    needs = tuple(name for name in TENSORS if own.random() < 0.6) or (own.choice(TENSORS),)
    resets = family.random() < 0.3 and how != "checkpoint"
    return Task(
        seed=seed,
        cell=cell.name,
        batch=batch,
        seq=seq,
        heads=heads,
        dim=dim,
        dtype=dtype,
        parameters="float32" if sixteen and family.random() < 0.3 else "same",
        returns=family.choice(["states", "hidden"]),
        recompute=how == "recompute",
        checkpoint=own.randint(1, seq) if how == "checkpoint" else None,
        resets=resets,
        lengths=own.choice(["list", "cpu", "device"]) if family.random() < 0.3 else "",
        initial=own.random() < 0.6 or needs == ("states",),
        layouts=tuple(own.choice(LAYOUTS) for _ in TENSORS),
        needs=() if how == "nothing" else needs,
        given=own.choice([("every", "last"), ("every",), ("last",)]),
    )


def lay_out(values: Tensor, layout: str, axis: int) -> Tensor:
    """The same values, lying in memory as asked. axis: along which an expanded one is all alike."""
    if layout == "transposed":
        return values.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "expanded" and values.shape[axis]:
        return values.narrow(axis, 0, 1).clone().expand(values.shape)
    if layout == "misaligned":
        return torch.cat([values.new_zeros(1), values.flatten()])[1:].view(values.shape)
    return values


def tensors_of(task: Task, cell: Cell) -> tuple[dict[str, Tensor | None], dict[str, Any], dict[str, Tensor]]:
    """What a task is given, on the CPU: tensors by name, what sequences have of their own, and gradients from
    outside."""
    draw_from = torch.Generator().manual_seed(task.seed)
    stored = torch.float32 if task.dtype == "tf32" else getattr(torch, task.dtype)
    wide = torch.float32 if task.parameters == "float32" else stored

    def uniform(low: float, high: float, *size: int, dtype: torch.dtype = stored) -> Tensor:
        values = torch.rand(size, generator=draw_from, dtype=torch.float64)
        return (low + (high - low) * values).to(dtype)

    batch, seq, heads, dim = task.batch, task.seq, task.heads, task.dim
    reach = 0.7 * cell.gain / dim**0.5
    bounds = [cell.ranges.get(cell.gates[gate].name, (-1.0, 1.0)) for gate in cell.bias_gates]
    biases = [uniform(*bound, heads, dim, dtype=wide) for bound in bounds]
    given: dict[str, Tensor | None] = {
        "wx": uniform(-1, 1, batch, seq, len(cell.input_gates), heads, dim),
        "r": uniform(-reach, reach, len(cell.recurrent_gates), heads, dim, dim, dtype=wide),
        "b": torch.stack(biases) if biases else torch.empty(0, heads, dim, dtype=wide),
        "states": torch.stack([uniform(*cell.range(name), batch, heads, dim, dtype=wide) for name in cell.states])
        if task.initial
        else None,
    }
    for (name, values), layout in zip(given.items(), task.layouts, strict=True):
        given[name] = None if values is None else lay_out(values, layout, 0 if name == "wx" else 1)
    own: dict[str, Any] = {}
    if task.resets:
        own["resets"] = torch.rand((batch, seq), generator=draw_from) < 0.15
    if task.lengths:
        own["lengths"] = torch.randint(0, seq + 1, (batch,), generator=draw_from)
    kept = 1 if task.returns == "hidden" else len(cell.states)
    outside = {
        "every": uniform(-1, 1, kept, batch, seq, heads, dim),
        "last": uniform(-1, 1, len(cell.states), batch, heads, dim),
    }
    return given, own, {name: outside[name] for name in task.given}


def run(task: Task, device: str) -> tuple[dict[str, Tensor], int]:
    """What rnn() makes of a task, by names, on the CPU: results and gradients; and how many passes ran as loops."""
    cell = load_cell(task.cell)
    given, own, outside = tensors_of(task, cell)
    placed = {name: None if values is None else _moved(values, device) for name, values in given.items()}
    for name in task.needs:
        if (leaf := placed[name]) is not None:
            leaf.requires_grad_()
    if "resets" in own:
        own["resets"] = own["resets"].to(device)
    if task.lengths:
        lengths = own["lengths"]
        own["lengths"] = (
            lengths.tolist() if task.lengths == "list" else lengths.to(device if task.lengths == "device" else "cpu")
        )
    options: dict[str, Any] = {"returns": task.returns, "recompute": task.recompute, "checkpoint": task.checkpoint}
    with tf32(task.dtype == "tf32"), recording() as recorded, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        every, last = rnn(placed["wx"], placed["r"], placed["b"], placed["states"], task.cell, **options, **own)
        results = {"every": every, "last": last}
        leaves = {name: placed[name] for name in task.needs if placed[name] is not None}
        made = {name: values.detach() for name, values in results.items()}
        if leaves:
            chosen = [results[name] for name in outside]
            found = torch.autograd.grad(
                chosen, [*leaves.values()], [values.to(device) for values in outside.values()], allow_unused=True
            )
            made |= {f"d_{name}": grad for name, grad in zip(leaves, found, strict=True) if grad is not None}
        made = {name: values.cpu() for name, values in made.items()}
    return made, recorded.loops


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Let products of float32 round their factors, or not."""
    switch = torch.backends.cuda.matmul
    before, switch.allow_tf32 = switch.allow_tf32, allowed
    try:
        yield
    finally:
        switch.allow_tf32 = before


def _moved(values: Tensor, device: str) -> Tensor:
    """A tensor on another device, lying in memory as it does here."""
    base = values._base if values._base is not None else values
    moved = base.detach().to(device) if device != "cpu" else base.detach().clone()
    return moved.as_strided(values.shape, values.stride(), values.storage_offset())


def expected_of(task: Task, rounding: float = 0.0, seed: int = 0) -> dict[str, Tensor]:
    """The same by the float64 loop, differentiated by autograd. rounding: how much each element of R and Wx is changed
    first, relative, at random."""
    cell = load_cell(task.cell)
    given, own, outside = tensors_of(task, cell)
    rounded = getattr(torch, "float32" if task.dtype == "tf32" else task.dtype)
    wide = {name: None if each is None else each.to(rounded).double() for name, each in given.items()}
    generator = torch.Generator().manual_seed(task.seed + 1000 * seed)
    for name in ("r", "wx") if rounding else ():
        values = wide[name]
        assert values is not None
        wide[name] = values * (1 + rounding * torch.randn(values.shape, generator=generator, dtype=torch.float64))
    for name in task.needs:
        if (leaf := wide[name]) is not None:
            leaf.requires_grad_()
    wx, r, b = wide["wx"], wide["r"], wide["b"]
    assert wx is not None
    assert r is not None
    assert b is not None
    masks = own_of(own.get("resets"), own.get("lengths"), wx)
    every, last, _ = reference.forward(cell, wx, r, b, wide["states"], own=masks)
    results = {"every": every[:1] if task.returns == "hidden" else every, "last": last}
    made = {name: values.detach() for name, values in results.items()}
    leaves = {name: values for name in task.needs if (values := wide[name]) is not None}
    if leaves:
        grads = [values.double() for values in outside.values()]
        found = torch.autograd.grad([results[name] for name in outside], [*leaves.values()], grads, allow_unused=True)
        made |= {f"d_{name}": grad for name, grad in zip(leaves, found, strict=True) if grad is not None}
    return made


def difference(task: Task, made: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """What is wrong, in words; empty where nothing is."""
    wrong = []
    changed: list[dict[str, Tensor]] = []
    for name, want in expected.items():
        got = made.get(name)
        if got is None:
            wrong.append(f"no {name}")
        elif got.shape != want.shape:
            wrong.append(f"{name} is {list(got.shape)}, not {list(want.shape)}")
        else:
            allowed = ALLOWED[task.dtype][name.startswith("d_")]
            terms = task.batch * task.seq if name in ("d_r", "d_b") else 1
            floor = FLOOR * (want.numel() * max(1, terms)) ** 0.5
            error, norm = float((got.double() - want).norm()), float(want.norm())
            if error <= allowed * (norm + floor):
                continue
            if name.startswith("d_"):
                changed = changed or [expected_of(task, ROUNDING[task.dtype], seed) for seed in range(CHANGES)]
                if error <= KINKED * max(float((one[name] - want).norm()) for one in changed):
                    continue
            wrong.append(f"{name} is off by {error / (norm or 1.0):.2g} of its norm {norm:.2g}")
    return "; ".join(wrong)


def outcome(task: Task, device: str) -> Outcome:
    """Run a task and compare."""
    begin = time.perf_counter()
    try:
        made, loops = run(task, device)
    except TilesmithError as error:
        return Outcome(task, "refused", error=f"{type(error).__name__}: {error}")
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        return Outcome(task, "failed", error=f"{type(error).__name__}: {error}")
    seconds = time.perf_counter() - begin
    wrong = difference(task, made, expected_of(task))
    return Outcome(task, "failed" if wrong else "right", loops, wrong, seconds)


def families(seeds: range) -> Iterator[tuple[int, ...]]:
    """Seeds of tasks that need the same kernels."""
    for first in range(seeds.start // FAMILY * FAMILY, seeds.stop, FAMILY):
        yield tuple(seed for seed in range(first, first + FAMILY) if seed in seeds)


def _family(work: tuple[tuple[int, ...], str]) -> list[Outcome]:
    seeds, device = work
    torch.set_num_threads(1)
    return [outcome(draw(seed), device) for seed in seeds]


@click.command(help=__doc__)
@click.option("--tasks", default=300, show_default=True, type=click.IntRange(1))
@click.option("--first", default=0, show_default=True, help="seed of the first task", type=click.IntRange(0))
@click.option("--seed", default=None, help="run the task of this seed alone", type=click.IntRange(0))
@click.option("--device", default="cuda", show_default=True)
@click.option("--seconds", default=150.0, show_default=True, help="what is not done by then is left out")
@click.option("--workers", default=len(os.sched_getaffinity(0)), show_default="cores", type=click.IntRange(1))
def main(tasks: int, first: int, seed: int | None, device: str, seconds: float, workers: int) -> None:
    """Run them and print what became of them."""
    console, begin = Console(width=160), time.perf_counter()
    if seed is not None:
        console.print(str(draw(seed)))
        found = [outcome(draw(seed), device)]
        _tell(console, found)
    else:
        work = [(family, device) for family in families(range(first, first + tasks))]
        found = []
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            results = pool.imap_unordered(_family, work)
            with suppress(StopIteration, multiprocessing.TimeoutError):
                while True:
                    some = results.next(timeout=begin + seconds - time.perf_counter())
                    _tell(console, some)
                    found += some
    table = Table("dtype", "tasks", "right", "wrong", "refused", "passes as loops")
    for dtype in (*DTYPES, "all"):
        chosen = [each for each in found if dtype in (each.task.dtype, "all")]
        kinds = Counter(each.kind for each in chosen)
        # No sequences need no kernel.
        loops = sum(each.loops for each in chosen if each.task.batch)
        table.add_row(dtype, *map(str, (len(chosen), kinds["right"], kinds["failed"], kinds["refused"], loops)))
    console.print(table)
    slow = sorted(found, key=lambda one: -one.seconds)[:SHOWN]
    taken = ", ".join(f"{each.task.seed} ({each.seconds:.0f} s)" for each in slow)
    asked = {seed} if seed is not None else set(range(first, first + tasks))
    console.print(f"{len(found)} of {len(asked)} tasks in {time.perf_counter() - begin:.0f} s; the longest: {taken}")
    if missing := asked - {each.task.seed for each in found}:
        console.print("not done by then: " + ", ".join(map(str, sorted(missing))))
    sys.exit(bool(missing) or any(each.kind != "right" for each in found))


def _tell(console: Console, found: Sequence[Outcome]) -> None:
    """Print at once what was refused, wrong, or ran as a loop."""
    for each in found:
        if each.kind != "right" or (each.loops and each.task.batch):
            what = each.error or f"{each.loops} passes ran as loops"
            console.print(f"seed {each.task.seed}: {each.kind}: {what}\n  {each.task}", markup=False, highlight=False)


if __name__ == "__main__":
    main()
