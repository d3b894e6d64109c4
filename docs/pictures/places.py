"""Where the recurrent matrix R lies in each schedule, and what moves in every step."""

from __future__ import annotations

from dataclasses import dataclass

from svg import Picture

COLUMNS, ROWS = 4, 2
"""The multiprocessors that a panel shows."""

WIDTH, HEIGHT, GAP = 200, 196, 16
SM_WIDTH, SM_HEIGHT, SM_GAP = 38, 26, 8
BAR = 18
"""Height of L2 and of device memory."""


@dataclass(frozen=True)
class Places:
    """A schedule. heads: the colour of each multiprocessor's head, row by row. on_chip, cached, stored: what share of R
    lies there. through: what crosses L2 in every step; from_memory: what comes from device memory."""

    name: str
    words: tuple[str, str]
    heads: str
    on_chip: float
    cached: float = 0
    stored: float = 0
    clusters: bool = False
    through: str = ""
    from_memory: str = ""


SCHEDULES = (
    Places("resident", ("a head's R in one block,", "nobody waits for another"), "abcdabcd", 1),
    Places("cluster", ("a head's R over a cluster,", "whose blocks send each other h"), "aaaabbbb", 1, clusters=True),
    Places("grid", ("R over the whole GPU,", "h goes through L2"), "aaaaaaaa", 1, through="h"),
    Places(
        "streamed_grid",
        ("what does not fit comes,", "ahead of h"),
        "aaaaaaaa",
        0.6,
        cached=0.6,
        stored=1,
        through="h, R",
        from_memory="R",
    ),
    Places("streaming", ("R is read from L2,", "some of it stays"), "aaaaaaaa", 0.25, cached=1, through="h, R"),
    Places("wide", ("as grid, for large batches:", "wgmma multiplies"), "aaaaaaaa", 1, through="h"),
    Places(
        "library",
        ("cuBLASLt multiplies,", "two launches a step"),
        "aaaaaaaa",
        0,
        stored=1,
        through="h, R",
        from_memory="R",
    ),
)


def panel(picture: Picture, x: float, y: float, places: Places) -> None:
    """One schedule: its multiprocessors, L2 and device memory below them."""
    picture.text(x, y + 12, places.name, "bold")
    for line, words in enumerate(places.words):
        picture.text(x, y + 29 + 14 * line, words, "small")
    top, wide = y + 54, COLUMNS * SM_WIDTH + (COLUMNS - 1) * SM_GAP
    for number, colour in enumerate(places.heads):
        row, column = divmod(number, COLUMNS)
        at = x + column * (SM_WIDTH + SM_GAP), top + row * (SM_HEIGHT + SM_GAP)
        picture.box(*at, SM_WIDTH, SM_HEIGHT)
        if places.on_chip:
            picture.box(*at, SM_WIDTH * places.on_chip, SM_HEIGHT, colour)
    if places.clusters:
        for row in range(ROWS):
            middle = top + row * (SM_HEIGHT + SM_GAP) + SM_HEIGHT / 2
            for column in range(COLUMNS - 1):
                left = x + column * (SM_WIDTH + SM_GAP) + SM_WIDTH - 6
                right = left + SM_GAP + 12
                picture.line([(left, middle - 5), (right, middle - 5)], arrow=True)
                picture.line([(right, middle + 5), (left, middle + 5)], arrow=True)
    below = top + ROWS * (SM_HEIGHT + SM_GAP) + 16
    for name, share, at in (("L2", places.cached, below), ("memory", places.stored, below + BAR + 16)):
        picture.box(x, at, wide, BAR)
        if share:
            picture.box(x, at, wide * share, BAR, "a")
        picture.text(x + wide - 6, at + 13, name, "small", "end")
    if places.through:
        up, down = x + 0.3 * wide, x + 0.3 * wide + 14
        picture.line([(up, below), (up, below - 20)], arrow=True)
        if "h" in places.through:
            picture.line([(down, below - 20), (down, below)], arrow=True)
        picture.text(down + 10, below - 6, places.through, "small")
    if places.from_memory:
        picture.line([(x + 0.3 * wide, below + BAR + 16), (x + 0.3 * wide, below + BAR)], arrow=True)
        picture.text(x + 0.3 * wide + 10, below + BAR + 12, places.from_memory, "small")


def draw() -> str:
    """Two rows of panels, and what the colours are."""
    across = 4
    picture = Picture(across * (WIDTH + GAP) + 20, 2 * (HEIGHT + GAP) + 20, "Where R lies in each schedule")
    for number, places in enumerate(SCHEDULES):
        row, column = divmod(number, across)
        panel(picture, 20 + column * (WIDTH + GAP), 20 + row * (HEIGHT + GAP), places)
    x, y = 20 + 3 * (WIDTH + GAP), 20 + HEIGHT + GAP + 54
    for line, (kind, words) in enumerate(
        (("a", "R, of one head"), ("b", "R, of another head"), ("box", "a multiprocessor, or memory"))
    ):
        picture.box(x, y + 24 * line, 22, 14, kind)
        picture.text(x + 30, y + 24 * line + 12, words, "small")
    picture.line([(x, y + 79), (x + 22, y + 79)], arrow=True)
    picture.text(x + 30, y + 83, "moves in every step", "small")
    return str(picture)
