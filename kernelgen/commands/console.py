"""What commands print: tables and JSON to stdout, progress and remarks to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_WIDTH = 200
"""Columns to use where the output is no terminal and nothing says how wide it is."""


def console(*, stderr: bool = False) -> Console:
    """A rich console that keeps its hands off the text: no markup, no guessed colours."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PLAIN_WIDTH
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[str] = ()) -> None:
    """Print a table on stdout; the columns named in ``right`` are aligned to the right.

    Their headings break at every space and underscore, so that a table of numbers stays narrow.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    numbers = set(right)
    for column in columns:
        if column in numbers:
            table.add_column(column.replace("_", "\n").replace(" ", "\n"), justify="right", no_wrap=True)
        else:
            table.add_column(column, vertical="bottom")
    for row in rows:
        table.add_row(*row)
    console().print(table)


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Print names and values in two columns on stdout."""
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields:
        table.add_row(name, value)
    console().print(table)


def remark(message: str) -> None:
    """Say something that is not the answer, on stderr."""
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
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        yield Bar(progress)


def bytes_text(count: int) -> str:
    """A number of bytes for a table."""
    return f"{count:,}"
