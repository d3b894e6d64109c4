"""Which kernel serves a shape: the tiling of a tuned configuration, else the fastest one measured, else the model's
best; of those, the first that does not spill."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from kernelgen import schedules
from kernelgen.cells.language import Cell
from kernelgen.errors import ConfigError, InfeasibleError, StoreError
from kernelgen.hardware.profile import Profile
from kernelgen.program.program import Program
from kernelgen.program.shape import Shape
from kernelgen.program.task import Direction
from kernelgen.program.tiling import Tiling
from kernelgen.schedules.shared.library_gradients import with_library_gradients
from kernelgen.schedules.shared.parameter_gradients import with_float_parameters
from kernelgen.tuning.plan import plan, spread

if TYPE_CHECKING:
    from kernelgen.build.compile import Binary
    from kernelgen.records.config import TunedConfig
    from kernelgen.records.trial import Trial

SEARCH_PATH = "TILESMITH_CONFIGS"
"""The environment variable with folders (or files) of tuned configurations, separated as in PATH."""

TRIED = 8
"""How many of the model's tilings are compiled to find one that the compiler makes as the model expects."""

MEASURED = 3
"""How many of the tilings that the store has measured are tried; most often the first is right."""


@dataclass(frozen=True)
class Selection:
    """A tiling of a schedule and its program.

    tuned: the configuration it comes from; trial: the measurement in the store that it comes from; both None for the
    model's.
    """

    tiling: Tiling
    program: Program
    tuned: Path | None = None
    trial: Trial | None = None


def candidates(
    cell: Cell, shape: Shape, profile: Profile, direction: Direction, *, told: bool = True
) -> list[Selection]:
    """The kernels worth trying, best first.

    First come tuned configurations, then what the store of trials has measured, fastest first, then the model's. The
    first two count if they were made for the cell, the GPU, the direction, the dtype and the sizes apart from seq; only
    their tilings are taken, since what a kernel writes (shape.save) may differ. Raises InfeasibleError where no
    schedule has a tiling; told: as of plan.
    """
    tilings = plan(cell, shape, profile, direction=direction, told=told)
    known = {_key(tiling.schedule, tiling.values): tiling for tiling in tilings}
    measured = [trial for trial in _measured(cell, shape, profile, direction) if _key_of(trial) in known]
    found: dict[_Key, tuple[Path | None, Trial | None]] = {}
    for path, config in _tuned(os.environ.get(SEARCH_PATH, "")):
        key = _key(config.schedule, config.tiling)
        if key in known and _fits(config, cell, shape, profile):
            found.setdefault(key, (path, None))
    for trial in measured[:MEASURED]:
        found.setdefault(_key_of(trial), (None, trial))
    for tiling in spread(tilings)[:TRIED]:
        found.setdefault(_key(tiling.schedule, tiling.values), (None, None))

    def program(tiling: Tiling) -> Program:
        return schedules.get(tiling.schedule).program(cell, shape, profile, tiling)

    return [Selection(known[key], program(known[key]), *origin) for key, origin in found.items()]


def compiled(
    cell: Cell,
    shape: Shape,
    profile: Profile,
    direction: Direction,
    *,
    float_parameters: bool = False,
    told: bool = True,
) -> tuple[Program, tuple[Binary, ...]]:
    """The first candidate that does not spill and, of the model's, of which as many blocks run together as the model
    counted on, and for which this machine has the library; where there is none, the first that does not spill, else the
    very first. With the binaries of its calls. float_parameters: backward, the gradients of R and b are float32
    whatever the dtype.

    Raises InfeasibleError where no schedule has a tiling (told: as of plan), CompileError where the compiler is missing
    or refuses one.
    """
    from kernelgen.build.compile import compile_program
    from kernelgen.device.cublaslt import MISSING, library
    from kernelgen.tuning.prepare import objection

    found = []
    for selection in candidates(cell, shape, profile, direction, told=told):
        program = selection.program
        if program.library and library() is None:
            continue
        if float_parameters:
            program = with_float_parameters(program, cell, shape, profile)
        if direction == "backward" and library() is not None:
            program = with_library_gradients(program, cell, shape, profile)
        binaries = compile_program(program)
        report = binaries[0].report
        proved = selection.tuned is not None or selection.trial is not None
        if not objection(selection.tiling.resources, report, profile, strict=not proved):
            return program, binaries
        found.append((program, binaries))
    if not found:
        raise InfeasibleError(f"of {cell.name} at {shape} {MISSING}")
    return min(found, key=lambda pair: pair[1][0].report.local_memory > 0)


_Key = tuple[object, ...]


def _key(schedule: str, values: Mapping[str, int]) -> _Key:
    """What tells tilings apart."""
    return (schedule, *sorted(values.items()))


def _key_of(trial: Trial) -> _Key:
    return _key(trial.schedule, trial.tiling)


def _measured(cell: Cell, shape: Shape, profile: Profile, direction: Direction) -> list[Trial]:
    """What the store has measured, fastest first; nothing, with a warning, where it cannot be read."""
    from kernelgen.records.store import Store

    try:
        with Store(write=False) as store:
            return store.fastest(
                cell=cell.name, fingerprint=cell.fingerprint, shape=shape, gpu=profile.name, direction=direction
            )
    except StoreError as error:
        warnings.warn(f"no measurement is used to choose a kernel: {error}", RuntimeWarning, stacklevel=2)
        return []


def _fits(config: TunedConfig, cell: Cell, shape: Shape, profile: Profile) -> bool:
    def sizes(shape: Shape) -> tuple[object, ...]:
        return shape.batch, shape.heads, shape.head_dim, shape.dtype, shape.features, shape.inputs

    same = config.cell.fingerprint == cell.fingerprint and config.gpu == profile.name
    return same and sizes(config.shape) == sizes(shape)


@lru_cache(maxsize=8)
def _tuned(search_path: str) -> tuple[tuple[Path, TunedConfig], ...]:
    """The configurations on a search path, in its order; those of a folder by name. Read once."""
    from kernelgen.records.config_reading import load_config

    found = []
    for place in (Path(part) for part in search_path.split(os.pathsep) if part):
        files = sorted([*place.glob("*.yaml"), *place.glob("*.yml")]) if place.is_dir() else [place]
        for file in files:
            try:
                found.append((file, load_config(file)))
            except ConfigError as error:
                warnings.warn(f"{SEARCH_PATH}: {file} is left out: {error}", RuntimeWarning, stacklevel=2)
    return tuple(found)
