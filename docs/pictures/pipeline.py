"""The line on which data travels, with the package of each step."""

from __future__ import annotations

from svg import Picture

STEPS = (
    ("Task", "cell, shape, pass, GPU", "cells/ · hardware/ · program/", "what is asked"),
    ("Problem", "tile variables, constraints", "schedules/", "stated by a schedule"),
    ("Tilings", "values, resources, clocks", "constrint · tuning/", "solved, ranked by a model"),
    ("Program", "kernel calls, CUDA C++", "program/ · emit/", "what a tiling instantiates"),
    ("Binaries", "cubins, compiler's reports", "build/", "compiled without a GPU"),
    ("Trial", "errors, milliseconds", "verify/ · device/", "proved right, measured"),
    ("TunedConfig", "YAML, .cu, .cubin", "records/", "written down"),
    ("Kernel", "a callable", "device/ · torch/", "loaded and called"),
)
"""Each noun, what it holds, the packages that make it, and how."""

WIDTH, HEIGHT, GAP_X, GAP_Y = 190, 84, 30, 34


def draw() -> str:
    """Two rows of four, read like text."""
    picture = Picture(4 * WIDTH + 3 * GAP_X + 40, 2 * HEIGHT + GAP_Y + 40, "From a Task to a Kernel in eight steps")
    for number, (noun, holds, packages, how) in enumerate(STEPS):
        row, column = divmod(number, 4)
        x, y = 20 + column * (WIDTH + GAP_X), 20 + row * (HEIGHT + GAP_Y)
        picture.box(x, y, WIDTH, HEIGHT)
        picture.text(x + 10, y + 20, noun, "bold")
        picture.text(x + 10, y + 37, holds, "small")
        picture.text(x + 10, y + 56, packages, "small code")
        picture.text(x + 10, y + 74, how, "small")
        if column < 3:
            picture.line([(x + WIDTH, y + HEIGHT / 2), (x + WIDTH + GAP_X - 2, y + HEIGHT / 2)], arrow=True)
        elif row == 0:
            middle, left = y + HEIGHT + GAP_Y / 2, 20 + WIDTH / 2
            turn = [
                (x + WIDTH / 2, y + HEIGHT),
                (x + WIDTH / 2, middle),
                (left, middle),
                (left, y + HEIGHT + GAP_Y - 2),
            ]
            picture.line(turn, arrow=True)
    return str(picture)
