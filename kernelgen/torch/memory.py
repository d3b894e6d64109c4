"""How many steps a chunk of a checkpointed pass has: as asked for, or as a limit of memory allows."""

from __future__ import annotations

import re

from torch import Tensor

from kernelgen.cells.registry import cell_of
from kernelgen.symbolic.derive import derive
from kernelgen.torch.errors import ArgumentError, ArgumentTypeError
from kernelgen.torch.traced import constant_result


def _counts_of(key: str) -> tuple[int, int, int]:
    """How many states, inputs and saved gates a cell has."""
    cell = cell_of(key)
    return len(cell.states), len(cell.input_gates), len(derive(cell).saved_gates)


_counts = constant_result(_counts_of)
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def check_chunks(checkpoint: int | None, memory_limit: str | int | None) -> None:
    """Raise ArgumentError or ArgumentTypeError for options that make no sense, or both at once."""
    if checkpoint is not None and memory_limit is not None:
        raise ArgumentError("checkpoint says how many steps a chunk has and memory_limit chooses it; leave one out")
    if checkpoint is not None:
        if isinstance(checkpoint, bool) or not isinstance(checkpoint, int):
            raise ArgumentTypeError(f"checkpoint must be a number of steps, not {checkpoint!r}")
        if checkpoint < 1:
            raise ArgumentError(f"checkpoint must be at least 1 step, not {checkpoint}")
    if memory_limit is not None:
        parsed_limit(memory_limit)


def parsed_limit(limit: str | int) -> int:
    """A limit in bytes: a number, or "8GB" (10^9), "8GiB" (2^30), "500 MB". Raises ArgumentError."""
    if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0:
        return limit
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]I?|)B?\s*", limit.upper()) if isinstance(limit, str) else None
    if found is None or not float(found[1]):
        raise ArgumentError(f"memory_limit must be a number of bytes or like '8GB' or '500MiB', not {limit!r}")
    return int(float(found[1]) * _UNITS[found[2]])


def chunk_steps(
    checkpoint: int | None, memory_limit: str | int | None, key: str, wx: Tensor, *, hidden: bool
) -> int | None:
    """Steps of a chunk of one recurrence, of Wx [B, T, G_in, H, D], or None where all is kept: see ``chunk_within``."""
    if checkpoint is not None or memory_limit is None or wx.dim() != 5:
        return checkpoint  # what is no Wx is told by who runs it
    batch, seq, _, heads, dim = wx.shape
    return chunk_within(memory_limit, key, seq, batch * heads * dim * wx.dtype.itemsize, hidden=hidden)


def chunk_within(
    memory_limit: str | int, key: str, seq: int, size: int, *, layers: int = 1, hidden: bool = True
) -> int | None:
    """Steps of a chunk, or None where all is within the limit anyway.

    size: bytes of a state of one layer after one step. What counts is what all layers keep for their backward passes
    beside arguments and results, and what one of them makes of one chunk again. Of the chunks within the limit the
    longest are chosen, and of equal length as near as can be.

    Raises ArgumentError where no chunk is within the limit.
    """
    limit = parsed_limit(memory_limit)
    states, inputs, gates = _counts(key)
    if layers * seq * (gates + (states - 1 if hidden else 0)) * size <= limit:
        return None

    def needed(steps: int) -> int:
        # Of a chunk: Wx and its gradient, the gates, all states.
        return size * (layers * -(-seq // steps) * states + steps * (2 * inputs + gates + states))

    # Sums fall with the number of chunks first and then rise: the first that fits has the longest chunks.
    lowest = needed(seq)
    count = 1
    while count <= seq:
        steps = -(-seq // count)
        lowest = min(lowest, needed(steps))
        if needed(steps) <= limit:
            return steps
        count = max(count + 1, -(-seq // steps))
    raise ArgumentError(
        f"memory_limit={memory_limit!r} is {limit:,} bytes, but {seq} steps in chunks need {lowest:,} at least; "
        "take a higher limit, fewer sequences at a time, or shorter ones"
    )
