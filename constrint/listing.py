"""The solutions of a factored set as tables: NumPy arrays in memory or in a file, whole or in parts, Arrow, tuples."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from constrint.domains import Domain
from constrint.errors import ConstrintError
from constrint.integers import exact_int, grouped, shown
from constrint.limits import check_time

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from constrint.factor import Factor

WIDTHS = ("int8", "int16", "int32", "int64")
KEPT = 1 << 22
"""Numbers of a factor that is listed once and kept while chunks are made."""
OBJECTS = 1 << 20
"""A variable of more integers than this has no list of them that rows would share."""


class Listing:
    """The tables of one set.

    names: the variables, in the order of the columns. factors: with the variables of each, in the order of the set.
    values: of each variable that is written as the position of its value, the values in the order given; of any other
    the integers themselves are written.
    """

    def __init__(
        self,
        names: Sequence[str],
        factors: Sequence[tuple[Sequence[str], Factor]],
        count: int,
        values: Mapping[str, Mapping[int, int]],
    ) -> None:
        self.names, self.count = names, count
        self.factors = list(factors)
        self.columns = {name: column for column, name in enumerate(names)}
        # What is written in place of each value of each layer, where that is another.
        self.written = [
            [[values[name][x] for x in domain] if name in values else [] for name, domain in _layers(group, factor)]
            for group, factor in self.factors
        ]

    def array(self, dtype: object, file: str | Path | None, deadline: float | None) -> NDArray[Any]:
        """Every row. file: where the array lies, as NumPy's own format, mapped into memory."""
        import numpy as np

        kind = self.kind(dtype)
        array = self._empty(kind, file)
        if not self.count:
            return array
        own = _integers(kind)
        plain = array.view(own) if own != kind else array
        inner = self.count
        for (group, factor), written in zip(self.factors, self.written, strict=True):
            inner //= factor.total
            if len(self.factors) == 1:
                factor.fill([plain[:, self.columns[name]] for name in group], deadline, 0, None, written)
                break
            listed = np.empty((factor.total, len(group)), dtype=own, order="F")
            factor.fill([listed[:, i] for i in range(len(group))], deadline, 0, None, written)
            for i, name in enumerate(group):
                factor.spread(listed[:, i], inner, plain[:, self.columns[name]], deadline)
        if file is not None:
            array.flush()  # type: ignore[attr-defined]
        return array

    def chunks(self, rows: int, dtype: object, deadline: float | None) -> Iterator[NDArray[Any]]:
        """Every row, at most ``rows`` at a time."""
        import numpy as np

        rows = exact_int(rows, "the rows of a chunk")
        if rows < 1:
            raise ConstrintError(f"a chunk has at least one row, not {rows}")
        kind = self.kind(dtype)
        own = _integers(kind)
        kept: dict[int, NDArray[Any]] = {}
        for number, (group, factor) in enumerate(self.factors):
            if 0 < factor.total * len(group) <= KEPT:
                kept[number] = np.empty((factor.total, len(group)), dtype=own, order="F")
                columns = [kept[number][:, i] for i in range(len(group))]
                factor.fill(columns, deadline, 0, None, self.written[number])
        for start in range(0, self.count, rows):
            check_time(deadline)
            stop = min(start + rows, self.count)
            array = np.empty((stop - start, len(self.names)), dtype=own, order="F")
            inner = self.count
            for number, (group, factor) in enumerate(self.factors):
                inner //= factor.total
                low, high = start // inner, (stop - 1) // inner
                part = self._part(number, low, high, own, kept, deadline)
                # How often each row of the part comes: the first and the last may be cut.
                times = np.full(high - low + 1, min(inner, rows), dtype=np.int64)
                times[-1] = stop - max(start, high * inner)
                if high > low:
                    times[0] = (low + 1) * inner - start
                for i, name in enumerate(group):
                    array[:, self.columns[name]] = np.repeat(part[:, i], times) if inner > 1 else part[:, i]
            yield array.view(kind) if own != kind else array

    def _part(
        self, number: int, low: int, high: int, kind: Any, kept: dict[int, NDArray[Any]], deadline: float | None
    ) -> NDArray[Any]:
        """Rows low .. high of a factor, which begins again after its last."""
        import numpy as np

        group, factor = self.factors[number]
        total = factor.total
        if number in kept:
            return kept[number].take(np.arange(low % total, low % total + high - low + 1) % total, axis=0)
        part = np.empty((high - low + 1, len(group)), dtype=kind, order="F")
        done = 0
        while done < len(part):
            first = (low + done) % total
            count = min(len(part) - done, total - first)
            columns = [part[done : done + count, i] for i in range(len(group))]
            factor.fill(columns, deadline, first, count, self.written[number])
            done += count
        return part

    def at(self, ranks: Sequence[int], by: Sequence[int]) -> NDArray[Any]:
        """The rows at these places of all rows in lexicographic order of the columns ``by``, which name every column,
        largest numbers first, without listing them."""
        import numpy as np

        from constrint.ranked import Turn, ranked

        turns: dict[int, Turn] = {}
        for number, ((group, factor), written) in enumerate(zip(self.factors, self.written, strict=True)):
            for layer, ((name, domain), own) in enumerate(zip(_layers(group, factor), written, strict=True)):
                turns[self.columns[name]] = Turn(number, layer, own or domain)
        table = np.empty((len(ranks), len(self.names)), dtype=np.int64, order="F")
        factors = [factor for _, factor in self.factors]
        ranked(factors, [turns[column] for column in by], ranks, [table[:, column] for column in by])
        return table

    def kind(self, dtype: object) -> Any:
        """The dtype that was asked for; "smallest": of the integers, the one of fewest bytes that holds every value."""
        import numpy as np

        low, high = 0, 0
        for (group, factor), written in zip(self.factors, self.written, strict=True):
            for (_, domain), own in zip(_layers(group, factor), written, strict=True):
                ends = (min(own), max(own)) if own else (domain[0], domain[-1])
                low, high = min(low, *ends), max(high, *ends)
        if isinstance(dtype, str) and dtype == "smallest":
            for width in WIDTHS:
                if np.iinfo(width).min <= low and high <= np.iinfo(width).max:
                    return np.dtype(width)
            raise ConstrintError("a value does not fit 64 bits; iterate over the set")
        try:
            kind = np.dtype(dtype)  # type: ignore[call-overload]
        except TypeError:
            raise ConstrintError(f"{shown(dtype)} is no dtype of NumPy's; ask for 'smallest' or int64") from None
        if kind.kind not in "iu":
            raise ConstrintError(f"a table holds integers, not {kind}; ask for 'smallest' or int64, and convert that")
        if low < np.iinfo(kind).min or high > np.iinfo(kind).max:
            bits = 8 * kind.itemsize
            raise ConstrintError(f"a value does not fit {kind} ({bits} bits): they go from {low:,} to {high:,}")
        return kind

    def _empty(self, kind: Any, file: str | Path | None) -> NDArray[Any]:
        import numpy as np

        shape = self.count, len(self.names)
        needed = prod(shape) * kind.itemsize
        if file is None:
            if needed > _memory():
                raise ConstrintError(
                    f"listing {grouped(self.count)} solutions of {shape[1]} variables takes {grouped(needed // 10**9)} "
                    f"GB, and this machine has {_memory() / 1e9:,.1f} GB; ask for a smaller dtype, a file or chunks, "
                    "iterate over the set, take slices of it, or sample it"
                )
            return np.empty(shape, dtype=kind, order="F")
        path = Path(file)
        try:
            free = shutil.disk_usage(path.parent).free
            if needed > free:
                raise ConstrintError(
                    f"a table of {grouped(self.count)} solutions takes {grouped(needed // 10**9)} GB, and "
                    f"{path.parent} has {free / 1e9:,.1f} GB left"
                )
            return np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape, fortran_order=True)
        except (OSError, ValueError) as error:
            raise ConstrintError(f"cannot write {path}: {error}") from None


def arranged(positions: NDArray[Any], sizes: Sequence[int], by: Sequence[int]) -> NDArray[Any]:
    """The rows of a table of positions in lexicographic order of some of its columns, the largest positions first.

    sizes: of each column, more than any position in it. by: columns, the most significant first.
    """
    import numpy as np

    from constrint.core import load_core

    core = load_core()
    by = [column for column in by if sizes[column] > 1]
    if not by:
        return positions
    made = np.empty_like(positions, order="F")
    columns = range(len(sizes))
    if core is not None and max(sizes) <= OBJECTS and len(positions) < 1 << 32:
        core.arrange([positions[:, i] for i in columns], list(sizes), by, [made[:, i] for i in columns])
        return made
    order = np.lexsort([np.negative(positions[:, i], dtype=np.int64) for i in reversed(by)])
    for i in columns:
        made[:, i] = positions[order, i]
    return made


def as_tuples(positions: NDArray[Any], values: Sequence[Sequence[Any] | None]) -> list[tuple[Any, ...]]:
    """A table of positions as tuples of the values that stand there; of no values, the table holds these themselves."""
    from constrint.core import load_core

    core = load_core()
    if not values:
        return [()] * len(positions)
    with _no_collection():
        if core is not None:
            found: list[tuple[Any, ...]] = core.tuples(*_columns(positions, values))
            return found
        return list(zip(*_objects(positions, values), strict=True))


def as_dicts(
    positions: NDArray[Any], names: Sequence[str], values: Sequence[Sequence[Any] | None]
) -> list[dict[str, Any]]:
    """A table of positions as dictionaries of the values that stand there."""
    from constrint.core import load_core

    core = load_core()
    if not values:
        return [{} for _ in range(len(positions))]
    with _no_collection():
        if core is not None:
            found: list[dict[str, Any]] = core.dictionaries(list(names), *_columns(positions, values))
            return found
        rows = zip(*_objects(positions, values), strict=True)
        return [dict(zip(names, row, strict=True)) for row in rows]


def _columns(
    positions: NDArray[Any], values: Sequence[Sequence[Any] | None]
) -> tuple[list[NDArray[Any]], list[list[Any] | None]]:
    """As the core takes them."""
    lists = [None if own is None else list(own) for own in values]
    return [positions[:, i] for i in range(len(values))], lists


def _objects(positions: NDArray[Any], values: Sequence[Sequence[Any] | None]) -> list[list[Any]]:
    """The columns as lists; where a variable has few values, of the same few objects."""
    import numpy as np

    columns = []
    for i, own in enumerate(values):
        if own is None:
            columns.append(positions[:, i].tolist())
            continue
        objects = np.empty(len(own), dtype=object)
        objects[:] = list(own)
        columns.append(objects.take(positions[:, i]).tolist())
    return columns


@contextmanager
def _no_collection() -> Iterator[None]:
    """Making millions of tuples, the garbage collector would look through them again and again."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def to_arrow(positions: NDArray[Any], names: Sequence[str], values: Sequence[Sequence[Any] | None]) -> Any:
    """A table of positions as a pyarrow.Table: numbers and truth values as such, text as dictionaries, None as null."""
    try:
        import pyarrow as pa
    except ImportError:
        raise ConstrintError("to_arrow needs pyarrow: pip install pyarrow") from None
    columns = []
    for i, (name, own) in enumerate(zip(names, values, strict=True)):
        if own is None:
            columns.append(pa.array(positions[:, i]))
            continue
        try:
            known = pa.array(list(own))
        except OverflowError:
            raise ConstrintError(
                f"{name!r} has integers beyond 64 bits, which a column of Arrow cannot hold; take tuples or dicts"
            ) from None
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            raise ConstrintError(
                f"{name!r} has values of several kinds, which a column of Arrow cannot hold; take tuples or dicts"
            ) from None
        indices = pa.array(positions[:, i])
        text = pa.types.is_string(known.type)
        columns.append(pa.DictionaryArray.from_arrays(indices, known) if text else known.take(indices))
    return pa.table(columns, names=list(names))


def _layers(group: Sequence[str], factor: Factor) -> list[tuple[str, Domain]]:
    return list(zip(group, factor.domains, strict=True)) if factor.total else []


def _integers(kind: Any) -> Any:
    """The signed dtype of as many bytes: what is written fits both."""
    import numpy as np

    return np.dtype(f"int{8 * kind.itemsize}")


def _memory() -> int:
    """Bytes of physical memory."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 1 << 63
