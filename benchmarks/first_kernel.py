"""How long a kernel of an unseen shape takes from the call to its binaries, and what takes that time. No GPU needed.

    python benchmarks/first_kernel.py                                   # the rows of ROWS, for an H200
    python benchmarks/first_kernel.py --row lstm:3x256:16 --gpu a100-80gb

Each row is measured in a process of its own with an empty cache (cold), and once more in the same process with an empty
cache (warm: imports, the cell's derivation and the compiler's library are there). training is what a first forward and
backward pass through PyTorch wait for: two programs, made as kernelgen.torch makes them, the backward one in the
background. Seconds of wall time, from the call; what `import kernelgen.torch` imports is not counted.

- cpu: seconds of processors, which tell more than the total where others use them too.
- imports: of what only choosing a kernel needs, and reading the GPU's profile.
- plan: the solver and the model, over all tilings; code: the rest of choosing, the source of each candidate included.
- compile: NVRTC, added up over kernels that compile at the same time; kernels: how many it compiled.
- longest: of these kernels.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click
from peers.rows import parse
from rich.console import Console
from rich.table import Table

ROWS = tuple(
    f"{cell}:{size}:16" for size in ("24x32", "12x64", "3x256", "1x512", "1x1024") for cell in ("lstm", "gru", "slstm")
)
COLUMNS = ("total", "cpu", "imports", "plan", "code", "compile", "longest", "kernels")


@click.command(help=__doc__)
@click.option("--row", "rows", multiple=True, default=ROWS, help="CELL:HEADSxDIM:BATCH[:STEPS]")
@click.option("--gpu", default="h200", show_default=True, help="a profile")
@click.option("--json", "as_json", is_flag=True, help="print JSON lines instead")
@click.option("--one", hidden=True, default=None, help="the pass that this process measures")
def main(rows: tuple[str, ...], gpu: str, as_json: bool, one: str | None) -> None:
    """Measure and print."""
    if one is not None:
        click.echo(json.dumps([measured(rows[0], gpu, one) for _ in ("cold", "warm")]))
        return
    shown = Table("row", "pass", "process", title=f"seconds, {os.cpu_count()} processors, {gpu}")
    for column in (*COLUMNS, ""):
        shown.add_column(column, justify="right")
    for row in rows:
        for what in ("forward", "training"):
            command = [sys.executable, __file__, "--row", row, "--gpu", gpu, "--one", what]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise click.ClickException(f"{row} {what}: {done.stderr.strip()}")
            for process, found in zip(("cold", "warm"), json.loads(done.stdout), strict=True):
                if as_json:
                    click.echo(json.dumps({"row": row, "pass": what, "process": process, **found}))
                    continue
                numbers = [f"{found[column]:.2f}" if column != "kernels" else str(found[column]) for column in COLUMNS]
                shown.add_row(row, what, process, *numbers, found["reason"])
    if not as_json:
        Console(width=120).print(shown)


def measured(text: str, gpu: str, what: str) -> dict[str, Any]:
    """Choose and compile what a pass needs, with an empty cache: COLUMNS, and why there is no kernel for a part."""
    from kernelgen.cells import registry
    from kernelgen.device import executor  # noqa: F401  what `import kernelgen.torch` imports
    from kernelgen.errors import InfeasibleError
    from kernelgen.program.shape import Shape
    from kernelgen.symbolic import derive  # noqa: F401

    row = parse(text)
    cell = registry.cell_of(row.cell)
    start, cpu = time.perf_counter(), time.process_time()
    from kernelgen.build import compile as compiling
    from kernelgen.hardware.profile import load_profile
    from kernelgen.tuning import selection

    profile = load_profile(gpu)
    imports = time.perf_counter() - start
    phases = Phases()
    phases.watch(compiling, "_run", "compile")
    phases.watch(selection, "plan", "plan")
    phases.watch(selection, "candidates", "choose")
    save = "hidden" if what == "forward" else "gates"
    sizes = (row.batch, row.seq, row.heads, row.head_dim, "bfloat16")
    # The backward pass gets the gradient of h alone; of a cell with one state that is every state.
    outside = "gates" if len(cell.states) == 1 else "hidden"
    reasons = []

    def choose(direction: Any, shape: Shape) -> None:
        try:
            selection.compiled(cell, shape, profile, direction)
        except InfeasibleError:
            reasons.append(f"no {direction} kernel")

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as background:
        os.environ["TILESMITH_CACHE"] = folder
        try:
            start = time.perf_counter()
            later = []
            if what == "training":
                later.append(background.submit(choose, "backward", Shape(*sizes, outside)))
            choose("forward", Shape(*sizes, save))
            for future in later:
                future.result()
            total, spent = time.perf_counter() - start, time.process_time() - cpu
        finally:
            phases.restore()
    return phases.found(imports, total) | {"cpu": spent, "reason": ", ".join(reasons)}


class Phases:
    """Seconds of functions by phase, from all threads."""

    def __init__(self) -> None:
        self._times: dict[str, list[float]] = {}
        self._lock = threading.Lock()
        self._undo: list[tuple[Any, str, Any]] = []

    def watch(self, module: Any, name: str, phase: str) -> None:
        """Count the time of a module's function."""
        function = getattr(module, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                with self._lock:
                    self._times.setdefault(phase, []).append(time.perf_counter() - start)

        setattr(module, name, timed)
        self._undo.append((module, name, function))

    def restore(self) -> None:
        """Watch no more."""
        for module, name, function in self._undo:
            setattr(module, name, function)

    def found(self, imports: float, total: float) -> dict[str, Any]:
        """COLUMNS."""
        plan, choose, compiled = (self._times.get(phase, []) for phase in ("plan", "choose", "compile"))
        return {
            "total": imports + total,
            "imports": imports,
            "plan": sum(plan),
            "code": sum(choose) - sum(plan),
            "compile": sum(compiled),
            "longest": max(compiled, default=0.0),
            "kernels": len(compiled),
        }


if __name__ == "__main__":
    main()
