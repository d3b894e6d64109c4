"""docs/gpus.md against what makes it, as far as that is quick."""

from __future__ import annotations

import re

import pytest
from scripts import load_benchmark

from kernelgen.build.compile import compiler_version
from kernelgen.hardware.profile import load_profile

gpus = load_benchmark("gpus")


def tables() -> dict[str, dict[str, list[str]]]:
    """What the page says: heading -> schedule -> a cell for each GPU."""
    found: dict[str, dict[str, list[str]]] = {}
    for part in gpus.PAGE.read_text().split("\n## ")[1:]:
        heading, *lines = part.splitlines()
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
        assert [head.split()[0] for head in rows[0][1:]] == list(gpus.GPUS)
        found[heading] = {row[0]: row[1:] for row in rows[2:]}
    return found


@pytest.mark.unit
def test_the_page_has_every_architecture_and_no_kernel_that_spills() -> None:
    made = tables()
    assert list(made) == [f"{cell}, {shape}" for cell, shape in gpus.SHAPES]
    architectures = {load_profile(gpu).arch for gpu in gpus.GPUS}
    assert architectures == {"sm_75", "sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_103a", "sm_120"}
    for rows in made.values():
        for schedule, cells in rows.items():
            assert all(re.fullmatch(r"-|\d+(, \d+)*", cell) for cell in cells), (schedule, cells)
    for rows in list(made.values())[1:]:  # float64 runs everywhere
        assert all("-" not in cells for cells in rows.values())


@pytest.mark.compiled
def test_a_part_of_the_page_is_what_the_compiler_says() -> None:
    (cell, shape), gpu = gpus.SHAPES[-1], "t4"
    said = gpus.said(gpus.chosen("streaming", cell, shape, gpu))
    if compiler_version() in gpus.PAGE.read_text():
        assert tables()[f"{cell}, {shape}"]["streaming"][gpus.GPUS.index(gpu)] == said
    else:
        assert re.fullmatch(r"\d+", said)
