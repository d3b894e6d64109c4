"""Options that several commands share, and what they make of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from kernelgen.shape import Shape

Command = TypeVar("Command", bound=Callable[..., Any])

CELL_HELP = "CELL is a cell of the library (`tilesmith cells`) or path/to/file.py:NAME."


def shape_options(command: Command) -> Command:
    """Add --gpu and everything that makes a Shape; make_shape() reads them."""
    for option in reversed(
        (
            click.option(
                "--gpu",
                default="auto",
                show_default=True,
                metavar="NAME",
                help="A GPU's name (`tilesmith gpus`), a profile file, or auto: the one in this machine.",
            ),
            click.option("--batch", "-b", type=int, required=True, metavar="B", help="Sequences in a batch."),
            click.option("--seq", "-t", type=int, required=True, metavar="T", help="Steps in a sequence."),
            click.option("--heads", type=int, default=1, show_default=True, metavar="H", help="Independent heads."),
            click.option("--head-dim", "-d", type=int, required=True, metavar="D", help="Units of one head."),
            click.option(
                "--dtype",
                default="bfloat16",
                show_default=True,
                metavar="TYPE",
                help="Of inputs, weights and h: bfloat16 or float16. Sums are float32.",
            ),
            click.option(
                "--save",
                default="hidden",
                show_default=True,
                metavar="WHAT",
                help="What every step writes: hidden (h), states (all of them) or gates (those too).",
            ),
        )
    ):
        command = option(command)
    return command


def make_shape(options: dict[str, Any]) -> Shape:
    """Take the shape's options out of ``options``. Raises ShapeError for one that makes no sense."""
    from kernelgen.shape import Shape

    return Shape(**{name: options.pop(name) for name in ("batch", "seq", "heads", "head_dim", "dtype", "save")})


def json_option(command: Command) -> Command:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)
