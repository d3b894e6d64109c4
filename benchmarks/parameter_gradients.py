"""Time the kernel of dR and db alone, beside the same product by PyTorch, in several tiles; and fit its cost model.

    python benchmarks/parameter_gradients.py measure --size 1x1024 --size 1x2048 --size 1x4096 --top 6
    python benchmarks/parameter_gradients.py measure --size 12x64 --size 1x1024 --dtype float32
    python benchmarks/parameter_gradients.py fit build/parameter_gradients.jsonl

Of tiles that differ in depth, stages and parts alone, those come first that the model likes best; what is chosen
without measuring is marked with *. PyTorch's product is torch.matmul (batched for several heads, of arrays laid out for
it beforehand), in the same dtype, without TF32, without db. Errors are against float64, of a block of 64 x 64 of every
product, in the norm. Rows go to --out as they come (JSON lines), which `fit` reads.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import click
import numpy as np

from kernelgen.build.compile import compile_program
from kernelgen.cells import load_cell
from kernelgen.hardware.profile import load_profile
from kernelgen.program.program import Program
from kernelgen.program.shape import Shape
from kernelgen.schedules.shared.parameter_gradients import ParameterGradients, load_clocks
from kernelgen.schedules.shared.parameter_tiles import Clocks, Tiling, work

BLOCK = 64
"""Rows and columns of a product that are compared."""

NAMES = ("row_warps", "column_warps", "warp_tiles", "columns", "step_groups", "depth", "num_stages", "parts")


@click.group(help=__doc__)
def main() -> None:
    """The commands of this file."""


# ---- measure ----


@main.command()
@click.option("--cell", "name", default="lstm", show_default=True)
@click.option("--size", "sizes", multiple=True, required=True, help="heads x units, such as 1x1024")
@click.option("--batch", default=16, show_default=True)
@click.option("--seq", default=1024, show_default=True)
@click.option("--dtype", default="bfloat16", show_default=True)
@click.option("--top", default=8, show_default=True, help="tiles a size")
@click.option("--seconds", default=0.1, show_default=True, help="of measuring one")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/parameter_gradients.jsonl"))
def measure(
    name: str, sizes: tuple[str, ...], batch: int, seq: int, dtype: str, top: int, seconds: float, out: Path
) -> None:
    """Compile, time, compare, print and write."""
    from kernelgen.device import gpu

    cell, profile = load_cell(name), gpu.device(0).profile()
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a") as file:
        for size in sizes:
            heads, head_dim = map(int, size.split("x"))
            kernel = ParameterGradients(cell, Shape(batch, seq, heads, head_dim, dtype), profile)
            data = Data(kernel)
            flops = 2.0 * batch * seq * heads * head_dim**2 * len({*cell.recurrent_gates} & {*cell.input_gates})
            click.echo(f"\n{name} {kernel.shape}, {profile.name}")
            click.echo(f"{'/'.join(NAMES):72} model ms  ms     TFLOPS  error of d_r, d_b")
            library = data.library_ms(seconds)
            click.echo(f"{'torch.matmul':72} {'':8}  {library:.3f}  {flops / library * 1e-9:6.0f}")
            for tiling in tiles(kernel, top):
                chosen = "*" if tiling == kernel.tiling else " "
                ms, errors, registers = data.kernel_ms(tiling, seconds)
                model = load_clocks().predict(kernel.product, tiling, profile) / profile.clock_mhz * 1e-3
                values = "/".join(str(getattr(tiling, each)) for each in NAMES)
                shown = ", ".join(f"{error:.1e}" for error in errors)
                label = f"{chosen} {values}, {registers} registers"
                click.echo(f"{label:72} {model:.3f}     {ms:.3f}  {flops / ms * 1e-9:6.0f}  {shown}")
                record = {"gpu": profile.name, "cell": name, "shape": asdict(kernel.shape), "tiling": asdict(tiling)}
                record |= {"ms": ms, "library_ms": library, "errors": errors, "registers": registers}
                file.write(json.dumps(record) + "\n")
                file.flush()


def tiles(kernel: ParameterGradients, top: int) -> list[Tiling]:
    """The chosen tile, then of the others one for each way of sharing it out to warps, the model's best; then the
    rest."""
    ranked = [kernel.tiling, *kernel.tilings()]
    shapes = {(each.row_warps, each.column_warps, each.warp_tiles, each.columns): each for each in reversed(ranked)}
    first = sorted(shapes.values(), key=ranked.index)
    return list(dict.fromkeys([*first, *ranked]))[:top]


class Data:
    """Random arrays on the GPU for one kernel."""

    def __init__(self, kernel: ParameterGradients) -> None:
        import torch

        torch.backends.cuda.matmul.allow_tf32 = False
        self.kernel, shape, cell = kernel, kernel.shape, kernel.cell
        kind, generator = getattr(torch, shape.dtype), torch.Generator("cuda").manual_seed(0)
        steps = (shape.batch, shape.seq)

        def drawn(*size: int) -> Any:
            return torch.randn(size, generator=generator, device="cuda").to(kind)

        self.arrays: dict[str, Any] = {
            "d_wx": drawn(*steps, len(cell.input_gates), shape.heads, shape.head_dim),
            "states": drawn(*steps, shape.heads, shape.head_dim),
            "d_r": drawn(len(cell.recurrent_gates), shape.heads, shape.head_dim, shape.head_dim),
            "d_b": drawn(len(cell.bias_gates), shape.heads, shape.head_dim),
        }
        # The partial sums of gates without an input: one, of zeros.
        for name, count, size in (
            ("d_r_partial", len(cell.inputless_products), shape.head_dim**2),
            ("d_b_partial", len(cell.inputless_biases), shape.head_dim),
        ):
            self.arrays[name] = torch.zeros(count * shape.heads * size, device="cuda")
        before = torch.zeros_like(self.arrays["states"])
        before[:, 1:] = self.arrays["states"][:, :-1]
        self.before = before.flatten(0, 1)  # [B T, H, D]
        self.gates = [gate for gate in cell.recurrent_gates if gate in cell.input_gates]
        ranks = [cell.input_gates.index(gate) for gate in self.gates]
        self.gradients = self.arrays["d_wx"].flatten(0, 1)[:, ranks]  # [B T, G, H, D]

    def library_ms(self, seconds: float) -> float:
        """Milliseconds of PyTorch's product."""
        import torch

        from kernelgen.device.measure import measure as timed

        heads = self.kernel.shape.heads
        left = self.gradients.permute(2, 0, 1, 3).reshape(heads, -1, len(self.gates) * self.kernel.shape.head_dim)
        right = self.before.permute(1, 0, 2).contiguous()
        if heads == 1:
            left, right = left[0], right[0]
        out = torch.empty((*left.shape[:-2], left.shape[-1], right.shape[-1]), dtype=left.dtype, device="cuda")

        def product(stream: Any) -> None:
            with torch.cuda.stream(torch.cuda.ExternalStream(int(stream.handle))):
                torch.matmul(left.transpose(-1, -2), right, out=out)

        torch.matmul(left.transpose(-1, -2), right, out=out)  # the library's own workspace is made here
        return timed(product, seconds=seconds).median_ms

    def kernel_ms(self, tiling: Tiling, seconds: float) -> tuple[float, list[float], int]:
        """Milliseconds of the kernels for a tile, errors of d_r and d_b, registers of the first."""
        import torch

        from kernelgen.device.executor import Executable
        from kernelgen.device.measure import measure as timed

        own = self.kernel
        forced = ParameterGradients(own.cell, own.shape, own.profile, given=tiling)
        calls = forced.calls()
        program = Program("backward", calls[0], calls[1:], {"P": "1", "Q": str(forced.results)})
        binaries = compile_program(program)
        executable = Executable(program, [binary.cubin for binary in binaries])
        executable.prepare(0)
        arrays = dict(self.arrays)
        for name in ("d_r", "d_b"):
            arrays[name].fill_(float("nan"))
            arrays[f"{name}_parts"] = torch.empty((forced.results, *arrays[name].shape), device="cuda")
        values: dict[str, Any] = {name: each.data_ptr() if each.numel() else 0 for name, each in arrays.items()}
        values |= {"initial": 0, "batch": np.int32(own.shape.batch), "seq": np.int32(own.shape.seq)}
        values |= {"num_partials": np.int32(1)}
        torch.cuda.synchronize()
        launches = executable.at(own.shape)
        ms = timed(lambda stream: launches.run(stream, values), seconds=seconds).median_ms
        torch.cuda.synchronize()
        return ms, self.errors(), binaries[0].report.registers

    def errors(self) -> list[float]:
        """Of what the kernel has left of d_r and d_b."""
        cell, dim = self.kernel.cell, self.kernel.shape.head_dim
        step = max(1, dim // BLOCK)
        rows, columns = slice(step // 2, dim, step), slice(step // 3, dim, step)
        left, right = self.gradients[..., rows].double(), self.before[..., columns].double()
        ranks = [cell.recurrent_gates.index(gate) for gate in self.gates]
        made = self.arrays["d_r"][ranks][:, :, rows, columns].double()
        wanted = made.new_empty(made.shape)
        for gate in range(len(self.gates)):
            for head in range(self.kernel.shape.heads):
                wanted[gate, head] = left[:, gate, head].T @ right[:, head]
        found = [float((made - wanted).norm() / wanted.norm())]
        biases = [gate for gate in cell.bias_gates if gate in cell.input_gates]
        if biases:
            sums = self.arrays["d_wx"].flatten(0, 1).double().sum(0)[[cell.input_gates.index(gate) for gate in biases]]
            made = self.arrays["d_b"][[cell.bias_gates.index(gate) for gate in biases]].double()
            found.append(float((made - sums).norm() / sums.norm()))
        return found


# ---- fit ----


@main.command()
@click.argument("samples", type=click.Path(path_type=Path, exists=True))
def fit(samples: Path) -> None:
    """Coefficients with the smallest relative errors, none negative, as schedules/shared/model.yaml has them."""
    records = [json.loads(line) for line in samples.read_text().splitlines()]
    names = [field.name for field in fields(Clocks)]
    terms = np.array([[_work(record)[name] for name in names] for record in records])
    measured = np.array([record["ms"] * load_profile(record["gpu"]).clock_mhz * 1e3 for record in records])
    today = np.array([getattr(load_clocks(), name) for name in names])
    fitted = nonnegative(terms / measured[:, None], np.ones(len(records)), today)
    print(f"{len(records)} samples\nclocks:")
    print("\n".join(f"  {name}: {value:.4g}" for name, value in zip(names, fitted, strict=True)))
    for what, coefficients in (("today", today), ("fitted", fitted)):
        off = terms @ coefficients / measured - 1
        print(f"{what}: half within {np.median(np.abs(off)):.1%}, the worst {np.max(np.abs(off)):.1%} off")


def _work(record: dict[str, Any]) -> dict[str, float]:
    kernel = ParameterGradients(load_cell(record["cell"]), Shape(**record["shape"]), load_profile(record["gpu"]))
    return work(kernel.product, Tiling(**record["tiling"]), kernel.profile)


def nonnegative(a: Any, b: Any, start: Any, rounds: int = 20_000) -> Any:
    """x >= 0 with the least ||a x - b||, by one coordinate after another."""
    x, gram, right = start.copy(), a.T @ a, a.T @ b
    for _ in range(rounds):
        for i in range(len(x)):
            if gram[i, i] > 0:
                x[i] = max(0.0, x[i] + (right[i] - gram[i] @ x) / gram[i, i])
    return x


if __name__ == "__main__":
    main()
