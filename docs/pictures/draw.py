"""Draw the pictures of the documentation anew: python docs/pictures/draw.py"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER))  # the scripts import each other

import layout  # noqa: E402
import pipeline  # noqa: E402
import places  # noqa: E402
import step  # noqa: E402

PICTURES: Mapping[str, Callable[[], str]] = {
    "pipeline.svg": pipeline.draw,
    "resident_layout.svg": layout.draw,
    "resident_step.svg": step.draw,
    "schedules.svg": places.draw,
}
"""What draws each file."""


if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (FOLDER / name).write_text(draw(), encoding="utf-8")
        print(FOLDER / name)
