"""The group of all commands: each is imported when it is called, and every error for people is one message."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from kernelgen.commands import INTERRUPTED, Interruptible

_COMMANDS = {
    "gpus": "List the GPUs tilesmith knows, or show one with the source of every number.",
    "cells": "List the cells of the library, or show one's equations.",
    "solve": "Solve an integer-constraint problem from a file.",
    "plan": "Rank the tilings of a cell that fit a GPU, by the model.",
    "tune": "Find the fastest valid kernel of a cell and write it down.",
    "tune-all": "Tune every kernel that a program runs, those that take longest first.",
    "validate": "Prove a tuned kernel right once more.",
    "show": "Show a tuned kernel: its configuration and its source.",
    "export": "Write a tuned cell as a module of Triton and PyTorch.",
    "store": "Show, merge, export and import stores of trials.",
    "report": "Write a page of charts on what tuning found.",
    "profile": "Show where the time of a kernel's step goes.",
    "probe": "Measure the GPU in this machine, and write its profile.",
    "doctor": "Say what this machine has, and what is missing for what.",
}
"""Every command with its short help: `tilesmith --help` imports none of them."""


class _Failure(click.ClickException):
    """Something asked for that cannot be done: the message goes to stderr, the exit status is 2."""

    exit_code = 2


class _Commands(click.Group):
    """Commands imported on demand; every error made for people ends in one message and exit status 2."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which a newcomer meets them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"kernelgen.commands.{cmd_name.replace('-', '_')}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one gets the near names."""
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            from kernelgen.errors import near_names

            raise click.UsageError(f"no such command {args[0]!r}; {near_names(args[0], _COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; turn errors into a message."""
        if os.environ.get("NO_COLOR"):  # no-color.org; rich reads it by itself
            ctx.color = False
        try:
            with Interruptible():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("\ninterrupted", err=True)
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            raise
        except Exception as error:
            message = _for_people(error)
            if message is None:
                raise
            raise _Failure(message) from error


def _for_people(error: Exception) -> str | None:
    """What to tell whoever typed the command; None for an error that is a fault of this program."""
    from kernelgen.errors import TilesmithError

    constrint = sys.modules.get("constrint.errors")  # only a module that was imported can have raised
    if isinstance(error, TilesmithError) or (constrint is not None and isinstance(error, constrint.ConstrintError)):
        return str(error)
    if isinstance(error, MemoryError):
        return "the memory of this machine does not suffice for what was asked"
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return f"cannot write the output: {reason}" if error.filename is None else f"{_name(error.filename)}: {reason}"
    return None


def _name(file: object) -> str:
    """The name of a file in an error, which may be bytes or a number."""
    return os.fsdecode(file) if isinstance(file, str | bytes) else str(file)


def _version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    """Print the version, and which engine of the solver's runs, and end."""
    if asked and not ctx.resilient_parsing:
        from kernelgen import __version__
        from kernelgen.commands.machine import engine_in_words

        click.echo(f"tilesmith {__version__}; constrint runs {engine_in_words()}")
        ctx.exit()


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
def main() -> None:
    """Tuned, validated GPU kernels for recurrent cells.

    tilesmith takes a cell, a shape and a GPU, and gives back the fastest kernel it can prove right: as CUDA source,
    as a binary, and as a YAML file that `kernelgen.load` turns into a Python function. Nothing here needs a GPU:
    without one, kernels are ranked by a model and validated in an emulator.

    \b
    A first walk:
      tilesmith cells show lstm
      tilesmith plan lstm --gpu h200 --batch 16 --seq 1024 --heads 12 --head-dim 64
      tilesmith tune lstm --gpu h200 --batch 16 --seq 1024 --heads 12 --head-dim 64 -o lstm.yaml
      tilesmith show lstm.yaml
    """
