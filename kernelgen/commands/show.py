"""tilesmith show: a tuned kernel, for people."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kernelgen.commands.console import console, counted, print_fields, remark

if TYPE_CHECKING:
    from kernelgen.program.program import Program
    from kernelgen.records.config import CallRecord, TunedConfig


@click.command()
@click.argument("file", metavar="FILE.yaml")
@click.option("--standalone", "alone", is_flag=True, help="The source alone, with tilesmith's headers written into it.")
@click.option("--output", "-o", metavar="FILE.cu", help="With --standalone: write it there instead of printing it.")
def command(file: str, alone: bool, output: str | None) -> None:
    """Show a tuned kernel: its configuration as a table, then its source.

    With --standalone only the source, as one file that nvcc and NVRTC compile without tilesmith: to ship with another
    library, or to look at in a profiler. Its first comment says how to compile and launch it.

    \b
    Examples:
      tilesmith show lstm.yaml
      tilesmith show lstm.yaml | less
      tilesmith show lstm.yaml --standalone -o lstm_alone.cu
    """
    from kernelgen.records.config_reading import load_config, read_program

    if output is not None and not alone:
        raise click.UsageError("-o goes with --standalone; without it, what is shown is for reading")
    path = Path(file)
    config = load_config(path)
    program = read_program(path)
    if alone:
        text = _standalone(config, program)
        if output is not None:
            _write(Path(output), text)
            return
    else:
        print_fields(_fields(config))
        click.echo()
        text = "\n".join(call.source.text for call in program.calls)
    if sys.stdout.isatty():
        from rich.syntax import Syntax

        # The terminal wraps what is too long, so that lines are copied as they are.
        console().print(Syntax("", "cuda", theme="ansi_dark").highlight(text), soft_wrap=True, end="")
    else:
        click.echo(text, nl=not text.endswith("\n"))


def _standalone(config: TunedConfig, program: Program) -> str:
    """The sources with their headers; a remark where they are no longer those that it was tuned with."""
    from kernelgen.build.cache import program_hash
    from kernelgen.emit.standalone import standalone

    if program_hash(program) != config.source_hash:
        remark(
            "warning: tilesmith's headers have changed since this kernel was tuned, so the text is not quite what was "
            "validated; tune it again before you ship it"
        )
    return standalone(program, config.shape)


def _write(path: Path, text: str) -> None:
    """Write the text; a file that is not of this kind stays. Raises ConfigError."""
    from kernelgen.build.cache import write_together
    from kernelgen.emit.standalone import MARK
    from kernelgen.errors import ConfigError
    from kernelgen.records.config_text import reason

    if path.suffix not in (".cu", ".cuh"):
        raise ConfigError(f"CUDA source is a .cu file; {path} is not named so")
    try:
        if path.exists() and not (path.is_file() and path.read_bytes().startswith(MARK.encode())):
            raise ConfigError(f"{path} is there already and no standalone kernel; remove it or choose another name")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_together([(path, text.encode())])
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {reason(error)}") from error


def _fields(config: TunedConfig) -> list[tuple[str, str]]:
    """The configuration, in the order in which one would ask."""
    shape, model, checked = config.shape, config.model, config.validation
    cell = config.cell.name + (f" from {config.cell.path}" if config.cell.path else "")
    errors = ", ".join(f"{name} {error:.1e}" for name, error in checked.errors.items())
    where = "on the GPU" if checked.where == "gpu" else "in the emulator"
    fields = [
        ("cell", cell),
        ("direction", config.direction),
        ("shape", f"{shape}, saves {shape.save}" + (", recomputes the gates" if shape.recompute else "")),
        ("GPU", f"{config.gpu} ({config.arch})"),
        ("tiling", f"{config.schedule}: " + ", ".join(f"{name} {value}" for name, value in config.tiling.items())),
        *(field for call in config.calls for field in _call_fields(call, config)),
        *(("product", f"{one}, by cuBLASLt, before every step but the first") for one in config.between),
        *(("product", f"{one}, by cuBLASLt, after the last step") for one in config.products),
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
            f"{where}, B={checked.batch} T={checked.seq}, {counted(checked.seeds, 'input')}: relative error {errors} "
            f"(allowed {checked.tolerance:.1e})",
        ),
        ("made", f"{config.created} by tilesmith {config.versions.tilesmith}, {config.versions.compiler}"),
        ("source", config.source_hash),
    ]
    return fields


def _call_fields(call: CallRecord, config: TunedConfig) -> list[tuple[str, str]]:
    """One kernel: how it is launched at the tuned shape, and what the compiler said."""
    launch, reported = call.launch.at(config.shape), call.reported
    blocks = " x ".join(map(str, launch.grid))
    extras = (f", clusters of {launch.cluster}" if launch.cluster > 1 else "") + (
        ", cooperative" if launch.cooperative else ""
    )
    predicted = f" (predicted {config.predicted.registers})" if call is config.main else ""
    return [
        ("kernel", call.entry),
        (
            "  launch",
            f"{blocks} blocks of {launch.block} threads, {launch.shared_memory:,} bytes of shared memory{extras}",
        ),
        ("  registers", f"{reported.registers}{predicted}, {reported.spills} bytes spilled"),
    ]
