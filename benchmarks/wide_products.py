"""Clocks of wgmma as the wide schedule has it, on all multiprocessors of a GPU of sm_90a; some 10 seconds.

    python benchmarks/wide_products.py              [--compile: whether all compile, without a GPU]

Of each: warpgroups of a block, columns, tiles of 64 rows of a warpgroup, groups of 16 k in registers of 32, and whether
what lies in shared memory is swizzled. An instruction's clocks are those of the multiprocessor; columns / 2 is what the
tensor cores take, (columns + 64, without registers) / 4 what shared memory takes at 128 bytes a clock.
"""

from __future__ import annotations

import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from unittest.mock import patch

import click

from kernelgen.build.compile import Binary, compile_source
from kernelgen.device.worker import Worker
from kernelgen.paths import cuda_headers
from kernelgen.probing.gpu_worker import RUNNER, Job
from kernelgen.probing.microbenchmark import Microbenchmark
from kernelgen.program.launch import Launch

ARCH, BLOCKS, ROUNDS = "sm_90a", 128, 200
PARTS = Path(__file__).parent / "wide_parts"

PRODUCTS = [
    *((2, 64, 2, held, swizzled) for swizzled in (False, True) for held in (32, 16, 0)),
    *((1, 64, 2, held, False) for held in (32, 0)),
    *((2, 32, 2, held, swizzled) for swizzled in (False, True) for held in (32, 0)),
    *((1, 32, 2, held, False) for held in (32, 0)),
    (1, 16, 2, 32, False),
    (1, 16, 2, 0, False),
    (2, 128, 1, 32, False),
    (2, 128, 1, 0, False),
    (4, 64, 1, 32, False),
    (4, 64, 1, 0, False),
]


def microbenchmark(product: tuple[int, int, int, int, bool]) -> Microbenchmark:
    """What runs the product over and over."""
    warpgroups, columns, tiles, held, swizzled = product
    kernel = f"Warpgroup<{warpgroups}, {columns}, {tiles}, {held}, {str(swizzled).lower()}>"
    launch = Launch((BLOCKS, 1, 1), 128 * warpgroups, 160 * 1024)
    return Microbenchmark("mma", (), "warpgroup", kernel, launch, 32 * tiles * warpgroups, ROUNDS, {})


def compiled(folder: Path, product: tuple[int, int, int, int, bool]) -> Binary | str:
    """Its binary; or why there is none."""
    try:
        with patch("kernelgen.build.compile.cuda_headers", return_value=folder):
            return compile_source(microbenchmark(product).source(ARCH), cache=None)
    except Exception as error:  # said, and the others go on
        return str(error)


@click.command(help=__doc__)
@click.option("--compile", "compile_only", is_flag=True)
@click.option("--processes", default=14)
def main(compile_only: bool, processes: int) -> None:
    """Compile all, then measure one after another."""
    with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor(processes) as pool:
        folder = Path(name) / "cuda"
        shutil.copytree(cuda_headers(), folder)
        shutil.copy(PARTS / "warpgroup.cuh", folder / "probes")
        binaries = [pool.submit(compiled, folder, product) for product in PRODUCTS]
        with Worker(RUNNER) as worker:
            for product, pending in zip(PRODUCTS, binaries, strict=True):
                binary = pending.result()
                line = "{} warpgroups, {} columns, {} tiles, {} of 32 k in registers, swizzled: {}".format(*product)
                if isinstance(binary, str):
                    line += f": {binary}"
                elif compile_only:
                    line += f": {binary.report.registers} registers, {binary.report.spills} spilled"
                else:
                    clocks = worker.run(Job(microbenchmark(product), binary.cubin, ARCH), 30.0)
                    line += f": {median(clocks):.1f} clocks, {min(clocks):.1f} at least"
                click.echo(line)


if __name__ == "__main__":
    main()
