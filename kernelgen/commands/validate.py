"""tilesmith validate: prove a tuned kernel right once more."""

from __future__ import annotations

from pathlib import Path

import click

from kernelgen.commands.console import counted, print_table, progress_bar, remark, working
from kernelgen.commands.options import Whole


@click.command()
@click.argument("file", metavar="FILE.yaml")
@click.option("--gpu", metavar="FILE", help="The profile it was tuned for, where that is a file of your own.")
@click.option("--emulate", is_flag=True, help="In the emulator, even if the GPU is there.")
@click.option("--seeds", type=Whole(min=1), default=3, show_default=True, metavar="N", help="How many random inputs.")
def command(file: str, gpu: str | None, emulate: bool, seeds: int) -> None:
    """Check a tuned kernel's configuration, run it on random inputs and compare with a float64 reference.

    Every number of the configuration must be what its cell, schedule and tiling imply; the source is generated anew
    and the binary compiled anew. What could not be compared is said.

    On a GPU that can run it, the binary at its full size; else its source in the emulator, with few steps and as much
    of the batch as takes a moment. A kernel that is not right ends the command with status 2 and a message that says
    where it first differs.

    \b
    Examples:
      tilesmith validate lstm.yaml
      tilesmith validate lstm.yaml --emulate --seeds 20
    """
    with working(f"checking {file}"):
        from kernelgen.records.config_reading import load_config, read_cubins, read_program

        path = Path(file)
        config = load_config(path)  # a file that is none is refused before anything large is imported
        from kernelgen.device import gpu as driver
        from kernelgen.verify.config_check import check_config, find_profile
        from kernelgen.verify.validate import validate_gpu, validate_program

        program, cubins, profile = read_program(path), read_cubins(path), find_profile(config, gpu)
        checked = check_config(config, program, cubins, profile)
    for words in checked.remarks:
        remark(words)
    cell, shape = checked.cell, config.shape
    index = None if emulate else _gpu_for(config.arch)
    with progress_bar() as bar:
        if index is None:
            reason = "" if emulate else driver.why_no_gpu() or f"no GPU here runs {config.arch}"
            if reason:
                bar.remark(f"in the emulator: {reason}")
            result = validate_program(
                cell,
                shape,
                profile,
                program,
                range(seeds),
                on_seed=lambda seed: bar.show("emulating", seed, seeds),
            )
        else:
            result = validate_gpu(
                cell,
                shape,
                program,
                cubins,
                range(seeds),
                device=index,
                on_seed=lambda seed: bar.show("validating", seed, seeds),
            )
    print_table(
        ("output", "relative error", "allowed"),
        [(name, f"{error:.2e}", f"{result.tolerance:.2e}") for name, error in result.errors.items()],
        right=("relative error", "allowed"),
    )
    where = "on the GPU" if result.where == "gpu" else "in the emulator"
    size = f"B={result.batch} T={result.seq}, {counted(result.seeds, 'input')}"
    click.echo(f"valid {where}, {config.direction}: {size}, every element written")


def _gpu_for(arch: str) -> int | None:
    """The first GPU that runs a binary for ``arch``."""
    from kernelgen.device import gpu

    if gpu.why_no_gpu():
        return None
    capabilities = (gpu.device(index).compute_capability for index in range(gpu.device_count()))
    return next((index for index, capability in enumerate(capabilities) if gpu.runs_on(arch, capability)), None)
