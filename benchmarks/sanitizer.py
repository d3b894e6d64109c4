"""Run NVIDIA's compute-sanitizer over the kernels of every cell: forward, backward, and those of dR and db. Needs a
GPU and the CUDA toolkit's compute-sanitizer.

    python benchmarks/sanitizer.py                   # memcheck, racecheck, initcheck, synccheck
    python benchmarks/sanitizer.py --tool memcheck --part cluster_backward

Each tool runs this file once more with --inside; that run validates kernels at small shapes and exits with status 0
if their results are right. The sanitizer turns any finding into its own exit status.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from kernelgen.build.compile import compile_program, compile_source
from kernelgen.cells import cell_names, load_cell
from kernelgen.cells.language import Cell
from kernelgen.device import gpu
from kernelgen.errors import InfeasibleError, TilesmithError
from kernelgen.hardware.profile import Profile
from kernelgen.program.program import Program
from kernelgen.program.shape import Shape
from kernelgen.program.task import Direction
from kernelgen.program.tiling import Tiling
from kernelgen.schedules import get, schedule_names
from kernelgen.schedules.shared.parameter_gradients import ParameterGradients
from kernelgen.tuning.plan import plan, spread
from kernelgen.tuning.selection import compiled
from kernelgen.verify.gpu_worker import GpuJob, _UseCases, run
from kernelgen.verify.inputs import random_inputs
from kernelgen.verify.validate import gpu_cases

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
PARTS = ("forward", "backward", "training", "modules")
FINDING = 86
"""The exit status the sanitizer is asked to give when it finds something."""


@click.command(help=__doc__)
@click.option("--tool", "tools", type=click.Choice(TOOLS), multiple=True, default=TOOLS)
@click.option(
    "--part",
    "parts",
    type=click.Choice([*PARTS, *schedule_names("forward"), *schedule_names("backward")]),
    multiple=True,
    default=PARTS,
    help="forward, backward: the tilings that the model would choose of all schedules; training: through PyTorch; "
    "modules: whole passes over a module's layers, products of matrices included",
)
@click.option("--inside", is_flag=True, hidden=True)
def main(tools: tuple[str, ...], parts: tuple[str, ...], inside: bool) -> None:
    """Run the tools, or be run by one."""
    if inside:
        count = sum(THROUGH_PYTORCH[part]() if part in THROUGH_PYTORCH else _validate(part) for part in parts)
        print(f"{count} kernels are right")
        return
    _compile(parts)
    console, shown = Console(), Table("tool", "result", "said")
    failed = False
    with ThreadPoolExecutor(len(tools)) as pool:  # each mostly waits for its one thread on the host
        results = list(pool.map(partial(_under, parts=parts), tools))
    for tool, result in zip(tools, results, strict=True):
        lines = [
            line
            for line in (result.stdout + result.stderr).splitlines()
            if (line.startswith("=") and "SUMMARY" in line) or line.endswith("are right")
        ]
        verdict = "clean" if result.returncode == 0 else "FOUND" if result.returncode == FINDING else "failed"
        failed |= result.returncode != 0
        shown.add_row(tool, verdict, " ".join(lines) or result.stderr[-800:])
        if result.returncode:
            console.print(result.stdout[:3000], result.stderr[-2000:], markup=False)
    console.print(shown)
    raise SystemExit(int(failed))


def _under(tool: str, parts: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run this file under a tool."""
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", str(FINDING)]
    if tool == "memcheck":  # CUDA's Python bindings ask the driver for functions of later versions, which is no finding
        command += ["--report-api-errors", "no"]
    command += [sys.executable, __file__, "--inside", *(word for part in parts for word in ("--part", part))]
    return subprocess.run(command, capture_output=True, text=True, check=False)


SHAPES = {
    "forward": (Shape(5, 19, 2, 64, "bfloat16", "gates"), Shape(9, 6, 1, 33, "float16", "states")),
    "backward": (
        Shape(5, 19, 2, 64, "bfloat16", "gates"),
        Shape(9, 6, 1, 33, "float16", "hidden"),
        Shape(5, 19, 2, 64, "float16", "hidden", recompute=True),
        Shape(9, 6, 1, 33, "bfloat16", "states", recompute=True),
    ),
    "training": (Shape(17, 37, 1, 64), Shape(2, 5, 1, 33, "float16")),  # the first: several parts of the steps
}


def _cells() -> list[Cell]:
    return [load_cell(name) for name in cell_names()]


def _direction(part: str) -> Any:
    """The pass that a part is of."""
    return part if part in PARTS else get(part).direction


def _tilings(cell: Cell, shape: Shape, profile: Profile, part: str) -> list[Tiling]:
    """The model's best, one with whole matrix tiles, one that splits K, and one without any of R in registers; none
    where no kernel fits, as where the gates of a large cell are recomputed at an odd head dimension."""
    try:
        schedules = None if part in PARTS else [part]
        tilings = spread(plan(cell, shape, profile, schedules=schedules, direction=_direction(part)))
    except InfeasibleError:
        return []
    best = tilings[0]
    dense = next((t for t in tilings if t.values.get("batch_tile", 0) >= 8), best)
    split = next((t for t in tilings if t.values.get("k_split", 1) > 1), best)
    loading = next((t for t in tilings if t.values.get("k_tiles_in_registers", 1) == 0), best)
    return list({str(tiling): tiling for tiling in (best, dense, split, loading)}.values())


def _compile(parts: tuple[str, ...]) -> None:
    """Bring every binary to the cache, in parallel and without the sanitizer, under which compiling takes minutes."""
    profile = gpu.device(0).profile()
    jobs: list[Callable[[], object]] = []
    for cell in _cells():
        for part in parts:
            if part == "modules":
                continue  # they compile what they need themselves
            for shape in SHAPES["training" if part == "training" else _direction(part)]:
                if part == "training":
                    jobs += [
                        partial(_choose, cell, replace(shape, save="gates"), profile, "forward"),
                        partial(_choose, cell, replace(shape, save="states"), profile, "forward"),
                        partial(_choose, cell, replace(shape, save="hidden"), profile, "backward"),
                        partial(_choose, cell, replace(shape, save="hidden", recompute=True), profile, "backward"),
                    ]
                    calls = ParameterGradients(cell, shape, profile).calls()
                    jobs += [partial(compile_source, call.source) for call in calls]
                else:
                    jobs += [partial(compile_program, each) for _, each in _programs(cell, shape, profile, part)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in [pool.submit(job) for job in jobs]:
            done.result()


def _choose(cell: Cell, shape: Shape, profile: Profile, direction: Direction) -> None:
    """Compile what PyTorch would choose; where there is nothing, it takes another way by itself."""
    with suppress(InfeasibleError):
        compiled(cell, shape, profile, direction)


def _programs(cell: Cell, shape: Shape, profile: Profile, part: str) -> Iterator[tuple[Tiling, Program]]:
    for tiling in _tilings(cell, shape, profile, part):
        yield tiling, get(tiling.schedule).program(cell, shape, profile, tiling)


def _validate(part: str) -> int:
    """Run tilings of each kind for every cell here, and compare with the reference."""
    profile, count = gpu.device(0).profile(), 0
    for cell in _cells():
        for shape in SHAPES[_direction(part)]:
            cases = gpu_cases(cell, shape, direction=_direction(part))
            run(_UseCases(cases, 0))
            for tiling, program in _programs(cell, shape, profile, part):
                cubins = tuple(binary.cubin for binary in compile_program(program))
                try:
                    run(GpuJob(program, cubins, measure_seconds=0))
                except TilesmithError as error:
                    error.add_note(f"{cell.name} by {tiling}")
                    raise
                count += len(cubins)
    return count


def _train() -> int:
    """Train every cell for a step through PyTorch, gates kept and recomputed."""
    import torch

    from kernelgen.torch import rnn

    count = 0
    for cell in _cells():
        for shape in SHAPES["training"]:
            inputs, kind = random_inputs(cell, shape), getattr(torch, shape.dtype)
            leaves = [
                torch.from_numpy(inputs[key].astype("float32")).to("cuda", kind).requires_grad_()
                for key in ("wx", "r", "b", "initial")
            ]
            gradients = []
            for recompute in (False, True):
                outputs = rnn(*leaves, cell=cell, returns="hidden", recompute=recompute)
                outside = [torch.ones_like(outputs[0]), torch.zeros_like(outputs[1])]
                gradients.append(torch.autograd.grad(outputs, leaves, outside))
                count += 3
            for kept, again in zip(*gradients, strict=True):
                difference = (kept.float() - again.float()).norm() / kept.float().norm().clamp(min=1e-6)
                assert difference < 0.1, f"{cell.name} {shape}: gradients differ by {difference:.1e}"
    return count


def _run_modules() -> int:
    """Train layers for a step, with the steps of input and output in either order, and run them without gradients; in
    one direction and in both, with dropout between them and without."""
    import torch

    from kernelgen.torch import GRU, LSTM, RNN

    count = 0
    both, drops = {"bidirectional": True}, {"dropout": 0.5}
    for kind, options in (
        (LSTM, {}), (GRU, drops), (RNN, {"cell": "slstm"}), (LSTM, both), (GRU, both | drops),
    ):  # fmt: skip
        for batch, seq, features, units in ((17, 19, 40, 64), (5, 9, 33, 48)):
            torch.manual_seed(0)
            module: Any = kind(features, units, 2, **options, dtype=torch.float16, device="cuda")
            x = torch.randn(seq, batch, features, dtype=torch.float16, device="cuda")
            results = []
            for first in (False, True):
                module.batch_first = first
                module.zero_grad()
                ordered = x.transpose(0, 1) if first else x
                given = ordered.clone(memory_format=torch.contiguous_format).requires_grad_()
                torch.manual_seed(1)  # the same elements are dropped
                output, _ = module(given)
                output.sum().backward()
                torch.manual_seed(1)
                with torch.no_grad():
                    again, _ = module(given)
                turned = [each.transpose(0, 1) if first else each for each in (output, again, given.grad)]
                results.append([*turned, *(one.grad.clone() for one in module.parameters())])
                count += 2 * 8 + 2 * (2 * 7 + 1) if module.bidirectional else 2 * 3 + 2 * 4
                count += 3 if module.dropout else 0
            for one, other in zip(*results, strict=True):
                difference = (one.float() - other.float()).norm() / one.float().norm().clamp(min=1e-6)
                assert difference < 0.01, f"{kind.__name__} {features} to {units}: they differ by {difference:.1e}"
    return count


THROUGH_PYTORCH: dict[str, Callable[[], int]] = {"training": _train, "modules": _run_modules}


if __name__ == "__main__":
    main()
