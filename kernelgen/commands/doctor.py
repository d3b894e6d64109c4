"""tilesmith doctor: what this machine has, and what is missing for what."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

import click

from kernelgen.commands.console import PLAIN_WIDTH, print_json
from kernelgen.commands.options import json_option

if TYPE_CHECKING:
    from kernelgen.commands.machine import Check

_COLOURS = {"ok": "green", "absent": "bright_black", "warning": "yellow", "broken": "red"}

NARROWEST = 30
"""Columns of the text at least, however narrow the terminal is."""


@click.command()
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Say what this machine has of all that tilesmith uses, and what is missing for what.

    Each line is marked: ok; absent (optional, and not there); warning (there, but not as it should be); broken
    (required, and does not work). The exit status is 0 unless something is broken.

    \b
    Examples:
      tilesmith doctor
      tilesmith doctor --json
    """
    from kernelgen.commands.machine import examine, healthy

    checks = examine()
    if as_json:
        print_json([dataclasses.asdict(check) for check in checks])
    else:
        _table(checks)
    if not healthy(checks):
        ctx.exit(2)


def _table(checks: list[Check]) -> None:
    """Print the checks without rich, which may be what is missing."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else PLAIN_WIDTH
    marks, names = max(map(len, _COLOURS)) + 2, max(len(check.name) for check in checks) + 2
    wrap = textwrap.TextWrapper(max(width - marks - names, NARROWEST), break_long_words=False, break_on_hyphens=False)
    for check in checks:
        click.echo(
            click.style(f"{check.status:<{marks}}", fg=_COLOURS[check.status]) + f"{check.name:<{names}}", nl=False
        )
        lines = [line for text in (check.found, check.advice) for line in wrap.wrap(text)]
        click.echo(("\n" + " " * (marks + names)).join(lines))
