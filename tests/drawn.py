"""Tilings drawn from a schedule's own Problem, so that no test knows a schedule's variables."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Mapping
from typing import Literal

from kernelgen.cells import cell_names, load_cell
from kernelgen.hardware.profile import load_profile
from kernelgen.program.shape import Shape
from kernelgen.program.tiling import Tiling
from kernelgen.schedules import base, get, schedule_names
from kernelgen.verify.validate import validate_emulated

TWINS = ("slstm_xlstm",)
"""Cells whose kernels are those of another without one function: the resident schedule alone is tried with them."""


def kinds() -> dict[tuple[object, ...], list[str]]:
    """The library's cells by what a kernel knows of them beside their step: what each gate receives, and the states."""
    found: dict[tuple[object, ...], list[str]] = {}
    for name in cell_names():
        cell = load_cell(name)
        gates = tuple((gate.recurrent, gate.input, gate.bias) for gate in cell.gates)
        found.setdefault((len(cell.states), gates), []).append(name)
    return found


def cases(direction: Literal["forward", "backward"] = "forward") -> list[tuple[str, str]]:
    """Every schedule of a direction with a cell of every kind; every other cell, whose step alone differs, with one of
    them in turn."""
    schedules = schedule_names(direction)
    resident = next(name for name in schedules if name.startswith("resident"))
    in_turn = itertools.cycle(schedules)
    found = []
    for first, *others in kinds().values():
        found += [(schedule, first) for schedule in schedules]
        found += [(resident if name in TWINS else next(in_turn), name) for name in others]
    return sorted(found)


def model_cases(direction: Literal["forward", "backward"] = "forward", turn: int = 0) -> list[tuple[str, str]]:
    """Every schedule of a direction with two cells that differ, for what the model would choose; the next ``turn`` has
    two others."""
    pairs = (("lstm", "gru"), ("slstm", "elman"))
    return [
        (schedule, cell)
        for place, schedule in enumerate(schedule_names(direction))
        for cell in pairs[(place + turn) % len(pairs)]
    ]


def recomputing_cases() -> list[tuple[str, str]]:
    """Every schedule that recomputes gates with a cell of every kind: the step of a cell is that of saved gates."""
    shape = Shape(3, 7, 2, 32, "float16", recompute=True)
    able = [name for name in schedule_names("backward") if not refusal(name, "lstm", shape, "h200")]
    return [(schedule, cell) for schedule in able for cell, *_ in kinds().values()]


def refusal(schedule: str, cell: str, shape: Shape, gpu: str) -> str:
    """Why a schedule does not run this, at any tiling; empty where it may."""
    return base.refusal(get(schedule), load_cell(cell), shape, load_profile(gpu))


def drawn_tiling(schedule: str, cell: str, shape: Shape, gpu: str) -> Tiling:
    """A random solution of the schedule's Problem, the same in every run."""
    chosen, definition, profile = get(schedule), load_cell(cell), load_profile(gpu)
    seed = zlib.crc32(f"{schedule} {cell} {shape}".encode())
    (values,) = chosen.problem(definition, shape, profile).solution_set().sample(1, seed=seed)
    return chosen.tiling(definition, shape, profile, values)


def check_emulated(
    schedule: str, cell: str, shape: Shape, values: Mapping[str, int] | None, gpu: str, seeds: int
) -> None:
    """Emulate a tiling, or one drawn from the Problem where no values are given, with all of the shape's steps."""
    definition, profile = load_cell(cell), load_profile(gpu)
    if values is None:
        tiling = drawn_tiling(schedule, cell, shape, gpu)
    else:
        tiling = get(schedule).tiling(definition, shape, profile, values)
    found = validate_emulated(definition, shape, tiling, profile, range(seeds), seq=shape.seq)
    assert found.errors
    assert all(error <= found.tolerance for error in found.errors.values())
