"""Which warp owns which units and gates, and which lane which accumulators, of the resident kernel."""

from __future__ import annotations

from case import SHAPE, TITLE, best
from svg import Picture

GATES = ("i", "f", "g", "o")
COLOURS = ("a", "b", "c", "d")
CELL_X, CELL_Y = 30, 17
CHOSEN = 13
"""The lane that is marked: g = 3, j = 1."""

ODD_COLUMNS = (
    "",
    "Where a tile has two accumulators,",
    "the odd columns of the second are",
    "R times the other previous units.",
)
"""StationaryMatrix::paired."""


def accumulator(picture: Picture, x: float, y: float, units: int, rows: int, tile: int) -> None:
    """A tile of 16 rows and 8 columns: in each place the lane that has it."""
    for column in range(8):
        half_filled = rows == 4
        words = f"s{column // 2}" if half_filled and column % 2 == 0 else "" if half_filled else f"s{column}"
        picture.text(x + (column + 0.5) * CELL_X, y - 6, words, "small", "middle")
    for row in range(16):
        gate = (tile * 16 + row) // units
        picture.text(x - 6, y + (row + 0.75) * CELL_Y, f"{GATES[gate]} u{row % units}", "small", "end")
        for column in range(8):
            lane = row % 8 * 4 + column // 2
            used = rows > 4 or column % 2 == 0
            at = x + column * CELL_X, y + row * CELL_Y
            picture.box(*at, CELL_X, CELL_Y, COLOURS[gate] if used else "none", 0)
            if used:
                picture.text(at[0] + CELL_X / 2, at[1] + 0.76 * CELL_Y, str(lane), "small", "middle")
            if used and lane == CHOSEN:
                picture.box(at[0] + 1.5, at[1] + 1.5, CELL_X - 3, CELL_Y - 3, "mark", 0)


def block(picture: Picture, x: float, y: float, units: int) -> None:
    """The warps of a block, each with the rows of R that it owns: a part of every gate."""
    warps = -(-SHAPE.head_dim // units)
    height = 272 / warps
    for warp in range(warps):
        top = y + warp * height
        picture.text(x - 8, top + height / 2 + 4, f"warp {warp}", "small", "end")
        for gate, colour in enumerate(COLOURS):
            picture.box(x + gate * 44, top + 1, 44, height - 2, colour, 0)
            picture.text(x + gate * 44 + 22, top + height / 2 + 4, GATES[gate], "small", "middle")
        words = f"units {warp * units} to {warp * units + units - 1}"
        picture.text(x + 4 * 44 + 8, top + height / 2 + 4, words, "small")


def draw() -> str:
    """Two layouts, one above the other: the model's choice, and the one that fills all columns."""
    _, tiling = best()
    picture = Picture(900, 880, f"Warps, lanes and accumulators of the resident kernel: {TITLE}")
    picture.text(20, 28, "Who owns what: the product R h of one head, in a block of the resident kernel", "bold")
    picture.text(20, 47, f"{TITLE}. In each place of a tile the lane that has it; lane {CHOSEN} is marked.", "small")
    chosen = (tiling.values["units_per_warp"], tiling.values["batch_tile"])
    for number, (units, rows) in enumerate([chosen, (8, 8) if chosen != (8, 8) else (16, 4)]):
        top = 84 + 400 * number
        tiles = 4 * units // 16
        filled = "in the even columns" if rows == 4 else "in all 8 columns"
        first = f"{units} units a warp, {rows} sequences a block, {filled} of a tile"
        picture.text(20, top, first + (", as the model chooses" if not number else ""), "bold")
        picture.text(84, top + 26, "the block: rows of R, by gate and unit", "small")
        block(picture, 84, top + 58, units)
        picture.text(420, top + 26, f"tile 0 of {tiles} of warp 0: 16 rows, 8 columns", "small")
        accumulator(picture, 420, top + 58, units, rows, 0)
        g, j = divmod(CHOSEN, 4)
        sequences = f"sequence {j}" if rows == 4 else f"sequences {2 * j} and {2 * j + 1}"
        own = f"unit {g}" if units == 8 else f"units {g} and {g + 8}"
        notes = (
            f"Lane {CHOSEN}: g = lane / 4 = {g},",
            f"j = lane % 4 = {j}.",
            f"It has {own}",
            f"of {sequences},",
            f"in all {tiles} tiles: every gate.",
            "So c stays in its registers,",
            "and the pointwise step needs",
            "no exchange with other lanes.",
            "",
            "A tile holds " + ("one gate of 16 units." if units == 16 else "two gates of 8 units."),
            *(ODD_COLUMNS if rows == 4 else ()),
        )
        for line, words in enumerate(notes):
            picture.text(682, top + 78 + 19 * line, words, "small")
        registers = "d0, d1: row g; d2, d3: row g + 8; columns 2j, 2j + 1"
        picture.text(420, top + 352, registers, "small code")
    picture.text(
        20,
        925,
        "R: of every 32 previous units, lane (g, j) holds those from 8j to 8j + 7, in rows g and g + 8.",
        "small",
    )
    return str(picture)
