"""Schedules: one module of this folder each, found by listing it. See base.py for what a schedule states."""

from __future__ import annotations

import importlib
import pkgutil

from kernelgen.errors import ConfigError, near_names
from kernelgen.schedules.base import Schedule


def schedule_names() -> list[str]:
    """The names of all schedules, sorted. A schedule's name is its module's; helpers start with an underscore."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in names if not name.startswith("_") and name != "base")


def get(name: str) -> Schedule:
    """The schedule of that name. Raises ConfigError, with the near names, for an unknown one."""
    if name not in schedule_names():
        raise ConfigError(f"unknown schedule {name!r}; {near_names(name, schedule_names())}")
    schedule: Schedule = importlib.import_module(f"{__name__}.{name}").SCHEDULE
    return schedule


def all_schedules() -> tuple[Schedule, ...]:
    """Every schedule, in order of name."""
    return tuple(get(name) for name in schedule_names())
