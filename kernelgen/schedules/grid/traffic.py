"""What L2 takes to hand out the messages of a step, beyond the exchange that the profile has measured."""

from __future__ import annotations

L2_BYTES_PER_CLOCK = 2_300
"""What L2 gives to all multiprocessors together: 4.5 TB/s on an H200, whose clock is 1.98 GHz (measured 2026-11-26)."""

L2_BYTES_OF_AN_EXCHANGE = 48 * 12 * 1024
"""What all blocks together load in the exchange whose latency the profile has."""


def beyond_an_exchange(loaded: int) -> float:
    """Clocks, where all blocks together load ``loaded`` bytes in a step."""
    return max(0, loaded - L2_BYTES_OF_AN_EXCHANGE) / L2_BYTES_PER_CLOCK
