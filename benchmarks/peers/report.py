"""The table that a run ends with."""

from __future__ import annotations

from rich.table import Table

from peers.jobs import COMPILED, FLASHRNN, ONE_HEAD, OURS, PEER_DTYPES, TORCH_NN
from peers.results import PASSES, Record, Results


def table(results: Results, title: str) -> Table:
    """A line for each row and pass: milliseconds of the GPU with 10 and 90 %, and what else there is of each system."""
    shown = Table("row", "pass", title=title)
    columns = ("tilesmith ms", "10..90 %", "host", "eager", "error", "x floor", "cuDNN fp16", "error", "cuDNN bf16")
    for column in (*columns, "one head fp16", "bf16", "compiled us/step", "FlashRNN", "error"):
        shown.add_column(column, justify="right")
    rows = dict.fromkeys(record.row for record in results.records)
    for row in rows:
        for what in PASSES:
            of = {(r.system, r.dtype): r for r in results.records if (r.row, r.what) == (row, what)}
            ours = of.get((OURS, "bfloat16"))
            half, brain = (of.get((TORCH_NN, dtype)) for dtype in PEER_DTYPES)
            one = [of.get((ONE_HEAD, dtype)) for dtype in PEER_DTYPES]
            flash = of.get((FLASHRNN, "bfloat16"))
            loop = of.get((COMPILED, "bfloat16"))
            shown.add_row(
                row,
                what,
                _ms(ours),
                f"{ours.p10_ms:.3f}..{ours.p90_ms:.3f}" if ours and ours.p10_ms and ours.p90_ms else "",
                "" if ours is None or ours.host_ms is None else f"{ours.host_ms:.2f}",
                "" if ours is None or ours.eager_ms is None else f"{ours.eager_ms:.3f}",
                _error(ours),
                "" if ours is None or ours.times_floor is None else f"{ours.times_floor:.2f}",
                _ms(half),
                _error(half),
                _ms(brain),
                *map(_ms, one),
                "" if loop is None or loop.ms is None else f"{1000 * loop.ms / loop.seq:.1f}",
                _ms(flash),
                _error(flash),
            )
    return shown


def refusals(results: Results) -> list[str]:
    """A line for each reason of a system that there is no time."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for record in results.records:
        if record.reason:
            key = (f"{record.system} {record.dtype}", record.reason)
            reasons.setdefault(key, []).append(f"{record.row} {record.what}")
    return [f"{system}: {reason} ({', '.join(rows)})" for (system, reason), rows in reasons.items()]


def _ms(record: Record | None) -> str:
    if record is None:
        return ""
    return "-" if record.ms is None else f"{record.ms:.3f}"


def _error(record: Record | None) -> str:
    return "" if record is None or record.error is None else f"{record.error:.1e}"
