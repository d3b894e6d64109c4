"""All solutions of a factored set into one NumPy array."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from constrint.errors import ConstrintError
from constrint.integers import grouped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from constrint.factor import Factor


def to_numpy(
    names: Sequence[str], factors: Sequence[tuple[Sequence[str], Factor]], count: int, deadline: float | None
) -> NDArray[np.int64]:
    """See ``SolutionSet.to_numpy``. Each factor is listed once; its columns are then repeated through the array."""
    import numpy as np

    needed = count * len(names) * 8
    if needed > _memory():
        raise ConstrintError(
            f"listing {grouped(count)} solutions of {len(names)} variables takes {grouped(needed // 10**9)} GB, and "
            f"this machine has {_memory() / 1e9:,.1f} GB; iterate over the set, take slices of it, or sample it"
        )
    array = np.empty((count, len(names)), dtype=np.int64, order="F")
    if not count:
        return array
    inner = count
    for group, factor in factors:
        inner //= factor.total
        listed = np.empty((factor.total, len(group)), dtype=np.int64, order="F")
        try:
            factor.fill([listed[:, i] for i in range(len(group))], deadline)
        except OverflowError:
            raise ConstrintError(f"a value of {', '.join(group)} does not fit 64 bits; iterate over the set") from None
        for i, name in enumerate(group):
            factor.spread(listed[:, i], inner, array[:, names.index(name)], deadline)
    return array


def _memory() -> int:
    """Bytes of physical memory."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 1 << 63
