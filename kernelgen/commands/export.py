"""tilesmith export: a tuned kernel as a file for others, which needs no tilesmith."""

from __future__ import annotations

from pathlib import Path

import click

from kernelgen.commands.console import remark, working


@click.command()
@click.argument("file", metavar="FILE.yaml")
@click.option(
    "--triton", "output", required=True, metavar="FILE.py", help="Write a module of Triton and PyTorch there."
)
@click.option("--gpu", metavar="FILE", help="The profile it was tuned for, where that is a file of your own.")
def command(file: str, output: str, gpu: str | None) -> None:
    """Write a tuned cell as a Python module that needs Triton and PyTorch, and no tilesmith.

    It holds the forward and the backward kernel in Triton, an operator of PyTorch with autograd, the tuned launch of
    each, and candidates for Triton's own autotuner. The tilings are those of FILE.yaml and, where it is there, of
    FILE_backward.yaml beside it, if they were tuned with --language triton; else the model's best.

    \b
    Examples:
      tilesmith tune lstm --batch 16 --seq 1024 --heads 12 --head-dim 64 --language triton --direction both -o lstm.yaml
      tilesmith export lstm.yaml --triton lstm_triton.py
    """
    from kernelgen.records.config_reading import load_config
    from kernelgen.tuning.triton_export import SCHEDULES, backward_beside, exported
    from kernelgen.verify.config_check import find_profile

    path = Path(file)
    check_module(Path(output))
    configs = [load_config(path)]
    if configs[0].direction == "forward" and (beside := backward_beside(path)).exists():
        configs.append(load_config(beside))
    with working(f"planning what {file} leaves open"):
        text = exported(configs, find_profile(configs[0], gpu))
    tuned = {config.schedule for config in configs}
    missing = [direction for direction, names in SCHEDULES.items() if not tuned & {*names}]
    if missing:
        remark(
            f"{' and '.join(missing)}: no tiling tuned with --language triton, so the model's best is taken, which "
            "nobody has validated; tune with --language triton --direction both"
        )
    write_module(Path(output), text)
    click.echo(f"wrote {output}")


def check_module(path: Path) -> None:
    """Raise ConfigError where no module can be written, for it would not be one by its name, or would take the place of
    a file of another kind."""
    from kernelgen.emit.triton_module import MARK
    from kernelgen.errors import ConfigError
    from kernelgen.records.config_text import reason

    if path.suffix != ".py":
        raise ConfigError(f"a module is a .py file; {path} is not named so")
    try:
        if path.exists() and not (path.is_file() and path.read_bytes().startswith(f'"""{MARK}'.encode())):
            raise ConfigError(f"{path} is there already and no such module; remove it or choose another name")
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {reason(error)}") from error


def write_module(path: Path, text: str) -> None:
    """Write the text; a file that is not of this kind stays. Raises ConfigError."""
    from kernelgen.build.cache import write_together
    from kernelgen.errors import ConfigError
    from kernelgen.records.config_text import reason

    check_module(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_together([(path, text.encode())])
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {reason(error)}") from error
