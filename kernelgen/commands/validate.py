"""tilesmith validate: prove a tuned kernel right once more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kernelgen.commands.console import print_table, progress_bar, remark
from kernelgen.commands.options import Whole

if TYPE_CHECKING:
    from kernelgen.commands.console import Bar
    from kernelgen.records.config import TunedConfig
    from kernelgen.records.trial import Validation


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
    where it first differs. For a backward pass the kernel that makes the gradients of R and b from this one's outputs
    is proved too, in the emulator.

    \b
    Examples:
      tilesmith validate lstm.yaml
      tilesmith validate lstm.yaml --emulate --seeds 20
    """
    from kernelgen import schedules
    from kernelgen.device import gpu as driver
    from kernelgen.records.config import load_config, read_cubin, read_source
    from kernelgen.verify.config_check import check_config, find_profile
    from kernelgen.verify.emulated_runs import emulated_steps
    from kernelgen.verify.validate import emulate_source, validate_gpu

    path = Path(file)
    config = load_config(path)
    source, cubin = read_source(path), read_cubin(path)
    checked = check_config(config, source, cubin, find_profile(config, gpu))
    for words in checked.remarks:
        remark(words)
    cell, shape, tiling = checked.cell, config.shape, checked.tiling
    schedule = schedules.get(config.schedule)
    index = None if emulate else _gpu_for(config.arch)
    with progress_bar() as bar:
        if index is None:
            reason = "" if emulate else driver.why_no_gpu() or f"no GPU here runs {config.arch}"
            if reason:
                bar.remark(f"in the emulator: {reason}")
            result = emulate_source(
                cell,
                shape,
                source,
                lambda other: schedule.launch(other, tiling),
                range(seeds),
                direction=config.direction,
                seq=emulated_steps(tiling),
                on_seed=lambda seed: bar.show("emulating", seed, seeds),
            )
        else:
            result = validate_gpu(
                cell,
                shape,
                cubin,
                source,
                lambda other: schedule.launch(other, tiling),
                range(seeds),
                direction=config.direction,
                device=index,
                on_seed=lambda seed: bar.show("validating", seed, seeds),
            )
        parameters = _parameters(config, seeds, bar) if config.direction == "backward" else None
    proved = [result] if parameters is None else [result, parameters]
    print_table(
        ("output", "relative error", "allowed"),
        [(name, f"{error:.2e}", f"{each.tolerance:.2e}") for each in proved for name, error in each.errors.items()],
        right=("relative error", "allowed"),
    )
    where = "on the GPU" if result.where == "gpu" else "in the emulator"
    size = f"B={result.batch} T={result.seq}, {result.seeds} inputs"
    click.echo(f"valid {where}, {config.direction}: {size}, every element written")
    if parameters is not None:
        click.echo(f"valid in the emulator, the kernel of dR and db for {config.gpu}: {parameters.seeds} inputs")


def _parameters(config: TunedConfig, seeds: int, bar: Bar) -> Validation | None:
    """Prove the kernel of dR and db that goes with a backward one; none where its GPU is not known here, or where a GPU
    serves and there is no compiler to emulate with."""
    from kernelgen.device import gpu
    from kernelgen.errors import EmulationError, ProfileError
    from kernelgen.hardware.profile import load_profile
    from kernelgen.verify.emulator import require_compiler
    from kernelgen.verify.validate_parameters import emulate_parameters

    try:
        profile = load_profile(config.gpu)
        if gpu.why_no_gpu() is None:
            require_compiler()
    except (ProfileError, EmulationError) as error:
        bar.remark(f"the kernel of dR and db is not validated: {error}")
        return None
    return emulate_parameters(
        config.load_cell(),
        config.shape,
        profile,
        range(seeds),
        on_seed=lambda seed: bar.show("emulating dR and db", seed, seeds),
    )


def _gpu_for(arch: str) -> int | None:
    """The first GPU that runs a binary for ``arch``."""
    from kernelgen.device import gpu

    if gpu.why_no_gpu():
        return None
    capabilities = (gpu.device(index).compute_capability for index in range(gpu.device_count()))
    return next((index for index, capability in enumerate(capabilities) if gpu.runs_on(arch, capability)), None)
