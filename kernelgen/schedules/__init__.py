"""Schedules: a folder each, found by listing this one. See base.py for what a schedule states."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from kernelgen.errors import ConfigError, near_names

if TYPE_CHECKING:
    from kernelgen.program.task import Direction
    from kernelgen.schedules.base import Schedule

_SHARED = "shared"
"""The folder of what schedules have in common."""


def schedule_names(direction: Direction = "forward") -> list[str]:
    """The names of the schedules of a direction, sorted."""
    return sorted(name for name, schedule in _schedules().items() if schedule.direction == direction)


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


def all_schedules(direction: Direction = "forward") -> tuple[Schedule, ...]:
    """Every schedule of a direction, in order of name."""
    return tuple(get(name) for name in schedule_names(direction))
