"""Tables of a file of results in Markdown, and documents that hold them between two comments."""

from __future__ import annotations

import re
from collections.abc import Callable

from peers.jobs import FLASHRNN, ONE_HEAD, OURS, TORCH_NN
from peers.results import PASSES, Record, Results
from peers.rows import SEQ

NAMES = {"lstm": "LSTM", "slstm": "sLSTM", "gru": "GRU", "elman": "Elman"}
ONE = "†"
"""Marks a time of cuDNN's with one head of the row's D, where the row has several."""

BLOCK = re.compile(r"(<!-- rnn:(\w+) -->\n).*?(<!-- /rnn -->)", re.DOTALL)
"""Where a document has the table of a group of rows."""


def filled(text: str, results: Results) -> str:
    """A document with the tables of the results in all its blocks. Raises ValueError for a group that nobody knows."""

    def table(found: re.Match[str]) -> str:
        begin, group, end = found.groups()
        if group not in TABLES:
            raise ValueError(f"no table of {group!r}: {', '.join(TABLES)}")
        return f"{begin}{TABLES[group](results, group)}{end}"

    return BLOCK.sub(table, text)


def beside_others(results: Results, group: str) -> str:
    """A line for each row that was measured: ours, cuDNN's and, where it ran, FlashRNN's times in both passes."""
    rows = {r.row: r for r in results.records if group in r.groups and r.system == OURS and r.ms is not None}
    flash = any(r.ms is not None and r.row in rows for r in results.records if r.system == FLASHRNN)
    names = ("cuDNN", "FlashRNN") if flash else ("cuDNN",)
    columns = ["heads x D, B", *(name for what in PASSES for name in (what, *names))]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for text, row in rows.items():
        name = f"module {row.head_dim}, {row.batch}" if row.module else f"{row.heads} x {row.head_dim}, {row.batch}"
        if row.seq != SEQ and not row.module:
            name += f", T = {row.seq}"
        cells = [cell for what in PASSES for cell in _passes(results, text, what)[: 1 + len(names)]]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n\n" + _about(results, group)


def by_cell(results: Results, group: str) -> str:
    """A line for each size, two columns for each cell: forward and training."""
    rows = list(results.find(OURS, "forward", group=group))
    cells = [cell for cell in NAMES if cell in {row.cell for row in rows}]
    lines = ["| heads x D, B | " + " | ".join(f"{NAMES[cell]} | training" for cell in cells) + " |"]
    lines.append("|---" * (1 + 2 * len(cells)) + "|")
    for size in dict.fromkeys((row.heads, row.head_dim, row.batch) for row in rows):
        heads, dim, batch = size
        times = []
        for cell in cells:
            text = next((r.row for r in rows if r.cell == cell and (r.heads, r.head_dim, r.batch) == size), "")
            times += [_ms(_of(results, text, what, OURS, "bfloat16")) for what in PASSES]
        lines.append(f"| {heads} x {dim}, {batch} | " + " | ".join(times) + " |")
    return "\n".join(lines) + "\n\n" + _about(results, group)


TABLES: dict[str, Callable[[Results, str], str]] = {
    "table": beside_others,
    "modules": beside_others,
    "batch": beside_others,
    "grid": beside_others,
    "cells": by_cell,
}
"""By group of rows (rows.py)."""


def _passes(results: Results, row: str, what: str) -> list[str]:
    ours = _ms(_of(results, row, what, OURS, "bfloat16"))
    peer, one = (_of(results, row, what, system, "float16") for system in (TORCH_NN, ONE_HEAD))
    cudnn = _ms(peer) if peer else f"{_ms(one)} {ONE}" if one and one.ms is not None else "-"
    return [f"**{ours}**", cudnn, _ms(_of(results, row, what, FLASHRNN, "bfloat16"))]


def _of(results: Results, row: str, what: str, system: str, dtype: str) -> Record | None:
    asked = (row, what, system, dtype)
    return next((r for r in results.records if (r.row, r.what, r.system, r.dtype) == asked), None)


def _ms(record: Record | None) -> str:
    return "-" if record is None or record.ms is None else f"{record.ms:#.3g}".rstrip(".")


def _about(results: Results, group: str) -> str:
    about = results.about
    errors = [r.error for r in results.records if r.system == OURS and group in r.groups and r.error is not None]
    tuned = about["tuned_seconds"]
    how = f"tuned for {tuned:.0f} s each" if tuned else "the model's first choice, not tuned"
    worst = f"; errors of ours against float64 up to {max(errors):.1e}" if errors else ""
    return f"{about['gpu']}, PyTorch {about['torch']}, {about['date']}: milliseconds (medians), {how}{worst}.\n"
