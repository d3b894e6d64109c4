"""Registers that a thread takes beside R, accumulators and what it polls, from kernels that were compiled.

The compiler likes to have R from shared memory long before it is needed, and does without: with tiles of 16 sequences
and more well, with smaller where there is room. In float32 and TF32 such loads wait for the products before them; what
a thread that also steps takes in float32 follows no simple count all the same, and the numbers are above what most of
30 tilings of the LSTM at 1 x 512 to 1 x 1024 take (NVRTC 13.5, sm_90a).
"""

from __future__ import annotations

from collections.abc import Mapping

from constrint import cdiv, maximum, minimum
from kernelgen.schedules.shared.numbers import Int, Number

TOGETHER, OF_WIDE = 55, 40
"""Of a thread that also steps, and how many of them a tile of 16 sequences does not take in 16 bits."""

APART, OF_K_TILE = 12, 2
"""Where other warps step, and how many more each k-tile of R in registers takes: with fewer some compiled kernels
spilled (NVRTC 13.0, 80 tilings of five cells within 24 registers of their share, sm_80, sm_90a and sm_100a)."""

OF_TF32 = 40
"""In TF32, of a thread that also steps, at least."""

STEPPING = 70
"""Of a warp that steps and does not multiply, in all."""

PARTS, PARTS_MADE, PARTS_LOADED, PARTS_WIDE = 30, 52, 46, 70
"""In float32, of a thread that also steps: at least; more where rests are made beside the products, where some of R is
in shared memory, and for each tile of 8 sequences but the first."""

PARTS_APART, PARTS_OF_K_TILE, PARTS_FAR, FAR = 8, 6, 40, 3
"""In float32, where other warps step; more for each k-tile; and where more k-tiles than FAR are in shared memory."""

BACKWARD, BACKWARD_CLUSTER, BACKWARD_FOUR, BACKWARD_WIDE = 74, 6, 6, 31
"""Backward, in 16 bits; how many more a block takes that sends sums to others of its cluster, how many more a tile of 4
sequences, and how many less one of 16."""

BACKWARD_SHARED, BACKWARD_SHARED_TILE, BACKWARD_POLLED, SIXTEENTHS = -30, 22, 9, 16
"""In sixteenths: more for each k-tile of R in shared memory, for each tile of 16 rows of such a k-tile, and for each
register of what is polled. With these 108 of 124 tilings of the LSTM, GRU and sLSTM at 1 x 512 to 1 x 2048, whose
registers are near their limit, spill or not as is said (NVRTC 13.5, sm_90a)."""

BACKWARD_IN_GROUPS = 79
"""In 16 bits, where sums go through L2 and the accumulators are those of two tiles."""

BACKWARD_TF32, BACKWARD_TILE = 36, 4
"""In TF32, and more for each tile of 16 rows of a warp (14 tilings of the LSTM at 1 x 512 and 1 x 768)."""

BACKWARD_PARTS, BACKWARD_MADE, BACKWARD_LOADED, BACKWARD_PARTS_WIDE = 30, 66, 52, 50
"""In float32, as forward (the same); R is in shared memory where more than one k-tile is."""

BACKWARD_STEPPING = 130
"""In float32 and TF32, of a thread that steps, in all: with 80 and 128 the step of the LSTM spilled."""


def registers(
    dtype: str, v: Mapping[str, Number], multiplied: Number, tiles: Number, k_tiles: Number, column_tiles: Number
) -> tuple[Int, Int]:
    """Forward, the fewest registers of a thread, and what the compiler takes at least.

    multiplied: registers of what it multiplies. tiles: of 16 rows; k_tiles: of a warp; column_tiles: of 8 sequences.
    """
    in_registers = v["k_tiles_in_registers"]
    in_shared = k_tiles - in_registers
    apart = minimum(v["step_warps"], 1)
    together, loading = 1 - apart, minimum(in_shared, 1)
    if dtype == "float32":
        stepping_too = PARTS + PARTS_MADE * (1 - v["keeps_rests"]) + PARTS_LOADED * loading
        stepping_too += PARTS_WIDE * (column_tiles - 1)
        multiplying = PARTS_APART + PARTS_OF_K_TILE * k_tiles + PARTS_FAR * minimum(maximum(in_shared, FAR) - FAR, 1)
        spare = together * stepping_too + apart * multiplying
        least = maximum(multiplied + spare, apart * STEPPING)
        return least, least
    spare = together * TOGETHER + apart * (APART + OF_K_TILE * in_registers)
    if dtype == "tf32":
        spare += 3 * tiles * loading
    else:
        spare += 4 * tiles * loading - together * minimum(column_tiles - 1, 1) * OF_WIDE
    least = maximum(multiplied + spare, apart * STEPPING)
    floor = apart * least
    if dtype == "tf32":
        floor += together * (multiplied + OF_TF32)
    return least, floor


def registers_backward(
    dtype: str, v: Mapping[str, Number], multiplied: Int, polled: Int, k_tiles: Number, column_tiles: Number
) -> tuple[Int, Int]:
    """The same backward. polled: registers of what is polled, of those of what is multiplied."""
    tiles, in_shared = v["tiles_per_warp"], k_tiles - v["k_tiles_in_registers"]
    if dtype == "float32":
        spare = BACKWARD_PARTS + BACKWARD_MADE * (1 - v["keeps_rests"]) + BACKWARD_PARTS_WIDE * (column_tiles - 1)
        floor = multiplied + spare + BACKWARD_LOADED * minimum(maximum(in_shared, 1) - 1, 1)
        return maximum(floor, BACKWARD_STEPPING), floor
    if dtype == "tf32":
        floor = multiplied + BACKWARD_TF32 + BACKWARD_TILE * tiles
        return maximum(floor, BACKWARD_STEPPING), floor
    four = cdiv(8 - minimum(v["batch_tile"], 8), 4)
    spare = BACKWARD + BACKWARD_CLUSTER * minimum(v["cluster"] - 1, 1) + BACKWARD_FOUR * four
    spare -= BACKWARD_WIDE * minimum(column_tiles - 1, 1)
    more = in_shared * (BACKWARD_SHARED_TILE * tiles + BACKWARD_SHARED) + BACKWARD_POLLED * polled
    in_groups = v.get("through_l2", 0) * (2 - v["accumulators"])
    return multiplied + (1 - in_groups) * (spare + cdiv(more, SIXTEENTHS)) + in_groups * BACKWARD_IN_GROUPS, 0
