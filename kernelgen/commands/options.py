"""Options that several commands share, and what they make of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

if TYPE_CHECKING:
    from kernelgen.program.shape import Shape
    from kernelgen.program.source import Language
    from kernelgen.program.task import Direction

Command = TypeVar("Command", bound=Callable[..., Any])

LARGEST = 2**31 - 1
"""Of any count: kernels take 32-bit integers."""


_MOST_DIGITS = 40


def _refuse_long(
    kind: click.ParamType[Any], value: Any, param: click.Parameter | None, ctx: click.Context | None
) -> None:
    """Fail for text of more digits than any number that could be meant has."""
    if isinstance(value, str) and len(value) > _MOST_DIGITS:
        kind.fail(f"{value[:_MOST_DIGITS]}... ({len(value)} characters) is no number that could be meant", param, ctx)


class Whole(click.types.IntParamType):
    """A whole number of at least ``min``, such as fits 32 bits; refused in a few words, however long it is."""

    def __init__(self, min: int | None = None) -> None:
        self._min = min

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """An int. Fails for text that is none, too small or too large."""
        _refuse_long(self, value, param, ctx)
        number: int = super().convert(value, param, ctx)
        if self._min is not None and number < self._min:
            self.fail(f"{number} is less than {self._min}", param, ctx)
        if number > LARGEST:
            self.fail(f"{number:,} is more than {LARGEST:,}", param, ctx)
        return number


class Seconds(click.FloatRange):
    """A number of seconds; "nan", which is neither less nor more than anything, is none, nor is "inf"."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """A float. Fails for text that is none."""
        _refuse_long(self, value, param, ctx)
        seconds: float = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value} is no number of seconds", param, ctx)
        return seconds


CELL_HELP = (
    "CELL is a cell of the library (`tilesmith cells`) or path/to/file.py:NAME; NAME may be left out where the file "
    "defines one cell."
)


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
            click.option("--batch", "-b", type=Whole(), required=True, metavar="B", help="Sequences in a batch."),
            click.option("--seq", "-t", type=Whole(), required=True, metavar="T", help="Steps in a sequence."),
            click.option("--heads", type=Whole(), default=1, show_default=True, metavar="H", help="Independent heads."),
            click.option("--head-dim", "-d", type=Whole(), required=True, metavar="D", help="Units of one head."),
            click.option(
                "--dtype",
                default="bfloat16",
                show_default=True,
                metavar="TYPE",
                help="Of inputs, weights and h: bfloat16, float16, float32, float64, or tf32: float32 with products "
                "in TF32. Sums are float32, of float64 float64.",
            ),
            click.option(
                "--save",
                metavar="WHAT",
                help="What every step writes: hidden (h, the default forward), states (all of them) or gates (those "
                "too, the default otherwise). Backward, hidden: gradients come from outside for h alone.",
            ),
            click.option(
                "--recompute",
                is_flag=True,
                help="The backward kernel recomputes the gates instead of reading what the forward kernel saved.",
            ),
            click.option(
                "--resets",
                is_flag=True,
                help="The kernel takes flags [B, T]: where the states before a step are the initial ones again.",
            ),
            click.option(
                "--lengths",
                is_flag=True,
                help="The kernel takes each sequence's own number of steps, at most T; what follows is zeros.",
            ),
            click.option(
                "--inputs",
                type=Whole(0),
                default=0,
                metavar="I",
                help="The forward kernel takes x [B, T, I] and W and multiplies them itself; 0, the default: it takes "
                "the product Wx.",
            ),
        )
    ):
        command = option(command)
    return command


def direction_option(*choices: str) -> Callable[[Command], Command]:
    """Add --direction with these choices, the first of which is the default; directions() reads it."""
    return click.option(
        "--direction",
        type=click.Choice(choices),
        default=choices[0],
        show_default=True,
        help="Of the pass" + (": both, for training, makes two kernels." if "both" in choices else "."),
    )


def directions(option: str) -> tuple[Direction, ...]:
    """What --direction stands for."""
    return ("forward", "backward") if option == "both" else (cast("Direction", option),)


def language_option(command: Command) -> Command:
    """Add --language, which languages() reads."""
    return click.option(
        "--language",
        type=click.Choice(("cuda", "triton", "any")),
        default="cuda",
        show_default=True,
        help="What the kernels are written in.",
    )(command)


def languages(option: str) -> Language | None:
    """What --language stands for: None for any."""
    return None if option == "any" else cast("Language", option)


def objective_option(command: Command) -> Command:
    """Add --objective."""
    return click.option(
        "--objective",
        type=click.Choice(("time", "energy", "edp")),
        default="time",
        show_default=True,
        help="What of a kernel is to be small: time, energy, or their product; energy as the driver counts it (NVML).",
    )(command)


def workers_option(command: Command) -> Command:
    """Add --workers, which kernelgen.tuning.gpus.named reads."""
    return click.option(
        "--workers",
        default="",
        metavar="N|ray[:ADDRESS]",
        help="Try candidates on N GPUs of this machine (default: all of that name), or on those of a Ray cluster; "
        "without an address Ray is started on this machine.",
    )(command)


def make_shape(options: dict[str, Any], direction: str = "forward") -> Shape:
    """Take the shape's options out of ``options``; direction: that of --direction.

    Raises ShapeError for one that makes no sense.
    """
    from kernelgen.errors import ShapeError
    from kernelgen.program.shape import FEATURES, INPUT_PRODUCT, Shape

    save, recompute = options.pop("save"), options.pop("recompute")
    if recompute and direction == "forward":
        raise ShapeError("--recompute is about the backward kernel; it goes with --direction backward or both")
    needed = "states" if recompute else "gates"
    if direction == "both" and save not in (None, needed):
        raise ShapeError(
            f"--direction both makes a forward kernel that saves {needed}, for the backward one reads them; --save "
            f"{save} does not go with it. Leave it out, or tune the directions one by one."
        )
    sizes = {name: options.pop(name) for name in ("batch", "seq", "heads", "head_dim", "dtype")}
    sizes |= {name: options.pop(name) for name in (*FEATURES, INPUT_PRODUCT)}
    if sizes[INPUT_PRODUCT] and direction != "forward":
        raise ShapeError(
            "--inputs is about the forward kernel, which multiplies them; it goes with --direction forward. A backward "
            "kernel makes the gradients of Wx; leave --inputs out for it."
        )
    return Shape(**sizes, save=save or ("hidden" if direction == "forward" else needed), recompute=recompute)


def json_option(command: Command) -> Command:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)
