"""Time the kernel of a matrix product beside torch.mm, in a CUDA graph and eagerly, for the three products of a layer.

    python benchmarks/matrix_product.py
    python benchmarks/matrix_product.py --size 256x128x512 --dtype float32 --top 6
    python benchmarks/matrix_product.py --size 1024x256x1024 --turned

A size is steps x inputs x gates' units. Its products are Wx = x W^T + b, dx = dWx W and dW = dWx^T x, the latter in
float32 where --floats. For each there are the library's time, by PyTorch and as a link of a chain, then that of tiles,
the model's best first, with what the models predicted. In a graph: microseconds of the GPU for one of a row of
products; eagerly: of the host for one of a row, with out= given, ours by the launcher that passes are queued by. Errors
are against float64, in the norm. --turned: a's steps lie time-major, which PyTorch's product is not asked to undo. Rows
go to --out as they come (JSON lines).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from kernelgen.build.compile import compile_source
from kernelgen.hardware.profile import Profile
from kernelgen.program.dtypes import dtype_info
from kernelgen.schedules.shared.library_product import predicted_seconds
from kernelgen.schedules.shared.matrix_product import TURNED_A, MatrixProduct, kernel, load_clocks, ranked
from kernelgen.schedules.shared.product_tiles import ProductTiling

SIZES = ("256x128x512", "256x64x256", "1024x128x512", "1024x256x1024", "1024x512x2048", "2048x1024x4096")

BATCH = 16
"""Sequences, for --turned."""

EAGER_CALLS = 200


@dataclass(frozen=True)
class Use:
    """One of a layer's products: its sizes, and what it takes."""

    name: str
    product: MatrixProduct
    with_bias: bool = False


def uses(size: str, dtype: str, floats: bool) -> list[Use]:
    """The products of a layer with so many steps, inputs and gates' units."""
    try:
        steps, inputs, units = map(int, size.split("x"))
    except ValueError:
        raise click.BadParameter(f"a size is steps x inputs x units, such as 256x128x512, not {size!r}") from None
    return [
        Use("Wx", MatrixProduct(steps, units, inputs, dtype), with_bias=True),
        Use("dx", MatrixProduct(steps, inputs, units, dtype, b_transposed=True)),
        Use("dW", MatrixProduct(units, inputs, steps, dtype, a_transposed=True, b_transposed=True, floats=floats)),
    ]


@click.command(help=__doc__)
@click.option("--size", "sizes", multiple=True, default=SIZES, help="steps x inputs x units")
@click.option("--dtype", "dtypes", multiple=True, default=("bfloat16",), show_default=True)
@click.option("--floats", is_flag=True, help="dW in float32")
@click.option("--turned", is_flag=True, help="a's steps time-major")
@click.option("--top", default=4, show_default=True, help="tiles a product")
@click.option("--seconds", default=0.02, show_default=True, help="of measuring one")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/matrix_product.jsonl"))
def main(
    sizes: tuple[str, ...], dtypes: tuple[str, ...], floats: bool, turned: bool, top: int, seconds: float, out: Path
) -> None:
    """Compile, time, compare, print and write."""
    from kernelgen.device import gpu

    profile = gpu.device(0).profile()
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a") as file:
        for dtype in dtypes:
            click.echo(f"\n{dtype}, {profile.name}; microseconds")
            click.echo(f"{'product':28} {'tile':34} model  graph   eager  error")
            for use in (use for size in sizes for use in uses(size, dtype, floats)):
                data = Data(use, TURNED_A if turned else 0)
                product = use.product
                label = f"{use.name} {product.rows} x {product.columns} x {product.depth}"
                library = data.library(seconds)
                click.echo(f"{label:28} {'torch.mm':34} {'':5} {library[0]:6.2f}  {library[1]:6.2f}")
                of_link, model = data.link(seconds), 1e6 * predicted_seconds(product, profile)
                record = {"gpu": profile.name, "use": use.name, "product": asdict(product), "turned": turned}
                record |= {"model_us": model, "graph_us": of_link[0], "eager_us": of_link[1], "error": of_link[2]}
                file.write(json.dumps(record | {"by": "cublaslt"}) + "\n")
                times = f"{model:5.2f} {of_link[0]:6.2f}  {of_link[1]:6.2f}  {of_link[2]:.1e}"
                click.echo(f"{'':28} {'cuBLASLt in a chain':34} {times}")
                for tiling in ranked(product, profile)[:top]:
                    graph, eager, error = data.kernel(tiling, profile, seconds)
                    model = load_clocks().predict(product.work, tiling, profile) / profile.clock_mhz
                    tile = f"{tiling.rows} x {tiling.columns}, {tiling.num_stages} stages, cluster of {tiling.parts}"
                    click.echo(f"{'':28} {tile:34} {model:5.2f} {graph:6.2f}  {eager:6.2f}  {error:.1e}")
                    record = {"gpu": profile.name, "use": use.name, "product": asdict(product), "turned": turned}
                    record |= {"tiling": asdict(tiling), "model_us": model, "graph_us": graph, "eager_us": eager}
                    record |= {"library_graph_us": library[0], "library_eager_us": library[1], "error": error}
                    file.write(json.dumps(record) + "\n")
                    file.flush()


class Data:
    """Random arrays on the GPU for one product."""

    def __init__(self, use: Use, turned: int) -> None:
        import torch

        self.product, product = use.product, use.product
        torch.backends.cuda.matmul.allow_tf32 = product.dtype == "tf32"
        kind = getattr(torch, dtype_info(product.dtype).stored)
        written = torch.float32 if product.floats else kind
        generator = torch.Generator("cuda").manual_seed(0)

        def drawn(*size: int) -> Any:
            return torch.randn(size, generator=generator, device="cuda").to(kind)

        self.a = drawn(*((product.depth, product.rows) if product.a_transposed else (product.rows, product.depth)))
        self.b = drawn(
            *((product.depth, product.columns) if product.b_transposed else (product.columns, product.depth))
        )
        self.bias = drawn(product.columns).to(written) if use.with_bias else None
        self.out = torch.empty(product.rows, product.columns, dtype=written, device="cuda")
        steps = self.a.shape[0]
        self.turned = turned if steps % BATCH == 0 else 0
        self.seq = steps // BATCH
        self.right = self.b if product.b_transposed else self.b.t()
        straight = self.a
        if self.turned:  # what lies at t * batch + b is step b * seq + t
            straight = self.a.view(self.seq, BATCH, -1).transpose(0, 1).reshape(self.a.shape)
        self.left = straight.t() if product.a_transposed else straight
        self.wanted = self.left.double() @ self.right.double() + (0 if self.bias is None else self.bias.double())

    def library(self, seconds: float) -> tuple[float, float]:
        """Microseconds of PyTorch's product, in a graph and eagerly, in its arrays' dtype."""
        import torch

        from kernelgen.device.measure import measure

        out = self.out.to(self.a.dtype)

        def product() -> None:
            if self.bias is None:
                torch.mm(self.left, self.right, out=out)
            else:
                torch.addmm(self.bias, self.left, self.right, out=out)

        def on(stream: Any) -> None:
            with torch.cuda.stream(torch.cuda.ExternalStream(int(stream.handle))):
                product()

        product()  # the library's own workspace is made here
        return measure(on, seconds=seconds).median_ms * 1e3, eager(product)

    def link(self, seconds: float) -> tuple[float, float, float]:
        """Microseconds of the library's product as a link of a chain, in a graph and eagerly, and its error."""
        import torch

        from kernelgen.device.measure import measure
        from kernelgen.torch.device import DeviceEngine
        from kernelgen.torch.engine import Layout, Link
        from kernelgen.torch.library_links import OfLibrary

        arrays = {"a": self.a, "b": self.b, "bias": self.bias, "out": self.out}
        names = {name: name for name, each in arrays.items() if each is not None}
        link = Link(OfLibrary(self.product), names, {"batch": BATCH, "seq": self.seq, "turned": self.turned})
        queue, given = DeviceEngine().chain([link], Layout(tuple(arrays), {}, {}), 0), list(arrays.values())

        def on(stream: Any) -> None:
            with torch.cuda.stream(torch.cuda.ExternalStream(int(stream.handle))):
                queue(given)

        self.out.fill_(float("nan"))
        torch.cuda.synchronize()
        graph, host = measure(on, seconds=seconds).median_ms * 1e3, eager(lambda: queue(given))
        torch.cuda.synchronize()
        return graph, host, float((self.out.double() - self.wanted).norm() / self.wanted.norm())

    def kernel(self, tiling: ProductTiling, profile: Profile, seconds: float) -> tuple[float, float, float]:
        """The same of the kernel with a tile, and its error."""
        import torch

        from kernelgen.device.executor import Launches
        from kernelgen.device.launcher import DeviceKernel, launch_config
        from kernelgen.device.measure import measure

        source, launch = kernel(self.product, profile, tiling)
        ready = DeviceKernel(compile_source(source).cubin, source.entry, source.arch, launch)
        ready.prepare(0)
        launches = Launches(((ready, launch_config(launch), source.arguments),), launches=(launch,))
        numbers = {name: np.int32(getattr(self.product, name)) for name in ("rows", "columns", "depth")}
        numbers |= {"batch": np.int32(BATCH), "seq": np.int32(self.seq), "turned": np.int32(self.turned)}
        arrays = {"a": self.a, "b": self.b, "bias": self.bias, "out": self.out}
        values: dict[str, Any] = {name: 0 if each is None else each.data_ptr() for name, each in arrays.items()}
        self.out.fill_(float("nan"))
        torch.cuda.synchronize()
        graph = measure(lambda stream: launches.run(stream, values | numbers), seconds=seconds).median_ms * 1e3
        queue = launches.bound(tuple(arrays), numbers, 0, stream=lambda _: int(torch.cuda.current_stream().cuda_stream))
        given = list(arrays.values())
        host = eager(lambda: queue(given))
        torch.cuda.synchronize()
        return graph, host, float((self.out.double() - self.wanted).norm() / self.wanted.norm())


def eager(call: Callable[[], object], repeats: int = 5) -> float:
    """Microseconds of the host for a call, of the best of a few rows of calls."""
    import torch

    best = float("inf")
    for _ in range(repeats):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(EAGER_CALLS):
            call()
        best = min(best, time.perf_counter() - begin)
    torch.cuda.synchronize()
    return best / EAGER_CALLS * 1e6


if __name__ == "__main__":
    main()
