"""Which kernel serves a shape: the tiling of a tuned configuration, else the model's best that does not spill."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from kernelgen import schedules
from kernelgen.cells.language import Cell
from kernelgen.errors import ConfigError
from kernelgen.hardware import Profile
from kernelgen.plan import plan, spread
from kernelgen.schedules.base import Direction, Launch, Source, Tiling
from kernelgen.shape import Shape

if TYPE_CHECKING:
    from kernelgen.compile import Binary
    from kernelgen.config import TunedConfig

SEARCH_PATH = "TILESMITH_CONFIGS"
"""The environment variable with folders (or files) of tuned configurations, separated as in PATH."""

TRIED = 8
"""How many of the model's tilings are compiled to find one that does not spill."""


@dataclass(frozen=True)
class Choice:
    """A tiling of a schedule and its kernel's source. tuned: the configuration it comes from, None for the model's."""

    tiling: Tiling
    source: Source
    tuned: Path | None = None

    def launch(self, shape: Shape) -> Launch:
        """How to start the kernel for any batch and seq."""
        return schedules.get(self.tiling.schedule).launch(shape, self.tiling)


def candidates(cell: Cell, shape: Shape, profile: Profile, direction: Direction) -> list[Choice]:
    """The kernels worth trying, best first.

    A tuned configuration counts if it was made for the cell, the GPU, the dtype and the sizes apart from seq; only its
    tiling is taken, since what a kernel writes (shape.save) may differ. Raises InfeasibleError where no schedule has
    a tiling.
    """
    tilings = plan(cell, shape, profile, direction=direction)
    known = {(tiling.schedule, *sorted(tiling.values.items())): tiling for tiling in tilings}
    choices = []
    for path, config in _tuned(os.environ.get(SEARCH_PATH, "")):
        if not _fits(config, cell, shape, profile):
            continue
        tiling = known.get((config.schedule, *sorted(config.tiling.items())))
        if tiling is not None:
            choices.append(_choice(cell, shape, profile, tiling, path))
    return choices + [_choice(cell, shape, profile, tiling) for tiling in spread(tilings)[:TRIED]]


def compiled(cell: Cell, shape: Shape, profile: Profile, direction: Direction) -> tuple[Choice, Binary]:
    """The first candidate that does not spill, or the very first where all do, with its binary.

    Raises InfeasibleError where no schedule has a tiling, CompileError where the compiler is missing or refuses one.
    """
    from kernelgen.compile import compile_source

    found = []
    for choice in candidates(cell, shape, profile, direction):
        binary = compile_source(choice.source)
        if not binary.report.spills:
            return choice, binary
        found.append((choice, binary))
    return found[0]


def _choice(cell: Cell, shape: Shape, profile: Profile, tiling: Tiling, tuned: Path | None = None) -> Choice:
    return Choice(tiling, schedules.get(tiling.schedule).source(cell, shape, profile, tiling), tuned)


def _fits(config: TunedConfig, cell: Cell, shape: Shape, profile: Profile) -> bool:
    def sizes(shape: Shape) -> tuple[object, ...]:
        return shape.batch, shape.heads, shape.head_dim, shape.dtype

    same = config.cell.fingerprint == cell.fingerprint and config.gpu == profile.name
    return same and sizes(config.shape) == sizes(shape)


@lru_cache(maxsize=8)
def _tuned(search_path: str) -> tuple[tuple[Path, TunedConfig], ...]:
    """The configurations on a search path, in its order; those of a folder by name. Read once."""
    from kernelgen.config import load_config

    found = []
    for place in (Path(part) for part in search_path.split(os.pathsep) if part):
        files = sorted([*place.glob("*.yaml"), *place.glob("*.yml")]) if place.is_dir() else [place]
        for file in files:
            try:
                found.append((file, load_config(file)))
            except ConfigError as error:
                warnings.warn(f"{SEARCH_PATH}: {file} is left out: {error}", RuntimeWarning, stacklevel=2)
    return tuple(found)
