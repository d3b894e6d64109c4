"""What commands print: tables and JSON to stdout, progress and remarks to stderr."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PLAIN_WIDTH = 200
"""Columns to use where the output is no terminal and COLUMNS does not say how wide it is."""


def console(*, stderr: bool = False) -> Console:
    """A rich console that keeps its hands off the text: no markup, no guessed colours."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    said = os.environ.get("COLUMNS", "").isdecimal()
    width = None if stream.isatty() or said else PLAIN_WIDTH
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    readable = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    click.echo(json.dumps(value, indent=2, ensure_ascii=not readable))


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[str] = (),
    together: Sequence[str] = (),
) -> None:
    """Print a table on stdout; the columns named in ``right`` are aligned to the right.

    Their headings break at every space and underscore, so that a table of numbers stays narrow. together: neighbouring
    columns that become one where the terminal is too narrow for them; then columns without a value in any row are left
    out too, and text is folded, within a word only where it has an underscore or a hyphen. Nothing is ever cut off: a
    table that is still too wide is left for the terminal to wrap.
    """
    out = console()
    table = _table(columns, rows, frozenset(right))
    if _width(out, table) > out.width:
        if together:
            first = columns.index(together[0])
            last = first + len(together)
            rows = [(*row[:first], " ".join(row[first:last]), *row[last:]) for row in rows]
            columns = (*columns[:first], "tiling", *columns[last:])
            out.print(f"tiling: {', '.join(together)}")
        kept = [place for place, name in enumerate(columns) if not name or not rows or any(row[place] for row in rows)]
        columns, rows = [columns[place] for place in kept], [[row[place] for place in kept] for row in rows]
        table = _table(columns, rows, frozenset(right), dense=True)
        spare = out.width - _width(out, table)
        if spare < 0:
            table = _table(columns, _folded(columns, rows, right, -spare), frozenset(right), dense=True)
    out.width = max(out.width, _width(out, table))
    out.print(table)


def _width(out: Console, table: Table) -> int:
    """The columns that a table needs where nothing is folded."""
    return out.measure(table, options=out.options.update(max_width=10_000)).maximum


def _folded(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str], excess: int
) -> list[tuple[str, ...]]:
    """The cells with line breaks, so that the table is narrower by ``excess``, as far as that can be: the widest column
    of text gives way first."""
    texts = [[row[place] for row in rows] for place in range(len(columns))]
    widths = [max(map(len, [name, *text])) for name, text in zip(columns, texts, strict=True)]
    least = [
        width if name in right else max(len(part) for each in [name, *text] for part in _parts(each) or [""])
        for name, text, width in zip(columns, texts, widths, strict=True)
    ]
    for _ in range(excess):
        widest = max(range(len(columns)), key=lambda place: widths[place] if widths[place] > least[place] else 0)
        if widths[widest] <= least[widest]:
            break
        widths[widest] -= 1
    return [tuple(_fold(cell, width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def _parts(text: str) -> list[str]:
    """Where a text may be broken: after spaces, underscores and hyphens."""
    return [part.rstrip() for part in re.findall(r"[^ _-]+[ _-]*|[ _-]+[^ _-]*", text)]


def _fold(text: str, width: int) -> str:
    """A text on lines of at most so many letters, broken within a word only where a word is longer."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
            continue
        lines.append("")
        for part in _parts(word) if len(word) > width else [word]:
            if len(lines[-1]) + len(part) > width:
                lines.append("")
            lines[-1] += part
    return "\n".join(line for line in lines if line)


def _table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[str], *, dense: bool = False
) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0 if dense else 1, 0, 0), header_style="bold")
    headings = [name.replace("_", "\n").replace(" ", "\n") if name in right else name for name in columns]
    height = max(heading.count("\n") for heading in headings)
    for name, heading in zip(columns, headings, strict=True):
        at_bottom = "\n" * (height - heading.count("\n")) + heading
        table.add_column(at_bottom, justify="right" if name in right else "left", no_wrap=True, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Print names and values in two columns on stdout."""
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields:
        table.add_row(name, value)
    console().print(table)


def counted(number: int, noun: str) -> str:
    """A number of things: 1 input, 2 inputs."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def remark(message: str) -> None:
    """Say something that is not the answer, on stderr; where that cannot be written, it is lost."""
    with suppress(OSError):
        click.echo(message, err=True)


class Bar:
    """A progress bar on stderr, and nothing at all where stderr is no terminal."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._task: Any = None
        self._stage = ""

    def show(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is; a new stage starts a new bar. total: 0 where it is not known."""
        if self._progress is None:
            return
        if stage != self._stage:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._stage, self._task = stage, self._progress.add_task(stage, total=total or None)
        self._progress.update(self._task, completed=done, total=total or None)

    def remark(self, message: str) -> None:
        """Say something above the bar."""
        if self._progress is None:
            remark(message)
        else:
            self._progress.console.print(message)


@contextmanager
def progress_bar() -> Iterator[Bar]:
    """Yield a Bar that is gone when the block ends."""
    if not sys.stderr.isatty():
        yield Bar(None)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeElapsedColumn
    from rich.text import Text

    class Count(MofNCompleteColumn):
        """How many are done, where it is known of how many."""

        def render(self, task: Task) -> Text:
            return Text() if task.total is None else super().render(task)

    columns = (TextColumn("{task.description}"), BarColumn(), Count(), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        yield Bar(progress)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show on stderr that something goes on, where it is a terminal, until the block ends."""
    if not sys.stderr.isatty():
        yield
        return
    with console(stderr=True).status(what):
        yield
