"""What an exchange through L2 takes: as the profile has measured it, and what more bytes take."""

from __future__ import annotations

from kernelgen.hardware.profile import Profile

L2_BYTES_PER_CLOCK = 2_300
"""What L2 gives to all multiprocessors together: 4.5 TB/s on an H200, whose clock is 1.98 GHz (measured 2026-11-26)."""

BYTES_OF_A_BLOCK = 12 * 1024
"""What each block loads in the exchanges whose latencies the profile has."""

L2_BYTES_OF_AN_EXCHANGE = 48 * BYTES_OF_A_BLOCK
"""What all blocks together load in one of them."""


def exchange(profile: Profile, blocks: int, loaded: int) -> float:
    """Clocks from h being made to its being there for the next step, of ``blocks`` that load ``loaded`` bytes in all,
    forward.

    More blocks take longer as far as they load more: 96 that load half as much as those of the profile take no longer
    than 48 (docs/lab/grid_forward.md, 9).
    """
    alike = min(blocks, loaded // BYTES_OF_A_BLOCK)
    return profile.latency("exchange_grid", alike) + beyond_an_exchange(loaded)


def beyond_an_exchange(loaded: int) -> float:
    """Clocks, where all blocks together load ``loaded`` bytes in a step."""
    return max(0, loaded - L2_BYTES_OF_AN_EXCHANGE) / L2_BYTES_PER_CLOCK
