"""tilesmith show: a tuned kernel, for people."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kernelgen.commands.console import console, print_fields

if TYPE_CHECKING:
    from kernelgen.records.config import TunedConfig


@click.command()
@click.argument("file", metavar="FILE.yaml")
def command(file: str) -> None:
    """Show a tuned kernel: its configuration as a table, then its source.

    \b
    Examples:
      tilesmith show lstm.yaml
      tilesmith show lstm.yaml | less
    """
    from kernelgen.records.config import load_config, read_source

    path = Path(file)
    config = load_config(path)
    source = read_source(path)
    print_fields(_fields(config))
    click.echo()
    if sys.stdout.isatty():
        from rich.syntax import Syntax

        console().print(Syntax(source.text, "cuda", theme="ansi_dark", word_wrap=True))
    else:
        click.echo(source.text)


def _fields(config: TunedConfig) -> list[tuple[str, str]]:
    """The configuration, in the order in which one would ask."""
    shape, launch, model, checked = config.shape, config.launch, config.model, config.validation
    cell = config.cell.name + (f" from {config.cell.path}" if config.cell.path else "")
    blocks = " x ".join(map(str, launch.grid))
    extras = (f", clusters of {launch.cluster}" if launch.cluster > 1 else "") + (
        ", cooperative" if launch.cooperative else ""
    )
    registers = f"{config.reported.registers} (predicted {config.predicted.registers})"
    errors = ", ".join(f"{name} {error:.1e}" for name, error in checked.errors.items())
    where = "on the GPU" if checked.where == "gpu" else "in the emulator"
    fields = [
        ("cell", cell),
        ("direction", config.direction),
        ("shape", f"{shape}, saves {shape.save}" + (", computes the gates again" if shape.recompute else "")),
        ("GPU", f"{config.gpu} ({config.arch})"),
        ("tiling", f"{config.schedule}: " + ", ".join(f"{name} {value}" for name, value in config.tiling.items())),
        (
            "launch",
            f"{blocks} blocks of {launch.block} threads, {launch.shared_memory:,} bytes of shared memory{extras}",
        ),
        ("registers", f"{registers}, {config.reported.spills} bytes spilled"),
        ("model", f"{model.us_per_step:.3f} us a step, {model.total_ms:.3f} ms"),
    ]
    if config.measured is not None:
        time = config.measured
        fields.append(
            ("measured", f"{time.median_ms:.4f} ms ({time.p10_ms:.4f} to {time.p90_ms:.4f}, {time.runs} runs)")
        )
    else:
        fields.append(("measured", "no"))
    fields += [
        (
            "validated",
            f"{where}, B={checked.batch} T={checked.seq}, {checked.seeds} inputs: relative error {errors} "
            f"(allowed {checked.tolerance:.1e})",
        ),
        ("made", f"{config.created} by tilesmith {config.versions.tilesmith}, {config.versions.compiler}"),
        ("source", config.source_hash),
    ]
    return fields
