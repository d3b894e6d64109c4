"""What L2 takes to hand out the messages of a step, beyond the exchange that the profile has measured."""

from __future__ import annotations

L2_BYTES_PER_CLOCK = 2_300
"""What L2 gives to all multiprocessors together: 4.5 TB/s on an H200, whose clock is 1.98 GHz (measured 2026-11-26)."""

L2_BYTES_OF_AN_EXCHANGE = 48 * 12 * 1024
"""What all blocks together load in the exchange whose latency the profile has."""


PACING, MOST_SAVED = 40, 440
"""Clocks that paced polls cost, and the most that they save: many polls hold up the words they ask for. Measured on an
H200, 2026-11-27."""


def beyond_an_exchange(loaded: int) -> float:
    """Clocks, where all blocks together load ``loaded`` bytes in a step."""
    return max(0, loaded - L2_BYTES_OF_AN_EXCHANGE) / L2_BYTES_PER_CLOCK


def saved_by_pacing(loaded: int) -> float:
    """Clocks less, where warps wait with their polls for those of their block that send; less than none where little is
    loaded."""
    return min(beyond_an_exchange(loaded), MOST_SAVED) - PACING
