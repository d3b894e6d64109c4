"""Schedules: a folder each, found by listing this one. See base.py for what a schedule states."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from kernelgen.errors import ConfigError, near_names

if TYPE_CHECKING:
    from kernelgen.program.source import Language
    from kernelgen.program.task import Direction
    from kernelgen.schedules.base import Schedule

_SHARED = "shared"
"""The folder of what schedules have in common."""


def schedule_names(direction: Direction = "forward", language: Language | None = "cuda") -> list[str]:
    """The names of the schedules of a direction, sorted. language: of their kernels; None for any."""
    return sorted(
        name
        for name, schedule in _schedules().items()
        if schedule.direction == direction and language in (None, language_of(schedule))
    )


def language_of(schedule: Schedule) -> Language:
    """What a schedule's kernels are written in; CUDA C++ where it does not say."""
    return getattr(schedule, "language", "cuda")


@lru_cache(maxsize=1)
def _schedules() -> Mapping[str, Schedule]:
    """Every schedule by its name: those that the packages of this folder list as SCHEDULES."""
    folders = [module.name for module in pkgutil.iter_modules(__path__) if module.ispkg and module.name != _SHARED]
    packages = [importlib.import_module(f"{__name__}.{name}") for name in folders]
    return {schedule.name: schedule for package in packages for schedule in package.SCHEDULES}


def get(name: str) -> Schedule:
    """The schedule of that name. Raises ConfigError, with the near names, for an unknown one."""
    known = _schedules()
    if name not in known:
        raise ConfigError(f"unknown schedule {name!r}; {near_names(name, known)}")
    return known[name]


def all_schedules(direction: Direction = "forward", language: Language | None = "cuda") -> tuple[Schedule, ...]:
    """Every schedule of a direction, in order of name. language: of their kernels; None for any."""
    return tuple(get(name) for name in schedule_names(direction, language))
