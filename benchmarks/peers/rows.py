"""Rows: what is measured, by groups, and how a row is written on the command line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

SEQ = 1024
MODULE_SEQ = 128
QUICK_SEQ = 64
QUICK_ROWS = 2
"""Of each group, with --quick."""

FORM = "CELL:HEADSxDIM:BATCH[:STEPS], or module:CELL:UNITS:BATCH[:STEPS] for a layer of as many inputs as units"


@dataclass(frozen=True)
class Row:
    """One shape: B sequences of T steps of H heads of D units. module: a whole layer, its input product included.

    groups: those of GROUPS that it stands in."""

    cell: str
    heads: int
    head_dim: int
    batch: int
    seq: int = SEQ
    module: bool = False
    groups: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The row as ``parse`` reads it; the same for rows of different groups."""
        if self.module:
            return f"module:{self.cell}:{self.head_dim}:{self.batch}:{self.seq}"
        return f"{self.cell}:{self.heads}x{self.head_dim}:{self.batch}:{self.seq}"


def parse(text: str) -> Row:
    """The row of a text. Raises ValueError with what is wrong."""
    parts = text.split(":")
    module = parts[0] == "module"
    if module:
        parts = parts[1:]
    try:
        cell, size, batch, *steps = parts
        heads, dim = (1, int(size)) if module else map(int, size.split("x"))
        seq = int(steps[0]) if steps else MODULE_SEQ if module else SEQ
        if len(steps) > 1 or not cell or min(heads, dim, int(batch), seq) < 1:
            raise ValueError
    except ValueError:
        raise ValueError(f"{text!r} is no row; it must be {FORM}, such as lstm:3x256:16") from None
    return Row(cell, heads, dim, int(batch), seq, module)


def _table() -> list[Row]:
    sizes = (
        "24x32:16", "12x64:16", "12x64:128", "6x128:16", "4x192:16", "3x256:16", "4x256:16", "1x256:16", "1x512:16",
        "4x512:16", "1x768:16", "1x768:1", "1x768:64", "1x1024:16", "1x2048:16", "4x512:256",
    )  # fmt: skip
    return [parse(f"lstm:{size}") for size in sizes]


def _grid() -> list[Row]:
    """768 units in all: over D; over B and T with the smallest heads that are usual and with a single one."""
    dims = [parse(f"lstm:{768 // dim}x{dim}:16") for dim in (16, 32, 64, 128, 192, 256, 384, 768)]
    batches = [
        parse(f"lstm:{size}:{batch}") for size in ("12x64", "1x768") for batch in (2, 4, 8, 16, 32, 64, 128, 256)
    ]
    steps = [parse(f"lstm:{size}:16:{seq}") for size in ("12x64", "1x768") for seq in (64, 128, 256, 512, 1024, 2048)]
    return [*dims, *batches, *steps]


def _cells() -> list[Row]:
    return [parse(f"{cell}:{size}:16") for size in ("3x256", "1x512", "1x1024") for cell in ("slstm", "gru", "elman")]


def _batch() -> list[Row]:
    return [parse(f"lstm:{size}:{1 << power}") for size in ("4x256", "1x512") for power in range(11)]


GROUPS = {
    "table": _table(),
    "modules": [parse("module:lstm:512:32"), parse("module:lstm:512:256")],
    "cells": _cells(),
    "grid": _grid(),
    "batch": _batch(),
}
"""The rows by group, those first that matter most when the time does not suffice."""


def selected(groups: Iterable[str], texts: Iterable[str] = (), *, quick: bool = False) -> list[Row]:
    """The rows of the groups ("all" is every one) and those of the texts, each once. quick: few of them, few steps."""
    wanted = list(groups)
    found: dict[str, Row] = {}
    chosen = {name: rows for name, rows in GROUPS.items() if name in wanted or "all" in wanted}
    if texts:
        chosen["row"] = [parse(text) for text in texts]
    for name, rows in chosen.items():
        for row in rows[:QUICK_ROWS] if quick and name != "row" else rows:
            kept = replace(row, seq=min(row.seq, QUICK_SEQ)) if quick else row
            earlier = found.setdefault(kept.text, kept)
            found[kept.text] = replace(earlier, groups=(*earlier.groups, name))
    return list(found.values())
