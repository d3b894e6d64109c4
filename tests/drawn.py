"""Tilings drawn from a schedule's own Problem, so that no test knows a schedule's variables."""

from __future__ import annotations

import zlib
from typing import Literal

from kernelgen.cells import cell_names, load_cell
from kernelgen.hardware.profile import load_profile
from kernelgen.program.shape import Shape
from kernelgen.program.tiling import Tiling
from kernelgen.schedules import base, get, schedule_names

TWINS = ("slstm_xlstm",)
"""Cells whose kernels are those of another without one function: the resident schedule alone is tried with them."""


def cases(direction: Literal["forward", "backward"] = "forward") -> list[tuple[str, str]]:
    """Every schedule of a direction with every cell to be tried."""
    names = [(schedule, cell) for schedule in schedule_names(direction) for cell in cell_names()]
    return [(schedule, cell) for schedule, cell in names if cell not in TWINS or schedule.startswith("resident")]


def refusal(schedule: str, cell: str, shape: Shape, gpu: str) -> str:
    """Why a schedule does not run this, at any tiling; empty where it may."""
    return base.refusal(get(schedule), load_cell(cell), shape, load_profile(gpu))


def drawn_tiling(schedule: str, cell: str, shape: Shape, gpu: str) -> Tiling:
    """A random solution of the schedule's Problem, the same in every run."""
    chosen, definition, profile = get(schedule), load_cell(cell), load_profile(gpu)
    seed = zlib.crc32(f"{schedule} {cell} {shape}".encode())
    (values,) = chosen.problem(definition, shape, profile).solution_set().sample(1, seed=seed)
    return chosen.tiling(definition, shape, profile, values)
