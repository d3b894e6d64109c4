"""Run NVIDIA's compute-sanitizer over the kernels of every cell: forward, backward, and those of dR and db. Needs a
GPU and the CUDA toolkit's compute-sanitizer.

    python benchmarks/sanitizer.py                   # memcheck, racecheck, initcheck, synccheck
    python benchmarks/sanitizer.py --tool racecheck

Each tool runs this file once more with --inside; that run validates kernels at small shapes and exits with status 0
if their results are right. The sanitizer turns any finding into its own exit status.
"""

from __future__ import annotations

import subprocess
import sys

import click
from rich.console import Console
from rich.table import Table

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
FINDING = 86
"""The exit status the sanitizer is asked to give when it finds something."""


@click.command(help=__doc__)
@click.option("--tool", "tools", type=click.Choice(TOOLS), multiple=True, default=TOOLS)
@click.option("--inside", is_flag=True, hidden=True)
def main(tools: tuple[str, ...], inside: bool) -> None:
    """Run the tools, or be run by one."""
    if inside:
        print(_validate(), "kernels are right")
        return
    console, shown = Console(), Table("tool", "result", "said")
    failed = False
    for tool in tools:
        command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", str(FINDING)]
        command += [sys.executable, __file__, "--inside"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = [line for line in (result.stdout + result.stderr).splitlines() if "SUMMARY" in line or "right" in line]
        verdict = "clean" if result.returncode == 0 else "FOUND" if result.returncode == FINDING else "failed"
        failed |= result.returncode != 0
        shown.add_row(tool, verdict, " ".join(lines) or result.stderr[-800:])
        if result.returncode:
            console.print(result.stdout[:3000])
    console.print(shown)
    raise SystemExit(int(failed))


def _validate() -> int:
    """Run tilings of each kind for every cell, forward and backward, here, and compare with the reference."""
    from kernelgen import gpu
    from kernelgen.bench import Candidate, _Cases, run
    from kernelgen.cells import cell_names, load_cell
    from kernelgen.compile import compile_source
    from kernelgen.plan import plan, spread
    from kernelgen.schedules import get
    from kernelgen.shape import Shape
    from kernelgen.validate import gpu_cases

    profile = gpu.device(0).profile()
    count = 0
    for cell in map(load_cell, cell_names()):
        for direction, shape in (
            ("forward", Shape(5, 19, 2, 64, "bfloat16", "gates")),
            ("forward", Shape(9, 6, 1, 33, "float16", "states")),
            ("backward", Shape(5, 19, 2, 64, "bfloat16", "gates")),
            ("backward", Shape(9, 6, 1, 33, "float16", "hidden")),
        ):
            cases = gpu_cases(cell, shape, direction=direction)  # type: ignore[arg-type]
            tilings = spread(plan(cell, shape, profile, direction=direction))  # type: ignore[arg-type]
            dense = next(t for t in tilings if t.values["batch_tile"] >= 8)
            split = next((t for t in tilings if t.values.get("k_split", 1) > 1), dense)
            loading = next(t for t in tilings if t.values["register_groups"] == 0)
            chosen = {str(tiling): tiling for tiling in (tilings[0], dense, split, loading)}
            run(_Cases(cases, 0))
            for tiling in chosen.values():
                schedule = get(tiling.schedule)
                source = schedule.source(cell, shape, profile, tiling)
                launches = [schedule.launch(case.shape, tiling) for case in cases]
                run(Candidate.of(compile_source(source).cubin, source, launches, measure_seconds=0))
                count += 1
    return count + _train()


def _train() -> int:
    """Train every cell for a step through PyTorch, gates kept and computed again, where PyTorch has a GPU."""
    try:
        import torch
    except ImportError:
        return 0
    if not torch.cuda.is_available():
        return 0
    from kernelgen.cells import cell_names, load_cell
    from kernelgen.inputs import random_inputs
    from kernelgen.shape import Shape
    from kernelgen.torch import rnn

    count = 0
    for name in cell_names():
        for shape in (Shape(3, 37, 2, 64), Shape(2, 5, 1, 33, "float16")):
            inputs = random_inputs(load_cell(name), shape)
            leaves = [
                torch.from_numpy(inputs[key].astype("float32")).to("cuda", getattr(torch, shape.dtype)).requires_grad_()
                for key in ("wx", "r", "b", "initial")
            ]
            gradients = []
            for recompute in (False, True):
                states, last = rnn(*leaves, cell=name, returns="hidden", recompute=recompute)
                outputs = [states, last]
                gradients.append(torch.autograd.grad(outputs, leaves, [torch.ones_like(out) for out in outputs]))
                count += 3
            for kept, again in zip(*gradients, strict=True):
                difference = (kept.float() - again.float()).norm() / kept.float().norm().clamp(min=1e-6)
                assert difference < 0.1, f"{name} {shape}: gradients differ by {difference:.1e}"
    return count


if __name__ == "__main__":
    main()
