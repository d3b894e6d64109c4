"""The sorted rows of a table: which of them are possible."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from constrint.expr import Row
from constrint.intervals import Interval


def some_row(spans: Sequence[Interval], rows: Sequence[Row]) -> bool:
    """Whether one of these sorted rows lies within the spans of its columns.

    Where the first columns are known numbers, only the rows that begin with these are looked at.
    """
    known = 0
    while known < len(spans) and spans[known][0] == spans[known][1]:
        known += 1
    least = tuple(low for low, _, _ in spans[: known + 1])
    most = tuple(high for _, high, _ in spans[: known + 1])
    for i in range(bisect_left(rows, least), len(rows)):
        row = rows[i]
        if row[: known + 1] > most:
            return False
        if all(low <= x <= high for (low, high, _), x in zip(spans, row, strict=True)):
            return True
    return False
