"""Schedules: one module of this folder each, found by listing it. See base.py for what a schedule states."""

from __future__ import annotations

import importlib
import pkgutil

from kernelgen.errors import ConfigError, near_names
from kernelgen.schedules.base import Direction, Schedule


def schedule_names(direction: Direction = "forward") -> list[str]:
    """The names of the schedules of a direction, sorted. A schedule's name is its module's, and a backward one's ends
    in ``_backward``; helpers start with an underscore."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    backward = direction == "backward"
    return sorted(
        name for name in names if not name.startswith("_") and name != "base" and name.endswith("_backward") == backward
    )


def get(name: str) -> Schedule:
    """The schedule of that name. Raises ConfigError, with the near names, for an unknown one."""
    known = [*schedule_names("forward"), *schedule_names("backward")]
    if name not in known:
        raise ConfigError(f"unknown schedule {name!r}; {near_names(name, known)}")
    schedule: Schedule = importlib.import_module(f"{__name__}.{name}").SCHEDULE
    return schedule


def all_schedules(direction: Direction = "forward") -> tuple[Schedule, ...]:
    """Every schedule of a direction, in order of name."""
    return tuple(get(name) for name in schedule_names(direction))
