"""Time what follows a recurrence where the library makes dR: the copy of h, dR, db; in lanes, and one after another.

    python benchmarks/library_gradients.py --size 4x256:16 --size 4x512:256
    python benchmarks/library_gradients.py --cell gru --dtype float16 --size 2x256:16

The first kernel stands where the recurrence would, so that the copy is not beside anything. Copy, db and dR are each
timed alone too, and all with dR begun before db. Model: what kernelgen/schedules/shared/library_gradients.py expects of
all three; ours: of our kernel instead. Errors of d_r and d_b are against float64, in the norm, of 64 steps of as many
sequences (up to 16).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click
import numpy as np
import torch

from kernelgen.build.compile import compile_program
from kernelgen.cells import load_cell
from kernelgen.device import gpu
from kernelgen.device.executor import Executable, Launches
from kernelgen.device.measure import measure
from kernelgen.program.lanes import Turn
from kernelgen.program.product import SCRATCH_BYTES
from kernelgen.program.program import Program
from kernelgen.program.shape import Shape
from kernelgen.schedules.shared import library_gradients
from kernelgen.schedules.shared.parameter_gradients import ParameterGradients
from kernelgen.schedules.shared.product_gradients import with_product_gradients

ERROR_SEQ, ERROR_BATCH = 64, 16


class Alone:
    """The calls behind the recurrence of one shape, and random arrays for them."""

    def __init__(self, cell_name: str, shape: Shape) -> None:
        self.cell, self.shape = load_cell(cell_name), shape
        self.profile = gpu.device(0).profile()
        copy = library_gradients.copy_of_hidden(self.cell, shape, self.profile)
        axes = {"W_scratch": str(SCRATCH_BYTES)}
        whole = Program("backward", copy, axes=axes)
        self.program = with_product_gradients(whole, self.cell, shape, self.profile, floats=True)
        self.executable = Executable(self.program, [each.cubin for each in compile_program(self.program)])
        self.executable.prepare(0)
        generator = torch.Generator("cuda").manual_seed(0)
        self.arrays: dict[str, Any] = {}
        arguments = self.program.arguments(self.cell, shape)
        for array in (*arguments.inputs, *arguments.outputs, *arguments.workspaces):
            kind = getattr(torch, "float32" if array.dtype == "tf32" else array.dtype)
            made = torch.empty(array.shape, dtype=kind, device="cuda")
            if made.is_floating_point() and array.name not in ("d_r", "d_b"):
                made.normal_(generator=generator)
            self.arrays[array.name] = made
        self.arrays["d_b_partial"] = torch.zeros_like(self.arrays["d_b_partial"])
        self.numbers = {name: np.int32(value) for name, value in arguments.numbers.items()}
        torch.cuda.synchronize()

    def launches(self, *, lanes: bool, part: slice = slice(None)) -> Launches:
        """The calls, or a part of them: the copy, db, then the products. lanes: those that may at the same time."""
        found = self.executable.at(self.shape, lanes=lanes)
        first = part.start or 0
        turns = tuple(
            Turn(lane, tuple(place - first for place in after if place >= first)) for lane, after in found.turns
        )
        return replace(found, steps=found.steps[part], launches=found.launches[part], turns=turns[part])

    def queue(self, launches: Launches) -> Any:
        """What queues them on a stream."""
        names = tuple(self.arrays)
        now = [0]
        run = launches.bound(names, self.numbers, 0, lambda device: now[0])
        arrays = tuple(array if array.numel() else None for array in self.arrays.values())

        def start(stream: Any) -> None:
            now[0] = int(stream.handle)
            run(arrays)

        return start

    def errors(self) -> list[float]:
        """Of d_r and d_b, once run."""
        for name in ("d_r", "d_b"):
            self.arrays[name].fill_(float("nan"))
        torch.cuda.synchronize()
        with torch.cuda.stream(torch.cuda.Stream()):
            stream = torch.cuda.current_stream()
            self.queue(self.launches(lanes=True))(_Handle(stream.cuda_stream))
        torch.cuda.synchronize()
        steps = (self.shape.batch, self.shape.seq)
        h, initial = (self.arrays[name][0].double() for name in ("states", "initial"))
        before = torch.cat([initial[:, None], h[:, :-1]], 1)
        gradients = {name: self.arrays[name].double() for name in ("d_wx", "d_inputless") if name in self.arrays}
        rows = []
        for gate in self.cell.recurrent_gates:
            inside = gate in self.cell.input_gates
            members = self.cell.input_gates if inside else self.cell.inputless_products
            of_gate = gradients["d_wx" if inside else "d_inputless"].reshape(*steps, len(members), *h.shape[2:])
            rows.append(torch.einsum("bthd,bthp->hdp", of_gate[:, :, members.index(gate)], before))
        wanted = [torch.stack(rows).reshape(self.arrays["d_r"].shape)]
        biases = [gate for gate in self.cell.bias_gates if gate in self.cell.input_gates]
        sums = gradients["d_wx"].sum((0, 1))
        wanted.append(torch.stack([sums[self.cell.input_gates.index(gate)] for gate in biases]))
        found = [self.arrays["d_r"], self.arrays["d_b"][[self.cell.bias_gates.index(gate) for gate in biases]]]
        return [float((a.double() - b).norm() / b.norm()) for a, b in zip(found, wanted, strict=True)]


class _Handle:
    """A raw stream as cuda-core has one."""

    def __init__(self, handle: int) -> None:
        self.handle = handle


@click.command(help=__doc__)
@click.option("--cell", "name", default="lstm", show_default=True)
@click.option("--size", "sizes", multiple=True, required=True, help="heads x units : batch, such as 4x256:16")
@click.option("--seq", default=1024, show_default=True)
@click.option("--dtype", default="bfloat16", show_default=True)
@click.option("--seconds", default=0.15, show_default=True, help="of measuring one")
def main(name: str, sizes: tuple[str, ...], seq: int, dtype: str, seconds: float) -> None:
    """Time, compare, print."""
    click.echo(f"{gpu.device(0).name}, {name}, {dtype}, T = {seq}; microseconds in a CUDA graph; / in lanes")
    titles = f"{'copy':>8} {'db':>8} {'dR':>20} {'TFLOP/s':>8} {'all':>20} {'dR first':>9} {'model':>8} {'ours':>8}"
    click.echo(f"{'size':10} {titles}  errors of d_r, d_b")
    for size in sizes:
        heads, dim, batch = map(int, size.replace(":", "x").split("x"))
        shape = Shape(batch, seq, heads, dim, dtype, "gates")
        run = Alone(name, shape)

        def timed(launches: Launches, run: Alone = run) -> float:
            return 1e3 * measure(run.queue(launches), seconds=seconds).median_ms

        copy, sums = (timed(run.launches(lanes=False, part=slice(at, at + 1))) for at in (0, 1))
        products = [timed(run.launches(lanes=lanes, part=slice(2, None))) for lanes in (False, True)]
        whole = [timed(run.launches(lanes=lanes)) for lanes in (False, True)]
        made = run.arrays["d_r"].clone()
        turned = timed(_sums_last(run.launches(lanes=True)))
        bits = "" if torch.equal(made, run.arrays["d_r"]) else "  NOT THE SAME BITS"
        model = 1e6 * library_gradients.seconds_behind(run.program, run.cell, shape, run.profile)
        ours = 1e6 * library_gradients.OURS * ParameterGradients(run.cell, shape, run.profile).seconds
        rate = 2.0 * batch * seq * heads * dim**2 * len(run.cell.recurrent_gates) / products[1] * 1e-6
        del run, made, timed
        errors = Alone(name, replace(shape, seq=ERROR_SEQ, batch=min(batch, ERROR_BATCH))).errors()
        both = [f"{serial:9.1f} /{beside:9.1f}" for serial, beside in (products, whole)]
        shown = ", ".join(f"{error:.1e}" for error in errors)
        click.echo(
            f"{size:10} {copy:8.1f} {sums:8.1f} {both[0]:>20} {rate:8.0f} {both[1]:>20} {turned:9.1f} {model:8.1f} "
            f"{ours:8.1f}  {shown}{bits}"
        )


def _sums_last(launches: Launches) -> Launches:
    """The same, queued in another order: db, which waits for nothing that follows it, last."""

    def turned(calls: tuple[Any, ...]) -> tuple[Any, ...]:
        return (calls[0], *calls[2:], calls[1])

    return replace(
        launches, steps=turned(launches.steps), launches=turned(launches.launches), turns=turned(launches.turns)
    )


if __name__ == "__main__":
    main()
